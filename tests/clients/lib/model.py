"""A small gateway in memory that keeps the protocol's promises and breaks connections on demand.

It holds a log for each session, answers messages itself or through real workers, and counts the frames
it sends and receives, so that a test can say "drop the connection after the 7th frame". What it
stored survives the drops, as a gateway's disk does.
"""

import asyncio
import json
from dataclasses import dataclass, field

import websockets

from . import serving


@dataclass
class Faults:
    """What goes wrong, by number of the frame, counted over all connections from 1."""

    drop_after_sent: set = field(default_factory=set)
    drop_after_received: set = field(default_factory=set)  # what it asked is done, the answer is lost
    skip_sent: set = field(default_factory=set)  # only events: they are in the log, yet never sent live
    twice: bool = False  # every event frame is sent twice
    refuse_received: dict = field(default_factory=dict)  # number -> error code: "not now"


class Connection:
    def __init__(self, gateway, ws):
        self.gateway = gateway
        self.ws = ws
        self.session = None
        self.worker = False
        self.capacity = 0
        self.queue = asyncio.Queue()
        self.dead = False

    def send(self, frame):
        if not self.dead:
            self.queue.put_nowait(frame)

    def drop(self):
        if not self.dead:
            self.dead = True
            self.gateway.gone(self)
            self.ws.transport.abort()

    async def write(self):
        faults = self.gateway.faults
        while True:
            frame = await self.queue.get()
            is_event = "cursor" in frame and "event_id" in frame and frame["type"] != "emitted"
            self.gateway.sent += 1
            number = self.gateway.sent
            if not (is_event and number in faults.skip_sent):
                await self.ws.send(json.dumps(frame))
                if faults.twice and (is_event or frame["type"] == "replay"):
                    await self.ws.send(json.dumps(frame))
            if number in faults.drop_after_sent:
                self.drop()
                return


