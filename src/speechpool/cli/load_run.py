"""What `speechpool load` does between its flags and its report."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import typer

from speechpool.load.callers import Behaviour, calls
from speechpool.load.expect import Expectation, parse
from speechpool.load.judgement import judged, warnings
from speechpool.load.plan import Stage, parse_stages, plan, preset, soak
from speechpool.load.runner import Job, Result, calibrated
from speechpool.load.summary import SLOW, summary
from speechpool.load.sweep import knee
from speechpool.load.targets import Setup, size_for
from speechpool.load.team import Team, assembled
from speechpool.load.texts import CORPUS, read
from speechpool.synthesis import Endpoint
from speechpool.testing.proxy import FaultProxy

from .child import running_service
from .endpoints import insist, is_local
from .load_build import build_of
from .load_screen import Screen

__all__ = ["Run", "Wish"]

_SWEPT: Final = ("first_packet.p99<500ms", "error_rate<0.1%")
"""What must hold in a sweep for which nothing is expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The flags; see there."""

    url: str | None
    api_key: str | None = field(repr=False)
    engine: str
    profile: str | None
    model: str
    voice: str
    targets: tuple[str, ...]
    max_size: int | None
    workers: int
    faults: tuple[str, ...]
    peak: int
    scale_time: float
    soak: float | None
    stages: str | None
    rate: float | None
    sweep: bool
    concurrency: int | None
    seconds: float | None
    arrivals: str
    texts: Path | None
    tokens_per_second: float | None
    barge_in: float
    slow: float
    seed: int

    @property
    def host(self) -> str | None:
        """Whose machine it is; None: ours."""
        return None if self.url is None or is_local(self.url) else urlsplit(self.url).hostname

    @property
    def size(self) -> int:
        """Connections of each target."""
        return self.max_size or size_for(max(self.peak, self.concurrency or 0))

    def shown(self) -> dict[str, Any]:
        """Return what the report says of it: no key, no text, no path, and of the URL the host only."""
        hidden = {"api_key", "texts"}
        flags = {name: value for name, value in asdict(self).items() if name not in hidden}
        return flags | {"url": None if self.url is None else urlsplit(self.url).netloc.rpartition("@")[2]}


class Run:
    """One run of the verb.

    Args:
        wish: What was asked for.
        expectations: What must hold.
    """

    def __init__(self, wish: Wish, expectations: Sequence[Expectation]) -> None:
        self._wish, self._expectations = wish, expectations
        texts = CORPUS if wish.texts is None else read(wish.texts)
        self._behaviour = Behaviour(texts, wish.barge_in, wish.slow, wish.tokens_per_second)
        self.result = Result()
        self._stages: list[Stage] = []
        self._swept: dict[str, Any] | None = None
        self._task_seconds: float | None = None
        self._build: dict[str, str | None] = {}

    async def go(self) -> None:
        """Do it.

        Cancellation: `result` holds what there is.

        Raises:
            SpeechPoolError: It cannot begin.
        """
        wish = self._wish
        async with self._setup() as setup:
            self._build = await build_of(setup.url, wish.targets)
            if wish.concurrency is None and wish.stages is None and wish.rate is None:
                self._task_seconds = await calibrated(setup, self._behaviour, wish.seed)
            stages = self._planned()
            self._warn_of_costs(stages)
            async with assembled(wish.targets, setup, wish.workers) as team:
                await (self._sweep(team) if wish.sweep else self._once(team, stages))

    def report(self) -> dict[str, Any]:
        """Return the report, with the verdicts."""
        more = {"task_seconds": self._task_seconds, "size": self._wish.size}
        limits = [one.limit for one in self._expectations if (one.name, one.mark) == ("first_packet", "p99")]
        report = summary(self.result, self._stages, self._wish.shown() | more, limit=min(limits, default=SLOW))
        if self._swept is not None:
            report["sweep"] = self._swept
        # In a sweep they were what was looked for, and not all that was tried could hold.
        wanted = () if self._swept is not None else self._expectations
        report["build"] |= self._build
        for target in report["targets"].values():
            for stage in target["stages"]:
                stage["missed"] = judged(stage)
        # Where nobody has chosen the size, it is for twice the peak.
        report["warnings"] = list(warnings(report["targets"])) if self._wish.max_size is not None else []
        report["expectations"] = [
            {"expectation": one.text, "target": name, "value": one.value(target), "holds": one.holds(target)}
            for one in wanted
            for name, target in report["targets"].items()
        ]
        return report

    # ------------------------------------------------------------------------------------ what is planned
    def _planned(self) -> Sequence[Stage]:
        wish = self._wish
        if wish.concurrency is not None:
            return (Stage("closed loop", wish.seconds or 30.0, 0.0),)
        if wish.stages is not None:
            return parse_stages(wish.stages)
        if wish.rate is not None:
            seconds = wish.seconds or 30.0
            return (Stage(f"{wish.rate:g}/s", seconds, wish.rate),)
        assert self._task_seconds is not None  # noqa: S101  # it was measured for these
        if wish.soak is not None:
            return soak(wish.peak, self._task_seconds, wish.soak)
        return preset(wish.peak, self._task_seconds, wish.scale_time)

    async def _once(self, team: Team, stages: Sequence[Stage]) -> None:
        wish = self._wish
        self._stages = list(stages)
        with Screen(stages) as screen:
            # A moment, so that the first one is not late already.
            job = Job(
                start=time.monotonic() + 0.1,
                calls=()
                if wish.concurrency
                else calls(plan(stages, wish.seed, self._kind), self._behaviour, wish.seed),
                concurrency=wish.concurrency,
                seconds=stages[0].seconds,
                behaviour=self._behaviour,
                seed=wish.seed,
            )
            await team.run(job, self.result, screen.seen)

    @property
    def _kind(self) -> Any:
        return self._wish.arrivals

    async def _sweep(self, team: Team) -> None:
        """Try one rate after the other, each as a stage of its own."""
        wish, target = self._wish, self._wish.targets[0]
        wanted = list(self._expectations) or [parse(text) for text in _SWEPT]
        failed: dict[float, list[str]] = {}
        begun = time.monotonic()

        async def holds(rate: float) -> bool:
            stage = Stage(f"{rate:.3g}/s", wish.seconds or 10.0, rate)
            number, offset = len(self._stages), time.monotonic() - begun + 0.1
            drawn = calls(plan((stage,), wish.seed + number, self._kind), self._behaviour, wish.seed + number)
            moved = tuple(replace(call, at=call.at + offset, stage=number) for call in drawn)
            if not drawn:
                failed[rate] = ["tasks>=1"]  # nobody came in this time
                return False
            self._stages.append(stage)
            tried = Result()
            with Screen((stage,)) as screen:
                try:
                    await team.run(Job(start=begun, calls=moved), tried, screen.seen)
                finally:
                    self.result.add(tried, later=True)
            numbers = summary(tried, self._stages, {})["targets"][target]
            failed[rate] = [one.text for one in wanted if not one.holds(numbers)]
            if failed[rate]:
                self._stages[number] = replace(stage, judged=False)
            return not failed[rate]

        first = wish.peak / (self._task_seconds or 1.0)
        self._swept = {"rate": None, "tasks_at_once": None, "fails_at": None, "because": [], "target": target}
        good, bad = await knee(holds, first)
        self._swept |= {
            "rate": good,
            "tasks_at_once": None if good is None or self._task_seconds is None else good * self._task_seconds,
            "fails_at": bad,
            "because": [] if bad is None else failed[bad],
        }

    # ------------------------------------------------------------------------------------ where to
    @asynccontextmanager
    async def _setup(self) -> AsyncIterator[Setup]:
        wish = self._wish
        async with self._service() as (url, key), _behind_faults(url, wish.faults) as reached:
            yield Setup(url=reached, api_key=key, model=wish.model, voice=wish.voice, size=wish.size)

    @asynccontextmanager
    async def _service(self) -> AsyncIterator[tuple[str, str]]:
        wish = self._wish
        if wish.url is not None:
            key = wish.api_key or "any"
            if wish.host is None:
                await insist(Endpoint(wish.url, api_key=key))
            yield wish.url, key
        else:
            async with running_service(wish.engine, wish.profile) as endpoint:
                yield endpoint.url, str(endpoint.api_key)

    def _warn_of_costs(self, stages: Sequence[Stage]) -> None:
        wish, texts = self._wish, self._behaviour.texts
        if wish.host is None:
            return
        mean = sum(map(len, texts)) / len(texts)
        tasks = len(plan(stages, wish.seed, self._kind)) * len(wish.targets)
        about = f"about {tasks * mean:,.0f} characters" if tasks and not wish.sweep else "as many characters as it can"
        typer.echo(f"This will speak {about} at {wish.host}.", err=True)


@asynccontextmanager
async def _behind_faults(url: str, faults: Sequence[str]) -> AsyncIterator[str]:
    """Yield the URL of a proxy with these faults; where there are none, the URL itself."""
    if not faults:
        yield url
        return
    parts = urlsplit(url)
    async with FaultProxy(parts.hostname or "127.0.0.1", parts.port or 80) as proxy:
        for fault in faults:
            proxy.add(fault)
        yield proxy.url("ws", parts.path + (f"?{parts.query}" if parts.query else ""))
