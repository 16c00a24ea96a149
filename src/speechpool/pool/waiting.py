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


class Waiter:
    """One borrow that could not be served at once.

    Attributes:
        since: When the borrow began.
        deadline: When it fails.
        rank: FRONT, INTERACTIVE or BULK.
        fresh: Only a connection will do that opens after the borrow began.
        serial: Its place among all borrows and openings; drawn by the core.
        slot: What it was given.
        use: The number of that hand-over.
        reused: The connection was open before it was handed over, so no dial was waited for.
        lane: Where it stands in a `WaitingLine`: there is one for each rank, twice.
        predicted: Seconds that it was expected to wait; None: unknown.
        connect_time: Seconds that the connection's dial ran after the borrow began; 0 on reuse.
        future: The engine's own; the core never looks at it.
    """

    # On the class: few of them ever change, and every borrow that waits makes a waiter.
    serial = 0
    slot: Slot | None = None
    use = 0
    reused = True
    connect_time = 0.0
    predicted: float | None = None

    def __init__(
        self,
        since: float,
        deadline: float = math.inf,
        rank: int = INTERACTIVE,
        fresh: bool = False,
        future: Any = None,
    ) -> None:
        self.since = since
        self.deadline = deadline
        self.rank = rank
        self.fresh = fresh
        self.lane = 2 * rank + fresh
        self.future = future

    def begin_again(self, future: Any) -> None:
        """Give up what it was given, and wait once more, ahead of everybody."""
        self.rank = FRONT
        self.lane = 2 * FRONT + self.fresh
        self.slot = None
        self.reused, self.connect_time = True, 0.0
        self.future = future

    @property
    def order(self) -> tuple[float, int]:
        """Who is served first: the smaller one."""
        arrival = -math.inf if self.rank == FRONT else self.since + (BULK_AGEING if self.rank == BULK else 0.0)
        return arrival, self.serial


class WaitingLine:
    """All waiters. First come, first served within a rank; joining, leaving and looking at the first cost O(1).

    There is one lane for each rank, twice: those who need a fresh connection may have to be passed by.

    Attributes:
        size: How many wait.
        fresh: How many of them need a fresh connection.
        next_deadline: When the next waiter fails; infinity where none does. Never later than the truth.
    """

    __slots__ = ("_deadlines", "_lanes", "_sorted", "_usual", "fresh", "next_deadline", "size")

    def __init__(self) -> None:
        self._lanes: tuple[OrderedDict[Waiter, None], ...] = tuple(OrderedDict() for _ in range(6))
        self._usual = self._lanes[2 * INTERACTIVE]
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._sorted = 0
        self.next_deadline = math.inf
        self.size = self.fresh = 0

    def __iter__(self) -> Iterator[Waiter]:
        for lane in self._lanes:
            yield from lane

    def join(self, waiter: Waiter) -> None:
        """Let a waiter stand in line; it has its serial already."""
        self._lanes[waiter.lane][waiter] = None
        self.size += 1
        self.fresh += waiter.fresh
        if waiter.deadline < self.next_deadline:  # noqa: PLR1730  # a call of min() costs more than all of this
            self.next_deadline = waiter.deadline

    def leave(self, waiter: Waiter) -> bool:
        """Let a waiter go, and say whether it stood in line."""
        lane = self._lanes[waiter.lane]
        if waiter not in lane:
            return False
        del lane[waiter]
        self.size -= 1
        self.fresh -= waiter.fresh
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

    def serve(self, serial: int) -> Waiter | None:
        """Let the first waiter go that may use a connection with this serial, and return it."""
        if self.size and len(self._usual) == self.size:  # most often nobody else is there
            waiter, _ = self._usual.popitem(last=False)
            self.size -= 1
            return waiter
        best = self.first(serial)
        if best is not None:
            self.leave(best)
        return best

    @property
    def bulk(self) -> int:
        """How many of them are bulk borrowers."""
        return sum(map(len, self._lanes[2 * BULK :]))

    def ahead(self, rank: int, now: float) -> int:
        """Return how many stand before one of this rank that comes now; bulk borrowers as if they came evenly."""
        if rank == BULK or len(self._usual) == self.size:
            return self.size
        return self.size - sum(_later(lane, now - BULK_AGEING) for lane in self._lanes[2 * BULK :])

    def arrivals(self, start: int, stop: int) -> tuple[float, ...]:
        """Return the arrivals, as in `Waiter.order`, of those in the given places of the line."""
        lanes = [[waiter.order for waiter in islice(lane, stop)] for lane in self._lanes if lane]
        orders = lanes[0] if len(lanes) == 1 else heapq.merge(*lanes)
        return tuple(arrival for arrival, _ in islice(orders, start, stop))

    @property
    def oldest_since(self) -> float:
        """When the one that waits longest began; infinity where nobody waits."""
        return min((next(iter(lane)).since for lane in self._lanes if lane), default=math.inf)

    def expire(self, now: float) -> list[Waiter]:
        """Let everybody go whose deadline has come, and return them."""
        if now < self.next_deadline:
            return []
        self._sort()
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            waiter = heapq.heappop(self._deadlines)[2]
            if self.leave(waiter):
                expired.append(waiter)
        self.next_deadline = self._deadlines[0][0] if self._deadlines else math.inf
        return expired

    def _sort(self) -> None:
        """Sort in the deadlines of those who joined since the last time, and forget those of who has left.

        Only when a deadline comes up: nearly everybody is served before that, and has cost nothing here.
        """
        self._deadlines = [entry for entry in self._deadlines if entry[2] in self._lanes[entry[2].lane]]
        heapq.heapify(self._deadlines)
        newest = self._sorted
        for lane in self._lanes:
            for waiter in reversed(lane):
                if waiter.serial <= self._sorted:
                    break
                newest = max(newest, waiter.serial)
                if waiter.deadline < math.inf:
                    heapq.heappush(self._deadlines, (waiter.deadline, waiter.serial, waiter))
        self._sorted = newest

    def dismiss(self, *, fresh_only: bool = False) -> list[Waiter]:
        """Let everybody go, or everybody who needs a fresh connection, and return them in order."""
        dismissed = sorted((one for one in self if one.fresh or not fresh_only), key=lambda waiter: waiter.order)
        for waiter in dismissed:
            self.leave(waiter)
        return dismissed


def _later(lane: OrderedDict[Waiter, None], moment: float) -> int:
    """Return about how many of a lane came after a moment, without looking at each."""
    if not lane:
        return 0
    oldest, newest = next(iter(lane)).since, next(reversed(lane)).since
    if newest <= moment or oldest > moment:
        return 0 if newest <= moment else len(lane)
    return round(len(lane) * (newest - moment) / (newest - oldest))
