"""`speechpool load`: a load test for speech, up to twice the expected peak."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from speechpool.errors import SettingsError

from .outcome import CannotWrite, ExitCode

if TYPE_CHECKING:
    from speechpool.load.expect import Expectation
    from speechpool.load.plan import Stage
    from speechpool.load.runner import Load, Result
    from speechpool.protocol import Voice
    from speechpool.synthesis import Endpoint

__all__ = ["register"]

_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}
_EXPECT: Final = (
    "What must hold, e.g. 'first_packet.p99<500ms', 'error_rate<0.1%', 'reuse>95%', 'first_packet.p99@2x<400ms'; "
    "repeatable. Exit code 99 where one fails. Delays (first_packet, first_packet_sent, first_audible, end_to_end, "
    "longest_gap, underrun, late) have .p50 .p90 .p95 .p99 .max in ms or s; error_rate, reuse, goodput, utilisation "
    "are in %; tasks, foreign, underruns, real_time_factor have no unit."
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("load")(load)


def load(  # noqa: PLR0917  # flags
    url: Annotated[str | None, typer.Option(help="ws:// or wss:// URL; unset: a service of its own.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="DASHSCOPE_API_KEY", help="The key; any for a local one.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Who speaks in the service of its own.")] = "replay",
    model: Annotated[str, typer.Option(help="Model of the voice.")] = "cosyvoice-v3-flash",
    voice: Annotated[str, typer.Option(help="The voice.")] = "longanyang",
    peak: Annotated[int, typer.Option(min=1, max=10_000, help="Tasks at once at the busiest time.")] = 20,
    scale_time: Annotated[float, typer.Option(min=0.01, max=100, help="1: 150 s; 0.1: 15 s.")] = 1.0,
    stages: Annotated[str | None, typer.Option(help="In place of --peak's: 30s:10,2m:100 (tasks a second).")] = None,
    arrivals: Annotated[str, typer.Option(help="poisson or constant.")] = "poisson",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Closed loop: so many callers, each beginning when it is through.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of the closed loop.")] = 30.0,
    target: Annotated[
        str, typer.Option(help="pool, fresh (a connection for each task), or both: pool,fresh.")
    ] = "pool",
    max_size: Annotated[
        int | None, typer.Option(min=1, help="Connections; unset: twice the peak and room for chance.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="File with a text a line; unset: our own, in English.")] = None,
    barge_in: Annotated[float, typer.Option(min=0, max=1, help="Share of the tasks that are broken off.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of arrivals and texts.")] = 1,
    expect: Annotated[list[str] | None, typer.Option(metavar="EXPR", help=_EXPECT)] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The report; -: standard output.")
    ] = None,
    jsonl: Annotated[Path | None, typer.Option(metavar="FILE", help="A line of JSON for each task.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="The report as a page.")] = None,
    i_own_this_target: Annotated[
        bool,
        typer.Option("--i-own-this-target", help="Needed for another machine: it costs money, or others' patience."),
    ] = False,
) -> None:
    """Load a service with speech, up to twice the expected peak, and say how a listener would have fared.

    Tasks begin when they were planned to, whatever became of those before (open loop), and delays count from the
    planned moment. Ctrl-C ends with a report of what there is. Warm-up does not count.
    """
    from speechpool.load.expect import parse
    from speechpool.transport.descriptors import raise_soft_limit

    from .loop import run

    expectations = [parse(text) for text in expect or ()]
    if arrivals not in {"poisson", "constant"}:
        raise SettingsError(f"--arrivals {arrivals!r} is unknown; choose poisson or constant.")
    _check_owner(url, owned=i_own_this_target)
    wish = _Wish(
        url=url, api_key=api_key, engine=engine, model=model, voice=voice, peak=peak, scale=scale_time, stages=stages,
        arrivals=arrivals, concurrency=concurrency, seconds=seconds, targets=target.replace(" ", "").split(","),
        max_size=max_size, texts=texts, barge_in=barge_in, seed=seed,
    )  # fmt: skip
    raise_soft_limit()
    run(wish.run())
    assert wish.load is not None  # noqa: S101  # it ran
    result, report = wish.load.result, wish.report()
    verdicts = _judged(expectations, report)
    report["expectations"] = verdicts
    _write(json_file, lambda: json.dumps(report, indent=1) + "\n")
    _write(jsonl, lambda: "".join(json.dumps(asdict(record)) + "\n" for record in result.records))
    if html is not None:
        from speechpool.load.page import written

        _write(html, lambda: written(report, result.records, verdicts))
    if json_file is None or str(json_file) != "-":
        typer.echo(_told(report))
    if result.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not all(one["holds"] for one in verdicts):
        raise typer.Exit(ExitCode.EXPECTATION_FAILED)


def _check_owner(url: str | None, *, owned: bool) -> None:
    host = None if url is None else urlsplit(url).hostname
    if host is not None and host not in _LOOPBACK and not owned:
        raise SettingsError(
            f"{host} is another machine: a load test costs its owner money and patience. "
            "Add --i-own-this-target if it is yours."
        )


class _Wish:
    """What was asked for, and what came of it."""

    def __init__(self, **flags: Any) -> None:
        self.flags = flags
        self.load: Load | None = None
        self._stages: Sequence[Stage] = ()
        self._duration: float | None = None

    async def run(self) -> None:
        from speechpool.load.runner import Load, calibrated
        from speechpool.load.texts import CORPUS, read, sampler
        from speechpool.protocol import Voice

        flags = self.flags
        texts = CORPUS if flags["texts"] is None else read(flags["texts"])
        voice = Voice(flags["model"], flags["voice"], format="pcm", sample_rate=24000)
        async with self._endpoint() as endpoint:
            arrivals = await self._plan(endpoint, voice, sampler(texts, flags["seed"]), calibrated)
            self._warn_of_costs(texts, len(arrivals))
            self.load = Load(
                endpoint, voice, arrivals=arrivals, text=sampler(texts, flags["seed"]), targets=flags["targets"],
                size=_size(flags), barge_in=flags["barge_in"],
                concurrency=flags["concurrency"], seconds=flags["seconds"], seed=flags["seed"],
                progress=_progress(sum(stage.seconds for stage in self._stages)),
            )  # fmt: skip
            try:
                await self.load.run()
            except asyncio.CancelledError:
                if not self.load.result.records:
                    raise  # nothing to report

    async def _plan(
        self, endpoint: Endpoint, voice: Voice, text: Callable[[], str], calibrated: Callable[..., Any]
    ) -> Sequence[Any]:
        from speechpool.load.plan import Stage, parse_stages, plan, preset

        flags = self.flags
        if flags["concurrency"] is not None:
            self._stages = (Stage("closed loop", flags["seconds"], 0.0),)
            return ()
        if flags["stages"] is not None:
            self._stages = parse_stages(flags["stages"])
        else:
            self._duration = await calibrated(endpoint, voice, text)
            self._stages = preset(flags["peak"], self._duration, flags["scale"])
        return plan(self._stages, flags["seed"], flags["arrivals"])

    @asynccontextmanager
    async def _endpoint(self) -> AsyncIterator[Endpoint]:
        from speechpool.synthesis import Endpoint

        from .child import running_service

        flags = self.flags
        if flags["url"] is not None:
            yield Endpoint(flags["url"], api_key=flags["api_key"] or "any")
        else:
            async with running_service(flags["engine"]) as endpoint:
                yield endpoint

    def _warn_of_costs(self, texts: Sequence[str], tasks: int) -> None:
        url = self.flags["url"]
        if url is not None and urlsplit(url).hostname not in _LOOPBACK:
            mean = sum(map(len, texts)) / len(texts)
            count = len(self.flags["targets"]) * tasks * mean
            typer.echo(f"This will speak about {count:,.0f} characters at {urlsplit(url).hostname}.", err=True)

    def report(self) -> dict[str, Any]:
        from speechpool.load.summary import summary

        assert self.load is not None  # noqa: S101  # it ran
        hidden = {"api_key", "texts"}
        setting = {name: value for name, value in self.flags.items() if name not in hidden}
        setting |= {"url": None if self.flags["url"] is None else urlsplit(self.flags["url"]).netloc.rpartition("@")[2]}
        size = _size(self.flags)
        return summary(self.load.result, self._stages, setting | {"task_seconds": self._duration, "size": size})


def _size(flags: dict[str, Any]) -> int:
    from speechpool.load.targets import size_for

    return int(flags["max_size"] or size_for(flags["peak"]))


def _judged(expectations: Sequence[Expectation], report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"expectation": one.text, "target": name, "value": one.value(target), "holds": one.holds(target)}
        for one in expectations
        for name, target in report["targets"].items()
    ]


def _progress(seconds: float) -> Callable[[float, Result], object]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return lambda *_: None

    def show(at: float, result: Result) -> None:
        whole = f" of {seconds:.0f}" if seconds else ""
        done = sum(record.end_to_end is not None for record in result.records)
        line = f"{at:.0f}{whole} s, {len(result.records)} tasks begun, {done} ended"
        console.print(line, end="\r", highlight=False)

    return show


def _write(path: Path | None, text: Callable[[], str]) -> None:
    if path is None:
        return
    if str(path) == "-":
        typer.echo(text(), nl=False)
        return
    try:
        path.write_text(text(), encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}; choose another file.") from error


def _told(report: dict[str, Any]) -> str:
    lines = [line for name, target in report["targets"].items() for line in _told_of(name, target)]
    lines += [
        f"{'ok  ' if one['holds'] else 'FAIL'} {one['expectation']} ({one['target']}: {one['value']})"
        for one in report["expectations"]
    ]
    if report["tester"]["invalid"]:
        lines.append(f"INVALID: {report['tester']['invalid']}")
    return "\n".join(lines)


def _told_of(name: str, target: dict[str, Any]) -> Iterator[str]:
    yield f"target {name}"
    heads = ("tasks", "errors", "reuse", "goodput", "used")
    yield f"  {'stage':<14}" + "".join(f"{head:>9}" for head in heads) + "   first packet p50 / p95 / p99"
    for stage in (*target["stages"], {"name": "all judged", "utilisation": None, **target["total"]}):
        cells = [str(stage["tasks"]), *(_percent(stage[key]) for key in ("error_rate", "reuse", "goodput"))]
        cells.append(_percent(stage["utilisation"], 0))
        delays = (stage["first_packet"][mark] for mark in ("p50", "p95", "p99"))
        told = " / ".join("-" if delay is None else f"{1000 * delay:.0f} ms" for delay in delays)
        yield f"  {stage['name']:<14}" + "".join(f"{cell:>9}" for cell in cells) + f"   {told}"
    total = target["total"]
    errors = ", ".join(f"{count} {code}" for code, count in total["errors"].items()) or "none"
    yield f"  foreign audio: {total['foreign']}, underruns: {total['underruns']}, errors: {errors}"


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"
