"""Runs a plan: every task begins when it was planned to, whatever became of those before it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final

from speechpool.errors import TaskFailed

from .callers import Behaviour, Call, Caller
from .percentiles import percentile
from .processor import Processor
from .record import Record
from .targets import Setup, Target, opened

__all__ = ["Job", "Load", "Progress", "Result", "Seen", "calibrated"]

_FAREWELL: Final = 30.0
"""Seconds that the last tasks get."""
_LOOK: Final = 0.02
"""Seconds between two looks at how late the event loop is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be done.

    Attributes:
        start: When the run began, by `time.monotonic()`; every moment counts from there.
        calls: Who calls when (open loop).
        concurrency: Closed loop instead: so many callers, each beginning when it is through.
        seconds: Of the closed loop.
        behaviour: Of its callers.
        seed: Of its callers.
    """

    start: float
    calls: tuple[Call, ...] = ()
    concurrency: int | None = None
    seconds: float = 0.0
    behaviour: Behaviour | None = None
    seed: int = 0


@dataclass(slots=True)
class Result:
    """What a run has brought.

    Attributes:
        records: One for each task that began.
        lags: Seconds by which the tester's own event loop was late, at each look.
        processor: Seconds of processor time that the tester took; of several processes, the busiest one.
        starved: Seconds in which it had to wait for a processor; None: unknown.
        seconds: How long it ran.
        interrupted: It did not come to its end.
        used: Shares of the connections that were borrowed, at each look, by target and stage.
    """

    records: list[Record] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    processor: float = 0.0
    starved: float | None = None
    seconds: float = 0.0
    interrupted: bool = False
    used: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def add(self, other: Result, *, later: bool = False) -> None:
        """Take in what another process has brought in the same time, or, `later`, another run after this one."""
        self.records += other.records
        self.lags += other.lags
        both = sum if later else max
        self.processor = both((self.processor, other.processor))
        self.starved = both((self.starved or 0.0, other.starved)) if other.starved is not None else self.starved
        self.seconds = both((self.seconds, other.seconds))
        self.interrupted |= other.interrupted
        for target, stages in other.used.items():
            for stage, shares in stages.items():
                self.used.setdefault(target, {}).setdefault(stage, []).extend(shares)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one sees of a run while it goes on.

    Attributes:
        begun: Tasks.
        ended: Those of them that are over.
        failed: Those of them that failed.
        first_packet: 95th percentile of the latest hundred; 0 without any.
    """

    begun: int
    ended: int
    failed: int
    first_packet: float


Progress = Callable[[Seen], object]


class Load:
    """One run.

    Args:
        targets: Each gets every task, side by side.
        job: What is to be done.
        progress: Called a few times a second with what there is.
    """

    def __init__(self, targets: Mapping[str, Target], job: Job, *, progress: Progress = lambda _: None) -> None:
        self.result = Result()
        self._targets, self._job, self._progress = targets, job, progress
        self._tasks: set[asyncio.Task[None]] = set()
        self._stage = 0
        self._ended = self._failed = 0
        self._latest: deque[float] = deque(maxlen=100)

    async def run(self) -> Result:
        """Run to the end.

        Cancellation: `result` holds what there is.
        """
        begun, processor = time.monotonic(), Processor()
        watching = asyncio.create_task(self._watch())
        try:
            await (self._open() if self._job.concurrency is None else self._closed(self._job.concurrency))
        except asyncio.CancelledError:
            self.result.interrupted = True
            raise
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            self.result.seconds = time.monotonic() - begun
            self.result.processor, self.result.starved = processor.used(), processor.starved()
            await self._break_off()
        return self.result

    # ------------------------------------------------------------------------------------ when
    async def _open(self) -> None:
        order = list(self._targets)
        for call in self._job.calls:
            await asyncio.sleep(max(0.0, self._job.start + call.at - time.monotonic()))
            self._stage = call.stage
            for name in order:
                task = asyncio.create_task(self._speak(name, call.caller, call.at, call.stage))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            order.append(order.pop(0))  # none is always the first
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FAREWELL)

    async def _closed(self, concurrency: int) -> None:
        job = self._job
        assert job.behaviour is not None  # noqa: S101  # a closed loop has one
        callers = job.behaviour.callers(job.seed)

        async def calling(name: str) -> None:
            while (now := time.monotonic() - job.start) < job.seconds:
                await self._speak(name, next(callers), now, 0)

        self._tasks = {asyncio.create_task(calling(name)) for name in self._targets for _ in range(concurrency)}
        await asyncio.gather(*self._tasks)

    async def _speak(self, name: str, caller: Caller, planned: float, stage: int) -> None:
        start = self._job.start
        late = max(0.0, time.monotonic() - start - planned)
        record = Record(stage=stage, target=name, planned=planned, late=late, characters=len(caller.text))
        self.result.records.append(record)
        await self._targets[name].speak(record, caller, start)
        self._ended += 1
        self._failed += record.outcome == "failed"
        if record.first_packet is not None:
            self._latest.append(record.first_packet)

    async def _break_off(self) -> None:
        """End what still runs: after an interruption it is cancelled; else it has hung, and that is a failure."""
        left = [task for task in self._tasks if not task.done()]
        running = [record for record in self.result.records if record.end_to_end is None]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_FAREWELL)
        for record in running:
            record.outcome = "cancelled" if self.result.interrupted else "failed"
            record.error = None if self.result.interrupted else "Unfinished"

    async def _watch(self) -> None:
        turn = 0
        while True:
            due = time.monotonic() + _LOOK
            await asyncio.sleep(_LOOK)
            self.result.lags.append(max(0.0, time.monotonic() - due))
            for name, target in self._targets.items():
                if (share := target.used()) is not None:
                    self.result.used.setdefault(name, {}).setdefault(self._stage, []).append(share)
            turn += 1
            if turn % 10 == 0:
                slow = percentile(self._latest, 95) or 0.0
                self._progress(Seen(len(self.result.records), self._ended, self._failed, slow))


_CALIBRATING: Final = 16
"""Tasks, at most; four at a time."""


async def calibrated(setup: Setup, behaviour: Behaviour, seed: int) -> float:
    """Return the mean seconds of a task where nobody else is; a first one, which warms up, does not count.

    Each text is spoken once, and of many, some.

    Raises:
        SpeechPoolError: No connection can be opened.
        TaskFailed: A task failed.
    """
    drawn = _drawn(behaviour, seed)
    async with opened(("pool",), setup) as targets:
        start = time.monotonic()

        async def seconds(caller: Caller) -> float:
            begun = time.monotonic()
            record = Record(stage=0, target="pool", planned=begun - start)
            await targets["pool"].speak(record, caller, start)
            if record.outcome == "failed":
                raise TaskFailed(record.error or "unknown", "a first task, by which its length is measured, failed")
            return time.monotonic() - begun

        await seconds(drawn[0])
        callers, spans = iter(drawn), list[float]()

        async def one_after_the_other() -> None:
            for caller in callers:
                spans.append(await seconds(caller))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(one_after_the_other())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
    return fmean(spans)


def _drawn(behaviour: Behaviour, seed: int) -> Sequence[Caller]:
    if len(behaviour.texts) > _CALIBRATING:
        return [caller for caller, _ in zip(behaviour.callers(seed), range(_CALIBRATING), strict=False)]
    return list(_each_text(behaviour, behaviour.callers(seed)))


def _each_text(behaviour: Behaviour, callers: Iterator[Caller]) -> Iterator[Caller]:
    for text in behaviour.texts:
        like = next(callers)
        yield Caller(text, like.leaves, like.slow, like.tokens_per_second)
