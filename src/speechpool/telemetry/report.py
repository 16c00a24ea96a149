"""The five signals of one pool, over the window and since the start, for programs and for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .signals import Signal, Signals, as_seconds

__all__ = ["Report"]

_HEADINGS = {
    "first packet delay": "first packet delay p50/p95/p99",
    "end-to-end latency": "end-to-end latency p50/p95/p99",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How healthy a pool is. `str(report)` is a plain-text table.

    Attributes:
        name: The pool's name.
        window: The signals of the last `window_seconds`.
        lifetime: The signals since the start, `lifetime_seconds` ago.
        window_seconds: Length of the window; shorter while the pool is younger.
        lifetime_seconds: Age of the pool.
        tasks_running: Tasks that have started and not ended.
    """

    name: str
    window: Signals
    lifetime: Signals
    window_seconds: float
    lifetime_seconds: float
    tasks_running: int

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The five signals of the window."""
        return tuple(self.window)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and numbers, ready for JSON; None where there is no value."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        span = f"last {self.window_seconds:.0f} s"
        yield (
            f"{self.name}: {self.window.tasks:,} tasks in the {span}, {self.lifetime.tasks:,} since the start "
            f"({self.lifetime_seconds:,.0f} s), {self.tasks_running:,} running"
        )
        yield ""
        yield from _table(
            [("signal", span, "since the start", "target", "verdict"), *map(_row, self.window, self.lifetime)]
        )
        yield ""
        yield _parts(self.lifetime)
        yield _outcomes(self.lifetime)
        yield from self._reasons(span)

    def _reasons(self, span: str) -> Iterator[str]:
        for recent, whole in zip(self.window, self.lifetime, strict=True):
            if recent.reason == whole.reason and recent.reason:
                yield f"{recent.name}: {recent.reason}"
                continue
            for when, signal in ((span, recent), ("since the start", whole)):
                if signal.reason:
                    yield f"{signal.name}, {when}: {signal.reason}"


def _row(recent: Signal, whole: Signal) -> tuple[str, ...]:
    verdict = recent.verdict if recent.verdict == whole.verdict else f"{recent.verdict} / {whole.verdict}"
    return _HEADINGS.get(recent.name, recent.name), recent.value, whole.value, recent.target or "-", verdict


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _parts(signals: Signals) -> str:
    delay = signals.first_packet_delay
    return (
        f"first packet delay on average: {as_seconds(delay.mean)} = queue {as_seconds(delay.queue)} + connect "
        f"{as_seconds(delay.connect)} + start {as_seconds(delay.start)} + synthesis {as_seconds(delay.synthesis)}; "
        f"text wait {as_seconds(delay.text_wait)}, outside"
    )


def _outcomes(signals: Signals) -> str:
    rate = signals.error_rate
    return (
        f"outcomes: {rate.completed:,} completed, {rate.failed:,} failed, {rate.cancelled:,} cancelled, "
        f"{rate.shed:,} shed; {signals.retries:,} retries"
    )