class Model:
    def __init__(self, faults, confirm_final=True, self_answering=True, heartbeat_ms=0):
        self.faults = faults
        self.confirm_final = confirm_final
        self.self_answering = self_answering
        self.heartbeat_ms = heartbeat_ms
        self.sent = 0
        self.received = 0
        self.logs = {}
        self.ids = {}  # (session, id) -> cursor
        self.connections = set()
        self.turns = []  # open turns, oldest first: {session, turn, attempt, on}
        self.tasks = set()
        self.changed = asyncio.Event()

    async def __aenter__(self):
        self.server = await serving.serve(self.serve)
        self.url = serving.url(self.server)
        return self

    async def __aexit__(self, *exception):
        self.server.close()
        for connection in list(self.connections):
            connection.drop()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.wait_for(self.server.wait_closed(), 20)

    async def until(self, condition):
        """Waits until the logs satisfy ``condition``."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    # The log.

    def append(self, session, event, origin=None):
        log = self.logs[session]
        cursor = len(log) + 1
        event_id = event.pop("event_id", None) or f"{session}-{cursor}"
        whole = {
            "type": event.pop("type"),
            "session_id": session,
            "cursor": cursor,
            "seq": cursor,
            "event_id": event_id,
            "timestamp": 1795350871 + cursor / 1000,
            **event,
        }
        if whole["type"] == "message":
            whole.setdefault("turn", cursor)
        log.append(whole)
        for connection in list(self.connections):
            if connection.session == session and connection is not origin:
                connection.send(whole)
        self.changed.set()
        return cursor

    def post(self, session, content):
        """A message from somebody else."""
        self.logs.setdefault(session, [])
        turn = self.append(session, {"type": "message", "source": "client:other", "data": {"content": content}})
        self.begin_turn(session, turn)

    def begin_turn(self, session, turn):
        if not self.self_answering:
            self.turns.append({"session": session, "turn": turn, "attempt": 0, "on": None})
            self.hand_out()
            return
        content = self.logs[session][turn - 1]["data"]["content"]
        for piece in ("re: ", content):
            data = {"content": piece}
            self.append(session, {"type": "token_stream", "source": "agent:a", "turn": turn, "data": data})
        self.append(
            session,
            {
                "type": "response",
                "source": "agent:a",
                "turn": turn,
                "status": "final",
                "content": f"re: {content}",
                "outcome": {"status": "ok"},
            },
        )

    # Turns and workers.

    def hand_out(self):
        busy = {turn["session"] for turn in self.turns if turn["on"]}
        for turn in self.turns:
            worker = next((c for c in self.connections if c.worker and not c.dead and c.capacity > 0), None)
            if worker is None:
                return
            if turn["on"] or turn["session"] in busy:
                continue
            busy.add(turn["session"])
            turn["attempt"] += 1
            turn["on"] = worker
            worker.capacity -= 1
            worker.send(
                {
                    "type": "turn",
                    "session_id": turn["session"],
                    "turn": turn["turn"],
                    "attempt": turn["attempt"],
                    "message": self.logs[turn["session"]][turn["turn"] - 1],
                    "history_cursor": turn["turn"] - 1,
                }
            )

    def gone(self, connection):
        self.connections.discard(connection)
        for turn in self.turns:
            if turn["on"] is connection:
                turn["on"] = None
        self.hand_out()

    def worker_frame(self, connection, frame):
        ref = frame.get("event_id")
        turn = next(
            (
                t
                for t in self.turns
                if t["session"] == frame["session_id"] and t["turn"] == frame["turn"] and t["on"] is connection
            ),
            None,
        )
        if turn is None:
            connection.send({"type": "error", "code": "turn_closed", "message": "not yours", "ref": ref})
            return
        cursor = self.ids.get((frame["session_id"], ref))
        if frame["type"] == "final":
            if cursor is None:
                ending = {name: frame[name] for name in ("content", "outcome")}
                event = {"type": "response", "status": "final", "source": "agent:a", **ending}
                cursor = self.append(frame["session_id"], {**event, "turn": turn["turn"], "event_id": ref})
                self.ids[(frame["session_id"], ref)] = cursor
            self.turns.remove(turn)
            connection.capacity += 1
            if not self.confirm_final:
                self.hand_out()
                return
        elif cursor is None:
            event = {"type": frame["event"], "source": "agent:a", "turn": turn["turn"], "data": frame["data"]}
            cursor = self.append(frame["session_id"], {**event, "event_id": ref})
            self.ids[(frame["session_id"], ref)] = cursor
        where = {"session_id": frame["session_id"], "turn": frame["turn"]}
        connection.send({"type": "emitted", **where, "event_id": ref, "cursor": cursor})
        self.hand_out()

    # Clients.

    def client_frame(self, connection, frame):
        session = connection.session
        if frame["type"] == "ping":
            connection.send({"type": "pong", "id": frame.get("id"), "cursor": len(self.logs[session])})
        elif frame["type"] == "message":
            known = self.ids.get((session, frame["message_id"]))
            cursor = known
            if known is None:
                data = {name: frame[name] for name in ("content", "message_id", "metadata") if name in frame}
                event = {"type": "message", "source": "client:test", "data": data}
                cursor = self.append(session, event, origin=connection)
                self.ids[(session, frame["message_id"])] = cursor
            connection.send(
                {
                    "type": "response",
                    "status": "accepted",
                    "session_id": session,
                    "message_id": frame["message_id"],
                    "cursor": cursor,
                    "turn": cursor,
                    "duplicate": known is not None,
                }
            )
            if known is None:
                self.begin_turn(session, cursor)

    def hello(self, connection, frame):
        base = {
            "type": "hello_ok",
            "protocol": 1,
            "features": {"methods": [], "events": []},
            "policy": {"max_payload": 1048576, "heartbeat_ms": self.heartbeat_ms},
        }
        if frame.get("role") == "agent":
            connection.worker = True
            connection.capacity = frame.get("concurrency", 1)
            connection.send({**base, "worker_id": "w"})
            self.connections.add(connection)
            self.hand_out()
            return
        session = frame.get("session_id") or f"s{len(self.logs) + 1}"
        resumed = session in self.logs
        log = self.logs.setdefault(session, [])
        since = frame.get("since")
        connection.session = session
        place = {"cursor": len(log), "sequence": since if since is not None else len(log), "oldest_cursor": 1}
        connection.send(
            {**base, "session_id": session, "resumed": resumed, **place, "resync_required": False, "epoch": "e"}
        )
        if since is not None:
            for event in log[since:]:
                outer = {name: event.get(name) for name in ("type", "event_id", "timestamp", "source")}
                inner = {**outer, "target": None, "sequence": event["cursor"], "data": event}
                connection.send({"type": "replay", "seq": event["cursor"], "event": inner})
            connection.send({"type": "replay_end", "cursor": len(log)})
        self.connections.add(connection)

    async def serve(self, ws):
        connection = Connection(self, ws)
        self.tasks.add(asyncio.current_task())
        writer = asyncio.ensure_future(connection.write())
        try:
            async for text in ws:
                if connection.dead:
                    break
                self.received += 1
                number = self.received
                frame = json.loads(text)
                if number in self.faults.drop_after_received:
                    self.obey_unheard(connection, frame)
                    break
                if number in self.faults.refuse_received and frame["type"] in ("message", "emit"):
                    ref = frame.get("message_id") or frame.get("event_id")
                    code = self.faults.refuse_received[number]
                    connection.send({"type": "error", "code": code, "message": "not now", "ref": ref})
                    continue
                self.obey(connection, frame)
        except websockets.ConnectionClosed:
            pass
        finally:
            connection.drop()
            writer.cancel()
            self.tasks.discard(asyncio.current_task())

    def obey(self, connection, frame):
        if frame["type"] == "hello":
            self.hello(connection, frame)
        elif frame["type"] in ("emit", "final", "fail"):
            self.worker_frame(connection, frame)
        elif connection.session is not None:
            self.client_frame(connection, frame)

    def obey_unheard(self, connection, frame):
        """Does what was asked, and loses the connection before a word of it is said."""
        connection.send = lambda unheard: None
        self.obey(connection, frame)
        connection.drop()
