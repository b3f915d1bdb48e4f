"""One lasting connection: open, hello, keep alive, and come back after a loss.

Owns the socket, the token, the backoff and the timers. What is said over the connection
belongs to the owner (a session or an agent server), see ``Owner``. A frame is handled
whole before the next one; nothing is called after ``on_end``.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Awaitable, Callable, Dict, Optional, Protocol, Set, Union
from urllib.parse import urlsplit, urlunsplit

import websockets
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.version import version as websockets_version

from .backoff import Backoff, Retry
from .errors import EbbgateError, Frame, Outcome, error_from_frame, judge
from .stores import settle

VERSION = "0.1.0"
#: Refusals in a row after which fresh tokens are no longer tried.
MAX_REAUTH = 2
#: Parts of the heartbeat in which an answer to a ping is waited for.
SILENT_PARTS = 4
#: A replayed event is wrapped, so it may be longer than the gateway's max_payload.
MAX_FRAME = 64 * 1024 * 1024

Token = Union[str, Callable[[str], Union[str, Awaitable[str]]]]
Sleep = Callable[[float], Awaitable[Any]]


class Owner(Protocol):
    def hello_fields(self) -> Frame:
        """The fields of the next hello."""

    def on_ready(self, hello: Frame) -> None:
        """hello_ok arrived."""

    def on_frame(self, frame: Frame) -> None:
        """Any other frame that is not about the connection itself."""

    def on_down(self, out: Outcome) -> None:
        """The connection is gone; what was sent may or may not have arrived."""

    def on_end(self, error: Optional[EbbgateError]) -> None:
        """It will not come back."""

    def on_error(self, error: EbbgateError) -> None:
        """Something went wrong that changes nothing."""

    def on_status(self, status: Dict[str, Any]) -> None:
        """For display."""


def websocket_url(url: str) -> str:
    """``http(s)`` becomes ``ws(s)``, and a bare host gets the path ``/ws``."""
    try:
        parts = urlsplit(url)
        known = bool(parts.hostname) and parts.port != 0  # a port out of range raises
    except ValueError:
        known = False
    if not known:
        raise EbbgateError("bad_url", f"{url!r} is not a gateway's address")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss"):
        raise EbbgateError(
            "bad_url", f"a gateway's address starts with ws:, wss:, http: or https:, not {url!r}"
        )
    path = "/ws" if parts.path in ("", "/") else parts.path
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


class Link:
    def __init__(
        self,
        url: str,
        owner: Owner,
        *,
        token: Optional[Token] = None,
        retry: Optional[Retry] = None,
        sleep: Optional[Sleep] = None,
        handshake_timeout: float = 10.0,
        client_name: str = "ebbgate-python",
    ) -> None:
        self.url = websocket_url(url)
        # Version 15 takes proxies from the environment; one that stands elsewhere cannot reach a loopback of ours.
        past = int(websockets_version.split(".")[0]) >= 15 and is_loopback(self.url)
        self._proxy: Dict[str, Any] = {"proxy": None} if past else {}
        self.owner = owner
        self.given_token = token
        self.sleep: Sleep = sleep or asyncio.sleep
        self.backoff = Backoff(retry)
        self.handshake_timeout = handshake_timeout
        self.client_name = client_name
        self.ready = False
        self.ended = False
        self.task: Optional["asyncio.Task[None]"] = None
        self._token: Optional[str] = None
        self._token_reason = "connect"
        self._reauths = 0
        self._refreshing = False
        self._ws: Any = None
        self._outgoing: "asyncio.Queue[Optional[str]]" = asyncio.Queue()
        self._dropped: Optional[Outcome] = None
        self._bounced = False
        self._stop = asyncio.Event()
        self._last_inbound = 0.0
        self._pings = 0
        self._side_tasks: Set["asyncio.Task[Any]"] = set()

    def start(self) -> None:
        """Starts connecting; returns at once."""
        self.task = asyncio.ensure_future(self._run())

    def send(self, frame: Frame) -> bool:
        """Queues a frame when the handshake is done; says whether it did."""
        if not self.ready or self._dropped is not None:
            return False
        self._outgoing.put_nowait(json.dumps(frame, ensure_ascii=False, separators=(",", ":")))
        return True

    def bounce(self, why: str) -> None:
        """Drops this connection and opens another one at once."""
        if self._ws is not None and self._dropped is None:
            self._bounced = True
            self._drop(why, hard=False)

    def end(self, error: Optional[EbbgateError] = None) -> None:
        """Ends for good; ``error`` None: on purpose. Await ``task`` for the socket to be closed."""
        if self.ended:
            return
        self.ended = True
        self._stop.set()
        self._outgoing.put_nowait(None)
        if self.ready:
            self.ready = False
            self.owner.on_down(Outcome(1000, "closed here"))
        self.owner.on_status({"state": "closed", "error": error})
        self.owner.on_end(error)

    def spawn(self, work: Any) -> None:
        """Runs a coroutine beside this one, and keeps it from being collected."""
        task = asyncio.ensure_future(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    async def pause(self, delay: float) -> None:
        """Sleeps, or until the end."""
        sleeping = asyncio.ensure_future(self.sleep(delay))
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({sleeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            stopping.cancel()

    # The life of the connection.

    async def _run(self) -> None:
        try:
            while not self.ended:
                self.owner.on_status({"state": "connecting", "attempt": self.backoff.count})
                out = await self._attempt()
                if self.ended:
                    break
                delay = self._decide(out)
                if not self.ended and delay > 0:
                    await self.pause(delay)
        except asyncio.CancelledError:
            self.end(None)
            raise
        except Exception as error:  # a bug must not leave the application waiting for ever
            self.end(EbbgateError("internal_error", f"{type(error).__name__}: {error}"))

    def _decide(self, out: Outcome) -> float:
        """What follows from how a connection ended: seconds to wait, or the end."""
        if self._bounced:
            self._bounced = False
            return 0.0
        verdict = judge(out)
        if verdict.action == "stop":
            self.end(verdict.error)
            return 0.0
        if verdict.action == "reauth":
            self._reauths += 1
            if not callable(self.given_token) or self._reauths > MAX_REAUTH:
                self.end(verdict.error)
                return 0.0
            self._token = None
            self._token_reason = "refused"
        if self.backoff.exhausted:
            self.end(verdict.error)
            return 0.0
        if verdict.action == "reauth" and self._reauths == 1:
            return 0.0
        delay = self.backoff.next(verdict.floor)
        self.owner.on_status({"state": "waiting", "delay": delay, "error": verdict.error})
        return delay

    async def _fresh_token(self, reason: str) -> Optional[str]:
        given = self.given_token
        if given is None or isinstance(given, str):
            return given
        token = await settle(given(reason))
        if not isinstance(token, str) or not token:
            raise TypeError("the token function gave no token")
        return token

    async def _attempt(self) -> Outcome:
        """One connection from its opening to its end."""
        if self._token is None:
            try:
                self._token = await self._until_end(self._fresh_token(self._token_reason))
            except Exception as error:
                self.owner.on_error(EbbgateError("token_failed", f"no token to connect with: {error}"))
                return Outcome(1006, "no token to connect with")
            if self.ended:
                return Outcome(1000, "closed here")
        self._dropped = None
        self._outgoing = asyncio.Queue()
        try:
            ws = await self._until_end(self._open())
        except Exception as error:
            return _not_opened(error)
        if ws is None:
            return Outcome(1000, "closed here")
        self._ws = ws
        state = Outcome()
        writer = asyncio.ensure_future(self._write(ws))
        timer = asyncio.ensure_future(self._handshake_timer())
        try:
            out = await self._read(ws, state, timer)
        finally:
            timer.cancel()
            self._ws = None
            await self._close(ws, writer)
        return out

    async def _open(self) -> Any:
        connect: Any = getattr(websockets, "connect")  # loaded lazily by the package
        return await connect(
            self.url,
            open_timeout=self.handshake_timeout,
            close_timeout=1,
            ping_interval=None,
            max_size=MAX_FRAME,
            compression=None,
            **self._proxy,
        )

    async def _until_end(self, work: Awaitable[Any]) -> Any:
        """The result of ``work``, or None if the link ends first."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            stopping.cancel()

    async def _read(self, ws: Any, state: Outcome, timer: "asyncio.Task[None]") -> Outcome:
        self._outgoing.put_nowait(json.dumps(self._hello()))
        watcher: Optional["asyncio.Task[None]"] = None
        try:
            while not self.ended and self._dropped is None:
                data = await ws.recv()
                if self.ended or self._dropped is not None:
                    break
                was_ready = self.ready
                self._receive(data, state)
                if self.ready and not was_ready:
                    timer.cancel()
                    watcher = self._watch()
        except ConnectionClosed as closed:
            state.code = closed.rcvd.code if closed.rcvd is not None else 1006
            state.reason = closed.rcvd.reason if closed.rcvd is not None else ""
        finally:
            if watcher is not None:
                watcher.cancel()
            out = state
            if self._dropped is not None:
                out = Outcome(self._dropped.code, self._dropped.reason, refusal=state.refusal)
            self._refreshing = False
            if self.ready:
                self.ready = False
                self.owner.on_down(out)
        return out

    async def _write(self, ws: Any) -> None:
        """Sends what is queued, in order; None says goodbye."""
        try:
            while True:
                text = await self._outgoing.get()
                if text is None:
                    await ws.close(1000)
                    return
                await ws.send(text)
        except WebSocketException:
            pass  # the reader sees the end, and says why

    async def _close(self, ws: Any, writer: "asyncio.Task[None]") -> None:
        if self.ended:
            self._outgoing.put_nowait(None)
            await asyncio.wait({writer}, timeout=2)
        writer.cancel()
        try:
            await asyncio.wait_for(ws.close(1000), 2)
        except (asyncio.TimeoutError, WebSocketException):
            _abort(ws)

    def _drop(self, reason: str, hard: bool) -> None:
        ws = self._ws
        if ws is None or self._dropped is not None:
            return
        self._dropped = Outcome(1006, reason)
        if hard:
            _abort(ws)
        else:
            self.spawn(_quiet(ws.close(1000)))

    async def _handshake_timer(self) -> None:
        await asyncio.sleep(self.handshake_timeout)
        self._drop("no answer to hello", hard=True)

    def _hello(self) -> Frame:
        hello: Frame = {
            "type": "hello",
            "protocol_min": 1,
            "protocol_max": 1,
            "client": {"name": self.client_name, "version": VERSION},
        }
        hello.update(self.owner.hello_fields())
        if self._token is not None:
            hello["token"] = self._token
        return hello

    # Frames.

    def _receive(self, data: Any, state: Outcome) -> None:
        self._last_inbound = time.monotonic()
        try:
            frame = json.loads(data)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            self.owner.on_error(EbbgateError("bad_frame", "the gateway sent a frame that is not a JSON object"))
            return
        if not self.ready:
            self._handshake(frame, state)
            return
        self.backoff.reset()
        self._reauths = 0
        kind = frame.get("type")
        if kind == "ping":
            self.send({"type": "pong"})
        elif kind == "reconnect":
            state.reconnect_ms = frame.get("retry_after_ms")
        elif kind == "token_expiring":
            if callable(self.given_token) and not self._refreshing:
                self._refreshing = True
                self.spawn(self._refresh(self._ws))
        elif kind == "auth_ok":
            self._refreshing = False
        elif kind == "error" and self._refreshing and frame.get("code") == "auth_unauthorized":
            self._refreshing = False  # the old token stays in force until 4001
            self.owner.on_error(error_from_frame(frame))
        else:
            self.owner.on_frame(frame)

    def _handshake(self, frame: Frame, state: Outcome) -> None:
        kind = frame.get("type")
        if kind == "hello_ok":
            self.hello = frame
            self.ready = True
            self.owner.on_ready(frame)
        elif kind in ("hello_error", "error"):
            state.refusal = frame
            # The gateway closes with a code; should it not, we do not wait for it for long.
            self.spawn(self._drop_later(self._ws))
        elif kind == "reconnect":
            state.reconnect_ms = frame.get("retry_after_ms")

    async def _drop_later(self, ws: Any) -> None:
        await asyncio.sleep(min(1.0, self.handshake_timeout))
        if self._ws is ws:
            self._drop("refused", hard=True)

    def _watch(self) -> Optional["asyncio.Task[None]"]:
        heartbeat_ms = (self.hello.get("policy") or {}).get("heartbeat_ms")
        if not isinstance(heartbeat_ms, (int, float)) or heartbeat_ms <= 0:
            return None
        return asyncio.ensure_future(self._keep_alive(heartbeat_ms / 1000))

    async def _keep_alive(self, heartbeat: float) -> None:
        """Pings when the gateway is silent for a heartbeat, drops it when that is not answered in another.

        The other one is waited for in parts: when the loop was held up (a laptop that slept, a
        blocking call), what had arrived meanwhile is read before the next part is over.
        """
        pinged: Optional[float] = None
        parts = 0
        delay = heartbeat
        while True:
            await asyncio.sleep(delay)
            now = time.monotonic()
            if pinged is not None and self._last_inbound < pinged:
                parts += 1
                if parts == SILENT_PARTS:
                    self._drop("the gateway is silent", hard=True)
                    return
                continue
            pinged = None
            delay = heartbeat - (now - self._last_inbound)
            if delay <= 0:
                pinged = now
                parts = 0
                delay = heartbeat / SILENT_PARTS
                self._pings += 1
                self.send({"type": "ping", "id": str(self._pings)})

    async def _refresh(self, ws: Any) -> None:
        try:
            self._token = await self._fresh_token("expiring")
        except Exception as error:
            self._refreshing = False
            self.owner.on_error(EbbgateError("token_failed", f"no fresh token: {error}"))
            return
        if self._ws is ws:
            self.send({"type": "auth", "token": self._token})


def _abort(ws: Any) -> None:
    transport = getattr(ws, "transport", None)
    if transport is not None:
        transport.abort()


async def _quiet(work: Awaitable[Any]) -> None:
    try:
        await work
    except (WebSocketException, OSError):
        pass


def _not_opened(error: Exception) -> Outcome:
    """Why no connection came about; both generations of ``websockets`` name the status differently."""
    status = getattr(error, "status_code", None)
    headers = getattr(error, "headers", None)
    response = getattr(error, "response", None)
    if response is not None:
        status, headers = response.status_code, response.headers
    out = Outcome(1006, f"{type(error).__name__}: {error}".rstrip(": "))
    if isinstance(status, int):
        out.http_status = status
        told = headers.get_all("Retry-After") if headers is not None else []
        out.retry_after = told[0] if told else None  # the gateway and a proxy may each give one
    return out
