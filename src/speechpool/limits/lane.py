"""One account and model of a quota: who runs and who waits.

Theory of operation: every decision is made in `_pump`, without awaiting, so that no cancellation can fall between the
check and the grant. A permit takes its place in the queue when it is requested; `wait` only listens. One timer exists
while somebody waits for the rate; freed places of the concurrency limit pump at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from speechpool.errors import LeaseError, Shed, WrongLoop

from .permit import LocalPermit, Outcome, Priority
from .rate import AdaptiveRate
from .retry import RetryBudget

__all__ = ["Lane"]

_AGEING = 10.0
"""Seconds after which a waiting bulk task is served by its age alone, so that it cannot starve."""
_SMOOTHING = 0.2
"""Weight of the newest task in the expected duration of one."""


class Lane:
    """The state of one account and model. `rate`, `burst` and `concurrency` as in `LocalQuota`."""

    def __init__(
        self,
        model: str,
        *,
        rate: float | None,
        burst: float | None,
        concurrency: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._model = model
        self.budget = RetryBudget()
        self._clock = clock
        self._concurrency = concurrency
        now = clock()
        self.bucket = None if rate is None else AdaptiveRate(limit=rate, start=rate, burst=burst, now=now)
        self._free = rate is None and concurrency is None
        self._interactive: OrderedDict[LocalPermit, None] = OrderedDict()
        self._bulk: OrderedDict[LocalPermit, None] = OrderedDict()
        self._duration: float | None = None
        self._submitted = self._submitted_before = 0
        self._slice_end = now + 1.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # uvloop's handle of what is due at once does not know it
        self.running = self.granted = self.throttled = self.shed = 0

    @property
    def waiting(self) -> int:
        """Permits that are requested and not granted."""
        return len(self._interactive) + len(self._bulk)

    def predicted_wait(self) -> float:
        """Return the seconds that an interactive request would wait that came now."""
        return self._predict(len(self._interactive) + 1, self._clock())

    def request(self, priority: Priority, deadline: float | None) -> LocalPermit:
        """Return a permit, granted or queued. Raises Shed where it would come after `deadline`."""
        now = self._clock()
        permit = LocalPermit(self, now)
        if self._free:
            if now >= self._slice_end:
                self._roll(now)
            self._submitted += 1
            self.granted += 1
            self.running += 1
            return permit
        permit.granted = False
        permit._deadline = deadline
        permit._queue = self._bulk if priority == "bulk" else self._interactive
        permit._queue[permit] = None
        self._pump(now)
        if permit.granted:
            permit._queue = None  # it did not wait
        elif deadline is not None:
            self._check(permit, priority, deadline, now)
        return permit

    def _check(self, permit: LocalPermit, priority: Priority, deadline: float, now: float) -> None:
        place = self.waiting if priority == "bulk" else len(self._interactive)
        wait = self._predict(place, now)
        if now + wait + self._doubt(wait) > deadline:
            self._drop(permit)
            permit.outcome = "shed"
            self.shed += 1
            raise self._too_late(wait, deadline - now)

    def _predict(self, place: int, now: float) -> float:
        wait = 0.0 if self.bucket is None else self.bucket.delay(place, now)
        if self._concurrency is not None and self._duration is not None:
            beyond = self.running + place - self._concurrency
            wait = max(wait, beyond * self._duration / self._concurrency)
        return wait

    def _doubt(self, wait: float) -> float:
        return 0.0 if self.bucket is None else wait * self.bucket.doubt

    def _too_late(self, wait: float, left: float) -> Shed:
        rate = "no known rate" if self.bucket is None else f"{self.bucket.rate:.3g} tasks a second"
        margin = f", give or take {self._doubt(wait):.2g} s," if self._doubt(wait) else ","
        return Shed(
            f"a permit for {self._model!r} would come in {wait:.3g} s{margin} the deadline in {max(left, 0.0):.3g} s: "
            f"{self.waiting} wait already, at {rate} and {self.running} running. Send less, wait longer, or ask the "
            "provider for a higher limit.",
            predicted_wait=wait,
        )

    def _pump(self, now: float) -> None:
        """Grant as many permits as the limits allow, oldest first."""
        while self.waiting and (self._concurrency is None or self.running < self._concurrency):
            if self.bucket is not None and not self.bucket.take(now):
                break
            self._grant(self._oldest(now), now)
        self._arm(now)

    def _oldest(self, now: float) -> LocalPermit:
        if not self._bulk:
            return next(iter(self._interactive))
        bulk = next(iter(self._bulk))
        if not self._interactive:
            return bulk
        interactive = next(iter(self._interactive))
        aged = now - bulk.since >= _AGEING and bulk.since < interactive.since
        return bulk if aged else interactive

    def _grant(self, permit: LocalPermit, now: float) -> None:
        self._drop(permit)
        permit.granted = True
        permit.since = now
        if now >= self._slice_end:
            self._roll(now)
        self._submitted += 1
        self.granted += 1
        self.running += 1
        if permit._future is not None and not permit._future.done():
            permit._future.set_result(None)

    @staticmethod
    def _drop(permit: LocalPermit) -> None:
        if permit._queue is not None:
            permit._queue.pop(permit, None)

    def settled(self, permit: LocalPermit, outcome: Outcome, retry_after: float | None) -> None:
        """Learn how a permit ended, and serve whoever can go now."""
        if not permit.granted:
            self._withdraw(permit)
            return
        self.running -= 1
        if outcome == "throttled":
            self._throttle(permit, retry_after)
        if self._free:
            return
        now = self._clock()
        if self.bucket is not None and outcome == "completed":
            self.bucket.completed(waited=permit.waited)
        elif self.bucket is not None and outcome == "shed":
            self.bucket.give_back()
        if outcome in {"completed", "failed"}:
            self._learn_duration(now - permit.since)
        self._pump(now)

    def _withdraw(self, permit: LocalPermit) -> None:
        self._drop(permit)
        if permit._future is not None and not permit._future.done():
            permit._future.set_exception(LeaseError("the permit was settled while it waited; request another."))
        self._arm(self._clock())

    def _throttle(self, permit: LocalPermit, retry_after: float | None) -> None:
        self.throttled += 1
        now = self._clock()
        if self.bucket is None:
            # The first throttling answer: what was submitted lately was too much, so begin there and halve it.
            start = max(1.0, self._observed(now))
            self.bucket = AdaptiveRate(limit=None, start=start, burst=None, now=now)
            self._free = False
        self.bucket.throttled(now, submitted=permit.since, retry_after=retry_after)

    def _learn_duration(self, seconds: float) -> None:
        known = self._duration
        self._duration = seconds if known is None else known + _SMOOTHING * (seconds - known)

    def _roll(self, now: float) -> None:
        follows = now < self._slice_end + 1.0
        self._submitted_before = self._submitted if follows else 0
        self._slice_end = self._slice_end + 1.0 if follows else now + 1.0
        self._submitted = 0

    def _observed(self, now: float) -> float:
        """Return the submissions of the last second, the share of the slice before it estimated."""
        if now >= self._slice_end:
            self._roll(now)
        return self._submitted + self._submitted_before * min(1.0, self._slice_end - now)

    def join(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let one more caller listen, on `loop`. Raises WrongLoop where others listen on another one."""
        if self._loop is not loop:
            if self._listening and self._loop is not None and not self._loop.is_closed():
                raise WrongLoop("others wait for this quota on another event loop; use one quota for each loop.")
            self._loop, self._timer, self._listening = loop, None, 0
        self._listening += 1
        self._arm(self._clock())

    def leave(self) -> None:
        """Let a caller listen no longer."""
        self._listening = max(0, self._listening - 1)
        self._arm(self._clock())

    def abandon(self, permit: LocalPermit) -> None:
        """Take back what a cancelled caller had or waited for."""
        if permit.outcome is not None:
            return
        # `shed` towards the limits (nothing was submitted), `cancelled` towards whoever looks at the permit.
        permit.settle("shed")
        permit.outcome = "cancelled"

    def expire(self, permit: LocalPermit) -> None:
        """Shed a permit whose deadline has come while it waited."""
        if permit.granted or permit.outcome is not None:
            return
        now = self._clock()
        error = self._too_late(self._predict(1, now), 0.0)
        self._drop(permit)
        permit.outcome = "shed"
        self.shed += 1
        if permit._future is not None and not permit._future.done():
            permit._future.set_exception(error)
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Have a timer exactly while somebody listens and the rate is what holds the queue up."""
        held_by_rate = self._concurrency is None or self.running < self._concurrency
        wanted = self.bucket is not None and self._listening and self.waiting and held_by_rate
        if not wanted or self._loop is None or self._loop.is_closed():
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        assert self.bucket is not None  # noqa: S101  # `wanted` says so
        when = self._loop.time() + self.bucket.delay(1, now)
        # A timer that comes too early only looks again; one that comes too late would idle the rate.
        if self._timer is None or self._timer_at > when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self._loop.call_at(when, self._tick), when

    def _tick(self) -> None:
        self._timer = None
        self._pump(self._clock())
