"""From records to numbers: by target and stage, and whether the tester itself was in the way."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any, Final

import speechpool

from .plan import Stage
from .record import Record
from .runner import Result

__all__ = ["DELAYS", "LATE", "VERSION", "percentile", "summary"]

VERSION: Final = 1
"""Of the JSON report."""
DELAYS: Final = (
    "first_packet", "first_packet_sent", "first_audible", "end_to_end", "longest_gap", "underrun", "late", "wait",
)  # fmt: skip
"""What has percentiles, in seconds."""
PERCENTILES: Final = (50, 90, 95, 99)
LATE: Final = 0.002
"""Seconds by which one in a hundred tasks may begin late before the run is invalid."""
SLOW: Final = 0.5
"""Seconds: a first packet within it, and no underrun, is a good task."""


def percentile(values: Sequence[float], q: float) -> float | None:
    """Return the value of nearest rank; None without any."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)] if ordered else None


def summary(result: Result, stages: Sequence[Stage], setting: dict[str, Any]) -> dict[str, Any]:
    """Return the whole report, ready for JSON.

    Args:
        result: Of the run.
        stages: Of its plan.
        setting: What it was asked for; shown as it is.
    """
    targets = list(dict.fromkeys(record.target for record in result.records))
    judged = {number for number, stage in enumerate(stages) if stage.judged}
    late = percentile([record.late for record in result.records], 99)
    return {
        "version": VERSION,
        "setting": setting,
        "build": {"speechpool": speechpool.__version__, "python": platform.python_version()},
        "seconds": result.seconds,
        "interrupted": result.interrupted,
        "tester": {
            "late_p99": late,
            "loop_lag_p99": percentile(result.lags, 99),
            "processor": result.processor / result.seconds if result.seconds else 0.0,
            "invalid": _invalid(late, result),
        },
        "targets": {
            target: {
                "total": _numbers([r for r in result.records if r.target == target and r.stage in judged]),
                "stages": [
                    {
                        "name": stage.name,
                        "seconds": stage.seconds,
                        "rate": stage.rate,
                        "judged": stage.judged,
                        "utilisation": _mean(result.utilisation.get((target, number), ())),
                        **_numbers([r for r in result.records if r.target == target and r.stage == number]),
                    }
                    for number, stage in enumerate(stages)
                ],
            }
            for target in targets
        },
    }


def _invalid(late: float | None, result: Result) -> str | None:
    if late is not None and late > LATE:
        return f"one in a hundred tasks began {1000 * late:.1f} ms late or more; the limit is {1000 * LATE:g} ms."
    if result.seconds and result.processor > 0.9 * result.seconds:
        return f"the tester took {result.processor / result.seconds:.0%} of a processor, so it was in the way."
    return None


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return fmean(found) if found else None


def _numbers(records: Sequence[Record]) -> dict[str, Any]:
    outcomes = Counter(record.outcome for record in records)
    spoken = [record for record in records if record.outcome == "completed"]
    connected = [record for record in records if record.outcome in {"completed", "cancelled"}]
    judged = outcomes["completed"] + outcomes["failed"]
    good = [r for r in spoken if r.first_packet is not None and r.first_packet <= SLOW and not r.underrun]
    audio = sum(record.audio_seconds for record in spoken)
    return {
        "tasks": len(records),
        "outcomes": dict(outcomes),
        "errors": dict(Counter(record.error for record in records if record.error)),
        "error_rate": outcomes["failed"] / judged if judged else None,
        "reuse": fmean(record.reused for record in connected) if connected else None,
        "goodput": len(good) / len(records) if records else None,
        "foreign": sum(record.foreign for record in records),
        "underruns": sum(record.underrun > 0 for record in spoken),
        "characters": sum(record.characters for record in records),
        "audio_seconds": audio,
        "real_time_factor": _factor(spoken, audio),
        "held": _quantiles([record.held for record in records if record.held is not None]),
        **{name: _percentiles(records, name) for name in DELAYS},
    }


def _quantiles(values: Sequence[float]) -> list[float]:
    """The values of 101 ranks, the least and the greatest among them: enough to draw from; empty without any."""
    ordered = sorted(values)
    return [ordered[round(rank / 100 * (len(ordered) - 1))] for rank in range(101)] if ordered else []


def _factor(spoken: Sequence[Record], audio: float) -> float | None:
    return sum(record.end_to_end or 0.0 for record in spoken) / audio if audio else None


def _percentiles(records: Sequence[Record], name: str) -> dict[str, float | None]:
    values = [value for record in records if (value := getattr(record, name)) is not None]
    return {f"p{q}": percentile(values, q) for q in PERCENTILES} | {"max": max(values, default=None)}
