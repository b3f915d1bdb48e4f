"""Says one thing to an agent and prints the answer as it comes.

The conversation is kept in a file, so the next call goes on with it, and a message that was cut off is
made good by the next call.

    EBBGATE_TOKEN=$(ebbgate token --sub me) python3 talk.py echo hello there
"""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python"))  # or install ebbgate
from ebbgate import FileStore, connect


async def main(agent, words):
    url = os.environ.get("EBBGATE_URL", "ws://127.0.0.1:7070/ws")
    store = FileStore(os.environ.get("EBBGATE_STATE", ".ebbgate-talk"))
    async with connect(url, agent, token=os.environ.get("EBBGATE_TOKEN"), store=store) as session:
        async for piece in session.ask(" ".join(words)):
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: talk.py AGENT WORDS...")
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
