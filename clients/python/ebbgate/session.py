"""A client's part in one session.

Two positions, both cursors of the session's log, are kept apart:

* *seen*: everything up to here has been received and is queued or delivered. A reconnect
  asks for what follows it.
* *delivered*: everything up to here was handed to the application and done with. Only this
  one is stored; a new process asks for what follows it.

Neither ever moves to the head of the log that ``hello_ok`` names: what lies between would be
lost. An event counts as delivered when the application asks for the next one, or leaves the
session without an error.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any, AsyncIterator, Callable, Deque, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from .backoff import Retry
from .errors import EbbgateError, Frame, Outcome, check_frame, check_id, error_from_frame, tell
from .link import Link, Sleep, Token
from .outbox import Accepted, Outbox
from .stores import MemoryStore, State, Store, settle
from .text import Answer

Event = Dict[str, Any]

#: Frames that answer a request rather than tell of something.
CONTROL = frozenset({"joined", "hello_ok", "history", "left", "aborted", "no_active_turn", "auth_ok"})


class Place(NamedTuple):
    """A position in the log that ``epoch`` names."""

    epoch: Optional[str]
    cursor: int


@dataclass(frozen=True)
class Page:
    """A page of the log."""

    events: List[Event]
    oldest_cursor: Optional[int]
    cursor: Optional[int]


@dataclass
class Request:
    frame: Frame
    answers: Tuple[str, ...]
    repeat: bool
    future: "asyncio.Future[Frame]"

    def fail(self, error: EbbgateError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()


class Session:
    """Use :func:`ebbgate.connect`."""

    def __init__(
        self,
        url: str,
        agent: str,
        *,
        token: Optional[Token] = None,
        session: Optional[str] = None,
        create: bool = False,
        since: Union[str, int] = "start",
        store: Optional[Store] = None,
        key: Optional[str] = None,
        capabilities: Sequence[str] = ("streaming", "ack"),
        retry: Optional[Retry] = None,
        send_window: int = 1,
        max_queued: int = 5000,
        handshake_timeout: float = 10.0,
        client_name: str = "ebbgate-python",
        on_gap: Optional[Callable[[Dict[str, Any]], Any]] = None,
        on_resync: Optional[Callable[[Dict[str, Any]], Any]] = None,
        on_status: Optional[Callable[[Dict[str, Any]], Any]] = None,
        on_error: Optional[Callable[[EbbgateError], Any]] = None,
        sleep: Optional[Sleep] = None,
    ) -> None:
        if not agent:
            raise ValueError("connect() needs the id of the agent to talk to")
        self.agent = agent
        self.id = session
        self.epoch: Optional[str] = None
        self.state = "connecting"
        self.store: Store = store if store is not None else MemoryStore()
        self.key = key or (f"{agent}:{session}" if session else agent)
        self.capabilities = list(capabilities)
        self._create = create
        self._from = since
        self._callbacks = {"gap": on_gap, "resync": on_resync, "status": on_status, "error": on_error}
        self._max_queued = max_queued
        self._seen: Optional[int] = None
        self._delivered: Optional[Place] = None
        self._handed: Optional[Place] = None
        self._queue: Deque[Tuple[Optional[Event], Optional[Place]]] = deque()
        self._waiting: Deque["asyncio.Future[Optional[Event]]"] = deque()
        self._requests: List[Request] = []
        self._asked: Union[None, str, int] = None
        self._hello: Frame = {}
        self._caught_up = False
        self._overflow = False
        self._resyncing = False
        self._healed: Optional[int] = None
        self._acked = 0
        self._saw_end = False
        self._failure: Optional[EbbgateError] = None
        self._saving = False  # the last saver has read the state
        self._saver: Optional["asyncio.Task[None]"] = None
        self._opened: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()
        self._link = Link(
            url,
            self,
            token=token,
            retry=retry,
            sleep=sleep,
            handshake_timeout=handshake_timeout,
            client_name=client_name,
        )
        self._outbox = Outbox(self._link.send, self._save, self._later, send_window, retry)

    async def begin(self) -> None:
        """Goes on from the stored place; returns when the gateway first accepts us."""
        kept: Optional[State] = await settle(self.store.load(self.key))
        if kept and (self.id is None or self.id == kept.get("session_id")):
            self.id = kept.get("session_id") or self.id
            cursor = kept.get("cursor")
            if isinstance(cursor, int):
                self.epoch = kept.get("epoch")
                self._seen = cursor
                self._delivered = Place(self.epoch, cursor)
            self._outbox.restore(kept.get("outbox"))
        self._link.start()
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            await self.close(commit=False)
            raise

    # What the application calls.

    async def send(self, content: Any, *, message_id: Optional[str] = None, metadata: Any = None) -> Accepted:
        """Sends a message; returns when it is on the gateway's disk.

        A cancelled ``send`` does not take the message back: it stays in the outbox.
        """
        if content is None or content == "":
            raise ValueError("a message needs content: any JSON but null and the empty string")
        if self._link.ended:
            raise self._closed_error()
        if content == "/stop" and "raw" not in self.capabilities:
            turn = await self.abort()
            return Accepted(None, None, turn, aborted=turn is not None)
        message_id = str(uuid.uuid4()) if message_id is None else message_id
        check_id("message_id", message_id)
        given = check_frame({"content": content, "metadata": metadata, "message_id": message_id})
        entry = self._outbox.add(message_id, given["content"], given["metadata"])
        if not entry.saved:
            saver = self._save()
            saver.add_done_callback(lambda _: self._outbox.stored(entry))
            await asyncio.shield(saver)
        return await asyncio.shield(entry.future)

    def ask(self, content: Any, *, message_id: Optional[str] = None, metadata: Any = None) -> Answer:
        """Sends a message and gives its answer: iterate for pieces of text, ``await .final()`` for all."""
        return Answer(self, content, {"message_id": message_id, "metadata": metadata})

    @property
    def pending(self) -> List[Dict[str, Any]]:
        """Messages that are not known to be stored yet."""
        return self._outbox.snapshot()

    @property
    def place(self) -> int:
        """The cursor up to which events were handed out."""
        place = self._handed or self._delivered
        return place.cursor if place else 0

    @property
    def snapshots(self) -> List[Event]:
        """Snapshots that wait to be handed out."""
        return [event for event, _ in self._queue if event is not None and event.get("type") == "snapshot"]

    async def abort(self, *, turn: Optional[int] = None, reason: Optional[str] = None) -> Optional[int]:
        """Asks the agent to stop; gives the aborted turn, or None if none was open.

        With ``turn`` the request is repeated after a loss; without, a loss raises ``connection_lost``.
        """
        frame: Frame = {"type": "abort"}
        if turn is not None:
            frame["turn"] = turn
        if reason is not None:
            frame["reason"] = reason
        answer = await self._request(frame, ("aborted", "no_active_turn"), repeat=turn is not None)
        aborted = answer.get("turn") if answer.get("type") == "aborted" else None
        return aborted if isinstance(aborted, int) else None

    async def history(
        self, *, since: Optional[int] = None, before: Optional[int] = None, limit: Optional[int] = None
    ) -> Page:
        """A page of the log."""
        frame: Frame = {"type": "history"}
        for name, value in (("since", since), ("before", before), ("limit", limit)):
            if value is not None:
                frame[name] = value
        answer = await self._request(frame, ("history",), repeat=True)
        return Page(answer["events"], answer.get("oldest_cursor"), answer.get("cursor"))

    def ack(self, cursor: Optional[int] = None) -> None:
        """Tells the gateway, for all devices of this user, how far was read. Default: all delivered."""
        if cursor is None:
            cursor = self.place
        place = self._handed or self._delivered
        gone = place is not None and place.epoch is not None and place.epoch != self._hello.get("epoch")
        if cursor > 0 and not gone:  # else it is a cursor of a log that is gone
            self._acked = max(self._acked, cursor)
            self._link.send({"type": "ack", "cursor": self._acked})

    def presence(self, status: str, data: Any = None) -> None:
        """Tells others in the session how we are. Not stored; dropped while there is no connection."""
        frame: Frame = {"type": "presence", "status": status}
        if data is not None:
            frame["data"] = data
        check_frame(frame)
        self._link.send(frame)

    def typing(self) -> None:
        """Tells others that we type. Not stored; dropped while there is no connection."""
        self._link.send({"type": "typing"})

    async def commit(self) -> None:
        """Stores that everything handed out so far is done with."""
        self._commit()
        if self._saver is not None:
            await asyncio.shield(self._saver)

    async def leave(self) -> None:
        """Leaves the session (it stays on the gateway) and closes."""
        if self._link.ready:
            try:
                await self._request({"type": "leave"}, ("left",), repeat=False)
            except EbbgateError:
                pass
        await self.close()

    async def close(self, *, commit: bool = True) -> None:
        """Closes. What was handed out counts as delivered, unless ``commit`` is False."""
        if commit:
            self._commit()
        self._link.end(None)
        if self._link.task is not None and self._link.task is not asyncio.current_task():
            await asyncio.wait({self._link.task})
        if self._saver is not None:
            await asyncio.shield(self._saver)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        self._commit()
        future: "asyncio.Future[Optional[Event]]" = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._serve()
        try:
            event = await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.done():
                future.cancel()
            elif future.exception() is None and future.result() is not None:
                self._queue.appendleft((future.result(), self._handed))  # nobody saw it
                self._handed = None
            raise
        if event is None:
            raise StopAsyncIteration
        return event

    # What the link calls.

    def hello_fields(self) -> Frame:
        hello: Frame = {"agent_id": self.agent, "capabilities": self.capabilities}
        self._asked = None
        if self.id is not None:
            hello["session_id"] = self.id
            if self._create:
                hello["create"] = True
            if self._seen is not None:
                self._asked = self._seen
                if self.epoch is not None:
                    hello["epoch"] = self.epoch
            elif self._from != "now":
                self._asked = 0 if self._from == "start" else self._from
        if self._asked is not None:
            hello["since"] = self._asked
        return hello

    def on_ready(self, hello: Frame) -> None:
        self.id = hello.get("session_id") or self.id
        self._hello = hello
        self._resyncing = bool(hello.get("resync_required"))
        if self._resyncing:
            self._caught_up = False
            if hello.get("resync_reason") != "trimmed":
                self._forget_log()
            self._tell(
                "resync",
                {
                    "reason": hello.get("resync_reason"),
                    "from": self._seen,
                    "oldest_cursor": hello.get("oldest_cursor"),
                    "cursor": hello.get("cursor"),
                },
            )
        else:
            self.epoch = hello.get("epoch")
            head = hello.get("cursor") or 0
            if not isinstance(self._asked, int) or self._seen is None:
                sequence = hello.get("sequence")
                self._seen = sequence if isinstance(sequence, int) else (head if hello.get("resumed") else 0)
            self._caught_up = self._asked is None or not hello.get("resumed") or head <= self._seen
            if self._delivered is None:
                self._delivered = Place(self.epoch, self._seen)
        self._save()
        self.on_status({"state": "open" if self._caught_up else "replaying", "hello": hello})
        for request in self._requests:
            self._link.send(request.frame)
        if self._acked:
            self._link.send({"type": "ack", "cursor": self._acked})
        if self._caught_up:
            self._outbox.up((hello.get("policy") or {}).get("max_payload"))
        if not self._opened.done():
            self._opened.set_result(None)

    def _forget_log(self) -> None:
        """The log is another one: its cursors and turns are not those that we spoke of."""
        self._acked = 0
        self._drop_requests(lambda request: "turn" in request.frame)

    def on_frame(self, frame: Frame) -> None:
        kind = frame.get("type")
        if kind == "replay":
            event = (frame.get("event") or {}).get("data")
            if isinstance(event, dict):
                self._take(event)
        elif kind == "replay_end":
            if self._reach(frame.get("cursor")):
                self._catch_up()
        elif kind == "snapshot":
            self._restart(frame)
        elif kind == "pong":
            if self._caught_up:
                self._reach(frame.get("cursor"))
        elif kind == "error":
            self._refused(frame)
        elif kind == "response" and frame.get("status") == "accepted":
            self._accepted(frame)
        else:
            for request in self._requests:
                if kind in request.answers:
                    self._requests.remove(request)
                    if not request.future.done():
                        request.future.set_result(frame)
                    return
            if kind not in CONTROL:
                self._take(frame)

    def on_down(self, out: Outcome) -> None:
        flying = self._outbox.flying()
        self._outbox.down()
        if out.code == 1009:
            for message_id in flying:
                text = "the gateway closed on this message: too long"
                self._outbox.refuse(
                    message_id, EbbgateError("payload_too_large", text, ref=message_id, close_code=1009)
                )
        self._caught_up = False
        self._overflow = False
        self._drop_requests(lambda request: not request.repeat)
        if self._saw_end:
            self._link.end(None)

    def on_end(self, error: Optional[EbbgateError]) -> None:
        self._failure = error
        reason = error or self._closed_error()
        self._outbox.end(reason)
        for request in self._requests:
            request.fail(reason)
        self._requests.clear()
        if not self._opened.done():
            self._opened.set_exception(reason)
            self._opened.exception()
        self._serve()

    def on_error(self, error: EbbgateError) -> None:
        self._tell("error", error)

    def on_status(self, status: Dict[str, Any]) -> None:
        self.state = str(status["state"])
        self._tell("status", status)

    # The log.

    def _take(self, event: Event) -> None:
        """One event of the log, live or replayed, or one that is not stored (without a cursor)."""
        if event.get("type") == "session_end":
            self._saw_end = True
        data = event.get("data")
        is_message = event.get("type") == "message" and isinstance(data, dict)
        message_id = data.get("message_id") if is_message and isinstance(data, dict) else None
        own = message_id is not None and message_id in self._outbox.mine
        cursor = event.get("cursor")
        if not isinstance(cursor, int):
            if not self._overflow and len(self._queue) < self._max_queued:
                self._enqueue(event, None)
            return
        if own:
            self._outbox.settle(message_id, cursor, event.get("turn", cursor), True)
        if self._resyncing or self._seen is None or cursor <= self._seen or not self._in_order(cursor):
            return
        if self._overflow or len(self._queue) >= self._max_queued:
            self._overflow = True  # the gateway's log keeps it: it is asked for again when there is room
            return
        self._seen = cursor
        self._enqueue({**event, "own": True} if own else event, cursor)

    def _in_order(self, following: int) -> bool:
        """Whether nothing is missing before it. If something is, a new connection fetches it, once."""
        assert self._seen is not None
        if "streaming" not in self.capabilities or self._overflow or following == self._seen + 1:
            return True
        again = self._healed == self._seen
        action = "accepted" if again else "replay"
        self._tell("gap", {"expected": self._seen + 1, "next": following, "action": action})
        if again:
            return True
        self._healed = self._seen
        self._link.bounce("gap")
        return False

    def _reach(self, cursor: Any) -> bool:
        """The gateway says that this connection is complete up to ``cursor``."""
        if not isinstance(cursor, int) or self._resyncing or self._overflow or self._seen is None:
            return True
        if cursor <= self._seen:
            return True
        if not self._in_order(cursor + 1):
            return False
        self._seen = cursor
        self._enqueue(None, cursor)
        return True

    def _catch_up(self) -> None:
        if self._caught_up:
            return
        self._caught_up = True
        self.on_status({"state": "open", "hello": self._hello})
        self._outbox.up((self._hello.get("policy") or {}).get("max_payload"))

    def _restart(self, frame: Frame) -> None:
        """A snapshot takes the place of what the log no longer has."""
        state = frame.get("state") or {}
        if self._resyncing:
            self.epoch = self._hello.get("epoch")
        self._resyncing = False
        self._healed = None
        at = state.get("event_cursor")
        self._seen = at if isinstance(at, int) else int(self._hello.get("cursor") or 0)
        for event in state.get("messages") or ():
            if isinstance(event, dict) and event.get("type") == "message":
                message_id = (event.get("data") or {}).get("message_id")
                cursor = event.get("cursor")
                self._outbox.settle(message_id, cursor, event.get("turn", cursor), True)
        self._enqueue({"type": "snapshot", "session_id": self.id, "state": state}, self._seen)
        self._catch_up()

    def _accepted(self, frame: Frame) -> None:
        cursor, turn = frame.get("cursor"), frame.get("turn")
        duplicate = frame.get("duplicate") is True
        sent = self._outbox.settle(frame.get("message_id"), cursor, turn, duplicate)
        if duplicate or not isinstance(cursor, int) or self._seen is None or cursor <= self._seen:
            return
        if sent is None:
            self._in_order(cursor + 1)
            return
        data = {name: sent[name] for name in ("content", "message_id", "metadata") if name in sent}
        self._take(
            {"type": "message", "session_id": self.id, "cursor": cursor, "seq": cursor, "turn": turn, "data": data}
        )

    def _refused(self, frame: Frame) -> None:
        if self._outbox.failed(frame):
            if frame.get("code") == "not_joined":
                self._link.bounce("not joined")
            return
        error = error_from_frame(frame)
        if error.code == "session_closed":
            self._link.end(error)
        elif error.ref is None and self._requests:
            self._requests.pop(0).fail(error)
        else:
            self._tell("error", error)

    # The queue between the connection and the application.

    def _enqueue(self, event: Optional[Event], cursor: Optional[int]) -> None:
        self._queue.append((event, None if cursor is None else Place(self.epoch, cursor)))
        self._serve()

    def _serve(self) -> None:
        while self._queue:
            while self._waiting and self._waiting[0].done():  # its reader was cancelled
                self._waiting.popleft()
            event, place = self._queue[0]
            if event is not None and not self._waiting:
                return
            self._queue.popleft()
            if event is None:
                self._passed(place)
                continue
            if place is not None:
                self._handed = place
            self._waiting.popleft().set_result(event)
        if self._overflow and self._link.ready and self._waiting:
            self._overflow = False
            self._link.bounce("room again")
        if self._link.ended:
            while self._waiting:
                future = self._waiting.popleft()
                if not future.done():
                    if self._failure is not None:
                        future.set_exception(self._failure)
                    else:
                        future.set_result(None)

    def _passed(self, place: Optional[Place]) -> None:
        """A position without an event for the application. It waits for what the application still holds."""
        if self._handed is not None:
            self._handed = place
        else:
            self._delivered = place
            self._save()

    def _commit(self) -> None:
        if self._handed is not None:
            self._delivered = self._handed
            self._handed = None
            self._save()

    # Helpers.

    async def _request(self, frame: Frame, answers: Tuple[str, ...], repeat: bool) -> Frame:
        if self._link.ended:
            raise self._closed_error()
        check_frame(frame)
        request = Request(frame, answers, repeat, asyncio.get_running_loop().create_future())
        if not self._link.send(frame) and not repeat:
            text = f"\"{frame['type']}\" needs a connection, and there is none now"
            raise EbbgateError("not_connected", text)
        self._requests.append(request)
        return await request.future

    def _drop_requests(self, which: Callable[[Request], bool]) -> None:
        """Gives up the requests that ``which`` names: whether they had an effect is not known."""
        for request in [item for item in self._requests if which(item)]:
            self._requests.remove(request)
            text = f"the connection broke before \"{request.frame['type']}\" was answered"
            request.fail(EbbgateError("connection_lost", text))

    def _later(self, delay: float, work: Callable[[], None]) -> None:
        async def wait() -> None:
            await self._link.pause(delay)
            if not self._link.ended:
                work()

        self._link.spawn(wait())

    def _save(self) -> "asyncio.Task[None]":
        """Stores place and outbox, as they are when its turn comes: saves are done one after the other.

        The task ends with the first save that begins after this call, whatever is to be saved later.
        """
        if self._saver is None or self._saver.done() or self._saving:
            self._saver = asyncio.ensure_future(self._save_after(self._saver))
            self._saving = False
        return self._saver

    async def _save_after(self, before: "Optional[asyncio.Task[None]]") -> None:
        if before is not None:
            await asyncio.wait({before})
        self._saving = True
        if self.id is None and not self._outbox.entries:
            return
        state: State = {
            "session_id": self.id,
            "epoch": self._delivered.epoch if self._delivered else None,
            "cursor": self._delivered.cursor if self._delivered else None,
            "outbox": self._outbox.snapshot(),
        }
        try:
            await settle(self.store.save(self.key, state))
        except Exception as error:
            self._tell("error", EbbgateError("store_failed", f"the session could not be stored: {error}"))

    def _closed_error(self) -> EbbgateError:
        if self._failure is not None:
            return self._failure
        if self._saw_end:
            return EbbgateError("session_closed", "the session was ended at the gateway")
        return EbbgateError("closed", "this session is closed")

    def _tell(self, name: str, value: Any) -> None:
        tell(f"on_{name}", self._callbacks.get(name), value)
