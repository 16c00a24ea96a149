"""Permits: who may submit a task now, by account and model.

The provider counts task starts for the whole account and each model (DashScope: three a second by default), so every
pool of the process asks the same quota. `LocalQuota` knows one process; a shared one can take its place with nothing
above changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from speechpool.errors import SettingsError

from .lane import Lane
from .permit import LocalPermit, Outcome, Priority
from .retry import RetryBudget

__all__ = ["LocalQuota", "Outcome", "Permit", "Priority", "Quota", "QuotaState", "warn_if_oversized"]


class Permit(Protocol):
    """The right to submit one task."""

    @property
    def granted(self) -> bool:
        """The task may be submitted now."""

    async def wait(self) -> None:
        """Wait until the permit is granted.

        Cancellation: the permit is settled, and its place or its grant goes to the next one.

        Raises:
            Shed: The deadline passed.
        """

    def settle(self, outcome: Outcome, retry_after: float | None = None) -> None:
        """Say how it ended. Only the first call counts; every permit needs one, whether granted or not."""


class Quota(Protocol):
    """Hands out permits."""

    def request(
        self,
        account: str,
        model: str,
        characters: int = 0,
        priority: Priority = "interactive",
        deadline: float | None = None,
    ) -> Permit:
        """Return a permit: granted where it is free at once, to be waited for otherwise.

        Args:
            account: Whose limit counts.
            model: The model of the task.
            characters: How much text is known already; 0: unknown.
            priority: `interactive` goes before `bulk`.
            deadline: Latest moment of use, in the time of the event loop.

        Raises:
            Shed: It would come after the deadline.
        """

    def retry_budget(self, account: str, model: str) -> RetryBudget:
        """Return what all tasks of an account and model may spend on retries; the same object every time."""


@dataclass(frozen=True, slots=True)
class QuotaState:
    """One account and model at one moment.

    Attributes:
        account: Whose limit counts.
        model: The model.
        limit: The configured rate, in task starts a second; None: none.
        rate: The rate in force; below `limit` after throttling; None: nothing is known to limit it.
        running: Permits granted and not settled.
        waiting: Permits requested and not granted.
        predicted_wait: Seconds that an interactive request would wait that came now, as far as is known.
        granted: Permits granted so far.
        throttled: Answers that said "too much" so far.
        shed: Requests refused because of their deadline so far.
    """

    account: str
    model: str
    limit: float | None
    rate: float | None
    running: int
    waiting: int
    predicted_wait: float
    granted: int
    throttled: int
    shed: int


class LocalQuota:
    """The quota of one process: a rate and a number of tasks at once, for each account and model.

    It belongs to one event loop at a time and has no background task. Without `rate` and `concurrency` it costs next
    to nothing and limits nothing until a server throttles; then it begins at half the rate of the last second.

    Args:
        rate: Task starts a second; never exceeded. None: learned from throttling only.
        burst: Task starts at once after a pause; None: one second's worth, at least 1.
        concurrency: Tasks at once; None: any number.
        clock: Seconds; must be the clock of the event loop (asyncio and uvloop: `time.monotonic`).

    Raises:
        SettingsError: A value is out of its range.
    """

    def __init__(
        self,
        rate: float | None = None,
        *,
        burst: float | None = None,
        concurrency: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if rate is not None and not (rate > 0 and math.isfinite(rate)):
            raise SettingsError(f"LocalQuota.rate = {rate!r} must be above 0 (task starts a second), or None.")
        if burst is not None and (rate is None or not burst >= 1):
            raise SettingsError(f"LocalQuota.burst = {burst!r} must be at least 1 and needs a rate, got {rate!r}.")
        if concurrency is not None and not concurrency >= 1:
            raise SettingsError(f"LocalQuota.concurrency = {concurrency!r} must be at least 1 task, or None.")
        self._rate = rate
        self._burst = burst
        self._concurrency = concurrency
        self._clock = clock
        self._lanes: dict[tuple[str, str], Lane] = {}

    def request(
        self,
        account: str,
        model: str,
        characters: int = 0,  # for quotas that know a limit of characters
        priority: Priority = "interactive",
        deadline: float | None = None,
    ) -> LocalPermit:
        """Return a permit, as `Quota.request` says.

        Raises:
            Shed: It would come after the deadline.
        """
        return self._lane(account, model).request(priority, deadline)

    def retry_budget(self, account: str, model: str) -> RetryBudget:
        """Return what all tasks of an account and model may spend on retries, as `Quota.retry_budget` says."""
        return self._lane(account, model).budget

    def _lane(self, account: str, model: str) -> Lane:
        lane = self._lanes.get((account, model))
        if lane is None:
            lane = self._lanes[account, model] = Lane(
                model, rate=self._rate, burst=self._burst, concurrency=self._concurrency, clock=self._clock
            )
        return lane

    def states(self) -> list[QuotaState]:
        """Return every account and model that was asked for, as it is now."""
        return [self._state(account, model, lane) for (account, model), lane in self._lanes.items()]

    def _state(self, account: str, model: str, lane: Lane) -> QuotaState:
        return QuotaState(
            account=account,
            model=model,
            limit=self._rate,
            rate=None if lane.bucket is None else lane.bucket.rate,
            running=lane.running,
            waiting=lane.waiting,
            predicted_wait=lane.predicted_wait(),
            granted=lane.granted,
            throttled=lane.throttled,
            shed=lane.shed,
        )


def warn_if_oversized(max_size: int, rate: float | None, expected_duration: float) -> str | None:
    """Return why a pool is larger than its rate can ever use, with the arithmetic; None where it is not.

    Args:
        max_size: Connections of the pool.
        rate: Task starts a second that the account allows; None: unlimited.
        expected_duration: Seconds that a task holds its connection.
    """
    at_once = math.inf if rate is None else rate * expected_duration
    useful = max_size if at_once >= max_size else max(1, math.ceil(at_once))
    if max_size <= useful:
        return None
    return (
        f"max_size = {max_size} is more than the quota can use: {rate:g} task starts a second x "
        f"{expected_duration:g} s a task = {at_once:.4g} tasks at once. Lower max_size to {useful}, or ask the "
        f"provider for {max_size / expected_duration:.3g} task starts a second."
    )
