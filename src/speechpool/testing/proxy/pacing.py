"""The stages that keep everything and only take their time: latency, slow close, bandwidth, slicer."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from .faults import Bandwidth, Latency, Slicer, SlowClose
from .stage import ROOM, End, Piece, Stage, size_of

__all__ = ["DelayLine", "Narrows", "SlicerStage", "SlowEnd"]

_TICK: Final = 0.01
"""Seconds of traffic that a limited bandwidth lets pass at once."""
_QUEUE: Final = 0.25
"""Seconds of traffic that may wait for a limited bandwidth, where that is more than ROOM."""


class DelayLine(Stage):
    """Latency: each piece knows when it is due, and one timer waits for the first, however many are on their way."""

    fault: Latency

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.window = self.pipe.window
        self._line: deque[tuple[float, Piece]] = deque()
        self._last = 0.0

    def take(self, piece: Piece) -> None:
        """Delay it."""
        self.strike()
        jitter = self.fault.jitter
        self.put(piece, self.fault.delay + (self.dice.uniform(-jitter, jitter) if jitter else 0.0))

    def put(self, piece: Piece, delay: float) -> None:
        """Pass it on in so many seconds, but never before one that came earlier."""
        self._last = max(self._last, self.loop.time() + delay)
        self._line.append((self._last, piece))
        self.held += size_of(piece)
        if not self.waits:
            self.wake_at(self._last, self._release)

    def _release(self) -> None:
        now = self.loop.time()
        while self._line and self._line[0][0] <= now:
            piece = self._line.popleft()[1]
            self.held -= size_of(piece)
            self.next(piece)
        if self._line:
            self.wake_at(self._line[0][0], self._release)
        self.pipe.settle()

    def leave(self) -> list[Piece]:
        """Return what is on its way."""
        super().leave()
        left = [piece for _, piece in self._line]
        self._line.clear()
        return left


class SlowEnd(DelayLine):
    """Slow close: a delay line that only ends enter."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.window = 0
        self._delay = self.fault.delay

    fault: SlowClose  # type: ignore[assignment]  # it has a delay, too, and no other part of the line asks for more

    def take(self, piece: Piece) -> None:
        """Delay an end."""
        if isinstance(piece, End):
            self.strike()
            self.put(piece, self._delay)
        else:
            self.next(piece)


class _Queue(Stage):
    """Base of those that let pieces leave bit by bit."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._queue: deque[Piece] = deque()

    def _pass(self, most: int) -> int:
        """Pass on `most` bytes of the first piece, or the end that it is, and return how many bytes that were."""
        piece = self._queue.popleft()
        if isinstance(piece, bytes) and len(piece) > most:
            self._queue.appendleft(piece[most:])
            piece = piece[:most]
        self.held -= size_of(piece)
        self.next(piece)
        return size_of(piece)

    def leave(self) -> list[Piece]:
        """Return what waits."""
        super().leave()
        left = list(self._queue)
        self._queue.clear()
        return left


class Narrows(_Queue):
    """Bandwidth: bytes leave at a steady rate, a tick's worth at once."""

    fault: Bandwidth

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        rate = self.fault.rate
        self._at_once = max(1, int(rate * _TICK))
        # More would only delay what is added behind it; less would run dry behind a delay line.
        self._room = min(max(ROOM, int(rate * _QUEUE)), max(ROOM, self.pipe.window))
        self._paid_until = 0.0

    @property
    def full(self) -> bool:  # type: ignore[override]  # a constant for the stages that hold nothing
        """Whether enough waits for now."""
        return bool(self.held >= self._room)

    def take(self, piece: Piece) -> None:
        """Let it wait for its turn."""
        if not self._queue:
            self._paid_until = self.loop.time()
        self._queue.append(piece)
        self.held += size_of(piece)
        if not self.waits:
            self._wait()

    def _wait(self) -> None:
        self.wake_at(self._paid_until + min(self.held, self._at_once) / self.fault.rate, self._release)

    def _release(self) -> None:
        rate = self.fault.rate
        affordable = round((self.loop.time() - self._paid_until) * rate)
        while self._queue and (affordable > 0 or isinstance(self._queue[0], End)):
            self.strike()
            passed = self._pass(affordable)
            affordable -= passed
            self._paid_until += passed / rate
        if self._queue:
            self._wait()
        self.pipe.settle()


class SlicerStage(_Queue):
    """Slicer: one small piece at a time, and never two in one turn of the loop: they would leave in one packet."""

    fault: Slicer

    @property
    def full(self) -> bool:  # type: ignore[override]  # a constant for the stages that hold nothing
        """Whether enough waits for now."""
        return self.held >= ROOM

    def take(self, piece: Piece) -> None:
        """Let it wait for its turn."""
        self._queue.append(piece)
        self.held += size_of(piece)
        if not self.waits:
            self._slice()

    def _slice(self) -> None:
        if self._queue:
            self.strike()
            variation = self.fault.size_variation
            self._pass(self.fault.average_size + self.dice.randint(-variation, variation))
            self.wake_at(self.loop.time() + self.fault.delay, self._slice)
            self.pipe.settle()
