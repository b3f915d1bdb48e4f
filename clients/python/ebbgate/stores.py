"""Where a session's place is kept.

A store has ``load(key)``, ``save(key, state)`` and ``remove(key)``, each plain or a
coroutine. A state is ``{"session_id", "epoch", "cursor", "outbox": [...]}``.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import os
import re
from pathlib import Path
from typing import Any, Awaitable, Dict, Optional, Protocol, Union

State = Dict[str, Any]


class Store(Protocol):
    """What `connect()` needs to keep a place."""

    def load(self, key: str) -> Union[Optional[State], Awaitable[Optional[State]]]:
        """The state saved last, or None."""

    def save(self, key: str, state: State) -> Union[None, Awaitable[None]]:
        """Replaces the state, whole."""

    def remove(self, key: str) -> Union[None, Awaitable[None]]:
        """Forgets the state."""


async def settle(value: Any) -> Any:
    """The value, awaited if it has to be."""
    return await value if inspect.isawaitable(value) else value


class MemoryStore:
    """Keeps states for the life of the object."""

    def __init__(self) -> None:
        self._states: Dict[str, str] = {}

    def load(self, key: str) -> Optional[State]:
        text = self._states.get(key)
        if text is None:
            return None
        state: State = json.loads(text)
        return state

    def save(self, key: str, state: State) -> None:
        self._states[key] = json.dumps(state)

    def remove(self, key: str) -> None:
        self._states.pop(key, None)


class FileStore:
    """Keeps each state in a file of a directory.

    A save writes a new file, flushes it and renames it over the old one, so that a crash
    leaves the old state or the new one.
    """

    def __init__(self, directory: Union[str, "os.PathLike[str]"]) -> None:
        self.directory = Path(directory)

    def path(self, key: str) -> Path:
        plain = key if re.fullmatch(r"[A-Za-z0-9_-]{1,100}", key) else hashlib.sha256(key.encode()).hexdigest()
        return self.directory / f"{plain}.json"

    async def load(self, key: str) -> Optional[State]:
        path = self.path(key)
        try:
            text = await asyncio.to_thread(path.read_text, "utf-8")
        except FileNotFoundError:
            return None
        try:
            state: State = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON; remove it to start anew") from error
        return state

    async def save(self, key: str, state: State) -> None:
        await asyncio.to_thread(self._write, self.path(key), json.dumps(state))

    def _write(self, path: Path, text: str) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        except BaseException:
            fresh.unlink(missing_ok=True)  # on a full disk it would take what room there is
            raise

    async def remove(self, key: str) -> None:
        path = self.path(key)
        await asyncio.to_thread(lambda: path.unlink(missing_ok=True))
