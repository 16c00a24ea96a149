"""The right to submit one task, as `LocalQuota` hands it out."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

from speechpool.errors import LeaseError

if TYPE_CHECKING:
    from .lane import Lane

__all__ = ["LocalPermit", "Outcome", "Priority"]

Outcome = Literal["completed", "failed", "cancelled", "throttled", "shed"]
"""How a permit ended: the outcome of its task, or `throttled` where the server said that it is too much."""
Priority = Literal["interactive", "bulk"]


class LocalPermit:
    """The right to submit one task. Made by `LocalQuota.request`."""

    __slots__ = ("_deadline", "_future", "_lane", "_queue", "granted", "outcome", "since")

    def __init__(self, lane: Lane, now: float) -> None:
        self._lane = lane
        self._deadline: float | None = None
        self._queue: OrderedDict[LocalPermit, None] | None = None
        self._future: asyncio.Future[None] | None = None
        self.granted = True
        """The task may be submitted now."""
        self.since = now
        """When it was granted or, before that, requested."""
        self.outcome: Outcome | None = None
        """What it was settled with."""

    @property
    def waited(self) -> bool:
        """It was not free at once."""
        return self._queue is not None

    async def wait(self) -> None:
        """Wait until the permit is granted: first come, first served within its priority. For one caller at a time.

        Cancellation: the permit is settled, and its place or its grant goes to the next one.

        Raises:
            Shed: The deadline passed. The permit is settled.
            LeaseError: The permit was settled before it was granted.
            WrongLoop: Others wait for the same account and model on another event loop.
        """
        if self.granted:
            return
        if self.outcome is not None:
            raise LeaseError(f"the permit was settled as {self.outcome!r} before it was granted; request another.")
        loop = asyncio.get_running_loop()
        self._lane.join(loop)
        self._future = loop.create_future()
        expiry = None if self._deadline is None else loop.call_at(self._deadline, self._lane.expire, self)
        try:
            await self._future
        except asyncio.CancelledError:
            # It may have been granted in this very turn: then nothing was submitted, and the token goes back
            # (tests/limits/test_quota.py::test_a_cancelled_waiter_that_was_granted_passes_it_on).
            self._lane.abandon(self)
            raise
        finally:
            if expiry is not None:
                expiry.cancel()
            self._lane.leave()

    def settle(self, outcome: Outcome, retry_after: float | None = None) -> None:
        """Say how it ended. Only the first call counts; every permit needs one, whether granted or not.

        Args:
            outcome: `shed` gives the token back, because nothing was submitted; `throttled` lowers the rate.
            retry_after: Seconds that a throttling server asked to wait.
        """
        if self.outcome is None:
            self.outcome = outcome
            self._lane.settled(self, outcome, retry_after)
