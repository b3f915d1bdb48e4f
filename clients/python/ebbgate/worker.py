"""Serving an agent: turns in, streamed answers out.

A run is one turn being worked on. It outlives connections: when the connection breaks (or
the gateway restarts) the handler goes on, what it emits waits, and when the gateway hands
the same turn out again to this process, the run is picked up where it was: what was not
confirmed is sent again with the same event_id, so it is in the log once. A turn that went
to another worker meanwhile is given up after ``reattach`` seconds.
"""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Tuple

from .backoff import Backoff, Retry
from .errors import RETRYABLE, EbbgateError, Frame, Outcome, check_frame, check_id, error_from_frame, plain_text, seconds, tell
from .link import Link, Sleep, Token
from .session import Page

#: Finished turns whose final was not confirmed are kept, to be told again if asked.
KEPT_FINISHED = 256

Key = Tuple[str, int]


class Final:
    """Yield this to say how the turn ends: ``yield Final("text", {"status": "rejected"})``."""

    def __init__(self, content: Any = "", outcome: Optional[Dict[str, Any]] = None) -> None:
        self.content = "" if content is None else content
        self.outcome = outcome


class Emit:
    """Yield this for an event other than text, or to choose the event's id."""

    def __init__(
        self, event: str, data: Any = None, *, id: Optional[str] = None, ephemeral: bool = False
    ) -> None:
        self.event = event
        self.data = {} if data is None else data
        self.id = id
        self.ephemeral = ephemeral


class TurnFailed(Exception):
    """Raise this to fail an attempt: ``retry=False`` gives the turn up. Other errors are plain failures."""

    def __init__(
        self, message: str, *, retry: Optional[bool] = None, retry_after_seconds: Optional[float] = None
    ) -> None:
        super().__init__(message)
        self.retry = retry
        self.retry_after_seconds = retry_after_seconds


class Turn:
    """One message to answer."""

    def __init__(self, run: "Run", frame: Frame) -> None:
        self._run = run
        self.session_id: str = frame["session_id"]
        self.turn: int = frame["turn"]
        self.message: Frame = frame.get("message") or {}
        data = self.message.get("data") or {}
        self.content: Any = data.get("content")
        self.metadata: Any = data.get("metadata")
        self.history_cursor: Optional[int] = frame.get("history_cursor")
        self.traceparent: Optional[str] = frame.get("traceparent")

    @property
    def attempt(self) -> int:
        """1 for the first; it rises when the gateway hands the turn out again."""
        return self._run.attempt

    @property
    def aborted(self) -> bool:
        """Whether the turn was stopped. The handler is also cancelled, so few need to look."""
        return self._run.cancelled is not None

    async def emit(
        self, event: str, data: Any, *, id: Optional[str] = None, ephemeral: bool = False
    ) -> None:
        """Appends a stream event; returns when there is room for the next."""
        await self._run.emit(event, data, id, ephemeral)

    async def history(
        self, *, since: Optional[int] = None, before: Optional[int] = None, limit: Optional[int] = None
    ) -> Page:
        """A page of the session's log."""
        return await self._run.server.history(self.session_id, since=since, before=before, limit=limit)


Handler = Callable[[Turn], Any]


