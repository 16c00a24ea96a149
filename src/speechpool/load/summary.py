"""From records to numbers: by target and stage, and whether the tester itself was in the way."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

import speechpool

from .percentiles import percentile
from .plan import Stage
from .record import Record
from .recovery import recovered
from .runner import Result

__all__ = ["DELAYS", "LATE", "PARTS", "PERCENTILES", "SLOW", "VERSION", "summary"]

VERSION: Final = 1
"""Of the JSON report."""
DELAYS: Final = (
    "first_packet", "first_packet_sent", "first_audible", "end_to_end", "longest_gap", "underrun", "late", "connection",
)  # fmt: skip
"""What has percentiles, in seconds."""
PERCENTILES: Final = (50, 90, 95, 99)
LATE: Final = 0.002
"""Seconds by which one in a hundred tasks may begin late before the run is invalid."""
STARVED: Final = 0.02
"""Share of the time spent in waiting for a processor from which on that is worth saying."""
PARTS: Final = ("connection", "start", "synthesis")
"""Of the first packet delay, in their order."""
SLOW: Final = 0.5
"""Seconds: a first packet within it, and no underrun, is a good task."""


def summary(
    result: Result, stages: Sequence[Stage], setting: Mapping[str, Any], *, limit: float = SLOW
) -> dict[str, Any]:
    """Return the whole report, ready for JSON.

    Args:
        result: Of the run.
        stages: Of its plan.
        setting: What it was asked for; shown as it is.
        limit: Seconds that the first packet may take, for `recovery`.
    """
    targets = list(dict.fromkeys(record.target for record in result.records))
    judged = {number for number, stage in enumerate(stages) if stage.judged}
    late = percentile([record.late for record in result.records], 99)
    return {
        "version": VERSION,
        "setting": dict(setting),
        "build": {"speechpool": speechpool.__version__, "python": platform.python_version()},
        "ended": time.time(),
        "seconds": result.seconds,
        "interrupted": result.interrupted,
        "tester": {
            "late_p99": late,
            "loop_lag_p99": percentile(result.lags, 99),
            "processor": result.processor / result.seconds if result.seconds else 0.0,
            "starved": _starved(result),
            "invalid": _invalid(late, result),
        },
        "targets": {
            target: {
                "recovery": recovered([r for r in result.records if r.target == target], stages, limit),
                "total": _numbers([r for r in result.records if r.target == target and r.stage in judged]),
                "stages": [
                    {
                        "name": stage.name,
                        "seconds": stage.seconds,
                        "rate": stage.rate,
                        "judged": stage.judged,
                        "utilisation": _mean(result.used.get(target, {}).get(number, ())),
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
        why = f"one in a hundred tasks began {1000 * late:.1f} ms late or more; the limit is {1000 * LATE:g} ms."
        starved = _starved(result)
        if starved is not None and starved > STARVED:
            why += (
                f" Others had the processors for {starved:.0%} of the time: try again when the machine has less to do."
            )
        return why
    if result.seconds and result.processor > 0.9 * result.seconds:
        return f"the tester took {result.processor / result.seconds:.0%} of a processor, so it was in the way."
    return None


def _starved(result: Result) -> float | None:
    return result.starved / result.seconds if result.starved is not None and result.seconds else None


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return fmean(found) if found else None


def _numbers(records: Sequence[Record]) -> dict[str, Any]:
    outcomes = Counter(record.outcome for record in records)
    spoken = [record for record in records if record.outcome == "completed"]
    connected = [r.reused for r in records if r.outcome in {"completed", "cancelled"} and r.reused is not None]
    judged = outcomes["completed"] + outcomes["failed"]
    good = [r for r in spoken if r.first_packet is not None and r.first_packet <= SLOW and not r.underrun]
    audio = sum(record.audio_seconds for record in spoken)
    return {
        "tasks": len(records),
        "outcomes": dict(outcomes),
        "errors": dict(Counter(record.error for record in records if record.error)),
        "error_rate": outcomes["failed"] / judged if judged else None,
        "reuse": _mean(connected),
        "goodput": len(good) / len(records) if records else None,
        "foreign": sum(record.foreign for record in records),
        "underruns": sum(bool(record.underrun) for record in spoken),
        "characters": sum(record.characters for record in records),
        "audio_seconds": audio,
        "real_time_factor": _factor(spoken, audio),
        "parts": _parts(records),
        "held": _held(records),
        **{name: _percentiles(records, name) for name in DELAYS},
    }


def _parts(records: Sequence[Record]) -> dict[str, float | None]:
    """Return the means of what the first packet delay consists of; None where the target does not tell."""
    heard = [record for record in records if record.first_packet is not None]
    return {name: _mean(v for r in heard if (v := getattr(r, name)) is not None) for name in ("late", *PARTS)}


def _held(records: Sequence[Record]) -> list[float]:
    """Return for how long tasks had their connections, at 101 ranks from the least on; empty if unknown."""
    known = sorted(
        record.end_to_end - record.late - record.connection
        for record in records
        if record.end_to_end is not None and record.connection is not None
    )
    return [known[round(rank / 100 * (len(known) - 1))] for rank in range(101)] if known else []


def _factor(spoken: Sequence[Record], audio: float) -> float | None:
    return sum(record.end_to_end or 0.0 for record in spoken) / audio if audio else None


def _percentiles(records: Sequence[Record], name: str) -> dict[str, float | None]:
    values = [value for record in records if (value := getattr(record, name)) is not None]
    marks = {f"p{q}": percentile(values, q) for q in PERCENTILES}
    return marks | {"mean": _mean(values), "max": max(values, default=None)}
