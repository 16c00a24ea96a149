"""`speechpool compare`: what has changed from one load test to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from speechpool.errors import SettingsError

from .outcome import ExitCode

__all__ = ["register"]

_MARKS: Final = ("p50", "p95", "p99")
_DELAYS: Final = ("first_packet", "first_audible", "end_to_end", "longest_gap")
# name: whether more of it is worse
_RATIOS: Final = {"error_rate": True, "reuse": False, "goodput": False}
_LEAST: Final = 0.005
"""Seconds, or half a per cent: what changes less is no change, whatever its share."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compare")(compare)


def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="A report of `speechpool load --json`.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="A later one.")],
    *,
    tolerance: Annotated[float, typer.Option(min=0, metavar="SHARE", help="A delay that grew by more is worse.")] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Tell everything as one line of JSON.")] = False,
) -> None:
    """Compare two load tests, target by target; exit code 99 where something is worse.

    A delay is worse when it grew by more than the tolerance and by more than 5 ms; a rate when it is worse by more than
    half a per cent.
    """
    old, new = _read(before), _read(after)
    shared = [name for name in old["targets"] if name in new["targets"]]
    if not shared:
        raise SettingsError(f"{before} and {after} have no target in common, so nothing can be compared.")
    rows = [row for name in shared for row in _rows(name, old["targets"][name], new["targets"][name], tolerance)]
    if as_json:
        typer.echo(json.dumps({"rows": rows}))
    else:
        typer.echo(_table(rows))
        for path, report in ((before, old), (after, new)):
            if report["tester"]["invalid"]:
                typer.echo(f"{path} is invalid: {report['tester']['invalid']}", err=True)
    if any(row["worse"] for row in rows):
        raise typer.Exit(ExitCode.EXPECTATION_FAILED)


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SettingsError(f"{path} is no JSON: {error}.") from error
    if not isinstance(report, dict) or report.get("version") != 1 or "targets" not in report:
        raise SettingsError(f"{path} is no report of `speechpool load --json` (version 1).")
    return report


def _rows(target: str, old: dict[str, Any], new: dict[str, Any], tolerance: float) -> list[dict[str, Any]]:
    rows = []
    for name in _DELAYS:
        for mark in _MARKS:
            a, b = old["total"][name][mark], new["total"][name][mark]
            worse = a is not None and b is not None and b - a > max(_LEAST, tolerance * a)
            rows.append(
                {"target": target, "what": f"{name}.{mark}", "before": a, "after": b, "worse": worse, "unit": "s"}
            )
    for name, more_is_worse in _RATIOS.items():
        a, b = old["total"][name], new["total"][name]
        worse = a is not None and b is not None and (b - a if more_is_worse else a - b) > _LEAST
        rows.append({"target": target, "what": name, "before": a, "after": b, "worse": worse, "unit": "%"})
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'target':<10}{'what':<20}{'before':>11}{'after':>11}{'change':>9}"]
    for row in rows:
        a, b = row["before"], row["after"]
        change = "" if not a or b is None else f"{100 * (b / a - 1):+.0f} %"
        mark = "  worse" if row["worse"] else ""
        shown = (_shown(value, row["unit"]) for value in (a, b))
        lines.append(
            f"{row['target']:<10}{row['what']:<20}" + "".join(f"{text:>11}" for text in shown) + f"{change:>9}{mark}"
        )
    return "\n".join(lines)


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.1f} ms" if unit == "s" else f"{100 * value:.2f} %"
