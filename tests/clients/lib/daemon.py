"""A real gateway for the tests: started on free ports, killed and started again on the same ones."""

import asyncio
import os
import re
import shutil
import signal
import socket
import tempfile

PATIENCE = 60


def hold_port():
    """A socket that keeps a port ours between two lives of a gateway: bound, so that nobody is given it, and not
    listening, so that the gateway can."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Daemon:
    def __init__(self, program):
        self.program = program
        self.directory = tempfile.mkdtemp(prefix="ebbgate-real-")
        self.data = os.path.join(self.directory, "data")
        self.held = [hold_port(), hold_port()]
        self.listen, self.admin = ("%s:%d" % held.getsockname() for held in self.held)
        self.process = None
        self.restarts = 0

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *exception):
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), PATIENCE)
            except asyncio.TimeoutError:
                self.process.kill()
                await self.process.wait()
        for held in self.held:
            held.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def start(self):
        arguments = ["serve", "--data", self.data, "--listen", self.listen, "--admin", self.admin]
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        line = (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode()
        said = re.fullmatch(r"ebbgate ready public=(\S+) admin=(\S+)\n", line)
        if said is None:
            raise RuntimeError(f"the gateway said {line!r}; its log ends with:\n{self.log()[-2000:]}")
        expected = (self.listen, self.admin)
        if said.groups() != expected:
            raise RuntimeError(f"the gateway listens on {said.groups()}, not {expected}")
        self.url = f"ws://{self.listen}/ws"

    def log(self):
        with open(os.path.join(self.directory, "log"), encoding="utf-8", errors="replace") as log:
            return log.read()

    async def crash(self):
        """kill -9, and up again on the same addresses and data."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        self.restarts += 1
        await self.start()

    async def stop(self):
        """Ends it in good order; gives its exit status."""
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), PATIENCE)

    async def command(self, *arguments):
        """Runs another command of the program; gives (status, stdout, stderr)."""
        process = await asyncio.create_subprocess_exec(
            self.program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        return process.returncode, out.decode(), err.decode()

    async def token(self, sub, scope, *more):
        status, out, err = await self.command(
            "token", "--data", self.data, "--sub", sub, "--scope", scope, *more
        )
        if status != 0:
            raise RuntimeError(f"no token: {err}")
        return out.strip()
