"""What is counted of tasks, and the window over it.

A task is written once, at its end, into the slice of that second. Nothing is written per frame, and nothing happens in
a quiet second: slices are made when a task needs one, and folded into the past when somebody looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from .histogram import DELAY_BOUNDS, DURATION_BOUNDS, Histogram

__all__ = ["FIRST_PACKET_TARGET", "PARTS", "Totals", "Window", "count_label"]

FIRST_PACKET_TARGET = 0.5
"""Seconds within which the first packet should come."""
PARTS = ("queue", "connect", "start", "synthesis")
"""Parts of the first packet delay, in their order; they sum to it."""
_LABELS = 64
"""Different words, such as error codes, that are told apart in one count; the rest is `other`."""
_SLICE = 1.0


class Totals:
    """Counts of some tasks. Times in seconds.

    Attributes:
        completed: Tasks with this outcome; `failed`, `cancelled` and `shed` likewise.
        first_packet_delay: Of every task that got audio.
        end_to_end: Of completed tasks.
        parts: Sums of the parts of the first packet delay, in the order of `PARTS`.
        slow_parts: The same, of the tasks beyond `FIRST_PACKET_TARGET` only.
        text_wait: Sum of the time before the first text, of the tasks that got audio.
        spoken: Sum of `end_to_end` over completed tasks whose `audio_seconds` is known.
        spoken_audio: Seconds of audio of the same tasks; both make the real-time factor.
        connected: Tasks that got a connection, `reused` of which had one that was open before.
        characters: Characters of all texts; `audio_seconds` and `audio_bytes` likewise of all audio.
        retries: Attempts after the first, over all tasks.
        errors: Failed tasks by error code or class.
        retried: Retried segments by reason.
    """

    __slots__ = (
        "audio_bytes",
        "audio_seconds",
        "cancelled",
        "characters",
        "completed",
        "connected",
        "end_to_end",
        "errors",
        "failed",
        "first_packet_delay",
        "parts",
        "retried",
        "retries",
        "reused",
        "shed",
        "slow_parts",
        "spoken",
        "spoken_audio",
        "text_wait",
    )

    def __init__(self) -> None:
        self.completed = self.failed = self.cancelled = self.shed = 0
        self.first_packet_delay = Histogram(DELAY_BOUNDS)
        self.end_to_end = Histogram(DURATION_BOUNDS)
        self.parts = [0.0, 0.0, 0.0, 0.0]
        self.slow_parts = [0.0, 0.0, 0.0, 0.0]
        self.text_wait = self.spoken = self.spoken_audio = self.audio_seconds = 0.0
        self.connected = self.reused = self.characters = self.audio_bytes = self.retries = 0
        self.errors: dict[str, int] = {}
        self.retried: dict[str, int] = {}

    @property
    def tasks(self) -> int:
        """Tasks that ended, whatever their outcome."""
        return self.completed + self.failed + self.cancelled + self.shed

    @property
    def slow(self) -> int:
        """Tasks whose first packet came after `FIRST_PACKET_TARGET`; exact, as that is a bound of the histogram."""
        delays = self.first_packet_delay
        return delays.count - delays.at_most([FIRST_PACKET_TARGET])[0]

    def first_packet(self, delay: float, parts: tuple[float, float, float, float], text_wait: float) -> None:
        """Count one first packet delay and its parts, in the order of `PARTS`."""
        self.first_packet_delay.observe(delay)
        self.text_wait += text_wait
        _accumulate(self.parts, parts)
        if delay > FIRST_PACKET_TARGET:
            _accumulate(self.slow_parts, parts)

    def finished(self, end_to_end: float | None, audio_seconds: float | None) -> None:
        """Count the length of one completed task."""
        if end_to_end is not None:
            self.end_to_end.observe(end_to_end)
            if audio_seconds:
                self.spoken += end_to_end
                self.spoken_audio += audio_seconds

    def add(self, other: Totals) -> None:
        """Add everything that `other` counted."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first_packet_delay.add(other.first_packet_delay)
        self.end_to_end.add(other.end_to_end)
        self.parts = [mine + its for mine, its in zip(self.parts, other.parts, strict=True)]
        self.slow_parts = [mine + its for mine, its in zip(self.slow_parts, other.slow_parts, strict=True)]
        for mine, its in ((self.errors, other.errors), (self.retried, other.retried)):
            for label, number in its.items():
                count_label(mine, label, number)


def _accumulate(sums: list[float], parts: tuple[float, float, float, float]) -> None:
    # Written out: this is on the path of every task, and a loop costs twice as much.
    sums[0] += parts[0]
    sums[1] += parts[1]
    sums[2] += parts[2]
    sums[3] += parts[3]


_SUMS = (
    "completed", "failed", "cancelled", "shed", "text_wait", "spoken", "spoken_audio", "audio_seconds", "connected",
    "reused", "characters", "audio_bytes", "retries",
)  # fmt: skip


def count_label(counts: dict[str, int], label: str, number: int = 1) -> None:
    """Count `label`, or `other` where a peer invents more labels than anyone could read."""
    if label not in counts and len(counts) >= _LABELS:
        label = "other"
    counts[label] = counts.get(label, 0) + number


class Window:
    """Slices of a second each: the newest ones by themselves, everything older as one sum.

    Args:
        seconds: Length of the window; it is cut at whole slices, so it shows up to one second less.
        started: The time, in seconds.
    """

    __slots__ = ("_current", "_end", "_past", "_slices", "seconds")

    def __init__(self, seconds: float, started: float) -> None:
        self.seconds = seconds
        self._past = Totals()
        self._current = Totals()
        self._end = started + _SLICE
        # (end, totals) of finished slices, oldest first; the current one is not among them.
        self._slices: deque[tuple[float, Totals]] = deque()

    def current(self, now: float) -> Totals:
        """Return the slice to write into. A clock that steps back writes into the current one."""
        if now >= self._end:
            self._roll(now)
        return self._current

    def _roll(self, now: float) -> None:
        self._slices.append((self._end, self._current))
        self._current = Totals()
        self._end += _SLICE * (1 + (now - self._end) // _SLICE)
        self._expire()

    def _expire(self) -> None:
        oldest = self._end - self.seconds
        while self._slices and self._slices[0][0] <= oldest:
            self._past.add(self._slices.popleft()[1])

    def recent(self, now: float) -> Totals:
        """Return what the window holds."""
        self.current(now)
        return _sum([*(totals for _, totals in self._slices), self._current])

    def lifetime(self, now: float) -> Totals:
        """Return everything since the start."""
        self.current(now)
        return _sum([self._past, *(totals for _, totals in self._slices), self._current])


def _sum(several: Iterable[Totals]) -> Totals:
    result = Totals()
    for each in several:
        if each.tasks or each.retried:
            result.add(each)
    return result
