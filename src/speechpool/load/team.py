"""Who does the work: this process, or several, each with a part of the calls and of the connections.

One process begins some hundreds of tasks a second in time. Beyond that, or where the processor is the limit, take more.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final, Protocol, Self

import msgspec

from speechpool.errors import ConnectFailed, SettingsError, Unauthorized

from .helper import Helper
from .runner import Job, Load, Progress, Result, Seen
from .targets import Setup, Target, opened

__all__ = ["Answer", "Order", "Team", "assembled"]

_READY: Final = 120.0
"""Seconds until all connections of a worker must be open."""
_BREAKING_OFF: Final = 10.0
"""Seconds that workers get to say what there is, when they are interrupted."""


class Team(Protocol):
    """Runs one job after the other on the same warm targets."""

    async def run(self, job: Job, result: Result, progress: Progress) -> None:
        """Run one, and put what it brings into `result`, also when it is cancelled."""


@asynccontextmanager
async def assembled(names: tuple[str, ...], setup: Setup, workers: int) -> AsyncIterator[Team]:
    """Yield the team, its targets warm.

    Args:
        names: Of the targets.
        setup: What they have to know; its size is that of all together.
        workers: Processes; 1: this one.
    """
    if workers == 1:
        async with opened(names, setup) as targets:
            yield _Alone(targets)
        return
    share = replace(setup, size=math.ceil(setup.size / workers))
    async with AsyncExitStack() as stack:
        members = [_Worker(names, share) for _ in range(workers)]
        for member in members:
            await stack.enter_async_context(member)
        try:
            async with asyncio.TaskGroup() as group:
                for member in members:
                    group.create_task(member.wait_ready())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        yield _Together(members)


class _Alone:
    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets

    async def run(self, job: Job, result: Result, progress: Progress) -> None:
        load = Load(self._targets, job, progress=progress)
        try:
            await load.run()
        finally:
            result.add(load.result, later=True)


class _Together:
    def __init__(self, members: Sequence[_Worker]) -> None:
        self._members = members

    async def run(self, job: Job, result: Result, progress: Progress) -> None:
        parts = _parts(job, len(self._members))
        latest: dict[int, Seen] = {}

        def seen(number: int, one: Seen) -> None:
            latest[number] = one
            begun, ended, failed = (
                sum(getattr(each, name) for each in latest.values()) for name in ("begun", "ended", "failed")
            )
            progress(Seen(begun, ended, failed, max(each.first_packet for each in latest.values())))

        waiting = [
            asyncio.create_task(member.run(part, partial(seen, number)))
            for number, (member, part) in enumerate(zip(self._members, parts, strict=True))
        ]
        try:
            await asyncio.wait(waiting)  # its cancellation does not cancel them: each says what there is
        except asyncio.CancelledError:
            for member in self._members:
                member.stop()
            await asyncio.wait(waiting, timeout=_BREAKING_OFF)
            raise
        finally:
            merged = Result()
            for one in waiting:
                one.cancel()
                if one.done() and not one.cancelled() and one.exception() is None:
                    merged.add(one.result())
            merged.records.sort(key=lambda record: record.planned)
            result.add(merged, later=True)
        for one in waiting:
            one.result()  # a worker that has ended is an error


def _parts(job: Job, workers: int) -> list[Job]:
    if job.concurrency is None:
        return [replace(job, calls=job.calls[number::workers]) for number in range(workers)]
    shares = [job.concurrency // workers + (number < job.concurrency % workers) for number in range(workers)]
    return [replace(job, concurrency=share, seed=job.seed + number) for number, share in enumerate(shares)]


class _Worker:
    """One process of several."""

    def __init__(self, names: tuple[str, ...], setup: Setup) -> None:
        self._names, self._setup = names, setup
        self._helper = Helper("speechpool.load.worker", self._on_line, self._on_end)
        self._answer: asyncio.Future[Result | None] | None = None
        self._seen: Callable[[Seen], object] = lambda _: None

    async def __aenter__(self) -> Self:
        self._answer = asyncio.get_running_loop().create_future()
        await self._helper.__aenter__()
        self._helper.say(Order(names=self._names, setup=self._setup))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._helper.__aexit__()

    async def wait_ready(self) -> None:
        assert self._answer is not None  # noqa: S101  # it was entered
        try:
            async with asyncio.timeout(_READY):
                await self._answer
        except TimeoutError:
            raise ConnectFailed(f"a worker was not ready within {_READY:g} s; is the machine overloaded?") from None

    async def run(self, job: Job, seen: Callable[[Seen], object]) -> Result:
        self._answer, self._seen = asyncio.get_running_loop().create_future(), seen
        self._helper.say(Order(job=job))
        result = await self._answer
        assert result is not None  # noqa: S101  # the answer to a job
        return result

    def stop(self) -> None:
        self._helper.say(Order(stop=True))

    def _on_line(self, line: bytes) -> None:
        message = msgspec.json.decode(line, type=Answer)
        if message.seen is not None:
            self._seen(message.seen)
        elif self._answer is not None and not self._answer.done():
            if message.error is None:
                self._answer.set_result(message.result)
            else:
                kind = _KINDS.get(message.kind, ConnectFailed)
                self._answer.set_exception(kind(message.error))

    def _on_end(self, words: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectFailed(f"a worker ended by itself: {words}"))


_KINDS: Final[dict[str, type[SettingsError | Unauthorized]]] = {
    "SettingsError": SettingsError,
    "Unauthorized": Unauthorized,
}


class Order(msgspec.Struct, omit_defaults=True):
    """What a worker is told: first where to, then jobs; a job can be stopped."""

    names: tuple[str, ...] = ()
    setup: Setup | None = None
    job: Job | None = None
    stop: bool = False


class Answer(msgspec.Struct, omit_defaults=True):
    """What it says: that it is ready (nothing in it), what one sees, or the result; or why not."""

    seen: Seen | None = None
    result: Result | None = None
    kind: str = ""
    error: str | None = None
