"""The report as one HTML file: no network, no script, light and dark, and it prints well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from .percentiles import percentile
from .record import Record

__all__ = ["written"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 860, 220, 60, 24
_BAR_LEFT, _BAR_RIGHT, _BAR_STEP = 80, 260, 36
_COLOURS: Final = ("#3b82c4", "#c2620c", "#2f8f4e", "#a04cb3")
_UNTOLD: Final = "untold"
_PARTS: Final = {
    "late": "#8a939c", "connection": "#c2620c", "start": "#b59b1f", "synthesis": "#3b82c4", _UNTOLD: "#8a7fb0",
}  # fmt: skip
_PART_NAMES: Final = {
    "late": "the tester was late", "connection": "waiting for a connection", "start": "the server accepts the task",
    "synthesis": "from there to the first audio", _UNTOLD: "in parts that the target does not tell",
}  # fmt: skip
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
svg .grid { stroke: var(--line); }
@media print { body { margin: 0; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""
_COLUMNS: Final = (
    ("stage", "name"), ("tasks", "tasks"), ("rate asked", "rate"), ("errors", "error_rate"), ("reuse", "reuse"),
    ("goodput", "goodput"), ("used", "utilisation"), ("underruns", "underruns"), ("foreign", "foreign"),
)  # fmt: skip
_RATIOS: Final = {"error_rate", "reuse", "goodput", "utilisation"}


def written(report: Mapping[str, Any], records: Sequence[Record]) -> str:
    """Return the page. Its numbers are those of the JSON report."""
    parts = [_head(report), *_verdicts(report["expectations"]), "<h2>Side by side</h2>", _saving(report)]
    for name, target in report["targets"].items():
        parts.append(f"<h2>Target {escape(name)}</h2>")
        parts += [_table(target), _after(target)]
    parts += ["<h2>First packet delay over time</h2>", _chart(report, records)]
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
        for name, value in report["setting"].items()
        if value
    )
    parts = [f"<p>{escape(told)}. speechpool {escape(report['build']['speechpool'])}, {report['seconds']:.0f} s.</p>"]
    if tester["invalid"]:
        parts.append(f'<p class="bad">Invalid: {escape(tester["invalid"])}</p>')
    if report["interrupted"]:
        parts.append('<p class="bad">Interrupted: it did not come to its end.</p>')
    return "".join(parts)


def _sweep(sweep: Mapping[str, Any]) -> str:
    rate = "none" if sweep["rate"] is None else f"{_number(sweep['rate'])} tasks a second"
    fails = (
        "" if sweep["fails_at"] is None else f"; at {_number(sweep['fails_at'])} fails {', '.join(sweep['because'])}"
    )
    return f"<p>The highest rate that holds: <b>{escape(rate)}</b>{escape(fails)}.</p>"


def _verdicts(expectations: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if expectations:
        rows = (
            f"<tr><td>{escape(one['expectation'])}</td><td>{escape(one['target'])}</td><td>{_number(one['value'])}</td>"
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
        cells = [_cell(name, stage.get(name)) for _, name in _COLUMNS]
        cells += [_seconds(stage[name][mark]) for name in ("first_packet", "end_to_end") for mark in marks]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{escape(title)}</th>" for title in heads)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


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
        lines.append(f"p99 of the first packet inside {_seconds(recovery['limit'])} again: {when}.")
    return f"<p>{escape(' '.join(lines))}</p>"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.2%}" if name in _RATIOS else _number(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.1f} ms"


# ------------------------------------------------------------------------------------ pictures
def _picture(height: float, label: str, parts: Iterable[str], caption: str) -> str:
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _legend(names: Iterable[tuple[str, str]]) -> str:
    keys = (f'<span class="key" style="background:{colour}"></span>{escape(name)}' for name, colour in names)
    return " ".join(keys)


def _saving(report: Mapping[str, Any]) -> str:
    """A bar for each target: the mean first packet delay, in its parts where the target tells them."""
    rows = []
    for name, target in report["targets"].items():
        mean, parts = target["total"]["first_packet"]["mean"], target["total"]["parts"]
        if mean is not None:
            rows.append((name, mean, parts if parts["connection"] is not None else {_UNTOLD: mean}))
    if not rows:
        return ""
    longest = max(mean for _, mean, _ in rows)
    best_name, best, _ = min(rows, key=lambda row: row[1])
    scale = (_WIDTH - _BAR_LEFT - _BAR_RIGHT) / longest
    drawn, shown = [], set()
    for number, (name, mean, parts) in enumerate(rows):
        y, x = number * _BAR_STEP + 4, float(_BAR_LEFT)
        drawn.append(f'<text x="0" y="{y + 19}">{escape(name)}</text>')
        for part, seconds in parts.items():
            width = max(0.0, seconds * scale)
            shown.add(part)
            title = f"<title>{escape(name)}: {escape(part)} {_seconds(seconds)}</title>"
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="26" fill="{_PARTS[part]}">{title}</rect>'
            )
            x += width
        saving = "" if name == best_name else f", {_seconds(mean - best)} more than {best_name}"
        drawn.append(f'<text x="{x + 8:.1f}" y="{y + 19}">{_seconds(mean)}{escape(saving)}</text>')
    names = [(_PART_NAMES[part], colour) for part, colour in _PARTS.items() if part in shown]
    caption = f"Mean first packet delay: {_legend(names)}"
    return _picture(len(rows) * _BAR_STEP + 4, "Mean first packet delay of each target", drawn, caption)


def _chart(report: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The 95th percentile of each second, for each target."""
    span = max((record.planned for record in records), default=0.0) or 1.0
    lines = []
    for name in report["targets"]:
        seconds: dict[int, list[float]] = {}
        for record in records:
            if record.target == name and record.first_packet is not None:
                seconds.setdefault(int(record.planned), []).append(record.first_packet)
        lines.append((name, [(at, percentile(values, 95) or 0.0) for at, values in sorted(seconds.items())]))
    top = max((value for _, points in lines for _, value in points), default=0.0) or 1.0

    def place(at: float, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT) * at / span
        return f"{x:.1f},{(_HEIGHT - _BOTTOM) * (1 - value / (1.1 * top)):.1f}"

    drawn = [
        f'<polyline fill="none" stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="1.5" points="'
        f'{" ".join(place(*point) for point in points)}"/>'
        for number, (_, points) in enumerate(lines)
    ]
    grid = []
    for step in range(5):
        value = 1.1 * top * step / 5
        _, _, y = place(0, value).partition(",")
        grid.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}"/>')
        grid.append(f'<text x="0" y="{y}">{1000 * value:.0f} ms</text>')
    ends = (
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">0 s</text><text x="{_WIDTH - 40}" y="{_HEIGHT - 6}">{span:.0f} s</text>'
    )
    names = [(name, _COLOURS[number % len(_COLOURS)]) for number, (name, _) in enumerate(lines)]
    caption = f"95th percentile of each second: {_legend(names)}"
    return _picture(_HEIGHT, "First packet delay, 95th percentile", [*grid, *drawn, ends], caption)
