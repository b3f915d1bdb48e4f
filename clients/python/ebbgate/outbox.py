"""Messages on their way.

Each has an id, is kept until the gateway says that it is on disk, and goes out again with
the same id after a loss. In the order of ``send``, at most ``window`` at a time, so that a
refusal of one cannot let a later one overtake it.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Optional

from .backoff import Backoff, Retry
from .errors import RETRYABLE, EbbgateError, Frame, error_from_frame, seconds

#: How many of our own ids are remembered after they were accepted.
REMEMBERED = 1000


@dataclass(frozen=True)
class Accepted:
    """The gateway has the message on disk, at ``cursor``."""

    message_id: Optional[str]
    cursor: Optional[int]
    turn: Optional[int]
    duplicate: bool = False
    aborted: bool = False


class Entry:
    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.future: "asyncio.Future[Accepted]" = asyncio.get_running_loop().create_future()
        self.saved = False
        self.in_flight = False

    def fail(self, error: EbbgateError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # nobody may be waiting for it


class Outbox:
    def __init__(
        self,
        transmit: Callable[[Frame], bool],
        save: Callable[[], Any],
        later: Callable[[float, Callable[[], None]], None],
        window: int = 1,
        retry: Optional[Retry] = None,
    ) -> None:
        self._transmit = transmit
        self._save = save
        self._later = later
        self._window = window
        self._backoff = Backoff(retry)
        self._open = False
        self._holding = False
        self._max_payload: Optional[int] = None
        self.entries: Dict[str, Entry] = {}
        self.mine: "OrderedDict[str, bool]" = OrderedDict()

    def add(self, message_id: str, content: Any, metadata: Any = None) -> Entry:
        known = self.entries.get(message_id)
        if known is not None:
            return known
        frame: Frame = {"type": "message", "content": content, "message_id": message_id}
        if metadata is not None:
            frame["metadata"] = metadata
        entry = self.entries[message_id] = Entry(frame)
        self.mine[message_id] = True
        self.mine.move_to_end(message_id)
        if len(self.mine) > REMEMBERED:
            self.mine.popitem(last=False)
        return entry

    def up(self, max_payload: Any) -> None:
        """The connection may carry messages now."""
        self._max_payload = max_payload if isinstance(max_payload, int) and max_payload > 0 else None
        self._open = True
        self.pump()

    def down(self) -> None:
        """The connection is gone: what was in flight is unknown and will be repeated."""
        self._open = False
        for entry in self.entries.values():
            entry.in_flight = False

    def pump(self) -> None:
        if not self._open or self._holding:
            return
        flying = 0
        for message_id, entry in list(self.entries.items()):
            if flying >= self._window or not entry.saved:
                return
            if message_id not in self.entries:
                continue
            size = len(json.dumps(entry.frame, ensure_ascii=False, separators=(",", ":")).encode())
            if self._max_payload is not None and size > self._max_payload:
                text = f"the message has {size} bytes, the gateway takes {self._max_payload}"
                self.refuse(message_id, EbbgateError("payload_too_large", text, ref=message_id))
                continue
            flying += 1
            if not entry.in_flight:
                entry.in_flight = self._transmit(entry.frame)

    def stored(self, entry: Entry) -> None:
        """The entry is in the store: it may be sent, even if who gave it no longer waits."""
        entry.saved = True
        self.pump()

    def settle(self, message_id: Any, cursor: Any, turn: Any, duplicate: bool) -> Optional[Frame]:
        """The gateway has it. Gives the message's frame, or None if it was not one of these."""
        entry = self.entries.pop(message_id, None)
        if entry is None:
            return None
        self._backoff.reset()
        self._save()
        if not entry.future.done():
            entry.future.set_result(Accepted(message_id, cursor, turn, duplicate))
        self.pump()
        return entry.frame

    def refuse(self, message_id: str, error: EbbgateError) -> None:
        entry = self.entries.pop(message_id, None)
        if entry is None:
            return
        self.mine.pop(message_id, None)
        self._save()
        entry.fail(error)
        self.pump()

    def flying(self) -> List[str]:
        return [message_id for message_id, entry in self.entries.items() if entry.in_flight]

    def failed(self, frame: Frame) -> bool:
        """An ``error`` frame. Says whether it was about one of these."""
        message_id = frame.get("ref")
        if message_id is None and frame.get("code") == "payload_too_large":
            flying = self.flying()
            message_id = flying[0] if len(flying) == 1 else None
        entry = self.entries.get(message_id) if isinstance(message_id, str) else None
        if entry is None or not isinstance(message_id, str):
            return False
        if frame.get("code") in RETRYABLE:
            entry.in_flight = False
            self._hold(seconds(frame.get("retry_after_seconds")))
        else:
            self.refuse(message_id, error_from_frame(frame))
        return True

    def _hold(self, floor: float) -> None:
        if self._holding:
            return
        self._holding = True

        def resume() -> None:
            self._holding = False
            self.pump()

        self._later(self._backoff.next(floor), resume)

    def snapshot(self) -> List[Dict[str, Any]]:
        """As stored beside the cursor."""
        return [
            {name: entry.frame[name] for name in ("message_id", "content", "metadata") if name in entry.frame}
            for entry in self.entries.values()
        ]

    def restore(self, kept: Optional[Iterable[Dict[str, Any]]]) -> None:
        for item in kept or ():
            self.add(item["message_id"], item["content"], item.get("metadata")).saved = True

    def end(self, error: EbbgateError) -> None:
        """Nothing more will be sent from here. Entries stay in the store, for the next life."""
        self._open = False
        for entry in self.entries.values():
            entry.fail(error)
