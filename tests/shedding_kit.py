"""A quota that is watched: what it predicted, and what came of it; and callers that ask for too much."""

import asyncio
import bisect
import time
from dataclasses import dataclass

from speechpool import PoolTimeout, Shed, SpeechPoolError
from speechpool.limits import LocalQuota

ASKED, CARRIED = 100, 20
"""Tasks a second: what is asked for, and what the provider carries."""
WARM_UP = 30.0
"""Seconds after which it has to be learned."""


class WatchedQuota(LocalQuota):
    """Knows no rate, and remembers every request."""

    def __init__(self, clock=time.monotonic):
        super().__init__(clock=clock)
        self.asked, self.refused = [], []

    def request(self, account, model, characters=0, priority="interactive", deadline=None):
        now, lane = self._clock(), self._lane(account, model)
        predicted, last = lane.predicted_wait(), next(reversed(lane._interactive), None)
        try:
            permit = super().request(account, model, characters, priority, deadline)
        except Shed as error:
            self.refused.append((now, error.predicted_wait, last))
            raise
        self.asked.append((now, predicted, permit))
        return permit


@dataclass
class Figures:
    """What came of an overload, from the end of the warm-up on.

    `goodput` and `throttled` are shares; `right` is the share of predictions within a factor of two, `waited` those of
    requests that waited, `shed` of those that were shed at once; `late` were shed after having waited.
    """

    goodput: float
    throttled: float
    right: float
    waited: int
    shed: int
    late: int
    timeouts: int
    failed: int

    def __str__(self):
        return (
            f"goodput {self.goodput:.1%} of {CARRIED} tasks a second, {self.throttled:.1%} of the provider's answers are "
            f"throttlings; {self.shed} tasks shed at once, {self.late} after a wait, {self.timeouts} timeouts, "
            f"{self.failed} failed; predictions right within a factor of two: {self.right:.1%} of "
            f"{self.waited} that waited and {self.shed} that were shed"
        )


class Callers:
    """Ask for `ASKED` tasks a second, whatever comes of them."""

    def __init__(self, speak, quota, clock):
        self.speak, self.quota, self.clock = speak, quota, clock
        self.completed, self.timeouts, self.failed = [], [], []

    async def _task(self):
        try:
            await self.speak()
            self.completed.append(self.clock())
        except Shed:
            pass
        except PoolTimeout:
            self.timeouts.append(self.clock())
        except SpeechPoolError:
            self.failed.append(self.clock())

    async def ask(self, seconds):
        """Return the loop time at which the warm-up was over, when all is done."""
        begun = self.clock()
        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * ASKED)):
                group.create_task(self._task())
                await asyncio.sleep(begun + (number + 1) / ASKED - self.clock())
            self.end = self.clock()
        return begun + WARM_UP

    def figures(self, since, throttled):
        """Compare what was predicted with what came.

        Args:
            since: When the warm-up was over.
            throttled: Share of the provider's answers since then that were throttlings.
        """
        quota = self.quota
        grants = sorted(permit.since for _, _, permit in quota.asked if permit.granted)
        pairs, late, shed = [], 0, 0
        for begun, predicted, permit in quota.asked:
            if begun >= since and permit.waited:
                late += not permit.granted
                if permit.granted:
                    pairs.append((predicted, permit.since - begun))
        waited = len(pairs)
        for begun, predicted, last in quota.refused:
            # Had it waited: the next one after the last of those who stood before it.
            if begun >= since and last is not None:
                shed += 1
                turn = bisect.bisect_right(grants, last.since)
                if turn < len(grants) and begun < self.end - 4:
                    pairs.append((predicted, grants[turn] - begun))
        return Figures(
            goodput=sum(since <= when < self.end for when in self.completed) / (self.end - since) / CARRIED,
            throttled=throttled,
            right=sum(predicted / 2 <= real <= predicted * 2 for predicted, real in pairs) / len(pairs),
            waited=waited,
            shed=shed,
            late=late,
            timeouts=sum(when >= since for when in self.timeouts),
            failed=sum(when >= since for when in self.failed),
        )


def holds(figures):
    """Assert what is promised of an overload."""
    assert figures.goodput >= 0.9
    assert figures.throttled < 0.05
    assert figures.right >= 0.9
    assert figures.shed >= 0.95 * (figures.shed + figures.late + figures.timeouts + figures.failed)
