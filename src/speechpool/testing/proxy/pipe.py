"""One direction of a connection: from a source through the stages of the faults to a sink, and when the source waits.

A new stage stands last, next to the sink: what earlier ones hold still passes it, and what has left has left.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from .faults import Bandwidth, Fault, HalfOpen, Latency, LimitData, NoPong, ResetPeer, Slicer, SlowClose, Timeout
from .frames import FrameCursor
from .losing import FrameFilter, Limit, Resetter, Silence, Void
from .pacing import DelayLine, Narrows, SlicerStage, SlowEnd
from .side import Side
from .stage import ROOM, End, Piece, Stage

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Pipe"]

_STAGES: Final[dict[type[Fault], type[Stage]]] = {
    Latency: DelayLine,
    Bandwidth: Narrows,
    SlowClose: SlowEnd,
    Timeout: Silence,
    ResetPeer: Resetter,
    Slicer: SlicerStage,
    LimitData: Limit,
    HalfOpen: Void,
    NoPong: FrameFilter,
}


class Pipe:
    """See the module.

    Args:
        link: The connection.
        direction: Which one of the two this is.
        source: Where the bytes come from.
        sink: Where they go.
        window: Bytes that faults which delay may hold.

    Attributes:
        cursor: Where in a WebSocket the bytes are that have left.
        taken: Bytes that came in.
    """

    def __init__(
        self, link: Link, direction: Literal["upstream", "downstream"], source: Side, sink: Side, window: int
    ) -> None:
        self.direction: Final = direction
        self.source, self.sink, self.window = source, sink, window
        self.cursor = FrameCursor()
        self.taken = 0
        self._link = link
        self._stages: dict[object, Stage] = {}
        self._first: Callable[[Piece], None] = self.deliver

    # -------------------------------------------------------------------------------------- stages
    def add(self, key: object, fault: Fault, dice: random.Random, strike: Callable[[], None]) -> None:
        """Let a fault act from now on; `key` names it in `remove`."""
        stage = _STAGES[type(fault)](fault, self, dice, strike)
        self._stages[key] = stage
        self._chain()
        stage.begin()

    def remove(self, key: object) -> None:
        """Let a fault act no longer. What it held leaves now."""
        stage = self._stages.pop(key, None)
        if stage is None:
            return
        self._chain()
        for piece in stage.leave():
            stage.next(piece)
        self.settle()

    def _chain(self) -> None:
        following: Callable[[Piece], None] = self.deliver
        for stage in reversed(self._stages.values()):
            stage.next = following
            following = stage.take
        self._first = following

    def resets(self, fault: Fault) -> bool:
        """Whether `fault` itself, and not one like it, acts here."""
        return any(stage.fault is fault for stage in self._stages.values())

    def stop(self) -> None:
        """Forget everything, timers too."""
        for stage in self._stages.values():
            stage.leave()
        self._stages.clear()
        self._first = self.deliver

    # -------------------------------------------------------------------------------------- bytes
    def take(self, piece: Piece) -> None:
        """Take what the source sent, or its end."""
        if isinstance(piece, bytes):
            self.taken += len(piece)
        self._first(piece)
        self.settle()

    def deliver(self, piece: Piece) -> None:
        """Hand to the sink what has passed all stages."""
        if isinstance(piece, bytes):
            self.cursor.advance(piece)
            self.sink.write(piece)
        elif piece is End.FINISHED:
            self.sink.finish()
            self._link.check()
        elif piece is End.CLOSED:
            self._link.end(self)
        else:
            self._link.reset()

    def reset_sink(self, fault: Any) -> None:
        """Reset the peer at the sink, on behalf of `fault`, and part from the other one."""
        self._link.reset_peer(self, fault)

    def settle(self) -> None:
        """Let the source send, or wait, as the room allows."""
        stages = self._stages.values()
        room, held = ROOM, self.sink.waiting
        for stage in stages:
            room, held = max(room, ROOM + stage.window), held + stage.held
            if stage.full:
                room = 0
        if held >= room:
            self.source.pause()
        else:
            self.source.resume()
