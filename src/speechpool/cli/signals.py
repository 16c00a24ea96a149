"""The five signals as a table for a terminal: value, target, verdict, and a reason for each that is not met."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.table import Table
from rich.text import Text

from speechpool.telemetry.signals import Signals, as_seconds

__all__ = ["remarks", "signals_table"]

_STYLES: Final = {"ok": "bold green", "missed": "bold red"}


def signals_table(signals: Signals) -> Table:
    """Return the table; it fits into 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading in ("signal", "value (p50 / p95 / p99)", "target", "verdict"):
        table.add_column(heading)
    for signal in signals:
        value = signal.value.replace(", rtf", "\nreal-time factor")
        table.add_row(
            signal.name, value, signal.target or "-", Text(signal.verdict, _STYLES.get(signal.verdict, "dim"))
        )
    return table


def remarks(signals: Signals) -> Iterator[str]:
    """Yield what belongs under the table: the parts of the first packet delay, and why a target is not met."""
    delay = signals.first_packet_delay
    parts = {"queue": delay.queue, "connect": delay.connect, "start": delay.start, "synthesis": delay.synthesis}
    means = " + ".join(f"{name} {as_seconds(value)}" for name, value in parts.items())
    yield f"first packet delay: {as_seconds(delay.mean)} on average = {means}"
    for signal in signals:
        if signal.reason:
            yield f"{signal.name}: {signal.reason}"
