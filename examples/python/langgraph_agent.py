"""A compiled LangGraph graph as an agent: the session is the thread, tokens stream through.

    from langgraph_agent import graph_agent
    graph_agent("researcher", graph).run("ws://127.0.0.1:7070/ws", token=...)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python"))  # or install ebbgate
from ebbgate import Agent


def graph_agent(agent_id, graph):
    """`graph` takes {"messages": [...]} and has `astream`, as LangGraph's compiled graphs do."""

    async def handler(turn):
        config = {"configurable": {"thread_id": turn.session_id}}
        asked = {"messages": [("user", turn.content)]}
        async for chunk, _ in graph.astream(asked, config, stream_mode="messages"):
            if isinstance(chunk.content, str) and chunk.content:
                yield chunk.content

    return Agent(agent_id, handler)
