"""A stage: what one fault does to one direction of one connection.

Nobody asks a stage for anything, and it waits for nothing: a piece comes by a plain call, and leaves by one, at once or
from a timer. Ends travel as pieces, too, so that they keep their place behind the bytes.
"""

from __future__ import annotations

import asyncio
import enum
import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .pipe import Pipe

__all__ = ["ROOM", "End", "Piece", "Stage", "size_of"]

ROOM: Final = 65_536
"""Bytes that a direction holds before its source has to wait, where no delay needs more."""


class End(enum.Enum):
    """How the bytes of one direction end."""

    FINISHED = "the peer sends no more"
    CLOSED = "a fault closes the connection"
    RESET = "the peer or a fault reset the connection"


Piece = bytes | End


def size_of(piece: Piece) -> int:
    """Return the bytes of a piece; an end has none."""
    return len(piece) if isinstance(piece, bytes) else 0


class Stage:
    """Base of the stages.

    Args:
        fault: Whose stage it is.
        pipe: Where it stands.
        dice: Of its own.
        strike: Counts.

    Attributes:
        next: Takes what it passes on.
        held: Bytes that it holds.
        window: Bytes that its pipe may hold for its sake, beyond `ROOM`.
        full: The source should wait because of this stage alone.
    """

    window = 0
    full = False

    def __init__(self, fault: Any, pipe: Pipe, dice: random.Random, strike: Callable[[], None]) -> None:
        self.fault, self.pipe, self.dice, self.strike = fault, pipe, dice, strike
        self.loop = asyncio.get_running_loop()
        self.next: Callable[[Piece], None] = pipe.deliver
        self.held = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start, in its place."""

    def take(self, piece: Piece) -> None:
        """Take one piece."""
        raise NotImplementedError

    def leave(self) -> list[Piece]:
        """Stop for good, and return the pieces that it held, in their order."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.held = 0
        return []

    @property
    def waits(self) -> bool:
        """Whether a timer is set."""
        return self._timer is not None

    def wake_at(self, when: float, what: Callable[[], None]) -> None:
        """Call `what` at a time of the loop, not before."""
        # uvloop rounds to the nearest millisecond; a timer that came too early would spin until its time.
        wait = math.ceil((when - self.loop.time()) * 1000 - 1e-6) / 1000

        def wake() -> None:
            self._timer = None
            what()

        self._timer = self.loop.call_later(max(0.0, wait), wake)
