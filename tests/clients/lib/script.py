"""Scripted scenarios: a server that does exactly what the script says, and an application that does the same.

The format is described in README.md beside this folder.
"""

import asyncio
import json

import websockets

from . import serving
from .match import Mismatch, check, fill

#: No step of any scenario may take longer, whatever the machine is doing.
PATIENCE = 20


def hello_ok(fields):
    """A whole hello_ok with the scenario's fields in it."""
    return {
        "type": "hello_ok",
        "protocol": 1,
        "features": {"methods": [], "events": []},
        "policy": {"max_payload": 1048576, "heartbeat_ms": 0, **fields.pop("policy", {})},
        "session_id": "s1",
        "resumed": False,
        "cursor": 0,
        "sequence": 0,
        "oldest_cursor": 1,
        "resync_required": False,
        "epoch": "e1",
        "server": {"name": "scripted", "version": "0"},
        **fields,
    }


def event(cursor, fields):
    """A whole event; a token unless the scenario says otherwise."""
    made = {
        "type": "token_stream",
        "session_id": "s1",
        "cursor": cursor,
        "seq": cursor,
        "event_id": f"ev-{cursor}",
        "timestamp": 1795350871.5,
        "source": "agent:a",
        "data": {"content": f"t{cursor}"},
    }
    made.update(fields)
    return made


def replay(cursor, fields):
    inner = event(cursor, fields)
    outer = {name: inner[name] for name in ("type", "event_id", "timestamp", "source")}
    return {"type": "replay", "seq": cursor, "event": {**outer, "target": None, "sequence": cursor, "data": inner}}


class ScriptedServer:
    """Plays a scenario's connections, one after the other."""

    def __init__(self, scenario, marks):
        self.connections = scenario.get("connections", [])
        self.marks = marks
        self.names = {}
        self.count = 0
        self.playing = set()
        self.over = False
        self.failure = asyncio.get_running_loop().create_future()

    async def __aenter__(self):
        self.server = await serving.serve(self.serve, self.upgrade)
        self.url = serving.url(self.server)
        return self

    async def __aexit__(self, *exception):
        self.server.close()
        self.over = True
        for task in self.playing:
            task.cancel()
        await asyncio.wait_for(self.server.wait_closed(), PATIENCE)
        if self.failure.done():
            self.failure.exception()

    def fail(self, error):
        if not self.failure.done():
            self.failure.set_exception(error)

    def upgrade(self, path):
        if path != "/ws":
            self.fail(Mismatch(f"the client asked for {path}, not /ws"))
        if self.count >= len(self.connections):
            self.fail(Mismatch(f"connection {self.count + 1} was not expected"))
            return 503, {}
        first = self.connections[self.count][0]
        if "http" in first:
            self.count += 1
            return first["http"], first.get("headers", {})
        return None

    async def serve(self, ws):
        index = self.count
        self.count += 1
        if index >= len(self.connections):
            self.fail(Mismatch(f"connection {index + 1} was not expected"))
            return
        self.playing.add(asyncio.current_task())
        try:
            for number, step in enumerate(self.connections[index], 1):
                where = f"connection {index + 1}, step {number} {json.dumps(step)[:120]}"
                try:
                    await asyncio.wait_for(self.play(ws, step), PATIENCE)
                    if self.over:  # wait_for may return a result in place of a cancellation
                        return
                except Mismatch as error:
                    raise Mismatch(f"{where}: {error}") from None
                except asyncio.TimeoutError:
                    raise Mismatch(f"{where}: did not happen within {PATIENCE} s") from None
                except websockets.ConnectionClosed as closed:
                    raise Mismatch(f"{where}: the client closed: {closed}") from None
            self.marks.reach(f"end {index + 1}")
            if serving.is_open(ws):
                await asyncio.get_running_loop().create_future()  # stays open until the scenario ends
        except Mismatch as error:
            self.fail(error)
        finally:
            self.playing.discard(asyncio.current_task())

    async def play(self, ws, step):
        if "expect" in step:
            frame = json.loads(await ws.recv())
            check(step["expect"], frame, self.names)
        elif "send" in step:
            frame = fill(step["send"], self.names)
            await ws.send(json.dumps(hello_ok(frame) if frame["type"] == "hello_ok" else frame))
        elif "event" in step:
            await ws.send(json.dumps(event(step["event"], step.get("with", {}))))
        elif "replay" in step:
            await ws.send(json.dumps(replay(step["replay"], step.get("with", {}))))
        elif "raw" in step:
            await ws.send(step["raw"])
        elif "close" in step:
            await ws.close(step["close"], step.get("reason", ""))
        elif "drop" in step:
            ws.transport.abort()
            await ws.wait_closed()
        elif "gone" in step:
            try:
                frame = await ws.recv()
            except websockets.ConnectionClosed as closed:
                if step["gone"] is not True and closed.code != step["gone"]:
                    raise Mismatch(f"the client closed with {closed.code}") from None
                return
            raise Mismatch(f"expected the client to go, it sent {frame}")
        elif "await" in step:
            await self.marks.wait(step["await"])
        elif "mark" in step:
            self.marks.reach(step["mark"])
        else:
            raise Mismatch("unknown step")


