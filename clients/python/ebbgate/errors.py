"""What can go wrong, and what a close or a refusal means.

``judge`` is the whole reconnect policy in one pure function: it reads how a connection
ended and says whether to come back, and not before when.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional

Frame = Dict[str, Any]


class EbbgateError(Exception):
    """An error with a stable ``code``, the gateway's where it has one."""

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        next_step: Optional[str] = None,
        retry_after_seconds: Optional[float] = None,
        field: Optional[str] = None,
        ref: Optional[str] = None,
        required_scope: Optional[str] = None,
        close_code: Optional[int] = None,
        http_status: Optional[int] = None,
    ) -> None:
        super().__init__(message or code)
        self.code = code
        self.next_step = next_step
        self.retry_after_seconds = retry_after_seconds
        self.field = field
        self.ref = ref
        self.required_scope = required_scope
        self.close_code = close_code
        self.http_status = http_status

    def __repr__(self) -> str:
        return f"EbbgateError({self.code!r}, {str(self)!r})"


def error_from_frame(frame: Frame, close_code: Optional[int] = None) -> EbbgateError:
    """Makes an error of an ``error`` or ``hello_error`` frame."""
    return EbbgateError(
        str(frame.get("code", "unknown")),
        str(frame.get("message") or ""),
        next_step=frame.get("next_step") or frame.get("next"),
        retry_after_seconds=frame.get("retry_after_seconds"),
        field=frame.get("field"),
        ref=frame.get("ref"),
        required_scope=frame.get("required_scope"),
        close_code=close_code,
    )


#: Levels of objects and arrays in a frame, itself among them.
NESTING_MAX = 32
_UNSAYABLE = re.compile("[\0\ud800-\udfff]")


def plain_text(text: str) -> str:
    """The text with U+FFFD for what no frame may hold."""
    return _UNSAYABLE.sub("\ufffd", text)


def _check_value(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if _UNSAYABLE.search(value):
            raise EbbgateError("invalid_json", "a text holds U+0000 or half of a surrogate pair")
    elif isinstance(value, (dict, list)):
        if depth > NESTING_MAX:
            raise EbbgateError("invalid_json", f"nested more than {NESTING_MAX} deep")
        for item in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
            _check_value(item, depth + 1)


def check_frame(frame: Frame, max_payload: Any = None) -> Frame:
    """Refuses what the gateway would, and could not say which frame it was: that frame would wait for ever.

    Gives a copy: a frame that is sent once more must not have changed with what the application gave.
    """
    try:
        text = json.dumps(frame, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise EbbgateError("invalid_json", str(error)) from None
    copy: Frame = json.loads(text)
    _check_value(copy, 1)
    size = len(text.encode())
    if isinstance(max_payload, int) and 0 < max_payload < size:
        raise EbbgateError("payload_too_large", f"the frame has {size} bytes, the gateway takes {max_payload}")
    return copy


def check_id(name: str, value: Any) -> None:
    """Refuses an id the gateway would; its refusal could not name the frame."""
    if not isinstance(value, str) or not 1 <= len(value.encode("utf-8", "surrogatepass")) <= 128:
        raise EbbgateError("invalid_request", f"{name}: must be a text of 1 to 128 bytes", field=name)


#: Publish errors that say "not now": the same id is sent again later.
RETRYABLE = frozenset({"rate_limited", "queue_full", "storage_unavailable", "internal", "not_joined"})

#: Seconds to stay away when the gateway complained about our behaviour but named no time.
COOL_DOWN_SECONDS = 5.0
#: Closed for what we sent: the same bytes would be refused again.
OUR_FAULT = frozenset({1002, 1003, 1007, 1008, 1010})
COOL_DOWN = frozenset({4008, 4028, 4029})


@dataclass
class Outcome:
    """How a connection ended."""

    code: int = 1006
    reason: str = ""
    refusal: Optional[Frame] = None
    http_status: Optional[int] = None
    retry_after: Any = None
    reconnect_ms: Any = None


@dataclass
class Verdict:
    """What to do now: ``action`` is ``retry``, ``reauth`` or ``stop``; ``floor`` is in seconds."""

    action: str
    floor: float
    error: EbbgateError


def seconds(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if 0 < number < float("inf") else 0.0


def _judge_refusal(refusal: Frame, close_code: int) -> Verdict:
    error = error_from_frame(refusal, close_code)
    floor = seconds(refusal.get("retry_after_seconds"))
    if error.next_step == "wait_then_retry":
        return Verdict("retry", floor, error)
    if error.next_step == "reauthenticate":
        return Verdict("reauth", floor, error)
    if error.next_step in ("do_not_retry", "upgrade_client", "downgrade_client"):
        return Verdict("stop", 0.0, error)
    return Verdict("stop" if close_code == 4003 else "retry", floor, error)


def _judge_http(status: int, retry_after: Any) -> Verdict:
    error = EbbgateError(
        f"http_{status}", f"the gateway answered the upgrade with HTTP {status}", http_status=status
    )
    if status == 401:
        return Verdict("reauth", 0.0, error)
    if 400 <= status < 500 and status not in (408, 425, 429):
        return Verdict("stop", 0.0, error)
    return Verdict("retry", seconds(retry_after), error)


def judge(out: Outcome) -> Verdict:
    """How to go on after a connection ended."""
    if out.refusal is not None:
        return _judge_refusal(out.refusal, out.code)
    if out.http_status is not None:
        return _judge_http(out.http_status, out.retry_after)

    def say(name: str) -> EbbgateError:
        text = out.reason or f"the connection closed with code {out.code}"
        return EbbgateError(name, text, close_code=out.code)

    if out.code == 4001:
        return Verdict("reauth", 0.0, say("credentials_expired"))
    if out.code == 4003:
        return Verdict("stop", 0.0, say("handshake_refused"))
    if out.code in OUR_FAULT:
        return Verdict("stop", 0.0, say("protocol_error"))
    told = seconds(out.reconnect_ms) / 1000
    floor = told or (COOL_DOWN_SECONDS if out.code in COOL_DOWN else 0.0)
    return Verdict("retry", floor, say("connection_lost"))


def tell(name: str, callback: Optional[Callable[[Any], Any]], value: Any) -> None:
    """Calls one of the application's callbacks. A mistake in it is reported, and stops nothing of ours."""
    if callback is None:
        return
    try:
        callback(value)
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler({"message": f"{name} raised", "exception": error})
