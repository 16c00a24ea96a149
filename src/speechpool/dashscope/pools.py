"""The connections under the synthesizers, all on the one event loop of `SpeechPool`.

A synthesizer of its own takes its connections from pools that the whole process shares, one for each endpoint; they
keep nothing open that was not used. An object pool has a pool of fixed size, and two of that kind beside it: for those
whom it has no connection left for, and for borrowers that name another endpoint.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from speechpool.errors import PoolClosed
from speechpool.limits import LocalQuota
from speechpool.settings import Deadlines
from speechpool.synthesis import AsyncSpeechPool, Endpoint
from speechpool.synthesis.loop_thread import loop_thread

from .endpoints import current_key, endpoint_for

if TYPE_CHECKING:
    from speechpool.synthesis import SpeechLease
    from speechpool.synthesis.host import TaskHost

__all__ = ["ObjectPool", "WarmPools", "shared"]

logger: Final = logging.getLogger("speechpool.dashscope")

_Key = tuple[str, str, str | None, tuple[tuple[str, str], ...]]

DEADLINES: Final = Deadlines(total=None, first_audio=60.0, gap=60.0)
"""The official classes wait for ever, or as long as the caller says, who sets the total himself."""
PATIENCE = 10.0
"""Seconds that a task waits for a connection, dialled anew where none is free; the official classes wait for 5."""
FAREWELL: Final = 0.5
"""Seconds that servers get to answer the last close frames of a process."""
_ANY_NUMBER: Final = 10_000
_KEPT_WARM: Final = 100
_ENDPOINTS_KEPT: Final = 32
_GRACE = 10.0
"""Seconds in which a task begins on a pool that it was given."""
_numbers: Final = itertools.count(1)


class _Quotas:
    """The quota of the process: no ceiling, until a server says that it is too much."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._quota = LocalQuota()

    def get(self) -> LocalQuota:
        if self._loop is not loop_thread.loop:  # a forked child begins anew
            self._loop, self._quota = loop_thread.loop, LocalQuota()
        return self._quota


_quotas: Final = _Quotas()


class WarmPools:
    """A pool for each endpoint, made when it is first asked for.

    Args:
        name: For logs and metrics.
        keep: How many idle connections of an endpoint are kept.
    """

    def __init__(self, name: str, *, keep: int = _KEPT_WARM) -> None:
        self._name = name
        self._keep = keep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pools: dict[_Key, AsyncSpeechPool] = {}
        self._leaving: dict[AsyncSpeechPool, float] = {}  # those that nobody is given any more, and since when

    def host(
        self, url: str, workspace: str | None, headers: Mapping[str, str] | None, api_key: str | None = None
    ) -> TaskHost:
        """Return where a task for this endpoint runs; from any thread but the loop's."""
        key = (url, api_key or current_key(), workspace, tuple((headers or {}).items()))
        pool = self._pools.get(key) if self._loop is loop_thread.loop else None
        if pool is None:
            pool = loop_thread.run(lambda: self._opened(key))
        return pool._hosted()

    async def _opened(self, key: _Key) -> AsyncSpeechPool:
        if self._loop is not loop_thread.loop:
            self._loop, self._pools, self._leaving = loop_thread.loop, {}, {}
            _at_exit.add(self)
        pool = self._pools.get(key)
        if pool is None:
            url, api_key, workspace, headers = key
            pool = _pool(
                self._name,
                endpoint_for(url, workspace, dict(headers), api_key),
                max_size=_ANY_NUMBER,
                min_size=0,
                max_idle=self._keep,
                max_opening=32,
            )
            await pool.__aenter__()
            self._pools[key] = pool
            await self._forget_unused()
        return pool

    async def _forget_unused(self) -> None:
        """Close the oldest pools without a connection: keys that rotate must not add up."""
        now = loop_thread.loop.time()
        for key, pool in list(self._pools.items())[:-_ENDPOINTS_KEPT]:
            if not _in_use(pool):
                self._leaving[self._pools.pop(key)] = now
        # Not at once: a thread may have been given it a moment ago, and its task is on the way.
        closing = [pool for pool, since in self._leaving.items() if now - since > _GRACE and not _in_use(pool)]
        for pool in closing:
            del self._leaving[pool]
        await asyncio.gather(*(pool.close() for pool in closing))

    def sockets(self) -> int:
        """Return how many connections are open."""
        return loop_thread.call(lambda: sum(pool.stats.size for pool in [*self._pools.values(), *self._leaving]))

    async def close(self) -> None:
        """Close every connection. The next task opens a new one."""
        pools = [*self._pools.values(), *self._leaving]
        self._pools, self._leaving = {}, {}
        await asyncio.gather(*(pool.close() for pool in pools))


shared: Final = WarmPools("dashscope")
"""The connections of all synthesizers that no object pool has lent."""


