"""`ConnectionLimits`: one bound for the connections of all pools of the process together.

The layer below the pools, as the Java SDK's dispatcher lies below its object pools. The rules are those of
`speechpool.limits.ledger`; here are the lock and the wake-ups, so that pools of several threads and event loops can
share one bound. Nothing waits: a pool that gets no place goes on, and is woken when it has one. Arrivals are compared
in the time of the loops, so these must count the same seconds; asyncio's and uvloop's do (`time.monotonic`).
"""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from speechpool.errors import SettingsError

from . import java
from .ledger import Ledger, Share

__all__ = ["ConnectionLimits", "ConnectionLimitsState", "Places"]

logger = logging.getLogger("speechpool.limits")

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

_all: weakref.WeakSet[ConnectionLimits] = weakref.WeakSet()
_by_environment: dict[tuple[int | None, int | None], ConnectionLimits] = {}


def _forked() -> None:
    # The connections of the parent are none of the child's, and a lock may be held by a thread that it has not.
    for limits in _all:
        limits._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimitsState:
    """The limits at one moment.

    Attributes:
        total: Most connections of all pools; None: any number.
        per_host: Most connections to one host; None: any number.
        pools: Pools that take part.
        used: Places taken: connections that open, live or close.
        closing: Those of them that close.
        reserved: Places promised to a pool that has not dialled yet.
        waiting: Dials that wait for a place.
        by_host: Places taken or promised, by host.
    """

    total: int | None
    per_host: int | None
    pools: int
    used: int
    closing: int
    reserved: int
    waiting: int
    by_host: Mapping[str, int]


