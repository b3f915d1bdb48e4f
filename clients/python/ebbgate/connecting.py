"""Entering a session: ``await connect(...)`` or ``async with connect(...)``."""

from __future__ import annotations

from typing import Any, Dict, Generator, Optional

from .session import Session


class Connecting:
    """What ``connect()`` gives: await it for a session, or use it with ``async with``."""

    def __init__(self, url: str, agent: str, options: Dict[str, Any]) -> None:
        self._arguments = (url, agent, options)
        self._session: Optional[Session] = None

    async def _connect(self) -> Session:
        url, agent, options = self._arguments
        session = Session(url, agent, **options)
        await session.begin()
        return session

    def __await__(self) -> Generator[Any, None, Session]:
        return self._connect().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._connect()
        return self._session

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        assert self._session is not None
        await self._session.close(commit=kind is None)


def connect(url: str, agent: str, **options: Any) -> Connecting:
    """Enters a session, and stays in it.

    ``await connect(...)`` or ``async with connect(...) as session``; see :class:`Session` for the options.
    """
    return Connecting(url, agent, options)