class Run:
    def __init__(self, server: "AgentServer", frame: Frame) -> None:
        self.server = server
        self.key: Key = (frame["session_id"], frame["turn"])
        # How its frames name the turn. A session begun anew under an old id has the same numbers, but not the epoch.
        self.name: Frame = {name: frame[name] for name in ("session_id", "turn", "epoch") if name in frame}
        self.attempt: int = frame.get("attempt", 1)
        self.run_id = str(uuid.uuid4())
        self.count = 0
        self.text = ""
        self.retold = False
        self.unconfirmed: "OrderedDict[str, Frame]" = OrderedDict()
        self.ending: Optional[Frame] = None
        self.attached = True
        self.active = False
        self.holding = False
        self.cancelled: Optional[EbbgateError] = None
        self.task: Optional["asyncio.Task[None]"] = None
        self.turn = Turn(self, frame)
        self._room = asyncio.Event()

    @property
    def over(self) -> bool:
        return self.ending is not None or self.cancelled is not None

    async def emit(self, event: str, data: Any, id: Optional[str] = None, ephemeral: bool = False) -> None:
        if self.over:
            raise self.cancelled or EbbgateError("turn_closed", "this turn is over")
        frame: Frame = {
            "type": "emit",
            **self.name,
            "event": event,
            "data": data,
        }
        if ephemeral:
            frame["ephemeral"] = True
            check_frame(frame, self.server.max_payload)
            self.transmit(frame)
            return
        event_id = f"{self.run_id}.{self.count + 1}" if id is None else id
        check_id("id", event_id)
        frame["event_id"] = event_id
        frame = check_frame(frame, self.server.max_payload)
        self.count += 1
        self.unconfirmed[event_id] = frame
        self.transmit(frame)
        while len(self.unconfirmed) >= self.server.emit_window and not self.over:
            self._room.clear()
            await self._room.wait()

    def transmit(self, frame: Frame) -> None:
        if self.attached and not self.holding:
            self.active = True
            self.server.link.send(frame)

    def reattach(self, attempt: int) -> None:
        """The gateway handed this turn to us once more."""
        self.attempt = attempt
        self.attached = True
        self.repeat()

    def repeat(self) -> None:
        for frame in self.unconfirmed.values():
            self.transmit(frame)
        if self.ending is not None:
            self.transmit(self.ending)

    def confirmed(self, event_id: Any) -> None:
        if self.ending is not None and self.ending.get("event_id") == event_id:
            self.server.kept.pop(self.key, None)
            return
        self.unconfirmed.pop(event_id, None)
        self.server.backoff.reset()
        self._room.set()

    def hold(self, floor: float) -> None:
        """One frame was refused for now: everything unconfirmed is sent again later, in order."""
        if self.holding:
            return
        self.holding = True

        def resume() -> None:
            self.holding = False
            self.repeat()

        self.server.later(self.server.backoff.next(floor), resume)

    def end(self, frame: Frame) -> None:
        if self.ending is not None:
            return
        self.ending = {**self.name, **frame}
        if frame["type"] == "final":
            self.ending["event_id"] = f"{self.run_id}.final"
        self.transmit(self.ending)
        self._room.set()
        self.server.finished(self)

    def cancel(self, error: EbbgateError) -> None:
        """Stops the handler; what is told to the gateway was said before."""
        if self.cancelled is not None:
            return
        self.cancelled = error
        self._room.set()
        if self.task is not None:
            self.task.cancel()


def _lease_share(hello: Frame) -> float:
    """A third of the lease the gateway tells, in seconds: two extends may be late."""
    lease = seconds((hello.get("policy") or {}).get("turn_lease_ms")) / 1000
    return lease / 3 if lease else 20.0


async def _drive(run: Run, handler: Handler) -> Final:
    made = handler(run.turn)
    if not hasattr(made, "__aiter__"):
        value = await made if inspect.isawaitable(made) else made
        return value if isinstance(value, Final) else Final(value)
    try:
        async for value in made:
            if isinstance(value, Final):
                return value
            await _emit_value(run, value)
    finally:
        close = getattr(made, "aclose", None)
        if close is not None:
            await close()
    return Final(run.text)


async def _emit_value(run: Run, value: Any) -> None:
    """A yielded value becomes an event: text is a token, an Emit names its event."""
    if isinstance(value, str):
        value = Emit("token_stream", {"content": value}) if value else None
    if value is None:
        return
    if not isinstance(value, Emit):
        raise TypeError("an agent yields text, Emit(...) or Final(...)")
    if run.count == 0 and run.attempt > 1 and not run.retold and value.id is None:
        run.retold = True
        await run.emit("retry_stream", {"attempt": run.attempt})
    if value.event == "token_stream" and isinstance(value.data, dict):
        run.text += str(value.data.get("content", ""))
    await run.emit(value.event, value.data, value.id, value.ephemeral)