class ConnectionLimits:
    """Bounds the connections of all pools that are given it, whatever their event loops and threads.

        limits = ConnectionLimits(total=200, per_host=100)
        async with AsyncSpeechPool(endpoint, limits=limits) as pool: ...

    A connection counts from the start of its dial until its peer is gone or `close_timeout` has passed. At the limit

    - the connection that has been idle longest, of a pool that has more than its `min_size`, closes for whoever waits;
    - places go to the waiters of all pools in order of arrival, before the floors that nobody waits for;
    - a connection that comes back to a pool above its `min_size` closes for the waiter of another pool, if that one
      came more than `WARM_CREDIT` seconds before the first waiter of its own: a warm connection is worth a little.

    Floors that do not fit under the limit together are cut in proportion, and half of each part can be lent to others.

    Args:
        total: Most connections of all pools; None: any number.
        per_host: Most connections to one host name; None: any number.

    Raises:
        SettingsError: A limit is below 1.
    """

    def __init__(self, total: int | None = None, per_host: int | None = None) -> None:
        for name, value in (("total", total), ("per_host", per_host)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise SettingsError(f"ConnectionLimits.{name} = {value!r} must be at least 1 connection, or None.")
        self.total = total
        self.per_host = per_host
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._ledger = Ledger(_or_any(self.total), _or_any(self.per_host))
        self._places: dict[Share, Places] = {}
        self._left: deque[Share] = deque()

    def __repr__(self) -> str:
        return f"ConnectionLimits(total={self.total}, per_host={self.per_host})"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ConnectionLimits | None:
        """Return the limits that the variables of the Java SDK set for this process; None where none is set.

        `DASHSCOPE_MAXIMUM_ASYNC_REQUESTS` and `DASHSCOPE_CONNECTION_POOL_SIZE` are the total, the smaller one counts;
        `DASHSCOPE_MAXIMUM_ASYNC_REQUESTS_PER_HOST` is the limit for a host. What is not set bounds nothing (in Java:
        32). The same values give the same object, so that all pools share it.

        Raises:
            SettingsError: A variable holds no whole number from 1 to 1,000,000.
        """
        bounds = java.connection_limits(environ)
        if bounds == (None, None):
            return None
        return _by_environment.get(bounds) or _by_environment.setdefault(bounds, cls(*bounds))

    def places(self, host: str) -> Places | None:
        """Return what one pool needs to keep to the limits; None where there are none. It takes part from `join` on."""
        return None if self.total is None and self.per_host is None else Places(self, host)

    def too_large(self, max_size: int) -> str | None:
        """Return why a pool is larger than the limits allow, with the arithmetic; None where it is not."""
        bounds = [("total", self.total), ("per_host", self.per_host)]
        name, limit = min(((name, _or_any(value)) for name, value in bounds), key=lambda bound: bound[1])
        if max_size <= limit:
            return None
        return (
            f"max_size = {max_size} is more than the connection limit {name} = {limit:.0f}: {max_size} - {limit:.0f} = "
            f"{max_size - limit:.0f} borrowers would wait for a connection that may not be opened. Raise the limit to "
            f"at least {max_size}, or lower max_size to {limit:.0f}."
        )

    @property
    def state(self) -> ConnectionLimitsState:
        """Every number, true at this moment."""
        return self._do(self._state)

    def _state(self) -> ConnectionLimitsState:
        shares = self._ledger.shares
        return ConnectionLimitsState(
            total=self.total,
            per_host=self.per_host,
            pools=len(shares),
            used=sum(share.used for share in shares),
            closing=sum(share.closing for share in shares),
            reserved=sum(share.reserved for share in shares),
            waiting=sum(len(share.unmet) for share in shares),
            by_host={host: count for host, count in self._ledger.taken_by_host.items() if count},
        )

    # The lock and the wake-ups

    def _do(
        self, event: Callable[_Arguments, _Answer], *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Answer:
        """Tell the ledger something, and wake whoever has to look at its share."""
        with self._lock:
            answer = event(*arguments, **named)
            self._wake()
            if self._ledger.pressed:
                self._left.extend(share for share, places in self._places.items() if not places._alive())
        self._sweep()
        return answer

    def _join(self, places: Places) -> None:
        self._places[places._share] = places
        self._ledger.join(places._share)

    def _wake(self) -> None:
        # Under the lock: a wake-up only posts something to a loop.
        ledger = self._ledger
        while ledger.changed:
            share, _ = ledger.changed.popitem()
            places = self._places.get(share)
            if places is not None:
                places._wake()

    def _leave(self, share: Share) -> None:
        """Let a pool go. Comes from finalisers, too, which may run while this very thread holds the lock."""
        self._left.append(share)
        self._sweep()

    def _sweep(self) -> None:
        # Whoever holds the lock looks here after letting it go, so nobody is left behind.
        while self._left and self._lock.acquire(blocking=False):
            try:
                while self._left:
                    share = self._left.popleft()
                    self._places.pop(share, None)
                    self._ledger.leave(share)
                    self._wake()
            finally:
                self._lock.release()


class Places:
    """What one pool does with the limits. Quick, and never waits; for the thread of the pool, except `leave`."""

    __slots__ = ("_alive", "_limits", "_share", "_wake")

    def __init__(self, limits: ConnectionLimits, host: str) -> None:
        self._limits = limits
        self._share = Share(host, lambda _: [])
        self._wake: Callable[[], None] = lambda: None
        self._alive: Callable[[], bool] = lambda: True

    def join(
        self, spare: Callable[[int], list[float]], wake: Callable[[], None], alive: Callable[[], bool] = lambda: True
    ) -> None:
        """Take part. None of the functions may hold the pool alive.

        Args:
            spare: As `Share.spare`.
            wake: Has the pool look at its share soon, on its own loop; called from any thread.
            alive: Whether that loop can still run. With a loop that was closed all its connections have ended.
        """
        self._share.spare, self._wake, self._alive = spare, wake, alive
        self._limits._do(self._limits._join, self)

    def leave(self) -> None:
        """Take part no longer: every place is free. May be called twice, and by a finaliser."""
        self._limits._leave(self._share)

    def keep(self, floor: int) -> None:
        """Say how many connections the pool wants to keep."""
        if floor != self._share.floor:
            self._limits._do(self._limits._ledger.keep, self._share, floor)

    def take(self) -> bool:
        """Take a place for a dial, and say whether there is one."""
        return self._limits._do(self._limits._ledger.take, self._share)

    def ask(self, wants: tuple[float, ...]) -> None:
        """Say for whom the pool would dial now if it could; as `Share.wants`."""
        share = self._share
        if wants != share.wants or share.reserved:
            self._limits._do(self._limits._ledger.ask, share, wants)

    def close(self) -> None:
        """Say that a connection begins to close."""
        self._limits._do(self._limits._ledger.close, self._share)

    def gone(self, *, closing: bool) -> None:
        """Say that a connection is gone."""
        self._limits._do(self._limits._ledger.gone, self._share, closing=closing)

    def looked(self) -> None:
        """Say that the pool has looked at its share and closed what it can."""
        self._limits._do(self._limits._ledger.looked)

    @property
    def fair(self) -> int:
        """How much of its floor the pool may keep."""
        return self._share.fair

    @property
    def kept(self) -> int:
        """How many connections nobody takes from it."""
        return self._share.kept

    @property
    def evict(self) -> int:
        """How many idle connections it should close for others."""
        return self._share.evict

    @property
    def held_up(self) -> bool:
        """It wants to dial and may not."""
        return bool(self._share.unmet)

    @property
    def room(self) -> int | float:
        """How many dials it may begin now."""
        return self._share.reserved + max(0, self._limits._ledger.room(self._share.host))

    @property
    def reach(self) -> int:
        """How many dials it may begin without anybody's return."""
        return self._limits._do(self._limits._ledger.reach, self._share)

    @property
    def pressure(self) -> float:
        """When the first one arrived who can only be helped if a connection of this pool closes; infinity: nobody."""
        return self._limits._ledger.pressure(self._share.host)

    @property
    def limit(self) -> str:
        """Which limit is in the way, for messages."""
        limits, host = self._limits, self._share.host
        ledger = limits._ledger
        if limits.per_host is not None and ledger.taken_by_host[host] >= limits.per_host:
            return f"the connection limit per_host = {limits.per_host} is used up for {host}"
        pools = "1 pool" if len(ledger.shares) == 1 else f"{len(ledger.shares)} pools"
        return f"the connection limit total = {limits.total} is used up by {pools}"


def _or_any(limit: int | None) -> float:
    return math.inf if limit is None else limit
