"""Who waits for a connection, in which order, and until when."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .slot import Slot

__all__ = ["BULK", "BULK_AGEING", "FRONT", "INTERACTIVE", "NEWEST", "Waiter", "WaitingLine"]

FRONT, INTERACTIVE, BULK = 0, 1, 2
"""Ranks. FRONT is for leases that lost their connection: they had their turn already."""
BULK_AGEING = 2.0
"""A bulk borrower stands where an interactive one would that came this many seconds later, so it cannot starve."""
NEWEST = 1 << 62
"""A serial later than every other: a connection that anybody may use."""

_SLACK = 64
"""Forgotten deadlines kept before the heap is rebuilt."""


class Waiter:
    """One borrow that could not be served at once.

    Attributes:
        since: When the borrow began.
        deadline: When it fails.
        rank: FRONT, INTERACTIVE or BULK.
        fresh: Only a connection will do that opens after the borrow began.
        serial: Its place among all borrows and openings; drawn by the core.
        order: Who is served first; the smaller one.
        slot: What it was given.
        use: The number of that hand-over.
        reused: The connection was open before it was handed over, so no dial was waited for.
        lane: Where it stands in a `WaitingLine`: there is one for each rank, twice.
        connect_time: Seconds that the connection's dial ran after the borrow began; 0 on reuse.
        future: The engine's own; the core never looks at it.
    """

    __slots__ = (
        "connect_time",
        "deadline",
        "fresh",
        "future",
        "lane",
        "order",
        "rank",
        "reused",
        "serial",
        "since",
        "slot",
        "use",
    )

    def __init__(
        self,
        since: float,
        deadline: float = math.inf,
        *,
        rank: int = INTERACTIVE,
        fresh: bool = False,
        future: Any = None,
    ) -> None:
        self.since = since
        self.deadline = deadline
        self.rank = rank
        self.fresh = fresh
        self.lane = 2 * rank + fresh
        self.serial = 0
        self.order = (since, 0)
        self.slot: Slot | None = None
        self.use = 0
        self.reused = True
        self.connect_time = 0.0
        self.future = future

    def begin_again(self, future: Any) -> None:
        """Give up what it was given, and wait once more, ahead of everybody."""
        self.rank = FRONT
        self.lane = 2 * FRONT + self.fresh
        self.slot = None
        self.reused, self.connect_time = True, 0.0
        self.future = future

    def stand(self, serial: int) -> None:
        """Take a place in the order."""
        self.serial = serial
        arrival = -math.inf if self.rank == FRONT else self.since + (BULK_AGEING if self.rank == BULK else 0.0)
        self.order = (arrival, serial)


class WaitingLine:
    """All waiters. First come, first served within a rank; joining, leaving and looking at the first cost O(1).

    There is one lane for each rank, twice: those who need a fresh connection may have to be passed by.

    Attributes:
        size: How many wait.
        fresh: How many of them need a fresh connection.
    """

    __slots__ = ("_deadlines", "_lanes", "_usual", "fresh", "size")

    def __init__(self) -> None:
        self._lanes: tuple[OrderedDict[Waiter, None], ...] = tuple(OrderedDict() for _ in range(6))
        self._usual = self._lanes[2 * INTERACTIVE]
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self.size = self.fresh = 0

    def __iter__(self) -> Iterator[Waiter]:
        for lane in self._lanes:
            yield from lane

    def join(self, waiter: Waiter) -> None:
        """Let a waiter stand in line; it has its `order` already."""
        self._lanes[waiter.lane][waiter] = None
        self.size += 1
        self.fresh += waiter.fresh
        if waiter.deadline < math.inf:
            heapq.heappush(self._deadlines, (waiter.deadline, waiter.serial, waiter))

    def leave(self, waiter: Waiter) -> bool:
        """Let a waiter go, and say whether it stood in line."""
        lane = self._lanes[waiter.lane]
        if waiter not in lane:
            return False
        del lane[waiter]
        self.size -= 1
        self.fresh -= waiter.fresh
        # A deadline that is not needed any more stays in the heap until it comes up or until too many do.
        if len(self._deadlines) > 2 * self.size + _SLACK:
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self._lanes[entry[2].lane]]
            heapq.heapify(self._deadlines)
        return True

    def first(self, serial: int = NEWEST) -> Waiter | None:
        """Return the first waiter that may use a connection with this serial."""
        if len(self._usual) == self.size:
            return next(iter(self._usual), None)
        best: Waiter | None = None
        for lane in self._lanes:
            if lane:
                # Of those who need a fresh one the head came first, so it is the easiest to satisfy.
                waiter = next(iter(lane))
                if not (waiter.fresh and waiter.serial > serial) and (best is None or waiter.order < best.order):
                    best = waiter
        return best

    def arrivals(self, start: int, stop: int) -> tuple[float, ...]:
        """Return the arrivals, as in `Waiter.order`, of those in the given places of the line."""
        lanes = [[waiter.order for waiter in islice(lane, stop)] for lane in self._lanes if lane]
        orders = lanes[0] if len(lanes) == 1 else heapq.merge(*lanes)
        return tuple(arrival for arrival, _ in islice(orders, start, stop))

    @property
    def oldest_since(self) -> float:
        """When the one that waits longest began; infinity where nobody waits."""
        return min((next(iter(lane)).since for lane in self._lanes if lane), default=math.inf)

    @property
    def next_deadline(self) -> float:
        """When the next waiter fails; infinity where none does. Never later than the truth."""
        return self._deadlines[0][0] if self._deadlines else math.inf

    def expire(self, now: float) -> list[Waiter]:
        """Let everybody go whose deadline has come, and return them."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            waiter = heapq.heappop(self._deadlines)[2]
            if self.leave(waiter):
                expired.append(waiter)
        return expired

    def dismiss(self, *, fresh_only: bool = False) -> list[Waiter]:
        """Let everybody go, or everybody who needs a fresh connection, and return them in order."""
        dismissed = sorted((one for one in self if one.fresh or not fresh_only), key=lambda waiter: waiter.order)
        for waiter in dismissed:
            self.leave(waiter)
        return dismissed
