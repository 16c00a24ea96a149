"""Pool utilisation: time-weighted borrowed / max_size, its mean and its peak.

Between two changes the ratio is constant, so its area is exact whenever somebody looks, however long nothing changed.
The area is kept for each second, and a ten-second mean is formed at the end of each: the peak is the highest of them.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Utilisation"]

PEAK_SECONDS = 10
"""Length of the means among which the peak is the highest."""


class Utilisation:
    """How much of a pool is borrowed. Ratios; 1.0 is `max_size`, and a pool that grows beyond it shows more.

    Args:
        started: The time, in seconds.
        window: Length of the window, in whole seconds.
    """

    __slots__ = (
        "_area",
        "_kept",
        "_means_seen",
        "_past",
        "_ratio",
        "_since",
        "_slice_end",
        "_slices",
        "_started",
        "_window",
        "borrowed",
        "max_size",
    )

    def __init__(self, started: float, window: int = 60) -> None:
        self.borrowed = 0
        """Connections borrowed now."""
        self.max_size = 0
        """Size of the pool now; 0 before the pool has told it."""
        self._window = window
        self._started = self._since = started
        self._slice_end = started + 1.0
        self._ratio = self._area = self._past = 0.0
        # Areas of whole seconds; enough that each ten-second mean which ends inside the window is complete.
        self._kept = max(window, PEAK_SECONDS)
        self._slices: deque[float] = deque(maxlen=self._kept)
        self._means_seen = 0.0

    def changed(self, borrowed: int, max_size: int, now: float) -> None:
        """Learn that `borrowed` of `max_size` connections are borrowed from `now` on. Called at every change."""
        if now >= self._slice_end:
            self._roll(now)
        if now > self._since:
            self._area += self._ratio * (now - self._since)
            self._since = now
        self.borrowed = borrowed
        self.max_size = max_size
        self._ratio = borrowed / max_size

    def mean(self, now: float) -> float:
        """Return the mean of the window, or since the start where that is nearer."""
        self._catch_up(now)
        # The current second is not whole yet, so the oldest one gives way to it.
        slices = list(self._slices)[-(self._window - 1) :]
        seconds = len(slices) + self._since - (self._slice_end - 1.0)
        return (sum(slices) + self._area) / seconds if seconds > 0 else self._ratio

    def lifetime_mean(self, now: float) -> float:
        """Return the mean since the start."""
        area = self.area(now)
        seconds = self._since - self._started
        return area / seconds if seconds > 0 else self._ratio

    def area(self, now: float) -> float:
        """Return the ratio summed over the time since the start, in seconds. It never goes down, not by rounding."""
        self._catch_up(now)
        return self._past + self._area

    def peak(self, now: float) -> float | None:
        """Return the highest ten-second mean in the window; None in the first ten seconds."""
        self._catch_up(now)
        slices = list(self._slices)
        ends = range(PEAK_SECONDS, len(slices) + 1)
        return max((sum(slices[end - PEAK_SECONDS : end]) / PEAK_SECONDS for end in ends), default=None)

    def lifetime_peak(self, now: float) -> float | None:
        """Return the highest ten-second mean since the start; None in the first ten seconds."""
        self._catch_up(now)
        return self._means_seen if len(self._slices) >= PEAK_SECONDS else None

    def _catch_up(self, now: float) -> None:
        if now >= self._slice_end:
            self._roll(now)
        if now > self._since:
            self._area += self._ratio * (now - self._since)
            self._since = now

    def _roll(self, now: float) -> None:
        """Finish every second that has ended by `now`."""
        self._finish(self._area + self._ratio * (self._slice_end - self._since))
        whole = int(now - self._slice_end)
        # After a long silence only the seconds that the window can show are written one by one.
        for _ in range(min(whole, self._kept)):
            self._finish(self._ratio)
        self._past += self._ratio * max(0, whole - self._kept)
        self._since = self._slice_end + whole
        self._slice_end = self._since + 1.0
        self._area = 0.0

    def _finish(self, area: float) -> None:
        self._past += area
        self._slices.append(area)
        if len(self._slices) >= PEAK_SECONDS:
            newest = [self._slices[-back] for back in range(1, PEAK_SECONDS + 1)]
            self._means_seen = max(self._means_seen, sum(newest) / PEAK_SECONDS)
