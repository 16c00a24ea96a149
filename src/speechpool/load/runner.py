"""Runs a plan: every task begins when it was planned to, whatever became of those before it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from speechpool.errors import SpeechPoolError, TaskFailed
from speechpool.protocol import Voice
from speechpool.synthesis import AsyncSpeechPool, Endpoint

from .plan import Arrival
from .record import Listener, Record
from .targets import pool_for

__all__ = ["Load", "Result", "calibrated"]

_FAREWELL: Final = 30.0
"""Seconds that the last tasks get."""
_LOOK: Final = 0.02
"""Seconds between two looks at how late the event loop is."""


@dataclass(slots=True)
class Result:
    """What a run has brought.

    Attributes:
        records: One for each task that began.
        lags: Seconds by which the tester's own event loop was late, at each look.
        processor: Seconds of processor time that the tester took.
        seconds: How long it ran.
        interrupted: It did not come to its end.
        utilisation: Mean share of the pool that was borrowed, by target and stage.
    """

    records: list[Record] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    processor: float = 0.0
    seconds: float = 0.0
    interrupted: bool = False
    utilisation: dict[tuple[str, int], list[float]] = field(default_factory=dict)


class Load:
    """One run.

    Args:
        endpoint: Where to.
        voice: Whose; PCM, which a listener can be simulated on.
        arrivals: When; empty where `concurrency` says how many callers go on for how long.
        text: Draws the next text.
        targets: Each gets every task, side by side.
        size: Connections of each target.
        barge_in: Share of the tasks that are broken off after their first audio.
        concurrency: Closed loop: so many callers, each beginning when it is through.
        seconds: Of the closed loop.
        seed: Of all chances.
        progress: Called a few times a second with what there is.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        voice: Voice,
        *,
        arrivals: Sequence[Arrival] = (),
        text: Callable[[], str],
        targets: Sequence[str] = ("pool",),
        size: int,
        barge_in: float = 0.0,
        concurrency: int | None = None,
        seconds: float = 0.0,
        seed: int = 0,
        progress: Callable[[float, Result], object] = lambda *_: None,
    ) -> None:
        self.result = Result()
        self._endpoint, self._voice, self._arrivals, self._text = endpoint, voice, arrivals, text
        self._targets, self._size, self._barge_in = targets, size, barge_in
        self._concurrency, self._seconds = concurrency, seconds
        self._choice, self._progress = random.Random(seed), progress
        self._tasks: set[asyncio.Task[None]] = set()
        self._stage = 0

    async def run(self) -> Result:
        """Run to the end.

        Cancellation: `result` holds what there is.

        Raises:
            SpeechPoolError: A pool cannot be opened.
        """
        async with AsyncExitStack() as stack:
            pools = {
                name: await stack.enter_async_context(pool_for(name, self._endpoint, self._size))
                for name in self._targets
            }
            for pool in pools.values():
                await pool.wait_ready()
            watching = asyncio.create_task(self._watch(pools))
            self._start, used = time.monotonic(), time.process_time()
            try:
                await (self._open(pools) if self._concurrency is None else self._closed(pools))
            except asyncio.CancelledError:
                self.result.interrupted = True
                raise
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching
                for task in self._tasks:
                    task.cancel()
                self.result.seconds = time.monotonic() - self._start
                self.result.processor = time.process_time() - used
        return self.result

    # ------------------------------------------------------------------------------------ when
    async def _open(self, pools: dict[str, AsyncSpeechPool]) -> None:
        for arrival in self._arrivals:
            await asyncio.sleep(max(0.0, self._start + arrival.at - time.monotonic()))
            self._stage = arrival.stage
            text, leaves = self._text(), self._choice.random() < self._barge_in
            for name, pool in pools.items():
                self._begin(pool, Record(stage=arrival.stage, target=name, planned=arrival.at), text, leaves=leaves)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FAREWELL)

    async def _closed(self, pools: dict[str, AsyncSpeechPool]) -> None:
        async def caller(name: str, pool: AsyncSpeechPool) -> None:
            while (now := time.monotonic() - self._start) < self._seconds:
                record = Record(stage=0, target=name, planned=now)
                await self._speak(pool, record, self._text(), leaves=self._choice.random() < self._barge_in)

        callers = [caller(name, pool) for name, pool in pools.items() for _ in range(self._concurrency or 0)]
        await asyncio.gather(*callers)

    def _begin(self, pool: AsyncSpeechPool, record: Record, text: str, *, leaves: bool) -> None:
        task = asyncio.create_task(self._speak(pool, record, text, leaves=leaves))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, pools: dict[str, AsyncSpeechPool]) -> None:
        turn = 0
        while True:
            due = time.monotonic() + _LOOK
            await asyncio.sleep(_LOOK)
            self.result.lags.append(max(0.0, time.monotonic() - due))
            for name, pool in pools.items():
                stats = pool.stats
                share = stats.borrowed / stats.max_size
                self.result.utilisation.setdefault((name, self._stage), []).append(share)
            turn += 1
            if turn % 10 == 0:
                self._progress(time.monotonic() - self._start, self.result)

    # ------------------------------------------------------------------------------------ one task
    async def _speak(self, pool: AsyncSpeechPool, record: Record, text: str, *, leaves: bool) -> None:
        start = self._start
        record.late = max(0.0, time.monotonic() - start - record.planned)
        record.characters = len(text)
        self.result.records.append(record)
        listener = Listener(record, start, text, self._voice.effective_sample_rate)
        leaving: list[asyncio.Task[None]] = []

        def sink(event: object) -> None:
            listener(event)
            if leaves and not leaving and record.first_packet is not None:
                leaving.append(asyncio.create_task(task.cancel()))

        task = pool.task(self._voice, sink=sink)
        connected: float | None = None
        try:
            async with task:
                connected = time.monotonic()
                record.wait = connected - start - record.planned - record.late
                await task.send(text)
                await task.finish()
                await task.wait()
        except SpeechPoolError as error:
            record.error = error.code if isinstance(error, TaskFailed) else type(error).__name__
        finally:
            record.outcome = task.outcome or "failed"
            record.reused = task.report.reused
            ended = time.monotonic()
            record.end_to_end = ended - start - record.planned
            record.held = None if connected is None else ended - connected


async def calibrated(endpoint: Endpoint, voice: Voice, text: Callable[[], str], *, tasks: int = 8) -> float:
    """Return the mean seconds of a task when it is alone; the first one, which warms up, does not count.

    Raises:
        SpeechPoolError: A task failed.
    """
    async with pool_for("pool", endpoint, 1) as pool:
        await pool.synthesize(text(), voice)
        begun = time.monotonic()
        for _ in range(tasks):
            await pool.synthesize(text(), voice)
        return (time.monotonic() - begun) / tasks
