"""A PraisonAI agent behind Ebbgate: each session has an agent of its own, its text streams through.

    from praisonaiagents import Agent
    from praisonai_agent import praison_agent
    praison_agent("writer", lambda: Agent(instructions="You write.")).run("ws://127.0.0.1:7070/ws", token=...)
"""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python"))  # or install ebbgate
from ebbgate import Agent

END = object()


def praison_agent(agent_id, make_agent):
    """`make_agent()` gives an object with `iter_stream(text)`, as PraisonAI's agents do."""
    agents = {}

    async def handler(turn):
        if turn.session_id not in agents:
            agents[turn.session_id] = make_agent()
        pieces = agents[turn.session_id].iter_stream(turn.content)
        while True:
            piece = await asyncio.to_thread(next, pieces, END)  # its stream blocks, this loop must not
            if piece is END:
                return
            yield piece

    return Agent(agent_id, handler)
