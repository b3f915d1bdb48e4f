#!/usr/bin/python3
"""Runs every exchange of docs/protocol.md against a real gateway.

Each ```frames block is a conversation of its own. Lines: "NAME > JSON" sends, "NAME < JSON" expects the next frame of
that connection that has the same type, "NAME closed CODE", "open NAME". A connection that a block uses without opening
it has said hello already. Values "<name>" match anything at first and the same again later; "$token" is a fresh token.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile

import websockets
import websockets.version

TIMEOUT = 10
# Its name changed in version 14.
HEADERS = "extra_headers" if int(websockets.version.version.split(".")[0]) < 14 else "additional_headers"
BIN = os.environ.get("EBBGATE_BIN", "build/ebbgate")


class Gate:
    def __init__(self, folder):
        self.folder = folder
        config = os.path.join(folder, "ebbgate.conf")
        with open(config, "w") as f:
            f.write('agents = ["docs"];\n')
        self.process = subprocess.Popen(
            [BIN, "serve", "-c", config, "--data", os.path.join(folder, "data"),
             "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=open(os.path.join(folder, "log"), "w"), text=True)
        line = self.process.stdout.readline()
        self.url = "ws://" + re.search(r"public=(\S+)", line).group(1) + "/ws"

    def token(self, *args):
        return subprocess.run([BIN, "token", "--data", os.path.join(self.folder, "data"), *args],
                              check=True, capture_output=True, text=True).stdout.strip()

    def stop(self):
        self.process.terminate()
        return self.process.wait(30)


def match(want, got, names, path):
    """Raises AssertionError when got is not what want says."""
    if isinstance(want, str) and re.fullmatch(r"<\w+>", want):
        assert names.setdefault(want, got) == got, f"{path}: {got!r} is not the {want} of before"
    elif isinstance(want, dict):
        assert isinstance(got, dict), f"{path}: {got!r} is no object"
        for key, value in want.items():
            assert key in got, f"{path}.{key} is missing in {got}"
            match(value, got[key], names, f"{path}.{key}")
    elif isinstance(want, list):
        assert isinstance(got, list) and len(got) == len(want), f"{path}: {got!r}"
        for i, value in enumerate(want):
            match(value, got[i], names, f"{path}[{i}]")
    else:
        assert want == got, f"{path}: {got!r}, not {want!r}"


class Block:
    def __init__(self, gate):
        self.gate = gate
        self.names = {}
        self.sockets = {}
        self.agent = "docs"
        self.seen = {}

    async def open(self, name):
        args = (["--sub", "docs-worker", "--scope", "agent", "--agents", self.agent] if name == "worker"
                else ["--sub", "docs", "--scope", "read write"])
        token = self.gate.token(*args)
        self.sockets[name] = await websockets.connect(
            self.gate.url, **{HEADERS: {"Authorization": "Bearer " + token}}, ping_interval=None)
        self.seen[name] = []

    async def ensure(self, name):
        if name not in self.sockets:
            await self.open(name)
            hello = {"type": "hello", "agent_id": self.agent, "capabilities": ["streaming", "ack"]}
            if name == "worker":
                hello["role"] = "agent"
            await self.sockets[name].send(json.dumps(hello))

    async def send(self, name, text):
        for key, value in self.names.items():
            if isinstance(value, str):
                text = text.replace(key, value)
        if "$token" in text:
            text = text.replace("$token", self.gate.token("--sub", "docs", "--scope", "read write"))
        await self.sockets[name].send(text)

    async def expect(self, name, text):
        """The oldest frame not yet looked at that has the type; others before it stay for later lines."""
        want = json.loads(text)
        queue = self.seen[name]
        while True:
            for i, got in enumerate(queue):
                if got.get("type") == want["type"] and got.get("status") == want.get("status", got.get("status")):
                    del queue[i]
                    match(want, got, self.names, want["type"])
                    return
            queue.append(json.loads(await asyncio.wait_for(self.sockets[name].recv(), TIMEOUT)))

    async def closed(self, name, code):
        await asyncio.wait_for(self.sockets[name].wait_closed(), TIMEOUT)
        assert self.sockets[name].close_code == code, f"closed with {self.sockets[name].close_code}"
        del self.sockets[name]

    async def line(self, line):
        words = line.split(" ", 2)
        if words[0] == "open":
            await self.open(words[1])
        elif words[1] == "closed":
            await self.closed(words[0], int(words[2]))
        else:
            await self.ensure(words[0])
            await (self.send if words[1] == ">" else self.expect)(words[0], words[2])

    async def run(self, lines):
        for number, line in lines:
            try:
                await self.line(line)
            except (AssertionError, asyncio.TimeoutError, websockets.ConnectionClosed) as e:
                return f"docs/protocol.md:{number}: {line}\n    {type(e).__name__}: {e}"
        for socket in self.sockets.values():
            await socket.close()
        return None


def blocks(path):
    found, inside = [], False
    for number, line in enumerate(open(path), 1):
        if line.startswith("```"):
            inside = line.strip() == "```frames"
            if inside:
                found.append([])
        elif inside and line.strip():
            found[-1].append((number, line.strip()))
    return found


async def main():
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        gate = Gate(folder)
        try:
            found = blocks("docs/protocol.md")
            for lines in found:
                fault = await Block(gate).run(lines)
                if fault:
                    failed += 1
                    print(fault)
        finally:
            code = gate.stop()
        if code != 0:
            failed += 1
            print("the gateway ended with", code)
    print(f"{len(found) - failed} passed, {failed} failed")
    return 1 if failed or not found else 0


sys.exit(asyncio.run(main()))
