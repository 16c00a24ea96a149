"""The production checklist: what is asked, and how findings become a verdict.

An item rests on findings, each of which names its evidence. The worst of them is the verdict; without any, or where
one of them could not look, an item is "not checked", and never a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

__all__ = ["BRIEF", "TITLES", "VERSION", "Checklist", "Finding", "Item", "Verdict"]

VERSION: Final = 1
"""Of the JSON."""
GUIDE: Final = "docs/checklist.md"


class Verdict(StrEnum):
    """What is known of an item; the worst first."""

    FAIL = "fail"
    WARN = "warn"
    UNKNOWN = "not checked"
    PASS = "pass"  # noqa: S105  # no password


_WORST_FIRST: Final = tuple(Verdict)
BRIEF: Final[Mapping[str, str]] = {
    "key": "The API key is in the environment, not in a file or in the source",
    "sizes": "Pools and connection limits fit the expected peak",
    "rate": "Pools start no more tasks than the account may submit",
    "failed": "What failed is disposed of, and does not go back to a pool",
    "shutdown": "Every pool is closed when the program ends",
    "region": "Connections use the right endpoint, by TLS, and its key",
    "monitoring": "Dashboards show first packet delay, error rate and utilisation",
    "load": "Load tested with twice the expected peak",
    "retries": "Transient failures are retried, with exponential backoff",
}
"""The provider's own list, in its order."""
TITLES: Final[Mapping[str, str]] = {
    **BRIEF,
    "alerts": "Alerts are loaded that tell when one of the signals goes wrong",
    "idle": "Idle connections are renewed before the server closes them",
    "clock": "The clock of this machine is right",
}
"""Every item, by the name that `--only` and the sections of the guide use."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One look at one thing.

    Attributes:
        verdict: What it says of its item.
        evidence: What was seen, or why nothing could be.
        remedy: What to do; empty for a pass.
    """

    verdict: Verdict
    evidence: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if not self.evidence or (self.verdict is Verdict.PASS) == bool(self.remedy):
            raise ValueError("a finding needs its evidence, and a remedy exactly where it is no pass.")

    @classmethod
    def passed(cls, evidence: str) -> Finding:
        """Return a proof."""
        return cls(Verdict.PASS, evidence)

    @classmethod
    def warned(cls, evidence: str, remedy: str) -> Finding:
        """Return a doubt."""
        return cls(Verdict.WARN, evidence, remedy)

    @classmethod
    def failed(cls, evidence: str, remedy: str) -> Finding:
        """Return a disproof."""
        return cls(Verdict.FAIL, evidence, remedy)

    @classmethod
    def unknown(cls, why: str, remedy: str) -> Finding:
        """Return that nothing could be seen."""
        return cls(Verdict.UNKNOWN, why, remedy)


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the list: its name in `TITLES`, and what it rests on."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def title(self) -> str:
        """What is asked."""
        return TITLES[self.name]

    @property
    def verdict(self) -> Verdict:
        """The worst that was found."""
        found = {finding.verdict for finding in self.findings}
        return next((verdict for verdict in _WORST_FIRST if verdict in found), Verdict.UNKNOWN)

    @property
    def guide(self) -> str:
        """Where the guide explains it."""
        return f"{GUIDE}#{self.name}"


@dataclass(frozen=True, slots=True)
class Checklist:
    """All items, judged."""

    items: tuple[Item, ...]

    def count(self, verdict: Verdict) -> int:
        """Return how many items have a verdict."""
        return sum(item.verdict is verdict for item in self.items)

    def holds(self, *, strict: bool = False) -> bool:
        """Whether one may go live: nothing fails; if `strict`, everything is proved."""
        return not self.count(Verdict.FAIL) if not strict else self.count(Verdict.PASS) == len(self.items)

    def only(self, names: Iterable[str]) -> Checklist:
        """Return the items of these names; all, where there are none."""
        wanted = set(names)
        return Checklist(tuple(item for item in self.items if not wanted or item.name in wanted))

    def to_dict(self) -> dict[str, Any]:
        """Return everything ready for JSON."""
        return {
            "version": VERSION,
            "counts": {verdict.value: self.count(verdict) for verdict in reversed(_WORST_FIRST)},
            "items": [
                {
                    "name": item.name,
                    "title": item.title,
                    "verdict": item.verdict.value,
                    "guide": item.guide,
                    "findings": [
                        {"verdict": one.verdict.value, "evidence": one.evidence, "remedy": one.remedy}
                        for one in item.findings
                    ],
                }
                for item in self.items
            ],
        }
