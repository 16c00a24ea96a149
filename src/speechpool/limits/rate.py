"""A token bucket whose rate follows the server: up slowly while tasks complete, down at once when it throttles.

Additive increase, multiplicative decrease, as in TCP, and for the same reason: several clients of one account find a
fair share without talking to each other. No clock, no loop: every method is told what time it is.
"""

from __future__ import annotations

__all__ = ["AdaptiveRate"]

_DECREASE = 0.5
_FLOOR = 0.1
"""Lowest rate, as a share of the reference: the bucket must never stop, or it could not learn that all is well."""
_RECOVERY = 0.05
"""Share of the reference rate regained in each second of full use: a halving heals in ten seconds."""
_LARGEST_STEP = 0.1
"""Share of the reference rate that one task may add, which matters at rates below one in two seconds."""
_WHOLE = 1.0 - 1e-9
"""A token, minus what float arithmetic may lose on the way to it."""


class AdaptiveRate:
    """Task starts a second, for one account and model.

    Args:
        limit: The configured rate, which is never exceeded; None: only what was learned from throttling.
        start: The first rate, in task starts a second.
        burst: Starts at once after a pause, at the full rate; None: one second's worth. At least 1 always.
        now: The time, in seconds.
    """

    __slots__ = ("_burst", "_decreased", "_limit", "_reference", "_resumes", "_tokens", "_updated", "rate")

    def __init__(self, *, limit: float | None, start: float, burst: float | None, now: float) -> None:
        self.rate = start
        """Task starts a second, at this moment."""
        self._limit = limit
        self._reference = start
        self._burst = start if burst is None else burst
        self._decreased = self._resumes = float("-inf")
        self._updated = now
        self._tokens = self._capacity

    @property
    def _capacity(self) -> float:
        return max(1.0, self._burst * self.rate / self._reference)

    def take(self, now: float) -> bool:
        """Take one token, and say whether there was one."""
        self._refill(now)
        if self._tokens < _WHOLE or now < self._resumes:
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def give_back(self) -> None:
        """Take back a token whose task was never submitted."""
        self._tokens = min(self._capacity, self._tokens + 1.0)

    def delay(self, count: int, now: float) -> float:
        """Return the seconds until `count` tokens can have been taken."""
        self._refill(now)
        pause = max(0.0, self._resumes - now)
        missing = count - self._tokens
        return pause + missing / self.rate if missing > 0 else pause

    def completed(self, *, waited: bool) -> None:
        """Grow a little: the server has carried a task.

        A rate without a configured limit grows beyond its reference only by tasks that waited for it: otherwise a
        quiet day would raise it to where it limits nothing.
        """
        if self._limit is None and self.rate >= self._reference and not waited:
            return
        grown = self.rate + self._reference * min(_LARGEST_STEP, _RECOVERY / self.rate)
        self.rate = grown if self._limit is None else min(self._limit, grown)

    def throttled(self, now: float, *, submitted: float, retry_after: float | None) -> None:
        """Halve the rate, and wait `retry_after` seconds when the server said so.

        One overload answers many tasks at once. Only the first answer counts; the others were `submitted` before the
        rate came down (tests/limits/test_adaptive_rate.py::test_one_overload_decreases_once).
        """
        self._refill(now)
        if retry_after is not None:
            self._resumes = max(self._resumes, now + retry_after)
        if submitted <= self._decreased:
            return
        self._decreased = now
        self.rate = max(self._reference * _FLOOR, self.rate * _DECREASE)
        # After a pause that the server named, one task may probe at once.
        self._tokens = min(self._tokens, 0.0 if retry_after is None else 1.0)

    def _refill(self, now: float) -> None:
        since = max(self._updated, self._resumes)
        if now > since:
            self._tokens = min(self._capacity, self._tokens + (now - since) * self.rate)
        self._updated = max(self._updated, now)
