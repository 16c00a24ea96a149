"""What a load runs against: a warm pool, or a fresh connection for each task."""

from __future__ import annotations

import math
from typing import Final

from speechpool.errors import SettingsError
from speechpool.limits import LocalQuota
from speechpool.settings import PoolSettings
from speechpool.synthesis import AsyncSpeechPool, Endpoint

__all__ = ["TARGETS", "pool_for", "size_for"]

TARGETS: Final = ("pool", "fresh")


def pool_for(target: str, endpoint: Endpoint, size: int) -> AsyncSpeechPool:
    """Return the pool of a target, not yet entered.

    Args:
        target: `pool`, or `fresh`: no connection is kept, so that every task pays for a handshake.
        endpoint: Where to.
        size: Connections at most.

    Raises:
        SettingsError: There is no such target.
    """
    if target not in TARGETS:
        raise SettingsError(f"target {target!r} is unknown; choose of {', '.join(TARGETS)}.")
    kept = PoolSettings() if target == "pool" else PoolSettings(min_size=0, max_idle=0)
    return AsyncSpeechPool(
        endpoint,
        name=target,
        settings=kept,
        quota=LocalQuota(),
        max_size=size,
        max_waiting=20 * size,
        max_opening=32,
    )


def size_for(peak: int) -> int:
    """Return the connections for twice a peak: so many, and four standard deviations of a Poisson stream more."""
    return 2 * peak + math.ceil(4 * math.sqrt(2 * peak))
