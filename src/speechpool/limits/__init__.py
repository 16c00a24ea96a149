"""Limits: permits by rate and concurrency, pauses between attempts, and the budget of retries."""

from .backoff import Backoff
from .quota import LocalQuota, Outcome, Permit, Priority, Quota, QuotaState, warn_if_oversized
from .retry import RetryBudget

__all__ = [
    "Backoff",
    "LocalQuota",
    "Outcome",
    "Permit",
    "Priority",
    "Quota",
    "QuotaState",
    "RetryBudget",
    "warn_if_oversized",
]