class Marks:
    """Named points that the server and the application wait for."""

    def __init__(self):
        self.events = {}

    def _event(self, name):
        return self.events.setdefault(name, asyncio.Event())

    def reach(self, name):
        self._event(name).set()

    async def wait(self, name):
        await self._event(name).wait()


class Application:
    """Plays a scenario's `app` steps through a driver."""

    def __init__(self, scenario, driver, server, marks):
        self.steps = scenario["app"]
        self.driver = driver
        self.server = server
        self.marks = marks
        self.started = {}

    async def run(self):
        for number, step in enumerate(self.steps, 1):
            where = f"app step {number} {json.dumps(step)[:120]}"
            playing = asyncio.ensure_future(asyncio.wait_for(self.play(dict(step)), PATIENCE))
            await asyncio.wait({playing, self.server.failure}, return_when=asyncio.FIRST_COMPLETED)
            if self.server.failure.done():
                playing.cancel()
                raise self.server.failure.exception()
            try:
                playing.result()
            except Mismatch as error:
                raise Mismatch(f"{where}: {error}") from None
            except asyncio.TimeoutError:
                raise Mismatch(f"{where}: did not happen within {PATIENCE} s") from None

    async def play(self, step):
        if "await" in step:
            await self.marks.wait(step["await"])
        elif "mark" in step:
            self.marks.reach(step["mark"])
        elif "wait" in step:
            self.judge(step, await self.started.pop(step["wait"]))
        elif "note" in step:
            wanted = {"note": step["note"], **step.get("is", {})}
            await self.driver.until_note(lambda note: self.matches(wanted, note))
        else:
            await self.operate(step)

    def matches(self, wanted, note):
        try:
            check(wanted, note, self.server.names)
        except Mismatch:
            return False
        return True

    async def operate(self, step):
        op = step.pop("do")
        label = step.pop("as", None)
        expected = {name: step.pop(name) for name in ("is", "fails", "quiet") if name in step}
        step = fill(step, self.server.names)
        if op in ("open", "serve"):
            step["options"] = {"agent": "a", "url": self.server.url, **step.get("options", {})}
        future = self.driver.begin(op, **step)
        if label is not None:
            self.started[label] = future
            return
        self.judge(expected, await future)

    def judge(self, expected, said):
        if "fails" in expected:
            if "error" not in said:
                raise Mismatch(f"should have failed, gave {said['ok']!r}")
            check(expected["fails"], said["error"], self.server.names, "error")
        elif "error" in said:
            raise Mismatch(f"failed: {said['error']}")
        elif "is" in expected:
            check(expected["is"], said["ok"], self.server.names, "result")


def check_notes(scenario, driver, names):
    """Notes of the kinds a scenario names must be exactly those it lists, in order."""
    for kind, expected in scenario.get("notes", {}).items():
        actual = [note for note in driver.notes if note["note"] == kind]
        check(expected, actual, names, f"notes.{kind}")


async def play(scenario, driver):
    """Plays one scenario with one driver; raises Mismatch if it goes otherwise."""
    driver.forget()
    marks = Marks()
    async with ScriptedServer(scenario, marks) as server:
        key = scenario.get("key", "a")
        await driver.do("remember", key=key, state=scenario.get("stored"))
        await Application(scenario, driver, server, marks).run()
        for index in range(len(server.connections)):
            first = server.connections[index][0]
            if "http" not in first:
                await wait_or_fail(marks.wait(f"end {index + 1}"), server, f"the end of connection {index + 1}")
        check_notes(scenario, driver, server.names)
        if "stored_after" in scenario:
            check(scenario["stored_after"], await driver.do("stored", key=key), server.names, "stored")
        await end(scenario, driver)
        if server.failure.done():
            raise server.failure.exception()


async def wait_or_fail(work, server, what):
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task, server.failure}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    if server.failure.done():
        raise server.failure.exception()
    if not done:
        raise Mismatch(f"{what} did not come within {PATIENCE} s")


async def end(scenario, driver):
    """Closes whatever the scenario left open, so that the next one hears nothing of it."""
    ending = driver.begin("stop", now=True) if scenario.get("role") == "agent" else driver.begin("close")
    done, _ = await asyncio.wait({ending}, timeout=PATIENCE)
    if not done:
        raise Mismatch(f"the client did not end within {PATIENCE} s")
