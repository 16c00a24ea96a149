"""A token bucket whose rate follows the server: up slowly while tasks complete, down at once when it throttles.

Slow increase, multiplicative decrease, as in TCP, and for the same reason: several clients of one account find a fair
share without talking to each other. No clock, no loop: every method is told what time it is.

A configured rate is most probably right. It is halved when the server throttles all the same, and heals in a line.

A rate that is only learned has to look for the limit, again and again, and every time costs somebody a refusal. So it
remembers where the last search ended, the ceiling, and goes back there as CUBIC does (RFC 9438): soon to its
neighbourhood, slowly through it, where the limit most probably still is, and faster the longer nothing happens:

    rate = ceiling * (1 + 0.2 * (time / 5 s - 1) ** 3)

from 0.8 of the ceiling at time 0, over the ceiling itself at 5 s, to its double at 14 s. With a straight line the rate
is either far below the limit most of the time or throttled often (tests/synthesis/test_shedding.py has the figures).
"""

from __future__ import annotations

__all__ = ["AdaptiveRate"]

_DECREASE = 0.5
"""What is left of a rate that the server does not carry: a configured one, or a learned one at its first throttling."""
_STEP_BACK = 0.2
"""Share of a learned rate that goes at each later one; then it is known well."""
_RETURN = 5.0
"""Seconds of full use in which it is back where it was throttled."""
_LEAST = 0.1
"""Lowest learned rate, in task starts a second."""
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

    __slots__ = ("_burst", "_decreased", "_limit", "_reference", "_resumes", "_time", "_tokens", "_updated", "rate")

    def __init__(self, *, limit: float | None, start: float, burst: float | None, now: float) -> None:
        self.rate = start
        """Task starts a second, at this moment."""
        self._limit = limit
        self._reference = start  # of a learned rate: the ceiling
        self._time = _RETURN
        self._burst = start if burst is None else burst
        self._decreased = self._resumes = float("-inf")
        self._updated = now
        self._tokens = self._capacity

    @property
    def _capacity(self) -> float:
        return max(1.0, self.rate if self._limit is None else self._burst * self.rate / self._reference)

    @property
    def doubt(self) -> float:
        """Which share longer a wait may become because the rate goes down meanwhile; 0 where it is configured."""
        return 1 / (1 - _STEP_BACK) - 1 if self._limit is None else 0.0

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
        if self._limit is not None:
            self.rate = min(self._limit, self.rate + self._reference * min(_LARGEST_STEP, _RECOVERY / self.rate))
        elif waited or self.rate < self._reference:
            self._time += 1.0 / self.rate
            grown = self._reference * (1.0 + _STEP_BACK * (self._time / _RETURN - 1.0) ** 3)
            self.rate = min(2.0 * self.rate, grown)  # one task at a low rate is little evidence

    def throttled(self, now: float, *, submitted: float, retry_after: float | None) -> None:
        """Lower the rate, and wait `retry_after` seconds when the server said so.

        One overload answers many tasks at once. Only the first answer counts; the others were `submitted` before the
        rate came down (tests/limits/test_adaptive_rate.py::test_one_overload_decreases_once).
        """
        self._refill(now)
        if retry_after is not None:
            self._resumes = max(self._resumes, now + retry_after)
        if submitted <= self._decreased:
            return
        first, self._decreased = self._decreased == float("-inf"), now
        if self._limit is None:
            self._step_back(_DECREASE if first else 1.0 - _STEP_BACK)
        else:
            self.rate = max(self._reference * _FLOOR, self.rate * _DECREASE)
        # After a pause that the server named, one task may probe at once.
        self._tokens = min(self._tokens, 0.0 if retry_after is None else 1.0)

    def _step_back(self, share: float) -> None:
        self._reference = max(_LEAST, self.rate)
        self.rate = self._reference * share
        self._time = _RETURN * (1.0 - ((1.0 - share) / _STEP_BACK) ** (1 / 3))

    def _refill(self, now: float) -> None:
        since = max(self._updated, self._resumes)
        if now > since:
            self._tokens = min(self._capacity, self._tokens + (now - since) * self.rate)
        self._updated = max(self._updated, now)
