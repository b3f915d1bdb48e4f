"""A client's driver as a child process: commands out, results and notes in."""

import asyncio
import itertools
import json
import os


class DriverDied(Exception):
    """The driver ended, or wrote what is no JSON line."""


class Driver:
    def __init__(self, name, command, environment=None):
        self.name = name
        self.command = command
        self.environment = {**os.environ, **(environment or {})}
        self.notes = []
        self.journal = []  # every line, in order
        self._news = asyncio.Event()
        self._serial = itertools.count(1)
        self._waiting = {}

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self.environment,
            limit=64 * 1024 * 1024,
        )
        self._reader = asyncio.ensure_future(self._read())
        return self

    async def _read(self):
        try:
            while True:
                line = await self.process.stdout.readline()
                if not line:
                    break
                said = json.loads(line)
                self.journal.append(said)
                if "note" in said:
                    self.notes.append(said)
                    self._news.set()
                    self._news = asyncio.Event()
                else:
                    future = self._waiting.pop(said["id"], None)
                    if future is not None and not future.done():
                        future.set_result(said)
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(DriverDied(f"the {self.name} driver ended"))
                    future.exception()
            self._waiting.clear()

    def begin(self, op, **arguments):
        """Starts an operation; the future's result is ``{"ok": …}`` or ``{"error": …}``."""
        number = next(self._serial)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self.process.stdin.write(json.dumps({"id": number, "op": op, **arguments}).encode() + b"\n")
        return future

    async def do(self, op, **arguments):
        """An operation that has to succeed; gives its result."""
        said = await self.begin(op, **arguments)
        if "error" in said:
            raise AssertionError(f"{op} failed: {said['error']}")
        return said["ok"]

    async def until_note(self, wanted):
        """Waits for a note that ``wanted`` accepts, among those since ``forget``."""
        while True:
            for note in self.notes:
                if wanted(note):
                    return note
            if self._reader.done():
                raise DriverDied(f"the {self.name} driver ended")
            news = self._news
            await news.wait()

    def forget(self):
        """Drops the notes and results of the scenario before."""
        self.notes.clear()
        self.journal.clear()
        self._waiting.clear()

    async def kill(self):
        """Ends it as a crash would."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        self._reader.cancel()

    async def stop(self):
        if self.process.returncode is None:
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), 5)
            except asyncio.TimeoutError:
                self.process.kill()
                await self.process.wait()
        self._reader.cancel()
