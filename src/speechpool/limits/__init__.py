"""Limits: permits by rate and concurrency, connections in all, pauses between attempts, outages, budget of retries."""

from .backoff import Backoff
from .breaker import Breaker
from .connections import ConnectionLimits, ConnectionLimitsState, Places
from .ledger import UPKEEP
from .quota import LocalQuota, Outcome, Permit, Priority, Quota, QuotaState, warn_if_oversized
from .retry import RetryBudget

__all__ = [
    "UPKEEP",
    "Backoff",
    "Breaker",
    "ConnectionLimits",
    "ConnectionLimitsState",
    "LocalQuota",
    "Outcome",
    "Permit",
    "Places",
    "Priority",
    "Quota",
    "QuotaState",
    "RetryBudget",
    "warn_if_oversized",
]
