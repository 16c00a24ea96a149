"""The report as one HTML file: no network, no script, light and dark, and it prints well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from .charts import at_once, delay_over_time, failures, percentiles, saving
from .record import Record
from .wording import number, seconds

__all__ = ["written"]

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2229; --soft: #56606b; --line: #d9dde1; --ground: #fff; --bad: #b3181f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaed; --soft: #a4adb6; --line: #353b41; --ground: #14171a; --bad: #ff8a80; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
body { max-width: 1100px; margin: 24px auto; padding: 0 16px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 28px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: right; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th, figcaption { color: var(--soft); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; }
.key { display: inline-block; width: 10px; height: 10px; margin: 0 5px 0 10px; border-radius: 2px; }
figure { margin: 12px 0; } svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); } svg .stage { stroke: var(--line); stroke-dasharray: 2 3; }
@media print { body { margin: 0; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""
_COLUMNS: Final = (
    ("stage", "name"), ("tasks", "tasks"), ("rate asked", "rate"), ("errors", "error_rate"), ("reuse", "reuse"),
    ("goodput", "goodput"), ("used", "utilisation"), ("underruns", "underruns"), ("foreign", "foreign"),
)  # fmt: skip
_RATIOS: Final = {"error_rate", "reuse", "goodput", "utilisation"}


def written(report: Mapping[str, Any], records: Sequence[Record]) -> str:
    """Return the page. Its numbers are those of the JSON report."""
    parts = [_head(report), *_verdicts(report["expectations"]), "<h2>Side by side</h2>", saving(report)]
    for name, target in report["targets"].items():
        parts.append(f"<h2>Target {escape(name)}</h2>")
        parts += [_table(target), _after(target)]
    parts += ["<h2>First packet delay</h2>", delay_over_time(report, records), percentiles(report, records)]
    parts += ["<h2>Load</h2>", at_once(report, records), failures(report, records)]
    if "sweep" in report:
        parts.insert(1, _sweep(report["sweep"]))
    title = "speechpool load"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1>{''.join(parts)}</body></html>\n"
    )


def _head(report: Mapping[str, Any]) -> str:
    tester = report["tester"]
    told = ", ".join(
        f"{name.replace('_', ' ')} {', '.join(value) if isinstance(value, (list, tuple)) else value}"
        for name, value in (report["setting"] | report["build"]).items()
        if value
    )
    parts = [f"<p>{escape(told)}. It took {report['seconds']:.0f} s.</p>"]
    if tester["invalid"]:
        parts.append(f'<p class="bad">Invalid: {escape(tester["invalid"])}</p>')
    parts += [f"<p>{escape(one)}</p>" for one in report["warnings"]]
    if report["interrupted"]:
        parts.append('<p class="bad">Interrupted: it did not come to its end.</p>')
    return "".join(parts)


def _sweep(sweep: Mapping[str, Any]) -> str:
    rate = "none" if sweep["rate"] is None else f"{number(sweep['rate'])} tasks a second"
    fails = "" if sweep["fails_at"] is None else f"; at {number(sweep['fails_at'])} fails {', '.join(sweep['because'])}"
    return f"<p>The highest rate that holds: <b>{escape(rate)}</b>{escape(fails)}.</p>"


def _verdicts(expectations: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if expectations:
        rows = (
            f"<tr><td>{escape(one['expectation'])}</td><td>{escape(one['target'])}</td><td>{number(one['value'])}</td>"
            f"<td{'' if one['holds'] else ' class=bad'}>{'holds' if one['holds'] else 'fails'}</td></tr>"
            for one in expectations
        )
        head = "<tr><th>expectation</th><th>target</th><th>value</th><th>verdict</th></tr>"
        yield f'<h2>Expectations</h2><div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _table(target: Mapping[str, Any]) -> str:
    marks = ("p50", "p95", "p99")
    heads = [title for title, _ in _COLUMNS] + [
        f"{what} {mark}" for what in ("first packet", "end to end") for mark in marks
    ]
    rows = []
    for stage in (*target["stages"], {"name": "all judged", "rate": None, "utilisation": None, **target["total"]}):
        cells = [(name, _cell(name, stage.get(name))) for _, name in _COLUMNS]
        delays = [(name, mark) for name in ("first_packet", "end_to_end") for mark in marks]
        cells += [(f"{name}.{mark}", seconds(stage[name][mark])) for name, mark in delays]
        missed = tuple(stage.get("missed", ()))
        rows.append("<tr>" + "".join(_marked(cell, bad=_is_among(name, missed)) for name, cell in cells) + "</tr>")
    head = "".join(f"<th>{escape(title)}</th>" for title in heads)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _is_among(name: str, missed: Sequence[str]) -> bool:
    """Whether it is what one of these expectations is about."""
    return any(text.startswith((f"{name}<", f"{name}>")) for text in missed)


def _marked(cell: str, *, bad: bool) -> str:
    return f"<td class=bad>{escape(cell)}</td>" if bad else f"<td>{escape(cell)}</td>"


def _after(target: Mapping[str, Any]) -> str:
    """Everything about a target that is no column."""
    total, recovery = target["total"], target["recovery"]
    errors = ", ".join(f"{count} {code}" for code, count in total["errors"].items()) or "none"
    lines = [f"Errors: {errors}."]
    if recovery is not None:
        when = (
            "not before the end"
            if recovery["seconds"] is None
            else f"{recovery['seconds']} s after {recovery['after']}"
        )
        lines.append(f"p99 of the first packet inside {seconds(recovery['limit'])} again: {when}.")
    return f"<p>{escape(' '.join(lines))}</p>"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.2%}" if name in _RATIOS else number(value)
