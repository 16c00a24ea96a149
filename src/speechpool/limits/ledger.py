"""The books of `ConnectionLimits`: how many connections each pool holds, who may open one, and who gives one up.

A state machine like the core of the pool: no loop, no lock, no clock, no log. Every method changes the books at once
and settles them: places that are free go to the first wish in order of arrival that its host has room for
(`_grant`); for each wish that is still unmet one connection is on its way out, and where none is, the least useful
idle one of a pool that has more than it must keep (`_make_room`). Who has to look at its share afterwards stands in
`changed`. The pool's side of it is `speechpool.pool.limited`; both together run through any interleaving in
tests/pool/test_limits_stateful.py.

A share has two lines. Up to `fair` it may keep its floor: floors that do not fit under the limit are cut in
proportion. Up to `kept` nothing idle is taken from it: all of `fair` where the floors fit, half of it where they do
not, because otherwise nothing would be left that can follow the load. One place is always left to pools that keep none.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from operator import itemgetter

__all__ = ["UPKEEP", "Ledger", "Share"]

UPKEEP = sys.float_info.max
"""The arrival of a wish that nobody waits for, because it only keeps a floor: after everybody."""


class Share:
    """What one pool has of the limits.

    Attributes:
        host: Where its connections go.
        spare: Returns since when its idle connections have been idle, longest first, at most so many. May be asked
            from any thread: what it says is a hint, and the pool decides.
        floor: How many connections the pool wants to keep.
        fair: How many of them fit beside the floors of the others.
        kept: How many of those nobody takes away.
        used: Places taken: connections that open, live or close.
        closing: Those of them that close.
        reserved: Places granted and not yet taken.
        evict: Connections it was asked to close for others.
        wants: When those arrived for whom it would dial now if it could, in order.
    """

    __slots__ = ("closing", "evict", "fair", "floor", "host", "kept", "reserved", "spare", "used", "wants")

    def __init__(self, host: str, spare: Callable[[int], list[float]], floor: int = 0) -> None:
        self.host = host
        self.spare = spare
        self.floor = self.fair = self.kept = floor
        self.used = self.closing = self.reserved = self.evict = 0
        self.wants: tuple[float, ...] = ()

    @property
    def standing(self) -> int:
        """Connections that stay, as things are."""
        return self.used - self.closing - self.evict

    @property
    def unmet(self) -> tuple[float, ...]:
        """The wishes for which no place is reserved."""
        return self.wants[self.reserved :]


class Ledger:
    """All shares, and the rules between them.

    Args:
        total: Most connections of all pools.
        per_host: Most connections to one host.

    Attributes:
        shares: Everybody who takes part.
        taken: Places that are used or reserved.
        taken_by_host: The same for each host.
        changed: Who has to look at its share; whoever delivers that, empties it.
    """

    def __init__(self, total: float = math.inf, per_host: float = math.inf) -> None:
        self.total = total
        self.per_host = per_host
        self.shares: dict[Share, None] = {}
        self.taken = 0
        self.taken_by_host: Counter[str] = Counter()
        self.changed: dict[Share, None] = {}
        self._asking: dict[Share, None] = {}
        self._pressure = math.inf
        self._pressure_by_host: dict[str, float] = {}

    # Events

    def join(self, share: Share) -> None:
        """Let a pool take part."""
        self.shares[share] = None
        self._cut_floors()
        self._settle()

    def leave(self, share: Share) -> None:
        """Let a pool go, with all that it holds. A second call does nothing."""
        if share in self.shares:
            del self.shares[share]
            self._asking.pop(share, None)
            self._count(share, -share.used - share.reserved)
            share.used = share.closing = share.reserved = share.evict = 0
            share.wants = ()
            self._cut_floors()
            self._settle()

    def keep(self, share: Share, floor: int) -> None:
        """Note how many connections a pool wants to keep."""
        share.floor = floor
        if share in self.shares:
            self._cut_floors()
            self._settle()
        else:
            share.fair = share.kept = floor

    def take(self, share: Share) -> bool:
        """Take a place for a dial, and say whether there is one."""
        if share.reserved:
            share.reserved -= 1
            share.wants = share.wants[1:]
        elif share in self.shares and self.room(share.host) > 0:
            self._count(share, 1)
        else:
            return False
        share.used += 1
        self._settle()
        return True

    def ask(self, share: Share, wants: tuple[float, ...]) -> None:
        """Note what a pool wants now, in place of what it wanted before. Places it needs no longer go on."""
        if share not in self.shares:
            return
        share.wants = wants
        needless = max(0, share.reserved - len(wants))
        share.reserved -= needless
        self._count(share, -needless)
        if wants:
            self._asking[share] = None
        else:
            self._asking.pop(share, None)
        self._settle()

    def close(self, share: Share) -> None:
        """Learn that a connection begins to close: its place is on its way."""
        if share in self.shares:
            share.closing += 1
            self._settle()

    def gone(self, share: Share, *, closing: bool) -> None:
        """Learn that a connection, closing or not, is gone: its place is free."""
        if share in self.shares:
            share.used -= 1
            share.closing -= closing
            self._count(share, -1)
            self._settle()

    def looked(self) -> None:
        """Learn that a pool has closed what it was asked for, or cannot: its idle connections say so."""
        self._settle()

    # Reading

    @property
    def pressed(self) -> bool:
        """Somebody waits for a place, or for a pool to look at its share."""
        return bool(self._asking)

    def room(self, host: str) -> float:
        """How many places are free for a host."""
        return min(self.total - self.taken, self.per_host - self.taken_by_host[host])

    def pressure(self, host: str) -> float:
        """When the first one arrived who can only be helped if a connection to this host closes; infinity: nobody."""
        return min(self._pressure, self._pressure_by_host.get(host, math.inf))

    def reach(self, share: Share) -> int:
        """How many dials a pool may begin without anybody's return."""
        room, by_host = self._coming()
        gain = Counter(other.host for _, other in self._spares())
        # Whoever keeps a floor comes after a waiter.
        gain.subtract(other.host for arrival, other in self._wishes() if other is not share and arrival < UPKEEP)
        here = self.per_host - by_host[share.host] + gain[share.host]
        return share.reserved + int(max(0, min(room + gain.total(), here)))

    # Rules

    def _count(self, share: Share, places: int) -> None:
        self.taken += places
        self.taken_by_host[share.host] += places

    def _cut_floors(self) -> None:
        """Let each pool keep its floor or, where the floors do not fit together, its part of what fits."""
        before = [(share, share.fair, share.kept) for share in self.shares]
        hosts: dict[str, list[Share]] = {}
        for share in self.shares:
            hosts.setdefault(share.host, []).append(share)
            share.fair = share.floor
        groups = [*((shares, self.per_host) for shares in hosts.values()), (list(self.shares), self.total)]
        for shares, limit in groups:
            _cut(shares, limit)
        for share in self.shares:
            share.kept = share.fair if share.fair == share.floor else share.fair // 2
        for shares, limit in groups:
            _leave_one(shares, limit)
        for share, fair, kept in before:
            if (fair, kept) != (share.fair, share.kept):
                self.changed[share] = None

    def _settle(self) -> None:
        # Requests that were not met yet are made anew: the wish behind one may have gone.
        asked = {share: share.evict for share in self.shares if share.evict}
        for share in asked:
            share.evict = 0
        if self._asking:
            self._grant()
            self._make_room()
            self.changed.update((share, None) for share in self.shares if share.evict > asked.get(share, 0))
        else:
            self._pressure = math.inf
            self._pressure_by_host.clear()

    def _wishes(self) -> list[tuple[float, Share]]:
        """Return what is unmet, in order of arrival."""
        wishes = [(arrival, share) for share in self._asking for arrival in share.unmet]
        wishes.sort(key=_first)
        return wishes

    def _grant(self) -> None:
        if self.taken >= self.total:
            return
        for _, share in self._wishes():
            # A wish whose own host is full holds up nobody else's.
            if self.room(share.host) > 0:
                share.reserved += 1
                self._count(share, 1)
                self.changed[share] = None

    def _make_room(self) -> None:
        """See that one connection closes for each unmet wish; where there is none to close, press for the next one."""
        wishes = self._wishes()
        # Before the idle ones are looked at: a pool of another thread looks here after it has laid one down, so one of
        # the two sees the other (tests/pool/test_shared_limits.py::test_pools_of_two_threads_share_one_limit).
        self._pressure = wishes[0][0] if wishes else math.inf
        if not wishes:
            self._pressure_by_host.clear()
            return
        room, by_host = self._coming()
        spares = self._spares()
        pressure = math.inf
        pressure_by_host: dict[str, float] = {}
        for arrival, share in wishes:
            full = self.per_host - by_host[share.host] <= 0
            if not full and room > 0:
                room -= 1
                by_host[share.host] += 1
                continue
            victim = _victim(spares, share.host if full else None, upkeep=arrival == UPKEEP)
            if victim is not None:
                victim.evict += 1
                by_host[victim.host] -= 1
                by_host[share.host] += 1
            elif full:
                pressure_by_host.setdefault(share.host, arrival)
            else:
                pressure = arrival
                break  # nobody who comes later finds more
        self._pressure_by_host = pressure_by_host
        self._pressure = pressure

    def _coming(self) -> tuple[float, Counter[str]]:
        """Return the places that will be free, and those that each host will hold, once all that closes is gone."""
        room = self.total - self.taken
        by_host = self.taken_by_host.copy()
        for share in self.shares:
            coming = share.closing + share.evict
            if coming:
                room += coming
                by_host[share.host] -= coming
        return room, by_host

    def _spares(self) -> list[tuple[float, Share]]:
        """Return the idle connections above what their pools must keep, the least useful one first."""
        found = []
        for share in self.shares:
            surplus = share.standing - share.kept
            if surplus > 0:
                idle = share.spare(share.evict + surplus)[share.evict :]
                found += [(since, share) for since in idle]
        found.sort(key=_first)
        return found


def _cut(shares: list[Share], limit: float) -> None:
    """Cut the floors in proportion where they do not fit under a limit."""
    floors = sum(share.fair for share in shares)
    if floors > limit:
        for share in shares:
            share.fair = int(share.fair * limit // floors)


def _leave_one(shares: list[Share], limit: float) -> None:
    """Leave one place to the pools that keep none: else idle floors would let their borrowers wait for ever."""
    if sum(share.kept for share in shares) >= limit and not all(share.kept for share in shares):
        max(shares, key=lambda share: share.kept).kept -= 1


def _victim(spares: list[tuple[float, Share]], host: str | None, *, upkeep: bool) -> Share | None:
    """Take the first spare connection that may close for a wish: for a floor none that another floor needs."""
    for index, (_, share) in enumerate(spares):
        line = share.fair if upkeep else share.kept
        if (host is None or share.host == host) and share.standing > line:
            del spares[index]
            return share
    return None


_first = itemgetter(0)
