"""What `speechpool load` shows: how far it is, and in the end the numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from speechpool.load.plan import Stage
from speechpool.load.runner import Seen

__all__ = ["Screen", "told"]


class Screen:
    """A bar for each stage, on a terminal.

    Args:
        stages: Of the run.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[seen]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bars = [
            (self._progress.add_task(stage.name, total=stage.seconds, start=False, seen=""), stage.seconds)
            for stage in stages
        ]
        self._begun = 0.0

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def seen(self, seen: Seen) -> None:
        """Take what one sees now."""
        if self._progress.disable:
            return
        at = time.monotonic() - self._begun
        for bar, seconds in self._bars:
            if at <= 0:
                return
            task = self._progress.tasks[bar]
            if not task.started:
                self._progress.start_task(bar)
            now = at < seconds
            line = f"{seen.begun - seen.ended} running, {seen.ended} ended, {seen.failed} failed, "
            line += f"first packet p95 {1000 * seen.first_packet:.0f} ms"
            self._progress.update(bar, completed=min(at, seconds), seen=line if now else "")
            at -= seconds


def told(report: dict[str, Any]) -> str:
    """Return the report in some lines."""
    lines = [line for name, target in report["targets"].items() for line in _of_target(name, target)]
    if "sweep" in report:
        lines.append(_of_sweep(report["sweep"]))
    lines += [f"warning: {one}" for one in report["warnings"]]
    lines += [
        f"{'ok  ' if one['holds'] else 'FAIL'} {one['expectation']} ({one['target']}: {one['value']})"
        for one in report["expectations"]
    ]
    if report["tester"]["invalid"]:
        lines.append(f"INVALID: {report['tester']['invalid']}")
    return "\n".join(lines)


def _of_target(name: str, target: dict[str, Any]) -> Iterator[str]:
    yield f"target {name}"
    heads = ("tasks", "errors", "reuse", "goodput", "used")
    yield f"  {'stage':<14}" + "".join(f"{head:>9}" for head in heads) + "   first packet p50 / p95 / p99"
    for stage in (*target["stages"], {"name": "all judged", "utilisation": None, **target["total"]}):
        cells = [str(stage["tasks"]), *(_percent(stage[key]) for key in ("error_rate", "reuse", "goodput"))]
        cells.append(_percent(stage["utilisation"], 0))
        delays = " / ".join(_milliseconds(stage["first_packet"][mark]) for mark in ("p50", "p95", "p99"))
        missed = f"  misses {', '.join(stage['missed'])}" if stage.get("missed") else ""
        yield f"  {stage['name']:<14}" + "".join(f"{cell:>9}" for cell in cells) + f"   {delays}{missed}"
    total, recovery = target["total"], target["recovery"]
    errors = ", ".join(f"{count} {code}" for code, count in total["errors"].items()) or "none"
    yield f"  foreign audio: {total['foreign']}, underruns: {total['underruns']}, errors: {errors}"
    if recovery is not None:
        seconds = "not before the end" if recovery["seconds"] is None else f"after {recovery['seconds']} s"
        yield f"  recovered {seconds} (p99 inside {_milliseconds(recovery['limit'])} after {recovery['after']})"


def _of_sweep(sweep: dict[str, Any]) -> str:
    if sweep["rate"] is None:
        return f"No rate holds: {', '.join(sweep['because'])} fails at {sweep['fails_at']:.3g} tasks a second already."
    at_once = f", {sweep['tasks_at_once']:.0f} tasks at once" if sweep["tasks_at_once"] is not None else ""
    told = f"The highest rate that holds: {sweep['rate']:.3g} tasks a second{at_once}"
    if sweep["fails_at"] is None:
        return f"{told}; none was found that does not."
    return f"{told}; at {sweep['fails_at']:.3g} fails {', '.join(sweep['because'])}."


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.0f} ms"


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"
