"""The pool, as its owner and its borrowers see it.

A borrower waits on the pool, never on the network. It holds a plain future; a hand-over sets its result, and where
its task was cancelled in the same turn of the loop, the connection goes on at once (tests/pool/test_cancellation.py).
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import random as _random
from collections.abc import Callable
from typing import Generic, TypeVar

from speechpool.errors import LeaseError, SettingsError
from speechpool.limits import ConnectionLimits, Priority
from speechpool.settings import LifetimeProfile, PoolSettings
from speechpool.telemetry.events import Listeners

from . import stacks
from .connector import Connector
from .core import UNKNOWN, Phase
from .engine import Engine
from .lease import UNSET, Lease, Unset
from .refusals import away, copied, refusal
from .slot import Refusal, Slot
from .stats import PoolStats, explain, take_stats
from .waiting import BULK, FRONT, INTERACTIVE, Waiter

__all__ = ["Pool"]

C = TypeVar("C")

_RANKS: dict[object, int] = {"interactive": INTERACTIVE, "bulk": BULK, FRONT: FRONT}
"""FRONT is what `Lease.renew` asks for; no priority of a user."""


class Pool(Engine, Generic[C]):
    """Warm connections to one endpoint.

    Belongs to the event loop that opens it. A forked child inherits no right to it: there, every call raises
    `WrongLoop`, and the parent's connections stay as they are.

    Args:
        connector: Opens, judges and closes the connections.
        settings: Sizes and times.
        name: For messages and metrics.
        connect_timeout: Seconds that one dial, and `open` as a whole, may take; None: any time.
        listeners: Told of connections that open and close, and of outages.
        on_borrowed: Called with (borrowed, max_size, time) whenever one of the first two changes.
        random: Returns a number in [0, 1), for all jitter; tests pass their own.
        limits: The bound that it shares with other pools; None: none.
        host: Where its connections go, for a limit of each host; None: the connector's endpoint.
        profile: How long the provider is known to keep connections; what is seen of it corrects that.
    """

    def __init__(
        self,
        connector: Connector[C],
        settings: PoolSettings,
        *,
        name: str = "default",
        connect_timeout: float | None = 10.0,
        on_borrowed: Callable[[int, int, float], None] | None = None,
        listeners: Listeners | None = None,
        random: Callable[[], float] = _random.random,
        limits: ConnectionLimits | None = None,
        host: str | None = None,
        profile: LifetimeProfile = UNKNOWN,
    ) -> None:
        super().__init__(
            connector,
            settings,
            name=name,
            connect_timeout=connect_timeout,
            on_borrowed=on_borrowed,
            listeners=listeners,
            random=random,
            limits=limits,
            host=host,
            profile=profile,
        )

    # Reading

    @property
    def stats(self) -> PoolStats:
        """Every number of the pool, true at this moment."""
        return take_stats(self._core, self.name, self.endpoint, self._now())

    def explain(self) -> str:
        """Say in a few sentences what the pool does now, and why."""
        return explain(self._core, self.stats)

    # Life

    async def open(self) -> None:
        """Start, and return when one connection is open, or at once where `min_size` is 0. The others follow.

        Where only the limits that it shares with other pools keep it from dialling, it returns after `connect_timeout`:
        the pool is open, and its borrowers wait for their turn.

        Cancellation: the pool is closed.

        Raises:
            ConnectFailed: The endpoint refuses for good (raised at once), or nothing opened within `connect_timeout`.
                The pool is closed.
            PoolClosed: The pool was closed before.
            WrongLoop: The pool was opened on another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._bind(loop)
        self._check_loop()
        now = self._now()
        self._perform(self._core.start(now), now)
        core = self._core
        if core.floor > 0:
            limit = math.inf if self._connect_timeout is None else now + self._connect_timeout
            try:
                await self._until(lambda: self._ready >= 1 or self._stuck, limit)
            except BaseException:
                self._begin_close()
                raise
            held_up = core.limited_by is not None and core.pace.error is None
            if core.phase is Phase.RUNNING and self._ready < 1 and not held_up:
                error = core.pace.error or self._jobs.too_slow()
                await self.close()
                raise copied(error)
        if core.phase is not Phase.RUNNING:
            raise self._closed()

    async def wait_ready(self, min_ready: int | None = None) -> None:
        """Wait until connections are open.

        Args:
            min_ready: How many, idle or borrowed; None: the whole floor.

        Raises:
            SettingsError: More than `max_size` would be needed.
            ConnectFailed: The endpoint refuses connections for good. The pool keeps trying, slowly.
            EndpointDown: The endpoint is away. The pool keeps trying; call again to go on waiting.
            PoolClosed: The pool drains or was closed.
            WrongLoop: Called outside the event loop of the pool.
        """
        self._check_loop()
        core = self._core
        if min_ready is not None and min_ready > core.max_size:
            raise SettingsError(
                f"min_ready = {min_ready} is above max_size = {core.max_size}; it will never be reached."
            )

        def ready() -> bool:
            return self._ready >= (core.floor if min_ready is None else min_ready)

        await self._until(lambda: ready() or self._stuck or core.pace.down)
        if core.phase is not Phase.RUNNING:
            raise self._closed()
        if ready():
            return
        if core.pace.refused is not None:
            raise copied(core.pace.refused)
        raise away(self.stats)

    async def resize(self, max_size: int, min_size: int | None = None) -> None:
        """Take other sizes, at once. Borrowed connections beyond a smaller one live until their return.

        Args:
            max_size: Most connections.
            min_size: The warm floor; None: what it was, as far as it fits under `max_size`.

        Raises:
            SettingsError: The sizes contradict each other.
            WrongLoop: Called outside the event loop of the pool.
        """
        self._check_loop()
        old = self.settings
        if min_size is None and old.min_size is not None:
            min_size = min(old.min_size, max_size)
        now = self._now()
        self._perform(self._core.resize(dataclasses.replace(old, max_size=max_size, min_size=min_size), now), now)
        self._tell(now)

    async def drain(self) -> None:
        """Lend to nobody new, and wait until every lease is back and every connection closed.

        Who waits already is still served. `close` afterwards; it is quick then.

        Cancellation: the pool goes on draining.

        Raises:
            WrongLoop: Called outside the event loop of the pool.
        """
        self._check_loop()
        now = self._now()
        self._perform(self._core.drain(now), now)
        await self._until(lambda: not self._core.slots and not self._core.line.size)

    async def close(self, drain: float | None = None) -> None:
        """Close for good. Who waits fails in this call; idle connections close, borrowed ones on their return.

        Args:
            drain: Seconds to wait for borrowed connections, which are dropped then; None: not waited for.

        Cancellation: closing goes on in the background. May be called again, also at the same time.

        Raises:
            WrongLoop: Called outside the event loop of the pool.
        """
        if self._loop is not None:
            self._check_loop()
        self._begin_close()
        if self._loop is None:
            return
        if drain is not None and self._core.borrowed and self._abort_timer is None:
            self._abort_after(drain)
        await self._until(self._quiet)

    def _begin_close(self) -> None:
        now = self._now()
        self._perform(self._core.close(now), now)

    def _quiet(self) -> bool:
        core = self._core
        return not (core.opening or core.closing or (core.borrowed and self._abort_timer is not None))

    @property
    def _ready(self) -> int:
        return len(self._core.idle) + self._core.borrowed

    @property
    def _stuck(self) -> bool:
        return self._core.phase is not Phase.RUNNING or self._core.pace.refused is not None

    # Borrowing

    def try_borrow(self, skip: int = 0) -> Lease[C] | None:
        """Borrow an idle connection, without waiting; None where there is none.

        Args:
            skip: Frames of the caller that the report of a leak leaves out, because they are always the same.

        Raises:
            PoolClosed: The pool was never opened.
            WrongLoop: Called outside the event loop of the pool.
        """
        if not self._here():
            raise self._wrong_loop()
        now = self._now()
        return self._take(now, 3 + skip) if self._find_idle(now) else None

    def _take(self, now: float, skip: int) -> Lease[C]:
        slot = self._core.take(now)
        slot.note = stacks.capture(skip)
        self._perform([], now)
        return Lease(self, slot)

    async def borrow(
        self,
        *,
        timeout: float | Unset | None = UNSET,  # noqa: ASYNC109  # a deadline of the queue, not of a block
        deadline: float | None = None,
        priority: Priority = "interactive",
        fresh: bool = False,
    ) -> Lease[C]:
        """Borrow a connection.

        Args:
            timeout: Seconds to wait at most; None: any time. Not given: `borrow_timeout`.
            deadline: The same as a time of the loop. The earlier one counts.
            priority: `bulk` stands behind `interactive`, though not for ever.
            fresh: Only a connection that opens from now on.

        Cancellation: costs the caller its place and nobody else anything.

        Raises:
            PoolTimeout: None became free in time.
            PoolFull: Too many wait already.
            Shed: It would have waited beyond its limit, by what was seen lately; raised at once.
            PoolClosed: The pool is closed, drains, or was never opened.
            ConnectFailed: The endpoint refuses connections for good.
            EndpointDown: The endpoint is away (`outage_after`), and nothing is borrowed that could come back.
            SettingsError: The priority is unknown.
            WrongLoop: Called outside the event loop of the pool.
        """
        rank = _RANKS.get(priority)
        if rank is None:
            raise SettingsError(f"priority = {priority!r} is unknown; choose 'interactive' or 'bulk'.")
        if not self._here():
            raise self._wrong_loop()
        now = self._now()
        core = self._core
        if core.idle and not fresh and self._find_idle(now):
            return self._take(now, 3)
        limit = core.settings.borrow_timeout if timeout is UNSET else timeout
        end = math.inf if limit is None else now + limit
        if deadline is not None and deadline < end:
            end = deadline
        waiter = Waiter(now, end, rank, fresh, self._new_future())
        # All in this coroutine: another one around the wait would cost a tenth of a borrow.
        while True:
            if actions := core.borrow(waiter, now):
                self._perform(actions, now)
            elif core.wake < self._armed:
                self._arm()
            try:
                reason = await waiter.future
            except BaseException:
                # The hand-over may have met the cancellation in one turn of the loop; then the connection goes on
                # (tests/pool/test_cancellation.py::test_t02_cancelled_in_the_tick_of_the_hand_over).
                self._cancel(waiter)
                raise
            now = self._now()
            if reason is not None:
                raise refusal(reason, core, self.stats, waiter, now)
            slot = waiter.slot
            assert slot is not None  # noqa: S101  # a waiter without a reason to fail was served
            if not slot.dead and self._jobs.usable(slot.connection):
                slot.note = stacks.capture(2)
                return Lease(self, slot, waiter.reused, now - waiter.since, waiter.connect_time)
            # It ended between the hand-over and this line. The borrower keeps its place
            # (tests/pool/test_engine.py::test_t16_a_connection_lost_on_the_way_costs_no_place).
            self._take_back(slot, waiter.use, healthy=False, reason="lost")
            waiter.begin_again(self._new_future())

    def return_(self, lease: Lease[C], healthy: bool = True, reason: str = "unhealthy") -> None:
        """Take back a lease; the same as `lease.return_`, for those who hold both.

        Raises:
            LeaseError: It belongs to another pool.
            WrongLoop: Called outside the event loop of the pool.
        """
        if lease.pool is not self:
            raise LeaseError(
                f"the lease belongs to pool {lease.pool.name!r} ({lease.pool.endpoint}), not to pool {self.name!r} "
                f"({self.endpoint}); return it there.",
                endpoint=self.endpoint,
            )
        lease.return_(healthy, reason)

    def _find_idle(self, now: float) -> bool:
        """Make sure that what `take` would lend is alive, and say whether there is something."""
        core = self._core
        if now >= core.wake:
            self._perform(core.tick(now), now)
        while core.idle:
            slot = core.idle[-1]
            if self._jobs.usable(slot.connection):
                return True
            self._perform(core.lost(slot, now), now)
        return False

    def _still_good(self, slot: Slot) -> bool:
        return not slot.dead and self._now() < slot.expires and self._jobs.usable(slot.connection)

    def _closed(self) -> BaseException:
        now = self._now()
        return refusal(Refusal.CLOSED, self._core, self.stats, Waiter(now), now)
