"""Streamed text, joined.

A gateway's log has an answer as many ``token_stream`` events and one final ``response``;
people want a text that grows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, AsyncIterator, Dict, List, Optional

from .errors import EbbgateError, Frame

if TYPE_CHECKING:
    from .session import Session


def text_of(event: Frame) -> str:
    """The text of a ``token_stream`` event; '' where there is none."""
    data = event.get("data")
    if isinstance(data, str):
        return data
    if isinstance(data, dict):
        for name in ("content", "text", "token", "delta"):
            if isinstance(data.get(name), str):
                return str(data[name])
    return ""


def is_final(event: Frame) -> bool:
    return event.get("type") == "response" and event.get("status") == "final"


def final_text(event: Frame) -> str:
    content = event.get("content")
    if content is None:
        return ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


@dataclass
class TurnView:
    """One turn as people read it."""

    turn: int
    message: Any = None
    own: bool = False
    source: Optional[str] = None
    text: str = ""
    status: str = "waiting"
    content: Any = None
    outcome: Optional[Dict[str, Any]] = None
    events: List[Frame] = field(default_factory=list)


class Turns:
    """Folds events into turns: feed it every event, show what it returns."""

    def __init__(self) -> None:
        self._by_id: Dict[int, TurnView] = {}

    def list(self) -> List[TurnView]:
        """All turns, oldest first."""
        return [self._by_id[turn] for turn in sorted(self._by_id)]

    def apply(self, event: Frame) -> Optional[TurnView]:
        """Gives the turn this event changed, or None."""
        if event.get("type") == "snapshot":
            self._by_id.clear()
            for kept in (event.get("state") or {}).get("messages") or ():
                self.apply(kept)
            return None
        turn_id = event.get("turn", event.get("cursor") if event.get("type") == "message" else None)
        if turn_id is None:
            return None
        turn = self._by_id.setdefault(turn_id, TurnView(turn_id))
        kind = event.get("type")
        if kind == "message":
            turn.message = (event.get("data") or {}).get("content")
            turn.own = event.get("own") is True
            turn.source = event.get("source")
        elif kind == "token_stream":
            turn.text += text_of(event)
            turn.status = "streaming"
        elif kind == "retry_stream":
            turn.text = ""  # a new attempt tells it from the start
        elif is_final(event):
            turn.text = final_text(event) or turn.text
            turn.content = event.get("content")
            turn.outcome = event.get("outcome") or {"status": "ok"}
            turn.status = turn.outcome.get("status", "ok")
        elif kind != "message_abort":
            turn.events.append(event)
        return turn


@dataclass(frozen=True)
class FinalAnswer:
    text: str
    content: Any
    outcome: Dict[str, Any]
    turn: int
    cursor: int


class Answer:
    """The answer to one message: iterate for the pieces of text, ``await answer.final()`` for the whole.

    It reads the session's events, so use it where nothing else does; events of other turns go by.
    """

    def __init__(self, session: "Session", content: Any, options: Dict[str, Any]) -> None:
        self._session = session
        self._content = content
        self._options = options
        self._pieces = self._read()
        self._result: Optional[FinalAnswer] = None
        self.text = ""

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def final(self) -> FinalAnswer:
        async for _ in self._pieces:
            pass
        if self._result is None:
            raise EbbgateError("closed", "the answer is not complete")
        return self._result

    async def _read(self) -> AsyncIterator[str]:
        accepted = await self._session.send(self._content, **self._options)
        if accepted.turn is None:
            raise EbbgateError("no_turn", "this message started no turn")
        async for event in self._session:
            if event.get("type") == "snapshot":
                messages = (event.get("state") or {}).get("messages") or ()
                kept = [item for item in messages if item.get("turn") == accepted.turn and is_final(item)]
                if not kept:
                    continue
                event = kept[0]
            if event.get("turn") != accepted.turn:
                continue
            if is_final(event):
                rest = self._finish(event)
                if rest:
                    yield rest
                return
            if event.get("type") == "token_stream":
                piece = text_of(event)
                self.text += piece
                if piece:
                    yield piece
        raise EbbgateError("closed", "the session was closed before the answer was complete")

    def _finish(self, event: Frame) -> str:
        """Takes the final response; gives the text that was not streamed."""
        whole = final_text(event)
        rest = whole[len(self.text) :] if whole.startswith(self.text) else ""
        self.text = whole or self.text
        self._result = FinalAnswer(
            self.text,
            event.get("content"),
            event.get("outcome") or {"status": "ok"},
            event["turn"],
            event["cursor"],
        )
        return rest
