"""Client and agent library for the Ebbgate gateway.

::

    async with connect("ws://127.0.0.1:8420", "echo", token=token) as session:
        async for piece in session.ask("hello"):
            print(piece, end="")
"""

from .agents import Agent, agent
from .backoff import Backoff, Retry
from .connecting import connect
from .errors import EbbgateError, Outcome, Verdict, judge
from .link import VERSION as __version__
from .outbox import Accepted
from .session import Event, Page, Session
from .stores import FileStore, MemoryStore, Store
from .text import Answer, FinalAnswer, Turns, TurnView, text_of
from .worker import AgentServer, Emit, Final, Turn, TurnFailed

__all__ = [
    "Accepted",
    "Agent",
    "AgentServer",
    "Answer",
    "Backoff",
    "EbbgateError",
    "Emit",
    "Event",
    "FileStore",
    "Final",
    "FinalAnswer",
    "MemoryStore",
    "Outcome",
    "Page",
    "Retry",
    "Session",
    "Store",
    "Turn",
    "TurnFailed",
    "TurnView",
    "Turns",
    "Verdict",
    "__version__",
    "agent",
    "connect",
    "judge",
    "text_of",
]
