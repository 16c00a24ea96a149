"""What a pool tells those who listen (`pool.on`). Nothing is made of it while nobody does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ConnectionClosed",
    "ConnectionOpened",
    "EndpointAway",
    "EndpointBack",
    "Listeners",
    "PoolEvent",
    "TaskEnded",
    "TaskStarted",
]

logger = logging.getLogger("speechpool.telemetry")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEvent:
    """What all have in common.

    Attributes:
        pool: The pool's name.
    """

    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted(PoolEvent):
    """A task begins; told in the context of the one who began it.

    Attributes:
        number: Of the task, as long as it lives.
        model: Of its voice; `voice` likewise.
        trace_id: See `speechpool.telemetry.trace_id`.
    """

    number: int
    model: str
    voice: str
    trace_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnded(TaskStarted):
    """A task has its outcome. Seconds; None where the moment did not come. It holds no text.

    Attributes:
        outcome: `completed`, `failed`, `cancelled` or `shed`.
        request_id: The wire id of its last segment.
        error: Code or class of its error.
        seconds: From entering to its end.
        text_wait: From entering to its first text.
        queue: Then waiting for permit and connection; `connect`, `start` and `synthesis` follow, up to the first audio.
        first_packet_delay: The sum of those four.
        end_to_end: From the first text to the end.
        audio_seconds: Length of its audio, where the format tells it.
        audio_bytes: Size of its audio.
        characters: Characters of its text.
        retries: Attempts after the first.
        reused: It ran on a connection that was open before.
    """

    outcome: str
    request_id: str | None
    error: str | None
    seconds: float
    text_wait: float
    queue: float | None
    connect: float | None
    start: float | None
    synthesis: float | None
    first_packet_delay: float | None
    end_to_end: float | None
    audio_seconds: float | None
    audio_bytes: int
    characters: int
    retries: int
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened(PoolEvent):
    """A connection is open, `seconds` after its dial began."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed(PoolEvent):
    """A connection is gone, or about to close.

    Attributes:
        reason: As in `stats.discarded`.
        seconds: How long it was open.
        borrows: How often it was lent.
    """

    reason: str
    seconds: float
    borrows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointAway(PoolEvent):
    """The endpoint counts as away: borrowers fail at once until it is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointBack(PoolEvent):
    """The endpoint is there again."""


class _Listener:
    """One of them, by itself: the same function may listen twice, and a callable need not be hashable."""

    __slots__ = ("call", "failed")

    def __init__(self, call: Callable[[Any], object]) -> None:
        self.call = call
        self.failed = False


class Listeners:
    """Those who listen to one pool, called one after the other on its event loop. False while there are none."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: tuple[_Listener, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, listener: Callable[[Any], object]) -> Callable[[], None]:
        """Call `listener` with every event; the function that is returned ends that."""
        added = _Listener(listener)
        self._all = (*self._all, added)

        def remove() -> None:
            self._all = tuple(one for one in self._all if one is not added)

        return remove

    def tell(self, event: PoolEvent) -> None:
        """Call them. One that raises is logged, the first time, and changes nothing."""
        for listener in self._all:
            try:
                listener.call(event)
            except Exception:
                if not listener.failed:
                    listener.failed = True
                    logger.exception("A listener of pool %r failed; it is called again, but not logged.", event.pool)
