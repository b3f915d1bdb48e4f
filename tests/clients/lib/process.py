"""Programs run by the tests: their output line by line or byte by byte, and an end for each of them."""

import asyncio
import os

PATIENCE = 60


class Program:
    """A child whose output can be waited for."""

    def __init__(self, *command, environment=None, directory=None):
        self.command = [str(part) for part in command]
        self.environment = {**os.environ, **(environment or {})}
        self.directory = directory
        self.out = ""
        self.err = ""
        self._more = asyncio.Event()

    async def __aenter__(self):
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment, cwd=self.directory
        )
        self._readers = [
            asyncio.ensure_future(self._read(self.process.stdout, "out")),
            asyncio.ensure_future(self._read(self.process.stderr, "err")),
        ]
        return self

    async def __aexit__(self, *exception):
        await self.kill()

    async def _read(self, stream, name):
        while True:
            data = await stream.read(65536)
            if not data:
                break
            setattr(self, name, getattr(self, name) + data.decode(errors="replace"))
            self._more.set()
        self._more.set()

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    async def until(self, text, where="out"):
        """Waits until it has printed ``text``."""

        async def look():
            while text not in getattr(self, where):
                if all(reader.done() for reader in self._readers):
                    raise AssertionError(f"{self.command} ended without {text!r}: {self.out!r} {self.err[-2000:]!r}")
                self._more.clear()
                await self._more.wait()

        try:
            await asyncio.wait_for(look(), PATIENCE)
        except asyncio.TimeoutError:
            said = f"{self.out[-2000:]!r} {self.err[-2000:]!r}"
            raise AssertionError(f"{self.command} did not say {text!r} within {PATIENCE} s: {said}") from None

    async def end(self):
        """Waits for its end; gives its status."""
        try:
            status = await asyncio.wait_for(self.process.wait(), PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"{self.command} did not end: {self.out[-500:]!r} {self.err[-500:]!r}") from None
        await asyncio.wait(self._readers)
        return status

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.wait(self._readers)
