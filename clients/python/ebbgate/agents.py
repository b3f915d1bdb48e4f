"""Agents as people write them: a decorated async generator, and what it can do."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Callable, Dict

from .worker import AgentServer, Handler, Turn


class Agent:
    """A handler and the id it serves. Made by :func:`agent`; still callable as the handler."""

    def __init__(self, agent_id: str, handler: Handler) -> None:
        if not agent_id:
            raise ValueError("an agent needs an id")
        self.id = agent_id
        self.handler = handler
        self.__doc__ = handler.__doc__
        self.__name__ = getattr(handler, "__name__", agent_id)

    def __call__(self, turn: Turn) -> Any:
        return self.handler(turn)

    def start(self, url: str, **options: Any) -> AgentServer:
        """Begins serving in the background of the running loop; see :class:`AgentServer` for the options."""
        return AgentServer(self.id, self.handler, url, **options)

    async def serve(self, url: str, **options: Any) -> None:
        """Serves until cancelled. Raises if the gateway refuses this worker for good."""
        server = self.start(url, **options)
        try:
            await server.closed()
        finally:
            server.link.end(None)
            if server.link.task is not None:
                await asyncio.wait({server.link.task})

    def run(self, url: str, **options: Any) -> None:
        """Serves until SIGINT or SIGTERM, then lets running turns end. For a program's last line."""
        asyncio.run(self._run(url, options))

    async def _run(self, url: str, options: Dict[str, Any]) -> None:
        server = self.start(url, **options)
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, asked.set)
            except NotImplementedError:  # Windows: KeyboardInterrupt ends the loop
                pass
        closing = asyncio.ensure_future(server.closed())
        asking = asyncio.ensure_future(asked.wait())
        await asyncio.wait({closing, asking}, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if not closing.done():
            await server.stop()
        await closing


def agent(agent_id: str) -> Callable[[Handler], Agent]:
    """Makes an agent of an async generator function (or a plain coroutine function).

    ::

        @agent("echo")
        async def echo(turn):
            yield turn.content

        echo.run("ws://127.0.0.1:8420", token=token)
    """

    def wrap(handler: Handler) -> Agent:
        return Agent(agent_id, handler)

    return wrap
