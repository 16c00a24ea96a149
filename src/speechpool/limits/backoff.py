"""How long to pause before the next attempt: one value for dials and tasks alike.

Cap first, then full jitter: attempt n waits a uniform share of `min(cap, initial * 2 ** n)`. Jitter before the
cap would let every caller that has reached the cap come back at the same moment.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable

from speechpool.errors import SettingsError

__all__ = ["Backoff"]

_DOUBLINGS = 40
"""Enough to reach any cap; more would overflow a float after a thousand failures."""


class Backoff:
    """Doubling pauses with full jitter. Has no clock: the caller does the waiting.

    Args:
        initial: Longest first pause, in seconds; above 0.
        cap: Longest pause of all, in seconds; above 0.
        random: Returns a number in [0, 1); tests pass their own.

    Raises:
        SettingsError: `initial` or `cap` is not above 0.
    """

    __slots__ = ("_attempts", "_cap", "_initial", "_random")

    def __init__(self, initial: float, cap: float, *, random: Callable[[], float] = _random.random) -> None:
        if not (initial > 0 and cap > 0):
            raise SettingsError(f"Backoff needs initial and cap above 0 s, got {initial!r} and {cap!r}.")
        self._initial = initial
        self._cap = cap
        self._random = random
        self._attempts = 0

    @property
    def attempts(self) -> int:
        """Pauses handed out since the start or the last `reset`."""
        return self._attempts

    def next(self, cap: float | None = None) -> float:
        """Return the pause before the next attempt, in seconds, and count the attempt.

        Args:
            cap: Longest pause of this one attempt, in seconds (a pool is quicker while somebody waits); None:
                the cap given at the start.
        """
        grown = self._initial * 2.0 ** min(self._attempts, _DOUBLINGS)
        longest = min(self._cap if cap is None else cap, grown)
        self._attempts += 1
        return longest * self._random()

    def reset(self) -> None:
        """Begin again with the shortest pause: an attempt has succeeded."""
        self._attempts = 0
