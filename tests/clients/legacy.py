#!/usr/bin/python3
"""What existing clients of the PraisonAI gateway say on the wire, against a real Ebbgate.

    legacy.py PROGRAM

Frames are written here by hand, as those clients send and read them: token in the address, `hello` with
`protocol_min`/`protocol_max`, the older `join`, `replay` frames checked by `sequence`, application pings both
ways, refusals told by `code` and `next_step`.
"""

import asyncio
import json
import sys
from pathlib import Path

import websockets

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[1] / "clients" / "python"))

from ebbgate import Agent, Retry  # noqa: E402
from lib.daemon import Daemon  # noqa: E402
from lib.match import Mismatch, check  # noqa: E402

PATIENCE = 30


def same(expected, actual):
    check(expected, actual, {})


class Wire:
    """One connection: frames out, frames in."""

    def __init__(self, daemon, token):
        self.url = daemon.url + (f"?token={token}" if token else "")

    async def __aenter__(self):
        self.ws = await websockets.connect(self.url, ping_interval=None)
        return self

    async def __aexit__(self, *exception):
        await self.ws.close()

    async def send(self, **frame):
        await self.ws.send(json.dumps(frame))

    async def next(self, kind=None):
        """The next frame, or the next of a kind."""
        while True:
            frame = json.loads(await asyncio.wait_for(self.ws.recv(), PATIENCE))
            if kind is None or frame["type"] == kind:
                return frame

    async def closed(self):
        try:
            while True:
                await asyncio.wait_for(self.ws.recv(), PATIENCE)
        except websockets.ConnectionClosed as closed:
            return closed.code


def hello(**more):
    return {
        "type": "hello",
        "agent_id": "shout",
        "protocol_min": 1,
        "protocol_max": 1,
        "capabilities": ["streaming", "ack"],
        **more,
    }


async def converse(wire):
    """Says something without an id, reads to the final response; gives the frames with a cursor."""
    await wire.send(type="message", content="one two")
    frames = []
    while not frames or frames[-1].get("status") != "final":
        frame = await wire.next()
        if "cursor" in frame:
            frames.append(frame)
    same({"type": "response", "status": "accepted"}, frames[0])
    same({"type": "response", "status": "final", "content": "ONE TWO"}, frames[-1])
    streamed = [frame["data"]["content"] for frame in frames if frame["type"] == "token_stream"]
    same(["ONE ", "TWO"], streamed)
    return frames


async def check_hello(daemon, token):
    async with Wire(daemon, token) as wire:
        await wire.send(**hello())
        ok = await wire.next()
        lists = {"methods": {"$has": ["message", "ping"]}, "events": {"$has": ["message", "token_stream"]}}
        policy = {name: {"$min": 1} for name in ("max_payload", "max_buffered_bytes", "max_queued_frames", "heartbeat_ms")}
        same(
            {"type": "hello_ok", "protocol": 1, "features": lists, "policy": policy, "resumed": False, "cursor": 0, "sequence": 0},
            ok,
        )
        frames = await converse(wire)
        await wire.send(type="ping")
        same({"type": "pong"}, await wire.next())
        await wire.send(type="pong")  # how they answer a ping
        await wire.send(type="ping")
        same({"type": "pong"}, await wire.next())
        return ok["session_id"], frames


async def check_resume(daemon, token, session, frames):
    """`replay` frames carry what those clients read, without a gap in `sequence`."""
    async with Wire(daemon, token) as wire:
        await wire.send(**hello(session_id=session, since=1))
        ok = await wire.next()
        same({"type": "hello_ok", "resumed": True, "session_id": session, "cursor": frames[-1]["cursor"], "sequence": 1}, ok)
        expected = ok["sequence"] + 1
        for frame in frames[1:]:
            replay = await wire.next()
            event = {
                "type": frame["type"],
                "event_id": frame["event_id"],
                "timestamp": frame["timestamp"],
                "source": frame["source"],
                "sequence": expected,
                "data": {"cursor": expected},
            }
            same({"type": "replay", "event": event}, replay)
            same(frame, replay["event"]["data"])
            expected += 1
        same({"type": "replay_end"}, await wire.next())
        await converse(wire)


async def check_join(daemon, token):
    async with Wire(daemon, token) as wire:
        await wire.send(type="join", agent_id="shout", min_version=1, max_version=1)
        joined = await wire.next()
        names = ("session_id", "cursor", "sequence", "oldest_cursor", "protocol_version", "server_min_version", "server_max_version")
        same({"type": "joined", "agent_id": "shout", "resumed": False, **{name: {"$any": True} for name in names}}, joined)
        await wire.send(type="message", content="one two")
        same({"status": "accepted"}, await wire.next("response"))
        await wire.send(type="leave")
        await wire.next("left")
        same(1000, await wire.closed())


async def check_refusals(daemon, token):
    for frame, given, code, step in (
        (hello(agent_id="nobody"), token, "agent_not_found", "do_not_retry"),
        (hello(), "no-token", "auth_unauthorized", "reauthenticate"),
        (hello(), None, "auth_required", "reauthenticate"),
        (hello(protocol_min=98, protocol_max=99), token, "protocol_unsupported", "downgrade_client"),
        (hello(session_id="none"), token, "session_not_found", "do_not_retry"),
    ):
        async with Wire(daemon, given) as wire:
            await wire.send(**frame)
            refusal = {"type": "hello_error", "code": code, "message": {"$any": 1}, "next_step": step, "next": step}
            same(refusal, await wire.next())
            same(4003, await wire.closed())


async def shout(turn):
    words = turn.content.upper().split()
    for index, word in enumerate(words):
        yield word + (" " if index + 1 < len(words) else "")


async def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    async with Daemon(sys.argv[1]) as daemon:
        token = await daemon.token("old", "read write")
        worker = await daemon.token("worker", "agent", "--agents", "shout")
        server = Agent("shout", shout).start(daemon.url, token=worker, retry=Retry(initial=0.05))
        await server.ready()
        try:
            session, frames = await check_hello(daemon, token)
            print("passed: hello, message, stream, ping and pong", flush=True)
            await daemon.crash()
            await check_resume(daemon, token, session, frames)
            print("passed: resume by replay frames, after kill -9", flush=True)
            await check_join(daemon, token)
            print("passed: join", flush=True)
            await check_refusals(daemon, token)
            print("passed: refusals", flush=True)
            if token in daemon.log():
                raise Mismatch("the token is in the gateway's log")
        except (Mismatch, websockets.ConnectionClosed, asyncio.TimeoutError) as error:
            print(f"FAIL {type(error).__name__}: {error}\n{daemon.log()[-1500:]}")
            return 1
        finally:
            await server.stop(timeout=1)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
