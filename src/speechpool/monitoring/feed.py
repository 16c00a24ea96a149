"""A snapshot of every pool, once a second, for all who watch: taken only while somebody does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

__all__ = ["Feed"]

EVERY: Final = 1.0
"""Seconds between two of them."""
KEPT: Final = 120
"""How many can be asked for again."""

Pools = list[dict[str, Any]]


class Feed:
    """Serves those who watch with the newest pools; who reads slowly misses some, and costs no memory.

    Args:
        take: Returns the pools now; called in a thread, since a pool's loop may be busy.
        on_close: Called when the feed is closed, so that `take` waits no longer.
    """

    def __init__(self, take: Callable[[], Pools], on_close: Callable[[], None] = lambda: None) -> None:
        self._take = take
        self._on_close = on_close
        self._kept: deque[Pools] = deque(maxlen=KEPT)
        self._watchers = 0
        self._taking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._closed = False

    async def watch(self) -> AsyncIterator[Pools]:
        """Yield the pools now and whenever they were taken again, until the feed is closed."""
        self._watchers += 1
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._go_on())
        seen: Pools | None = None
        try:
            while not self._closed:
                if self._kept and self._kept[-1] is not seen:
                    seen = self._kept[-1]
                    yield seen
                else:
                    await self._news.wait()
        finally:
            self._watchers -= 1

    async def now(self) -> Pools:
        """Take the pools now."""
        pools = await asyncio.to_thread(self._take)
        self._kept.append(pools)
        return pools

    def again(self, seq: int) -> Pools:
        """Return those pools of the last two minutes whose `seq` it is."""
        return [pool for pools in self._kept for pool in pools if pool["seq"] == seq]

    def close(self) -> None:
        """Let everybody go who watches."""
        self._closed = True
        self._on_close()
        self._tell()
        if self._taking is not None:
            self._taking.cancel()

    async def _go_on(self) -> None:
        try:
            while self._watchers:
                await self.now()
                self._tell()
                await asyncio.sleep(EVERY)
        finally:
            self._taking = None

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def by_name(snapshots: Sequence[dict[str, Any]]) -> Pools:
    """Return them in the order of their names."""
    return sorted(snapshots, key=lambda one: str(one["pool"]))
