"""The advice as one HTML file: no network, no script, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from .sizing import Advice, Row, shown

__all__ = ["written"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 860, 240, 70, 40
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2229; --soft: #56606b; --line: #d9dde1; --ground: #fff; --one: #2563a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaed; --soft: #a4adb6; --line: #353b41; --ground: #14171a; --one: #7fb4ee; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
body { max-width: 900px; margin: 24px auto; padding: 0 16px; }
h1 { font-size: 22px; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); }
th, figcaption { color: var(--soft); } .chosen { font-weight: 700; } figure { margin: 16px 0; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; } svg rect { fill: var(--one); }
"""


def written(advice: Advice, settings: Sequence[str]) -> str:
    """Return the page.

    Args:
        advice: What is shown.
        settings: Lines to paste.
    """
    rows = "".join(_row(row, chosen=row.max_size == advice.chosen.max_size) for row in advice.others)
    head = "<tr><th>max_size</th><th>used</th><th>have to wait</th><th>wait p95</th><th>wait p99</th></tr>"
    binding = f"<p><strong>{escape(advice.binding)}</strong></p>" if advice.binding else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>speechpool size</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>{advice.chosen.max_size} connections for {advice.peak:g} tasks at once</h1>{binding}"
        f"<p>Tasks of {advice.task_seconds:.3g} s, {advice.rate:.3g} starts a second.</p>"
        f"{_chart(advice)}<table>{head}{rows}</table><pre>{escape(chr(10).join(settings))}</pre></body></html>\n"
    )


def _row(row: Row, *, chosen: bool) -> str:
    cells = (
        str(row.max_size),
        f"{row.utilisation:.1%}",
        f"{row.waiting:.2%}",
        shown(row.wait_p95),
        shown(row.wait_p99),
    )
    return f"<tr{' class=chosen' if chosen else ''}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _chart(advice: Advice) -> str:
    """Waits of one in a hundred against the size; a size that never catches up has no bar."""
    rows = advice.others
    top = max((row.wait_p99 for row in rows if row.wait_p99 is not None), default=0.0) or 1.0
    step = (_WIDTH - _LEFT) / len(rows)
    drawn = []
    for place, row in enumerate(rows):
        x = _LEFT + place * step
        height = 0.0 if row.wait_p99 is None else max(1.0, (_HEIGHT - _BOTTOM - 20) * row.wait_p99 / top)
        y = _HEIGHT - _BOTTOM - height
        drawn += [
            f'<rect x="{x + 0.2 * step:.1f}" y="{y:.1f}" width="{0.6 * step:.1f}" height="{height:.1f}"/>',
            f'<text text-anchor="middle" x="{x + step / 2:.1f}" y="{y - 5:.1f}">{shown(row.wait_p99)}</text>',
            f'<text text-anchor="middle" x="{x + step / 2:.1f}" y="{_HEIGHT - 22}">{row.max_size}</text>',
            f'<text text-anchor="middle" x="{x + step / 2:.1f}" y="{_HEIGHT - 6}">{row.utilisation:.0%} used</text>',
        ]
    label = "Wait of one in a hundred borrowers, by size of the pool"
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'
        f"<figcaption>{label}</figcaption></figure>"
    )
