"""A support inbox: people answer, in terminals of their own.

Each open question is shown to one of those who are here; a session stays with who answered it last. Who leaves
(/leave, Ctrl-C, a closed laptop, kill -9) hands the open question over: a colleague sees it with the
conversation so far. Nobody here? The question waits in the gateway.

    EBBGATE_TOKEN=$(ebbgate token --sub ann --scope agent --agents support) python3 inbox.py ann
"""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python"))  # or install ebbgate
from ebbgate import Agent, Emit, Final


class Inbox:
    def __init__(self, name):
        self.name = name
        self.leaving = asyncio.Event()
        self.lines = asyncio.Queue()

    async def read_terminal(self):
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while True:
            line = await reader.readline()
            if not line or line.strip() == b"/leave":
                self.leaving.set()
                return
            await self.lines.put(line.decode().rstrip("\n"))

    async def show(self, turn):
        """The question, and what was said in its session before, for who takes it over."""
        print(f"--- {turn.session_id}" + (" (handed over)" if turn.attempt > 1 else ""))
        page = await turn.history(since=max(0, turn.turn - 200), limit=200)
        for event in page.events:
            if event["cursor"] >= turn.turn:
                break
            if event["type"] == "message":
                print(f"    customer: {event['data']['content']}")
            elif event["type"] == "response":
                who = (event.get("outcome") or {}).get("by", "support")
                print(f"    {who}: {event['content']}")
        print(f"  > {turn.content}", flush=True)

    async def answer(self, turn):
        await self.show(turn)
        yield Emit("status", {"text": f"{self.name} is looking at it"}, ephemeral=True)
        yield Final(await self.lines.get(), {"status": "ok", "by": self.name})

    async def run(self):
        url = os.environ.get("EBBGATE_URL", "ws://127.0.0.1:7070/ws")
        server = Agent("support", self.answer).start(url, token=os.environ.get("EBBGATE_TOKEN"))
        await server.ready()
        print(f"{self.name} is here", flush=True)
        reading = asyncio.ensure_future(self.read_terminal())
        closed = asyncio.ensure_future(server.closed())
        left = asyncio.ensure_future(self.leaving.wait())
        await asyncio.wait({closed, left}, return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, left):
            task.cancel()
        await server.stop(timeout=0)  # the open question goes to a colleague
        await closed


async def main(name):
    await Inbox(name).run()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: inbox.py YOUR-NAME")
    try:
        asyncio.run(main(sys.argv[1]))
    except KeyboardInterrupt:
        pass
