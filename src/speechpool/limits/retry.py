"""How many retries an account and model may afford: a share of its tasks.

So a sick server is not buried under repetitions, however many pools there are: those that share a quota share this.
"""

from __future__ import annotations

from speechpool.errors import SettingsError

__all__ = ["RetryBudget"]


class RetryBudget:
    """A balance of retries that tasks pay into. Has no clock, so quiet hours save up nothing.

    Every task that starts deposits `ratio`, every retry withdraws 1. The balance begins at `minimum`, so that few
    tasks may be retried, too, and never exceeds `maximum`, so that a long healthy time cannot pay for a storm.

    Args:
        ratio: Retries that each started task earns; 0 to 1.
        minimum: Retries before any task has earned one; at least 0.
        maximum: Highest balance; None: ten times `minimum`, at least 1.

    Raises:
        SettingsError: A value is out of its range.
    """

    __slots__ = ("_balance", "_maximum", "_ratio", "refused", "withdrawn")

    def __init__(self, ratio: float = 0.2, minimum: float = 10, *, maximum: float | None = None) -> None:
        if not 0 <= ratio <= 1:
            raise SettingsError(f"RetryBudget.ratio = {ratio!r} must be between 0 and 1 (retries a task).")
        if not minimum >= 0:
            raise SettingsError(f"RetryBudget.minimum = {minimum!r} must be at least 0 (retries).")
        self._maximum = max(1.0, 10.0 * minimum) if maximum is None else float(maximum)
        if not self._maximum >= minimum:
            raise SettingsError(f"RetryBudget.maximum = {maximum!r} is below minimum = {minimum!r}; raise it.")
        self._ratio = ratio
        self._balance = float(minimum)
        self.withdrawn = 0
        """Retries allowed so far."""
        self.refused = 0
        """Retries refused so far."""

    @property
    def balance(self) -> float:
        """Retries that may be withdrawn now; only whole ones are handed out."""
        return self._balance

    def deposit(self) -> None:
        """Count one started task."""
        self._balance = min(self._maximum, self._balance + self._ratio)

    def withdraw(self) -> bool:
        """Take one retry, and say whether the balance allowed it."""
        # Five deposits of 0.2 must pay for one retry although their sum is a hair off 1.
        if self._balance < 1.0 - 1e-9:
            self.refused += 1
            return False
        self._balance = max(0.0, self._balance - 1.0)
        self.withdrawn += 1
        return True
