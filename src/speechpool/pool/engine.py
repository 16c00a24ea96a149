"""The machinery of the pool on an event loop: does what the core decides, and owns every dial, close and timer.

Everything that happens (a dial ends, a connection is lost, a timer comes up, a lease comes back) is told to the core,
and what the core answers is done in the same call. `Pool` adds what borrowers and owners use.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
import weakref
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any

from speechpool.errors import PoolClosed, SettingsError, WrongLoop
from speechpool.limits import Backoff, ConnectionLimits, Places
from speechpool.settings import LifetimeProfile, PoolSettings
from speechpool.telemetry.events import ConnectionClosed, ConnectionOpened, EndpointAway, EndpointBack, Listeners

from . import stacks
from .connector import Connector
from .core import Core, Phase
from .counters import Counters
from .jobs import Jobs
from .limited import LimitedCore
from .slot import Abandon, Abort, Action, Close, Fail, HandOver, Open, Overdue, Report, Slot
from .waiting import Waiter

__all__ = ["Engine"]

logger = logging.getLogger("speechpool.pool")

_forks = [0]
"""How often this process has become a child by a fork: a pool that it inherited belongs to its parent."""


def _forked() -> None:
    _forks[0] += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Engine:
    """A core on one event loop. See `Pool` for the arguments."""

    def __init__(
        self,
        connector: Connector[Any],
        settings: PoolSettings,
        *,
        name: str,
        connect_timeout: float | None,
        on_borrowed: Callable[[int, int, float], None] | None,
        listeners: Listeners | None,
        random: Callable[[], float],
        limits: ConnectionLimits | None,
        host: str | None,
        profile: LifetimeProfile,
    ) -> None:
        self.name = name
        self._connector = connector
        self._connect_timeout = connect_timeout
        self._on_borrowed = on_borrowed
        self._listeners = listeners
        self._away = False  # what they were told last
        self._random = random
        backoff = Backoff(settings.open_backoff, settings.open_backoff_idle_cap, random=random)
        self._limits = limits
        self._places: Places | None = None if limits is None else limits.places(host or connector.endpoint)
        self._core: Core = (
            Core(settings, backoff, connect_timeout=connect_timeout, profile=profile)
            if self._places is None
            else LimitedCore(settings, backoff, places=self._places, connect_timeout=connect_timeout, profile=profile)
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0  # nobody's
        self._forks = 0
        self._now: Callable[[], float] = _never
        self._timer: asyncio.TimerHandle | None = None
        self._armed = math.inf
        self._told = (0, settings.max_size)
        self._watchers: list[_Watcher] = []
        self._abort_timer: asyncio.TimerHandle | None = None
        self._warned_of_double_returns = False

    def __repr__(self) -> str:
        return f"<Pool {self.name!r} {self._core!r}>"

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # What asyncio's own loops call, without the call in between.
        self._now = time.monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time
        self._thread = get_ident()
        self._running = loop.is_running
        self._new_future = loop.create_future
        self._forks = _forks[0]
        self._jobs = Jobs(self._connector, self, loop, self.name, self._connect_timeout)
        if self._places is not None:
            self._join(self._places, loop)

    def _join(self, places: Places, loop: asyncio.AbstractEventLoop) -> None:
        """Take part in the limits that this pool shares with others."""
        core, settings, engine = self._core, self.settings, weakref.ref(self)
        assert isinstance(core, LimitedCore)  # noqa: S101  # made beside the places
        assert self._limits is not None  # noqa: S101  # the places are theirs
        problem = self._limits.too_large(settings.max_size)
        if problem is not None:
            logger.warning("pool %r: %s", self.name, problem)
        places.join(partial(_spare, weakref.ref(core)), lambda: _post(loop, engine), lambda: not loop.is_closed())
        if places.fair < settings.floor:
            logger.warning(
                "pool %r: the warm floors of all pools do not fit under the connection limit; this one keeps %d of %d. "
                "Lower min_size, or raise the limit.",
                self.name,
                places.fair,
                settings.floor,
            )

    @property
    def endpoint(self) -> str:
        """Where its connections go; never a key."""
        return self._connector.endpoint

    @property
    def counters(self) -> Counters:
        """What has happened so far, as it goes on being counted: for reading only."""
        return self._core.counters

    @property
    def settings(self) -> PoolSettings:
        """Sizes and times, as they are now."""
        return self._core.settings

    # Doing what the core decides

    def _perform(self, actions: list[Action], now: float) -> None:
        for action in actions:
            if type(action) is not HandOver:
                self._do(action, now)
            elif action.waiter.future.cancelled():
                # Its task was cancelled and has not run since; the next one is served in this very turn.
                self._cancel(action.waiter)
            else:
                action.waiter.future.set_result(None)
        # Timers, listeners and watchers follow the state.
        core = self._core
        if core.wake < self._armed:
            self._arm()
        if self._on_borrowed is not None and core.borrowed != self._told[0]:
            self._tell(now)
        if self._listeners and core.pace.down != self._away:
            self._away = core.pace.down
            self._listeners.tell(EndpointAway(pool=self.name) if self._away else EndpointBack(pool=self.name))
        if self._watchers:
            for watcher in self._watchers:
                watcher.look()

    def _do(self, action: Action, now: float) -> None:
        match action:
            case Fail(waiter, reason):
                # A result and no exception: nobody would retrieve it from a future whose task was cancelled.
                if not waiter.future.done():
                    waiter.future.set_result(reason)
            case Open(slot):
                self._jobs.open(slot)
            case Close(slot, reason):
                self._tell_closed(slot, reason, now)
                self._jobs.close(slot)
            case Abort(slot):
                self._tell_closed(slot, "aborted", now)
                self._jobs.abort(slot)
            case Abandon(slot):
                self._jobs.abandon(slot)
            case Overdue(slot):
                logger.warning(
                    "pool %r: a connection has been borrowed for %g s (leak_after), %s\n%s",
                    self.name,
                    self.settings.leak_after,
                    _borrower(slot),
                    self._holder(slot),
                )
            case Report(slot, problem):
                self._report(slot, problem)

    def _tell_closed(self, slot: Slot, reason: str, now: float) -> None:
        if self._listeners:
            self._listeners.tell(
                ConnectionClosed(pool=self.name, reason=reason, seconds=now - slot.opened_at, borrows=slot.use)
            )

    def _report(self, slot: Slot, problem: str) -> None:
        if not self._warned_of_double_returns:
            self._warned_of_double_returns = True
            logger.warning(
                "pool %r: a lease was %s; that does nothing, and is counted in stats.double_returns. "
                "Its connection was last borrowed %s",
                self.name,
                problem,
                _borrower(slot),
            )

    def _holder(self, slot: Slot) -> str:
        assert self._loop is not None  # noqa: S101  # the core runs on it
        return "" if slot.note is None else stacks.holders(slot.note, self._loop)

    def _tell(self, now: float) -> None:
        """Say how many are borrowed. A listener that fails changes nothing."""
        core = self._core
        state = (core.borrowed, core.max_size)
        if self._on_borrowed is not None and state != self._told:
            self._told = state
            try:
                self._on_borrowed(core.borrowed, core.max_size, now)
            except (KeyboardInterrupt, SystemExit) as interrupt:
                # To the loop: here it would come between a decision and the lease that it made.
                asyncio.get_running_loop().call_soon(_throw, interrupt)
            except BaseException:
                logger.exception("pool %r: on_borrowed failed", self.name)

    # What happens to the pool

    def _take_back(self, slot: Slot, use: int, *, healthy: bool, reason: str) -> None:
        if not self._here():
            if self._gone():
                return
            raise self._wrong_loop()
        now = self._now()
        if healthy and not self._jobs.usable(slot.connection):
            healthy, reason = False, "unusable"
        self._perform(self._core.returned(slot, use, now, healthy, reason), now)

    def _cancel(self, waiter: Waiter) -> None:
        now = self._now()
        self._perform(self._core.cancel(waiter, now), now)

    def _on_opened(self, slot: Slot, connection: Any) -> None:
        now = self._now()
        if not self._jobs.usable(connection):
            self._perform(self._core.lost(slot, now), now)
        if self._listeners:
            self._listeners.tell(ConnectionOpened(pool=self.name, seconds=now - slot.dialled_at))
        if self._core.pace.error is not None:
            logger.info("pool %r: connections to %s open again", self.name, self.endpoint)
        self._perform(self._core.opened(slot, connection, now, jitter=self._random()), now)

    def _on_open_failed(self, slot: Slot, error: BaseException, *, interrupted: bool) -> None:
        now = self._now()
        core = self._core
        if core.pace.error is None and core.phase is not Phase.CLOSED and not interrupted:
            logger.warning("pool %r: cannot open a connection to %s: %s", self.name, self.endpoint, error)
        permanent = bool(getattr(error, "permanent", isinstance(error, SettingsError)))
        pause = self.settings.open_backoff_idle_cap if interrupted else getattr(error, "retry_after", None) or 0.0
        self._perform(core.open_failed(slot, error, now, permanent=permanent, pause=pause), now)

    def _on_lost(self, slot: Slot) -> None:
        now = self._now()
        self._perform(self._core.lost(slot, now), now)

    def _on_closed(self, slot: Slot) -> None:
        now = self._now()
        self._perform(self._core.closed(slot, now), now)

    def _look(self) -> None:
        """Learn that the share of the limits has changed."""
        now = self._now()
        assert isinstance(self._core, LimitedCore)  # noqa: S101  # only such a pool is woken
        self._perform(self._core.look(now), now)

    def _forgotten(self, slot: Slot, use: int) -> None:
        """Take back the lease of a borrower that vanished. The collector calls this, in whatever thread."""
        if self._loop is not None and not self._gone():
            self._loop.call_soon_threadsafe(self._reclaim, slot, use)

    def _reclaim(self, slot: Slot, use: int) -> None:
        logger.warning(
            "pool %r: a lease was dropped without being returned; its connection is closed. It was %s",
            self.name,
            _borrower(slot),
        )
        self._take_back(slot, use, healthy=False, reason="forgotten")

    def __del__(self) -> None:
        if not getattr(self, "_loop", None):
            return
        if self._gone():
            if self._places is not None:
                self._places.leave()
            return
        slots = list(self._core.slots)
        if slots and self._core.phase is not Phase.CLOSED:
            logger.warning("pool %r was dropped with %d connections and never closed; close it", self.name, len(slots))
        assert self._loop is not None  # noqa: S101  # tested above
        connections = [slot.connection for slot in slots if slot.opened_at < math.inf]
        self._loop.call_soon_threadsafe(_drop, self._jobs, connections, self._timer, self._places)

    # Time and place

    def _arm(self) -> None:
        assert self._loop is not None  # noqa: S101  # nothing is due before the pool was opened
        if self._timer is not None:
            self._timer.cancel()
        self._armed = self._core.wake
        self._timer = self._loop.call_at(self._armed, _tick, weakref.ref(self))

    def _tick(self) -> None:
        self._timer = None
        self._armed = math.inf
        now = self._now()
        self._perform(self._core.tick(now), now)

    def _abort_after(self, seconds: float) -> None:
        assert self._loop is not None  # noqa: S101  # the caller has checked the loop
        self._abort_timer = self._loop.call_at(self._now() + seconds, _abort_borrowed, weakref.ref(self))

    def _abort_borrowed(self) -> None:
        now = self._now()
        if self._core.borrowed:
            logger.warning("pool %r: %d leases did not come back before the close", self.name, self._core.borrowed)
        self._perform(self._core.abort_borrowed(now), now)

    async def _until(self, met: Callable[[], bool], limit: float = math.inf) -> None:
        """Wait until something holds, or for a time of the loop."""
        assert self._loop is not None  # noqa: S101  # the caller has checked the loop
        if met():
            return
        watcher = _Watcher(met, self._loop.create_future())
        self._watchers.append(watcher)
        timer = None if limit == math.inf else self._loop.call_at(limit, watcher.wake)
        try:
            await watcher.future
        finally:
            self._watchers.remove(watcher)
            if timer is not None:
                timer.cancel()

    def _here(self) -> bool:
        # Not get_running_loop(): before Python 3.12 it asks the kernel for the process id, at every borrow and return.
        return get_ident() == self._thread and self._running() and self._forks == _forks[0]

    def _gone(self) -> bool:
        """Whether nothing can be done for the connections any more."""
        return self._loop is None or self._loop.is_closed() or self._forks != _forks[0]

    def _check_loop(self) -> None:
        if not self._here():
            raise self._wrong_loop()

    def _wrong_loop(self) -> WrongLoop | PoolClosed:
        if self._loop is None:
            return PoolClosed(f"pool {self.name!r} was never opened; await open() first.", endpoint=self.endpoint)
        try:
            here = repr(asyncio.get_running_loop())
        except RuntimeError:
            here = "no event loop"
        return WrongLoop(
            f"pool {self.name!r} belongs to {self._loop!r} and was used from {here}. Open one pool per event loop "
            "(and per process after a fork), or use SpeechPool from threads.",
            endpoint=self.endpoint,
        )


class _Watcher:
    """Somebody who waits until something holds."""

    __slots__ = ("future", "met")

    def __init__(self, met: Callable[[], bool], future: asyncio.Future[None]) -> None:
        self.met = met
        self.future = future

    def look(self) -> None:
        if not self.future.done() and self.met():
            self.future.set_result(None)

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def _throw(interrupt: BaseException) -> None:
    raise interrupt


def _never() -> float:
    return 0.0


def _borrower(slot: Slot) -> str:
    return "by an unknown borrower" if slot.note is None else f"borrowed at:\n{stacks.render(slot.note)}"


def _tick(engine: weakref.ref[Engine]) -> None:
    alive = engine()
    if alive is not None:
        alive._tick()


def _abort_borrowed(engine: weakref.ref[Engine]) -> None:
    alive = engine()
    if alive is not None:
        alive._abort_borrowed()


def _post(loop: asyncio.AbstractEventLoop, engine: weakref.ref[Engine]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed: the limits notice it by themselves
        loop.call_soon_threadsafe(_look, engine)


def _look(engine: weakref.ref[Engine]) -> None:
    alive = engine()
    if alive is not None:
        alive._look()


def _spare(core: weakref.ref[LimitedCore], most: int) -> list[float]:
    alive = core()
    return [] if alive is None else alive.spare(most)


def _drop(jobs: Jobs, connections: list[Any], timer: asyncio.TimerHandle | None, places: Places | None = None) -> None:
    if timer is not None:
        timer.cancel()
    jobs.drop(connections)
    if places is not None:
        places.leave()
