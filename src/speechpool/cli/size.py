"""`speechpool size`: how large a pool has to be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from speechpool.errors import SettingsError

from .files import write

if TYPE_CHECKING:
    from speechpool.ops.measured import Prediction
    from speechpool.ops.sizing import Advice

__all__ = ["register"]

_BAR: Final = 24
"""Characters of the longest bar."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("size")(size)


def size(
    *,
    peak: Annotated[float | None, typer.Option(help="Tasks at once at the busiest time, over all machines.")] = None,
    task_seconds: Annotated[float | None, typer.Option(help="Mean seconds of a task.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A report of `speechpool load --json`: peak and tasks are taken from it, waits are simulated with the "
            "times that it measured, and what it measured is shown beside what would have been predicted.",
        ),
    ] = None,
    monitor: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A monitor, as for `speechpool top`: size for the busiest ten seconds that it saw."
        ),
    ] = None,
    pool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which pool of the monitor, if it shows several.")
    ] = None,
    submission_rate: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Task starts a second that the account may make; unset: any.")
    ] = None,
    machines: Annotated[int, typer.Option(min=1, help="That share the load.")] = 1,
    factor: Annotated[float, typer.Option(min=1, max=10, help="Connections for each task at the peak.")] = 1.6,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="The advice as a page with a chart.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Tell everything as one line of JSON.")] = False,
) -> None:
    """Say how large a pool has to be for an expected peak, how long borrowers would wait, and which limit binds.

    The default, 1.6 connections for each task at the peak, meets both rules of thumb: 60-80 % used, and 1.5-2 times the
    peak. Waits are those of Erlang's formula, for tasks that come by chance.
    """
    from speechpool.ops.measured import Measured, Prediction, of_monitor, of_report
    from speechpool.ops.sizing import advise

    if report is not None and monitor is not None:
        raise SettingsError("--report and --monitor both say what is expected; give one.")
    measured, compared = Measured(peak, task_seconds), list[Prediction]()
    if report is not None:
        measured, compared = of_report(report)
    elif monitor is not None:
        measured = of_monitor(monitor, pool)
    peak = peak if peak is not None else measured.peak
    duration = task_seconds if task_seconds is not None else measured.task_seconds
    if peak is None or duration is None:
        raise SettingsError(
            "say --peak and --task-seconds, --report with the JSON of a load test of a peak (one by --stages, --rate "
            "or --concurrency has none: add --peak), or --monitor with the URL of a monitor."
        )
    advice = advise(
        peak, duration, submission_rate=submission_rate, machines=machines, factor=factor,
        service_times=() if task_seconds is not None else measured.service_times,
    )  # fmt: skip
    if html is not None:
        _write(html, advice)
    if as_json:
        typer.echo(json.dumps(advice.to_dict() | {"predictions": [each.to_dict() for each in compared]}))
        return
    typer.echo("\n".join((*_told(advice, machines), *_compared(compared))))


def _write(path: Path, advice: Advice) -> None:
    from speechpool.ops.chart import written

    write(path, written(advice, list(_settings(advice))))


def _told(advice: Advice, machines: int) -> Iterator[str]:
    from speechpool.ops.sizing import shown

    share = f", on each of {machines} machines" if machines > 1 else ""
    tasks = f"{advice.peak:g} tasks at once of {advice.task_seconds:.3g} s each"
    yield f"{tasks}: {advice.rate:.3g} task starts a second{share}."
    yield ""
    yield f"{'max_size':>9}{'used':>8}{'have to wait':>14}{'wait p95':>11}{'wait p99':>11}"
    longest = max((row.wait_p99 for row in advice.others if row.wait_p99 is not None), default=0.0) or 1.0
    for row in advice.others:
        bar = "" if row.wait_p99 is None else "▇" * round(_BAR * row.wait_p99 / longest)
        mark = "<- advised" if row.max_size == advice.chosen.max_size else ""
        waits = f"{shown(row.wait_p95):>11}{shown(row.wait_p99):>11}"
        yield f"{row.max_size:>9}{row.utilisation:>8.1%}{row.waiting:>14.2%}{waits}  {f'{bar} {mark}'.strip()}".rstrip()
    yield ""
    if advice.binding:
        yield advice.binding
        yield ""
    yield f"Such a pool takes about {advice.memory / 1e6:.0f} MB and {advice.descriptors} descriptors (ulimit -n)."
    yield ""
    yield from _settings(advice)


def _settings(advice: Advice) -> Iterator[str]:
    yield "speechpool.toml:"
    yield "  [pool]"
    yield f"  max_size = {advice.chosen.max_size}"
    yield f"environment: SPEECHPOOL_POOL__MAX_SIZE={advice.chosen.max_size}"
    yield "Python:      AsyncSpeechPool(endpoint, settings=PoolSettings.load())  # reads both of them"
    yield f"or:          AsyncSpeechPool(endpoint, max_size={advice.chosen.max_size})"


def _compared(predictions: Sequence[Prediction]) -> Iterator[str]:
    from speechpool.ops.sizing import shown

    if predictions:
        yield ""
        yield "The report, beside what would have been predicted for it:"
        yield f"{'stage':>12}{'used':>9}{'predicted':>11}{'wait p95':>11}{'predicted':>11}"
    for one in predictions:
        yield (
            f"{one.stage:>12}{one.utilisation:>9.1%}{one.predicted_utilisation:>11.1%}"
            f"{shown(one.wait_p95):>11}{shown(one.predicted_wait_p95):>11}"
        )
