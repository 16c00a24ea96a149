"""A pool of ours as a target, warm or without a connection that it keeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from speechpool.errors import SpeechPoolError, TaskFailed
from speechpool.limits import LocalQuota
from speechpool.protocol import Audio
from speechpool.settings import PoolSettings
from speechpool.synthesis import AsyncSpeechPool, SpeechLease, SpeechTask

from .callers import Caller
from .record import Listener, Record
from .targets import UNBOUNDED, Setup

__all__ = ["PoolTarget"]


class PoolTarget:
    """See `Target`.

    Args:
        name: `pool`, or `fresh`: no connection is kept, so that every task pays for a handshake.
        setup: Where to, and how.
    """

    def __init__(self, name: str, setup: Setup) -> None:
        self._warm = name == "pool"
        size = setup.size if self._warm else UNBOUNDED * setup.size
        kept = PoolSettings() if self._warm else PoolSettings(min_size=0, max_idle=0)
        self._voice = setup.pcm()
        self._rate = self._voice.effective_sample_rate
        self._pool = AsyncSpeechPool(
            setup.endpoint(),
            name=name,
            settings=kept,
            quota=LocalQuota(),
            max_size=size,
            max_waiting=20 * size,
            max_opening=32,
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        try:
            await self._pool.wait_ready()
        except BaseException:
            await self._pool.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    def used(self) -> float | None:
        """Share of its connections that is borrowed now; None where none is kept."""
        if not self._warm:
            return None
        stats = self._pool.stats
        return stats.borrowed / stats.max_size

    async def speak(self, record: Record, caller: Caller, start: float) -> None:
        """Run one task and write down what it was like."""
        listener = Listener(record, start, caller.text, self._rate, slow=caller.slow)
        leaving: list[asyncio.Task[None]] = []

        def sink(event: object) -> None:
            listener(event)
            if caller.leaves and task is not None and not leaving and record.first_packet is not None:
                leaving.append(asyncio.create_task(task.cancel()))

        begun = time.monotonic()
        task: SpeechTask | None = None
        try:
            async with self._lent() as tasks:
                waited = time.monotonic() - begun
                task = tasks.task(self._voice, sink=None if caller.slow else sink)
                async with task:
                    await _talk(task, caller)
                    await (_taken_slowly(task, listener, caller) if caller.slow else task.wait())
        except SpeechPoolError as error:
            record.error = error.code if isinstance(error, TaskFailed) else type(error).__name__
        finally:
            record.end_to_end = time.monotonic() - start - record.planned
            if task is not None:
                report = task.report
                record.outcome, record.reused = task.outcome or "failed", report.reused
                if report.queue is not None and report.connect is not None:
                    record.connection = waited + report.text_wait + report.queue + report.connect
                    record.start, record.synthesis = report.start, report.synthesis

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[AsyncSpeechPool | SpeechLease]:
        """Yield where the task begins: the pool, or a connection that is closed afterwards, so that nobody gets it."""
        if self._warm:
            yield self._pool
            return
        async with self._pool.borrow() as lease:
            try:
                yield lease
            finally:
                lease.discard()


async def _talk(task: SpeechTask, caller: Caller) -> None:
    pause = 1 / caller.tokens_per_second if caller.tokens_per_second else 0.0
    for number, piece in enumerate(caller.pieces()):
        if pause and number:
            await asyncio.sleep(pause)
        await task.send(piece)
    await task.finish()


async def _taken_slowly(task: SpeechTask, listener: Listener, caller: Caller) -> None:
    """Take audio no faster than it plays, so that the server has to wait."""
    async for event in task:
        listener(event.data if isinstance(event, Audio) else event)
        if isinstance(event, Audio):
            if caller.leaves:
                await task.cancel()
                return
            await asyncio.sleep(listener.ahead())