class AgentServer:
    """Serves one agent until stopped. Use :class:`ebbgate.Agent`."""

    def __init__(
        self,
        agent_id: str,
        handler: Handler,
        url: str,
        *,
        token: Optional[Token] = None,
        concurrency: int = 1,
        emit_window: int = 32,
        extend_every: Optional[float] = None,
        reattach: float = 30.0,
        retry: Optional[Retry] = None,
        handshake_timeout: float = 10.0,
        client_name: str = "ebbgate-python-agent",
        on_status: Optional[Callable[[Dict[str, Any]], Any]] = None,
        on_error: Optional[Callable[[Exception], Any]] = None,
        sleep: Optional[Sleep] = None,
    ) -> None:
        self.agent_id = agent_id
        self.worker_id: Optional[str] = None
        self.max_payload: Any = None
        self.emit_window = emit_window
        self.runs: Dict[Key, Run] = {}
        self.kept: "OrderedDict[Key, Run]" = OrderedDict()
        self.backoff = Backoff(retry)
        self._handler = handler
        self._concurrency = concurrency
        self._extend_every = extend_every
        self._reattach = reattach
        self._on_status = on_status
        self._on_error = on_error
        self._requests: List[Tuple[Frame, "asyncio.Future[Frame]"]] = []
        self._publishing: Dict[str, Tuple[Frame, "asyncio.Future[int]"]] = {}
        self._draining = False
        self._connections = 0
        self._extender: Optional["asyncio.Task[None]"] = None
        loop = asyncio.get_running_loop()
        self._ready: "asyncio.Future[None]" = loop.create_future()
        self._closed: "asyncio.Future[None]" = loop.create_future()
        self.link = Link(
            url,
            self,
            token=token,
            retry=retry,
            sleep=sleep,
            handshake_timeout=handshake_timeout,
            client_name=client_name,
        )
        self.link.start()

    async def ready(self) -> None:
        """Returns when the gateway first accepted this worker."""
        await asyncio.shield(self._ready)

    async def closed(self) -> None:
        """Returns when the worker stopped; raises if the gateway refused it for good."""
        await asyncio.shield(self._closed)

    async def publish(self, session_id: str, event: str, data: Any, *, id: Optional[str] = None) -> int:
        """An event outside a turn; gives its cursor when it is on disk."""
        if self.link.ended:
            raise EbbgateError("closed", "this agent is stopped")
        event_id = str(uuid.uuid4()) if id is None else id
        check_id("id", event_id)
        frame: Frame = {
            "type": "publish",
            "session_id": session_id,
            "event": event,
            "data": data,
            "event_id": event_id,
        }
        future: "asyncio.Future[int]" = asyncio.get_running_loop().create_future()
        frame = check_frame(frame, self.max_payload)
        self._publishing[event_id] = (frame, future)
        self.link.send(frame)
        return await asyncio.shield(future)

    async def history(
        self,
        session_id: str,
        *,
        since: Optional[int] = None,
        before: Optional[int] = None,
        limit: Optional[int] = None,
    ) -> Page:
        frame: Frame = {"type": "history", "session_id": session_id}
        for name, value in (("since", since), ("before", before), ("limit", limit)):
            if value is not None:
                frame[name] = value
        if self.link.ended:
            raise EbbgateError("closed", "this agent is stopped")
        check_frame(frame)
        future: "asyncio.Future[Frame]" = asyncio.get_running_loop().create_future()
        self._requests.append((frame, future))
        self.link.send(frame)
        answer = await asyncio.shield(future)
        return Page(answer["events"], answer.get("oldest_cursor"), answer.get("cursor"))

    async def stop(self, *, timeout: float = 30.0) -> None:
        """Takes no new turns, lets running ones end (at most ``timeout`` seconds), then closes."""
        self._draining = True
        running = [run.task for run in self.runs.values() if run.attached and run.task is not None]
        if running:
            await asyncio.wait(running, timeout=timeout)
        self.link.end(None)
        if self.link.task is not None:
            await asyncio.wait({self.link.task})

    def later(self, delay: float, work: Callable[[], None]) -> None:
        async def wait() -> None:
            await self.link.pause(delay)
            if not self.link.ended:
                work()

        self.link.spawn(wait())

    # What the link calls.

    def hello_fields(self) -> Frame:
        return {
            "agent_id": self.agent_id,
            "role": "agent",
            "concurrency": self._concurrency,
            "capabilities": ["ack"],
        }

    def on_ready(self, hello: Frame) -> None:
        self.worker_id = hello.get("worker_id")
        self._connections += 1
        if self._extender is not None:
            self._extender.cancel()
        self._extender = asyncio.ensure_future(self._extend(self._extend_every or _lease_share(hello)))
        policy = hello.get("policy") or {}
        self.max_payload = policy.get("max_payload")
        for event_id, (frame, future) in list(self._publishing.items()):
            try:
                check_frame(frame, self.max_payload)
                self.link.send(frame)
            except EbbgateError as error:  # from before the gateway told its limit
                del self._publishing[event_id]
                if not future.done():
                    future.set_exception(error)
                    future.exception()
        for request, _ in self._requests:
            self.link.send(request)
        detached = [run for run in self.runs.values() if not run.attached]
        if detached:
            self.link.spawn(self._give_up_later(detached, self._connections))
        if not self._ready.done():
            self._ready.set_result(None)

    async def _give_up_later(self, runs: List[Run], connection: int) -> None:
        await asyncio.sleep(self._reattach)
        if not self.link.ready or self._connections != connection:
            return  # that connection is gone too; the next one gives them the whole time again
        for run in runs:
            if not run.attached and self.runs.get(run.key) is run:
                self._lose(run, EbbgateError("turn_closed", "the turn went to another worker"))

    def on_frame(self, frame: Frame) -> None:
        kind = frame.get("type")
        if kind == "turn":
            self._take_turn(frame)
        elif kind == "abort":
            run = self.runs.get((str(frame.get("session_id")), int(frame.get("turn") or 0)))
            if run is not None:
                self._abort(run, str(frame.get("reason") or "aborted"))
        elif kind == "emitted":
            self._emitted(frame)
        elif kind == "history":
            if self._requests:
                _, future = self._requests.pop(0)
                if not future.done():
                    future.set_result(frame)
        elif kind == "error":
            self._refused(frame)

    def on_down(self, out: Outcome) -> None:
        for run in [*self.runs.values(), *self.kept.values()]:
            run.attached = False

    def on_end(self, error: Optional[EbbgateError]) -> None:
        if self._extender is not None:
            self._extender.cancel()
        reason = error or EbbgateError("closed", "this agent is stopped")
        for run in list(self.runs.values()):
            self._lose(run, reason)
        waiting: List["asyncio.Future[Any]"] = [future for _, future in self._requests]
        waiting += [future for _, future in self._publishing.values()]
        self._requests.clear()
        self._publishing.clear()
        for future in [*waiting, self._ready]:
            if not future.done():
                future.set_exception(reason)
                future.exception()
        if error is not None:
            self._closed.set_exception(error)
            self._closed.exception()
        else:
            self._closed.set_result(None)

    def on_error(self, error: Exception) -> None:
        tell("on_error", self._on_error, error)

    def on_status(self, status: Dict[str, Any]) -> None:
        tell("on_status", self._on_status, status)

    # Turns.

    def _take_turn(self, frame: Frame) -> None:
        key: Key = (frame["session_id"], frame["turn"])
        known = self.runs.get(key) or self.kept.get(key)
        if known is not None:
            if known.turn.message.get("event_id") == (frame.get("message") or {}).get("event_id"):
                known.reattach(frame.get("attempt", known.attempt))
                return
            # Another message under an old number: the log was restored from a backup, or begun anew under the same id.
            self._lose(known, EbbgateError("turn_closed", "the message of this turn is gone"))
        if self._draining:
            return  # not begun, so the gateway gives it to another when we close
        run = self.runs[key] = Run(self, frame)
        run.task = asyncio.ensure_future(self._work(run))

    async def _work(self, run: Run) -> None:
        try:
            final = await _drive(run, self._handler)
            frame: Frame = {"type": "final", "content": final.content, "outcome": final.outcome or {"status": "ok"}}
            named = {**run.name, "event_id": f"{run.run_id}.final"}
            frame = check_frame({**frame, **named}, self.max_payload)
            if run.cancelled is None:
                run.end(frame)
        except asyncio.CancelledError:
            if run.cancelled is None:  # by somebody else: something the handler waited for, or the end of the program
                self._failed(run, EbbgateError("cancelled", "the handler was cancelled"))
                raise
        except Exception as error:
            if run.cancelled is None:
                self._failed(run, error)

    def _abort(self, run: Run, reason: str) -> None:
        run.end({"type": "final", "content": run.text, "outcome": {"status": "aborted", "reason": reason}})
        run.cancel(EbbgateError("aborted", reason))

    def _failed(self, run: Run, error: Exception) -> None:
        self.on_error(error)
        frame: Frame = {"type": "fail", "error": plain_text(str(error)) or type(error).__name__}
        if isinstance(error, TurnFailed):
            if error.retry is not None:
                frame["retry"] = error.retry
            if error.retry_after_seconds is not None:
                frame["retry_after_seconds"] = error.retry_after_seconds
        run.end(frame)

    def finished(self, run: Run) -> None:
        self.runs.pop(run.key, None)
        if run.ending is not None and run.ending["type"] == "fail":
            return  # a lost fail is told by the turn coming again
        self.kept[run.key] = run
        if len(self.kept) > KEPT_FINISHED:
            self.kept.popitem(last=False)

    def _lose(self, run: Run, error: EbbgateError) -> None:
        self.runs.pop(run.key, None)
        self.kept.pop(run.key, None)
        run.attached = False
        run.cancel(error)

    def _owner(self, frame: Frame) -> Optional[Run]:
        named = (frame.get("session_id"), frame.get("turn"))
        event_id = frame.get("ref") or frame.get("event_id")
        for run in [*self.runs.values(), *self.kept.values()]:
            if run.key == named:
                return run
            if event_id is not None:
                if event_id in run.unconfirmed or (run.ending or {}).get("event_id") == event_id:
                    return run
        return None

    def _emitted(self, frame: Frame) -> None:
        event_id = frame.get("event_id")
        published = self._publishing.pop(str(event_id), None)
        if published is not None:
            if not published[1].done():
                published[1].set_result(int(frame.get("cursor") or 0))
            return
        run = self._owner(frame)
        if run is not None:
            run.confirmed(event_id)

    def _refused(self, frame: Frame) -> None:
        error = error_from_frame(frame)
        floor = seconds(frame.get("retry_after_seconds"))
        published = self._publishing.get(str(frame.get("ref")))
        if published is not None:
            if error.code in RETRYABLE:
                self.later(self.backoff.next(floor), lambda: self._publish_again(str(frame.get("ref"))))
            else:
                del self._publishing[str(frame.get("ref"))]
                if not published[1].done():
                    published[1].set_exception(error)
            return
        run = self._owner(frame)
        if run is None:
            if error.ref is None and self._requests:
                _, future = self._requests.pop(0)
                if not future.done():
                    future.set_exception(error)
            self.on_error(error)
        elif error.code == "turn_closed":
            self._lose(run, error)
        elif error.code in RETRYABLE:
            run.hold(floor)
        else:
            self._rejected(run, error)

    def _publish_again(self, event_id: str) -> None:
        published = self._publishing.get(event_id)
        if published is not None:
            self.link.send(published[0])

    def _rejected(self, run: Run, error: EbbgateError) -> None:
        """The gateway will never take this frame: the turn cannot go on as its handler meant it."""
        self.on_error(error)
        run.unconfirmed.pop(str(error.ref), None)
        self.kept.pop(run.key, None)
        run.ending = None
        run.end({"type": "fail", "error": f"{error.code}: {error}", "retry": False})
        run.cancel(error)

    async def _extend(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            for run in self.runs.values():
                if run.attached and not run.active:
                    self.link.send({"type": "extend", **run.name})
                run.active = False
