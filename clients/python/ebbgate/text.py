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
    from .outbox import Accepted
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


def _kept_final(state: Frame, accepted: "Accepted", epoch_before: Optional[str]) -> Optional[Frame]:
    """What a snapshot has of an answer: its final response, or None while that may still come.

    Raises ``answer_lost`` when the log is another one or was trimmed, and the answer went with it.
    """
    turn = accepted.turn or 0
    messages: List[Frame] = state.get("messages") or []
    there = [item for item in messages if item.get("type") == "message" and item.get("cursor") == turn]
    if there:
        ours = (there[0].get("data") or {}).get("message_id") == accepted.message_id
    else:
        ours = state.get("epoch", epoch_before) == epoch_before
    finals = [item for item in messages if is_final(item)]
    final = next((item for item in finals if ours and item.get("turn") == turn), None)
    # Turns of a session end in order, unless one is aborted: a later end says that this one has ended, too.
    ends = [item for item in finals if (item.get("outcome") or {}).get("status") != "aborted"]
    over = state.get("event_cursor", turn) < turn or any(item.get("turn", 0) > turn for item in ends)
    if final is None and (over or not ours):
        text = "the log is another one or was trimmed, and this answer is not in what is left of it"
        raise EbbgateError("answer_lost", text, ref=accepted.message_id)
    return final


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
        epoch, older = self._session.epoch, self._session.snapshots
        earlier = await self._earlier(accepted)
        if earlier is not None:
            rest = self._finish(earlier)
            if rest:
                yield rest
            return
        async for event in self._session:
            if event.get("type") == "snapshot":
                state = event.get("state") or {}
                if state.get("event_cursor", 0) < accepted.turn and any(item is event for item in older):
                    continue  # from before the message
                kept = _kept_final(state, accepted, epoch)
                if kept is None:
                    continue
                event = kept
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
            elif event.get("type") == "retry_stream":
                self.text = ""  # a new attempt tells it from the start
        raise EbbgateError("closed", "the session was closed before the answer was complete")

    async def _earlier(self, accepted: "Accepted") -> Optional[Frame]:
        """The final response, where the session's events have passed it: the message repeats one of long ago."""
        since = accepted.cursor or 0
        place = self._session.place
        while since < place:
            page = await self._session.history(since=since, limit=500)
            for event in page.events:
                if event.get("turn") == accepted.turn and is_final(event):
                    return event
            if not page.events:
                break
            since = page.events[-1]["cursor"]
        return None

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
