"""The checklist as one HTML file: no network, no script, light and dark, and it prints well."""

from __future__ import annotations

from html import escape
from typing import Final

from .checklist import Checklist, Finding, Item, Verdict

__all__ = ["written"]

_MARKS: Final = {Verdict.PASS: "✓", Verdict.WARN: "!", Verdict.FAIL: "✗", Verdict.UNKNOWN: "?"}
_CLASSES: Final = {Verdict.PASS: "pass", Verdict.WARN: "warn", Verdict.FAIL: "fail", Verdict.UNKNOWN: "unknown"}
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2229; --soft: #56606b; --line: #d9dde1; --ground: #fff;
  --pass: #14692f; --warn: #8a4b08; --fail: #b3181f; --unknown: #56606b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaed; --soft: #a4adb6; --line: #353b41; --ground: #14171a;
    --pass: #7fd39a; --warn: #f0b46c; --fail: #ff8a80; --unknown: #a4adb6; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
body { max-width: 900px; margin: 24px auto; padding: 0 16px; overflow-wrap: anywhere; }
h1 { font-size: 22px; } ol { list-style: none; padding: 0; }
li.item { border-top: 1px solid var(--line); padding: 10px 0; }
h2 { font-size: 15px; margin: 0; } ul { margin: 4px 0 0; padding-left: 22px; }
.remedy { color: var(--soft); } .verdict { font-weight: 600; }
.pass { color: var(--pass); } .warn { color: var(--warn); }
.fail { color: var(--fail); } .unknown { color: var(--unknown); }
@media print { body { margin: 0; } li.item { break-inside: avoid; } }
"""


def written(checklist: Checklist, when: str) -> str:
    """Return the page.

    Args:
        checklist: Its items.
        when: Date and time, for people.
    """
    title = "speechpool check"
    counts = ", ".join(f"{checklist.count(verdict)} {verdict.value}" for verdict in reversed(Verdict))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1><p>{escape(when)}: {counts}.</p>"
        f"<ol>{''.join(map(_item, checklist.items))}</ol></main></body></html>\n"
    )


def _item(item: Item) -> str:
    findings = "".join(map(_finding, item.findings))
    return (
        f'<li class="item" id="{item.name}"><h2>{_verdict(item.verdict)} {escape(item.title)}</h2>'
        f"<ul>{findings}</ul></li>"
    )


def _finding(finding: Finding) -> str:
    remedy = f'<br><span class="remedy">→ {escape(finding.remedy)}</span>' if finding.remedy else ""
    return f"<li>{_verdict(finding.verdict)} {escape(finding.evidence)}{remedy}</li>"


def _verdict(verdict: Verdict) -> str:
    return f'<span class="verdict {_CLASSES[verdict]}">{_MARKS[verdict]} {verdict.value}</span>'
