"""What the probes saw, as a table for people and as JSON for `docs/service.md`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

NOT_SEEN = "not seen"


@dataclass(frozen=True)
class Fact:
    """One answer: `seen` in words, `date` as YYYY-MM-DD, `model` as the service names it, `url` without a path."""

    question: str
    seen: str
    date: str
    model: str
    url: str


FACTS: list[Fact] = []
"""Of this run of the tests."""


def markdown(facts: list[Fact]) -> str:
    """A table with one row for each question."""
    rows = [f"| {fact.question} | {_cell(fact.seen)} | {fact.date} | {fact.model} |" for fact in facts]
    return "\n".join(["| question | what was seen | date | model |", "|---|---|---|---|", *rows])


def write(facts: list[Fact], path: Path) -> None:
    """Write them as JSON."""
    path.write_text(json.dumps([asdict(fact) for fact in facts], indent=2, ensure_ascii=False) + "\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
