"""Audio of a cancelled task that comes long after its end: the one thing that a binary frame's missing id lets through.

It is found by what the current form of the events says: each binary frame follows one `sentence-synthesis` (API
reference, server events). Whether a server keeps to that is learned from the first tasks of a pool; from then on the
tasks on a connection that carried a cancelled one take announced frames only (tests/synthesis/test_announced.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from speechpool.protocol import Segment

__all__ = ["Guard", "Habit"]

log = logging.getLogger("speechpool.synthesis")

_PATIENCE: Final = 3
"""Segments in a row that do not fit, after which a server counts as one that does not announce."""


class Habit:
    """Whether the server of a pool announces each binary frame: not known at first.

    Attributes:
        known: It was found out.
        kept: It does.
    """

    __slots__ = ("_misses", "kept", "known")

    def __init__(self) -> None:
        self.known = self.kept = False
        self._misses = 0

    def seen(self, *, fits: bool) -> None:
        """Learn from one segment."""
        if self.known and not self.kept:
            return
        if fits:
            self.known, self.kept, self._misses = True, True, 0
            return
        self._misses += 1
        if self._misses == _PATIENCE:
            if self.kept:
                log.warning("The server no longer announces each piece of audio, so late ones are not recognised.")
            self.known, self.kept = True, False


class Guard:
    """Stands between the connection and the listener of one segment.

    Args:
        habit: Of the server.
        segment: Whose frames these are.
        stray: Takes a frame that nobody announced.
    """

    __slots__ = ("_frames", "_habit", "_listener", "_segment", "_stray")

    def __init__(self, habit: Habit, segment: Segment, stray: Callable[[bytes], None]) -> None:
        self._habit, self._segment, self._stray = habit, segment, stray
        self._listener = stray
        self._frames = 0

    def before(self, listener: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Return what takes the frames in place of `listener`."""
        self._listener = listener
        return self.take

    def take(self, data: bytes) -> None:
        """Take one binary frame."""
        self._frames += 1
        if self._frames > self._segment.announced and self._habit.kept:
            self._habit.seen(fits=False)
            self._stray(data)
        else:
            self._listener(data)

    def completed(self) -> None:
        """Learn from a segment that has come to its end."""
        if self._frames:
            self._habit.seen(fits=self._frames == self._segment.announced)
