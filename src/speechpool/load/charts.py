"""The pictures of the page: SVG in the page itself, readable in light and dark and on paper."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import Any, Final

from .percentiles import percentile
from .record import Record
from .wording import seconds

__all__ = ["at_once", "delay_over_time", "failures", "percentiles", "saving"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 860, 230, 64, 18, 22
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

_Points = Sequence[tuple[float, float]]
_Lines = Mapping[str, _Points]


# ------------------------------------------------------------------------------------ bars
def saving(report: Mapping[str, Any]) -> str:
    """A bar for each target: the mean first packet delay, in its parts where the target tells them."""
    rows = []
    for name, target in report["targets"].items():
        mean, parts = target["total"]["first_packet"]["mean"], target["total"]["parts"]
        if mean is not None:
            rows.append((name, mean, {_UNTOLD: mean} if None in parts.values() else parts))
    if not rows:
        return ""
    best_name, best, _ = min(rows, key=lambda row: row[1])
    scale = (_WIDTH - _BAR_LEFT - _BAR_RIGHT) / max(mean for _, mean, _ in rows)
    drawn, shown = [], set()
    for number, (name, mean, parts) in enumerate(rows):
        y, x = number * _BAR_STEP + 4, float(_BAR_LEFT)
        drawn.append(f'<text x="0" y="{y + 19}">{escape(name)}</text>')
        for part, delay in parts.items():
            width = max(0.0, delay * scale)
            shown.add(part)
            title = f"<title>{escape(name)}: {_PART_NAMES[part]}, {seconds(delay)}</title>"
            place = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="26"'
            drawn.append(f'<rect {place} fill="{_PARTS[part]}">{title}</rect>')
            x += width
        more = "" if name == best_name else f", {seconds(mean - best)} more than {escape(best_name)}"
        drawn.append(f'<text x="{x + 8:.1f}" y="{y + 19}">{seconds(mean)}{more}</text>')
    names = [(_PART_NAMES[part], colour) for part, colour in _PARTS.items() if part in shown]
    return _picture(len(rows) * _BAR_STEP + 4, "Mean first packet delay", drawn, names)


# ------------------------------------------------------------------------------------ lines
def delay_over_time(report: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The 95th percentile of the tasks of each second."""

    def points(mine: Sequence[Record]) -> _Points:
        by_second: dict[int, list[float]] = {}
        for record in mine:
            if record.first_packet is not None:
                by_second.setdefault(int(record.planned), []).append(record.first_packet)
        return [(at, percentile(values, 95) or 0.0) for at, values in sorted(by_second.items())]

    lines = _by_target(report, records, points)
    return _chart("First packet delay, 95th percentile of each second", lines, _milliseconds, _begins(report, records))


def percentiles(report: Mapping[str, Any], records: Sequence[Record]) -> str:
    """Every percentile of all tasks, warm-up included."""

    def points(mine: Sequence[Record]) -> _Points:
        waits = [record.first_packet for record in mine if record.first_packet is not None]
        return [(q, percentile(waits, q) or 0.0) for q in range(1, 100)] if waits else ()

    lines = _by_target(report, records, points)
    return _chart("First packet delay by percentile", lines, _milliseconds, (), unit="%")


def at_once(report: Mapping[str, Any], records: Sequence[Record]) -> str:
    """Tasks that ran at each second."""

    def points(mine: Sequence[Record]) -> _Points:
        changes: Counter[int] = Counter()
        for record in mine:
            begun = record.planned + record.late
            changes[math.ceil(begun)] += 1
            changes[math.ceil(max(begun, record.planned + (record.end_to_end or 0.0)))] -= 1
        at = range(max(changes, default=-1) + 1)
        return list(zip(at, accumulate(changes[second] for second in at), strict=True))

    return _chart("Tasks at once", _by_target(report, records, points), _whole, _begins(report, records))


def failures(report: Mapping[str, Any], records: Sequence[Record]) -> str:
    """Tasks of each second that failed; nothing where none did."""
    failed = [record for record in records if record.outcome in {"failed", "shed"}]
    if not failed:
        return ""

    def points(mine: Sequence[Record]) -> _Points:
        by_second = Counter(int(record.planned) for record in mine)
        return [(at, by_second[at]) for at in range(int(max(record.planned for record in records)) + 1)]

    lines = _by_target(report, failed, points)
    return _chart(
        "Tasks that failed or were shed, by the second of their begin", lines, _whole, _begins(report, records)
    )


def _by_target(
    report: Mapping[str, Any], records: Sequence[Record], points: Callable[[Sequence[Record]], _Points]
) -> dict[str, _Points]:
    return {name: points([record for record in records if record.target == name]) for name in report["targets"]}


def _begins(report: Mapping[str, Any], records: Sequence[Record]) -> Sequence[tuple[float, str]]:
    """When which stage began: with its first task, by the plan."""
    first: dict[int, float] = {}
    for record in records:
        first[record.stage] = min(record.planned, first.get(record.stage, math.inf))
    names = [stage["name"] for target in report["targets"].values() for stage in target["stages"]]
    return [(at, names[stage]) for stage, at in sorted(first.items())]


def _chart(
    title: str, lines: _Lines, worded: Callable[[float], str], begins: Iterable[tuple[float, str]], *, unit: str = "s"
) -> str:
    every = [point for points in lines.values() for point in points]
    if not every:
        return ""
    right, top = max(at for at, _ in every) or 1.0, 1.1 * (max(value for _, value in every) or 1.0)

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT) * at / right

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / top)

    drawn = []
    for step in range(5):
        value = top * step / 5
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        drawn.append(f'<text x="0" y="{y(value):.1f}">{worded(value)}</text>')
    for at, name in begins:
        drawn.append(f'<line class="stage" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="0" y2="{y(0):.1f}"/>')
        drawn.append(f'<text x="{x(at) + 3:.1f}" y="11">{escape(name)}</text>')
    named = list(zip(lines, _COLOURS, strict=False))
    for name, colour in named:
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in lines[name])
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>')
    drawn.append(f'<text x="{_LEFT}" y="{_HEIGHT - 4}">0 {unit}</text>')
    drawn.append(f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{right:.0f} {unit}</text>')
    return _picture(_HEIGHT, title, drawn, named)


def _picture(height: float, title: str, parts: Iterable[str], names: Iterable[tuple[str, str]]) -> str:
    keys = (f'<span class="key" style="background:{colour}"></span>{escape(name)}' for name, colour in names)
    svg = f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f"<figure>{svg}<figcaption>{escape(title)}: {' '.join(keys)}</figcaption></figure>"


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.0f} ms"


def _whole(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
