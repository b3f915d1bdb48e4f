"""Exponential backoff with jitter.

A wait the gateway asked for is a floor: the jittered delay is added to it, so that many
clients told the same number do not come back in the same instant.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Callable, Optional


@dataclass
class Retry:
    """How patiently to come back. Times are seconds; ``attempts`` None means for ever."""

    initial: float = 0.5
    maximum: float = 30.0
    factor: float = 2.0
    jitter: float = 0.5
    attempts: Optional[int] = None
    random: Callable[[], float] = field(default=random.random)


class Backoff:
    def __init__(self, retry: Optional[Retry] = None) -> None:
        self.retry = retry or Retry()
        self.count = 0

    @property
    def exhausted(self) -> bool:
        return self.retry.attempts is not None and self.count >= self.retry.attempts

    def next(self, floor: float = 0.0) -> float:
        """Seconds to wait before the next attempt."""
        retry = self.retry
        whole = retry.maximum
        if self.count < 64:  # beyond that the power only grows, and might overflow
            whole = min(retry.maximum, retry.initial * retry.factor**self.count)
        self.count += 1
        return floor + whole * (1 - retry.jitter * retry.random())

    def reset(self) -> None:
        self.count = 0
