"""The flags of `speechpool load`, in the groups in which its help shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

__all__ = [
    "ApiKey",
    "Arrivals",
    "BargeIn",
    "Concurrency",
    "Csv",
    "Engine",
    "Expect",
    "Faults",
    "Html",
    "JsonFile",
    "Jsonl",
    "MaxSize",
    "Model",
    "Owned",
    "Peak",
    "Profile",
    "Rate",
    "ScaleTime",
    "Schema",
    "Seconds",
    "Seed",
    "Slow",
    "Soak",
    "Stages",
    "Sweep",
    "Target",
    "Texts",
    "TokensPerSecond",
    "Url",
    "VoiceName",
    "Workers",
]

_WHERE: Final = "Where to, and through what"
_HOW_MUCH: Final = "How much (--peak unless another of them is given)"
_CALLERS: Final = "What the callers are like"
_REPORT: Final = "What must hold, and the report"

_EXPECT: Final = (
    "What must hold, e.g. 'first_packet.p99<500ms', 'error_rate<0.1%', 'reuse>95%', 'first_packet.p99@2x<400ms'; "
    "repeatable. Exit code 99 where one fails. Delays (first_packet, first_packet_sent, first_audible, end_to_end, "
    "longest_gap, underrun, late, connection) have .p50 .p90 .p95 .p99 .mean .max in ms or s; recovery is in s; "
    "error_rate, reuse, goodput, utilisation are in %; tasks, foreign, underruns, real_time_factor have no unit."
)
_TARGET: Final = (
    "What is measured, side by side: pool (ours), fresh (a connection for each task), sdk (the official SDK), sdk-pool "
    "(its object pool); e.g. pool,fresh,sdk."
)


def _show_schema(wanted: bool) -> None:
    if wanted:
        from importlib.resources import files

        typer.echo(files("speechpool.load").joinpath("report.schema.json").read_text("utf-8"), nl=False)
        raise typer.Exit


def _option(panel: str, text: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **options)


Url = Annotated[str | None, _option(_WHERE, "ws:// or wss:// URL; unset: a service of its own.")]
ApiKey = Annotated[str | None, _option(_WHERE, "The key; any for a local one.", envvar="DASHSCOPE_API_KEY")]
Engine = Annotated[str, _option(_WHERE, "Who speaks in the service of its own.")]
Profile = Annotated[str | None, _option(_WHERE, "Delays of its engine replay: unpaced, healthy (default), documented.")]
Model = Annotated[str, _option(_WHERE, "Model of the voice.")]
VoiceName = Annotated[str, _option(_WHERE, "The voice.", "--voice")]
Target = Annotated[str, _option(_WHERE, _TARGET)]
MaxSize = Annotated[
    int | None, _option(_WHERE, "Connections of each target; unset: twice the peak and room for chance.", min=1)
]
Faults = Annotated[
    list[str] | None,
    _option(
        _WHERE, "A bad network: a proxy before the service, e.g. latency@both:25ms; repeatable. See docs/faults.md.",
        "--fault", metavar="KIND[@DIRECTION][:VALUE]",
    ),
]  # fmt: skip
Owned = Annotated[
    bool,
    _option(_WHERE, "Needed for another machine: it costs money, or others' patience.", "--i-own-this-target"),
]
Workers = Annotated[
    int,
    _option(_WHERE, "Processes that call; more where one says that it was in the way.", min=1, max=64),
]

Peak = Annotated[
    int,
    _option(
        _HOW_MUCH, "Tasks at once at the busiest time: half, 1, 1.5, 2 times that, and 1 again.", min=1, max=10_000
    ),
]
ScaleTime = Annotated[float, _option(_HOW_MUCH, "Of --peak, 1: 150 s; 0.1: 15 s.", min=0.01, max=100)]
Soak = Annotated[
    float | None,
    _option(_HOW_MUCH, "The peak for so long, in six parts: does anything change?", min=1, metavar="SECONDS"),
]
Stages = Annotated[
    str | None, _option(_HOW_MUCH, "Tasks a second, one after the other; 0 is a pause: 30s:10,70s:0,2m:100.")
]
Rate = Annotated[float | None, _option(_HOW_MUCH, "One rate, for --seconds.", min=0.01, max=1e5, metavar="TASKS/S")]
Sweep = Annotated[
    bool,
    _option(
        _HOW_MUCH, "Look for the highest rate that holds, by bisection, --seconds (10) for each that is tried. Without "
        "--expect: first_packet.p99<500ms and error_rate<0.1%.", "--sweep",
    ),
]  # fmt: skip
Concurrency = Annotated[
    int | None, _option(_HOW_MUCH, "Closed loop: so many callers, each beginning when it is through.", min=1)
]
Seconds = Annotated[
    float | None, _option(_HOW_MUCH, "How long, for --rate, --concurrency and --sweep.", min=0.1, show_default="30")
]
Arrivals = Annotated[str, _option(_HOW_MUCH, "poisson (by chance) or constant.")]

Texts = Annotated[Path | None, _option(_CALLERS, "File with a text a line; unset: our own, in English.")]
TokensPerSecond = Annotated[
    float | None,
    _option(_CALLERS, "Text comes word by word, as from a language model; unset: at once.", min=0.1, max=10_000),
]
BargeIn = Annotated[float, _option(_CALLERS, "Share that breaks off after its first audio.", min=0, max=1)]
Slow = Annotated[
    float, _option(_CALLERS, "Share that takes audio no faster than it plays: the server has to wait.", min=0, max=1)
]
Seed = Annotated[int, _option(_CALLERS, "Of arrivals and callers: the same one gives the same run.")]

Expect = Annotated[list[str] | None, _option(_REPORT, _EXPECT, metavar="EXPR")]
JsonFile = Annotated[
    Path | None,
    _option(_REPORT, "The report; -: standard output. Its form is that of --schema.", "--json", metavar="FILE"),
]
Schema = Annotated[
    bool,
    _option(_REPORT, "Show the JSON Schema of the report and leave.", "--schema", callback=_show_schema, is_eager=True),
]
Jsonl = Annotated[Path | None, _option(_REPORT, "A line of JSON for each task.", metavar="FILE")]
Csv = Annotated[Path | None, _option(_REPORT, "The same as a table.", metavar="FILE")]
Html = Annotated[Path | None, _option(_REPORT, "The report as a page.", metavar="FILE")]
