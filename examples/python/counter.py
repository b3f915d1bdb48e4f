"""Counts to the number it is told, and survives kill -9 in the middle: of the gateway, and of itself.

When the gateway dies, the library reconnects and this run goes on. When this process dies, the gateway hands
the turn to the next one that serves the agent; that one reads in the log how far the count had come and goes
on from there. The event ids make sure that a number that was stored but not confirmed is not there twice.

    EBBGATE_TOKEN=$(ebbgate token --sub counter --scope agent --agents counter) python3 counter.py
"""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python"))  # or install ebbgate
from ebbgate import Emit, Final, agent

PAUSE = float(os.environ.get("COUNTER_PAUSE", "0.3"))


async def counted_so_far(turn):
    """The last number of this turn that is in the log."""
    last, since = 0, turn.turn
    while True:
        page = await turn.history(since=since, limit=500)
        if not page.events:
            return last
        for event in page.events:
            if event["type"] == "token_stream" and event.get("turn") == turn.turn:
                last = int(event["data"]["content"])
        since = page.events[-1]["cursor"]


@agent("counter")
async def counter(turn):
    try:
        target = int(turn.content)
    except (TypeError, ValueError):
        yield Final("Tell me a number to count to.", {"status": "rejected"})
        return
    begun = await counted_so_far(turn) if turn.attempt > 1 else 0
    for number in range(begun + 1, target + 1):
        yield Emit("token_stream", {"content": f"{number} "}, id=f"count.{turn.session_id}.{turn.turn}.{number}")
        await asyncio.sleep(PAUSE)
    yield Final(" ".join(str(number) for number in range(1, target + 1)))


if __name__ == "__main__":
    counter.run(
        os.environ.get("EBBGATE_URL", "ws://127.0.0.1:7070/ws"),
        token=os.environ.get("EBBGATE_TOKEN"),
        concurrency=100,
    )
