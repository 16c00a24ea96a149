"""One timer for the deadlines of all tasks of a pool.

A deadline is a field that the ticker compares; no timer is set or cancelled for a frame or a wait. The price is that a
deadline may pass up to a twentieth late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from speechpool.errors import SpeechPoolError
from speechpool.settings import Deadlines

__all__ = ["Ticker", "Watched"]

LONGEST = 0.25
"""Seconds between two looks, where the deadlines are no shorter than five seconds."""


class Watched(Protocol):
    """What the ticker looks at."""

    def on_tick(self, now: float) -> None:
        """Compare the deadlines with `now`, in loop time."""

    def abandon(self, error: SpeechPoolError) -> None:
        """End with `error`, unless it has ended: nobody will look at the deadlines any more."""


class Ticker:
    """Looks at every watched task a few times a second, and sleeps while there is none."""

    __slots__ = ("_interval", "_loop", "_on_lag", "_timer", "_watched")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        patience: float | None = None,
        *,
        on_lag: Callable[[float], object] | None = None,
    ) -> None:
        limits = (
            deadlines.start, deadlines.first_audio, deadlines.gap, deadlines.total, deadlines.cancel, patience,
        )  # fmt: skip
        self._loop = loop
        self._interval = min([LONGEST, *(limit / 20 for limit in limits if limit is not None)])
        self._on_lag = on_lag  # learns how late each look was, in seconds
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, task: Watched) -> None:
        """Look at `task` from now on."""
        self._watched.add(task)
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._tick)

    def unwatch(self, task: Watched) -> None:
        """Forget `task`. The timer ends by itself at its next tick, so that a busy pool sets none for each task."""
        self._watched.discard(task)

    @property
    def watched(self) -> list[Watched]:
        """Every task that has not ended on the wire."""
        return list(self._watched)

    def stop(self) -> None:
        """Forget everything."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        timer, self._timer = self._timer, None
        now = self._loop.time()
        if timer is not None and self._on_lag is not None:
            self._on_lag(max(0.0, now - timer.when()))
        for task in self.watched:
            task.on_tick(now)
        if self._watched:
            self._timer = self._loop.call_later(self._interval, self._tick)
