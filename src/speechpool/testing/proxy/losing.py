"""The stages that take something away: half-open, timeout, limit data, reset peer, no pong."""

from __future__ import annotations

import logging
from typing import Any, Final

from .faults import HalfOpen, LimitData, NoPong, ResetPeer, Timeout
from .frames import OPCODES
from .stage import End, Piece, Stage

__all__ = ["FrameFilter", "Limit", "Resetter", "Silence", "Void"]

logger: Final = logging.getLogger("speechpool.testing.proxy")


class Void(Stage):
    """Half-open: nothing comes out.

    No network leaves a hole in a stream. So a connection that lost bytes is reset when the fault is removed; one that
    lost none goes on, and learns of an end that came meanwhile.
    """

    fault: HalfOpen | Timeout

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._ends: list[Piece] = []
        self._lost = False

    def take(self, piece: Piece) -> None:
        """Swallow it."""
        if isinstance(piece, End):
            self._ends.append(piece)
        else:
            self._lost = True
        self.strike()

    def leave(self) -> list[Piece]:
        """Return the ends, or a reset in place of the bytes that are gone."""
        super().leave()
        return [End.RESET] if self._lost else self._ends


class Silence(Void):
    """Timeout: no bytes come out, but an end does, and some time later that of the connection."""

    fault: Timeout

    def begin(self) -> None:
        """Start the clock."""
        if self.fault.after:
            self.wake_at(self.loop.time() + self.fault.after, self._expire)

    def _expire(self) -> None:
        self.next(End.CLOSED)

    def take(self, piece: Piece) -> None:
        """Swallow bytes."""
        if isinstance(piece, End):
            self.next(piece)
        else:
            super().take(piece)


class Limit(Stage):
    """Limit data: the connection ends behind so many bytes."""

    fault: LimitData

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._left = self.fault.bytes
        self._over = False

    def take(self, piece: Piece) -> None:
        """Pass on what the limit leaves."""
        if self._over:
            return
        if isinstance(piece, End):
            self.next(piece)
            return
        passed, self._left = piece[: self._left], max(0, self._left - len(piece))
        if passed:
            self.next(passed)
        if not self._left:
            self._over = True
            self.strike()
            self.next(End.RESET if self.fault.reset else End.CLOSED)


class Resetter(Stage):
    """Reset peer: its direction says which peer gets the reset."""

    fault: ResetPeer

    def begin(self) -> None:
        """Reset now, or start the clock."""
        self.wake_at(self.loop.time() + self.fault.after, self._reset)

    def _reset(self) -> None:
        self.strike()
        self.pipe.reset_sink(self.fault)

    def take(self, piece: Piece) -> None:
        """Pass it on: until then nothing is wrong."""
        self.next(piece)


class FrameFilter(Stage):
    """No pong: frames of one kind are cut out of a WebSocket, wherever the pieces begin and end."""

    fault: NoPong

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        # From where the pipe ends now: whatever was taken before passes here next.
        self._cursor = self.pipe.cursor.copy()
        self._opcode = OPCODES[self.fault.frame]
        self._told = False

    def take(self, piece: Piece) -> None:
        """Pass on the other frames."""
        if isinstance(piece, End):
            self.next(piece)
            return
        before = self._cursor.begun[self._opcode]
        parts = self._cursor.pieces(piece)
        for _ in range(self._cursor.begun[self._opcode] - before):
            self.strike()
        if self._cursor.lost and not self._told:
            self._told = True
            kind = "TLS" if self._cursor.kind == "tls" else "no WebSocket"
            logger.warning("The fault no-pong finds no frames: the connection is %s. Let it meet ws, not wss.", kind)
        if all(opcode != self._opcode for opcode, _, _ in parts):
            self.next(piece)
        elif rest := b"".join(piece[begin:end] for opcode, begin, end in parts if opcode != self._opcode):
            self.next(rest)