class ObjectPool:
    """The connections of one object pool.

    Args:
        max_size: How many are kept open.
        url: Where to.
        workspace: The workspace.
        headers: Further headers of the handshake.

    Raises:
        ConnectFailed: No connection opened within the deadline.
        PoolTimeout: The same.
    """

    def __init__(self, max_size: int, url: str, workspace: str | None, headers: Mapping[str, str] | None) -> None:
        name = f"dashscope-{next(_numbers)}"
        self.where = url, workspace, headers
        self._loop = loop_thread.loop
        self.closed = False
        """Nothing is lent any more."""
        self._pool = _pool(
            name, endpoint_for(url, workspace, headers), max_size=max_size, max_opening=min(max_size, 16)
        )
        # Held here, so that a borrower that vanishes is no leak: the pool takes its connection back.
        self._lent: set[SpeechLease] = set()
        self._extra = WarmPools(f"{name}-extra", keep=0)
        self._others = WarmPools(f"{name}-others")
        loop_thread.run(self._open)

    async def _open(self) -> None:
        pool = self._pool
        await pool.__aenter__()
        _at_exit.add(self)
        try:
            async with asyncio.timeout(pool.deadlines.connect):
                await pool.wait_ready()
        except TimeoutError:
            logger.warning("%s", pool.explain())
        except BaseException:
            await pool.close()
            raise

    def lend(self, timeout: float | None) -> SpeechLease | None:
        """Return a lease; None where all are lent, and the caller is not to wait.

        Args:
            timeout: Seconds to wait for one; None: not at all.

        Raises:
            PoolTimeout: None came in time.
            PoolClosed: The pool is closed, or belongs to the parent of this process.
        """
        self._check()
        lease = loop_thread.call(self._pool.try_borrow)
        if lease is None and timeout is not None:
            lease = loop_thread.run(lambda: self._waited(timeout))
        if lease is not None:
            self._lent.add(lease)
        return lease

    async def _waited(self, timeout: float) -> SpeechLease:  # noqa: ASYNC109  # a deadline of the pool's own queue
        return await self._pool.borrow(timeout=timeout).__aenter__()

    def host(self, url: str, workspace: str | None, headers: Mapping[str, str] | None) -> TaskHost:
        """Return where a task runs that has no lease."""
        self._check()
        where = url, workspace, headers
        return (self._extra if where == self.where else self._others).host(*where)

    def _check(self) -> None:
        if self.closed:
            raise PoolClosed("the object pool was shut down; make another one.")
        if self._loop is not loop_thread.loop:
            raise PoolClosed("the object pool belongs to the parent of this process; make another one here.")

    def take_back(self, lease: SpeechLease, discard: str) -> None:
        """Have a lease left, without waiting; a finaliser may call this.

        Args:
            lease: What was lent.
            discard: Why its connection is to be closed; empty: it may be lent again.
        """
        self._lent.discard(lease)
        if loop_thread.runs(self._loop):  # the connections of a parent are not ours to close
            loop_thread.post(lambda: lease.leave(discard=discard))

    def end(self) -> None:
        """Close every connection. Running tasks are given up."""
        self.closed = True
        if loop_thread.runs(self._loop):
            loop_thread.run(self.close)

    async def close(self) -> None:
        """As `end`, on the loop. What was not returned is closed, too."""
        for lease in list(self._lent):
            lease.leave(discard="pool closed")
        await asyncio.gather(self._pool.close(), self._extra.close(), self._others.close())


class _Closing(Protocol):
    async def close(self) -> None:
        """Close every connection."""


class _AtExit:
    """Says goodbye to the servers when the process ends, and does not wait long for an answer."""

    def __init__(self) -> None:
        self._pools: weakref.WeakSet[_Closing] = weakref.WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, pools: _Closing) -> None:
        if self._loop is not loop_thread.loop:  # those of a parent are not ours to close
            self._loop, self._pools = loop_thread.loop, weakref.WeakSet()
            # After the loop's own end and before that of the tasks that are left to finish, so called between them.
            atexit.unregister(self._close)
            atexit.register(self._close)
        self._pools.add(pools)

    def _close(self) -> None:
        if self._loop is not None and loop_thread.runs(self._loop):
            loop_thread.run(self._farewell)

    async def _farewell(self) -> None:
        closing = [asyncio.ensure_future(pool.close()) for pool in self._pools]
        if closing:
            await asyncio.wait(closing, timeout=FAREWELL)


_at_exit: Final = _AtExit()


def _in_use(pool: AsyncSpeechPool) -> bool:
    return bool(pool.stats.size or pool._hosted().ticker.watched)


def _pool(name: str, endpoint: Endpoint, **settings: Any) -> AsyncSpeechPool:
    return AsyncSpeechPool(
        endpoint,
        name=name,
        deadlines=DEADLINES,
        quota=_quotas.get(),
        borrow_timeout=PATIENCE,
        max_waiting=_ANY_NUMBER,
        leak_after=None,
        **settings,
    )
