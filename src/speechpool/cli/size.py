"""`speechpool size`: how large a pool has to be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechpool.errors import SettingsError

if TYPE_CHECKING:
    from speechpool.ops.sizing import Advice

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("size")(size)


def size(
    *,
    peak: Annotated[float | None, typer.Option(help="Tasks at once at the busiest time, over all machines.")] = None,
    task_seconds: Annotated[float | None, typer.Option(help="Mean seconds of a task.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A report of `speechpool load --json`: both are taken from it.")
    ] = None,
    submission_rate: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Task starts a second that the account may make; unset: any.")
    ] = None,
    machines: Annotated[int, typer.Option(min=1, help="That share the load.")] = 1,
    factor: Annotated[float, typer.Option(min=1, max=10, help="Connections for each task at the peak.")] = 1.6,
    as_json: Annotated[bool, typer.Option("--json", help="Tell everything as one line of JSON.")] = False,
) -> None:
    """Say how large a pool has to be for an expected peak, how long borrowers would wait, and which limit binds.

    The default, 1.6 connections for each task at the peak, meets both rules of thumb: 60-80 % used, and 1.5-2 times the
    peak. Waits are those of Erlang's formula, for tasks that come by chance.
    """
    from speechpool.ops.sizing import advise

    if report is not None:
        measured = _measured(report)
        peak = peak if peak is not None else measured.get("peak")
        task_seconds = task_seconds if task_seconds is not None else measured.get("task_seconds")
    if peak is None or task_seconds is None:
        raise SettingsError(
            "say --peak and --task-seconds, or --report with the JSON of a load test that measured them."
        )
    advice = advise(peak, task_seconds, submission_rate=submission_rate, machines=machines, factor=factor)
    typer.echo(json.dumps(advice.to_dict()) if as_json else "\n".join(_told(advice, machines)))


def _measured(path: Path) -> dict[str, Any]:
    try:
        setting = json.loads(path.read_text("utf-8"))["setting"]
    except OSError as error:
        raise SettingsError(f"--report {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"--report {path} is no report of `speechpool load --json`.") from error
    return dict(setting)


def _told(advice: Advice, machines: int) -> Iterator[str]:
    share = f", on each of {machines} machines" if machines > 1 else ""
    tasks = f"{advice.peak:g} tasks at once of {advice.task_seconds:.3g} s each"
    yield f"{tasks}: {advice.rate:.3g} task starts a second{share}."
    yield ""
    yield f"{'max_size':>9}{'used':>8}{'have to wait':>14}{'wait p95':>11}{'wait p99':>11}"
    for row in advice.others:
        mark = "  <- advised" if row.max_size == advice.chosen.max_size else ""
        waits = f"{_seconds(row.wait_p95):>11}{_seconds(row.wait_p99):>11}"
        yield f"{row.max_size:>9}{row.utilisation:>8.1%}{row.waiting:>14.2%}{waits}{mark}"
    yield ""
    if advice.binding:
        yield advice.binding
        yield ""
    yield f"Such a pool takes about {advice.memory / 1e6:.0f} MB and {advice.descriptors} descriptors (ulimit -n)."
    yield ""
    yield "speechpool.toml:"
    yield "  [pool]"
    yield f"  max_size = {advice.chosen.max_size}"
    yield f"environment: SPEECHPOOL_POOL__MAX_SIZE={advice.chosen.max_size}"
    yield "Python:      AsyncSpeechPool(endpoint, settings=PoolSettings.load())  # reads both of them"
    yield f"or:          AsyncSpeechPool(endpoint, max_size={advice.chosen.max_size})"


def _seconds(value: float | None) -> str:
    if value is None:
        return "for ever"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"
