"""How long after the highest load the first packets were late."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from .percentiles import percentile
from .plan import Stage
from .record import Record

__all__ = ["recovered"]

_WINDOW: Final = 5.0
"""Seconds of tasks that have to be inside: fewer than some dozen would have no 99th percentile."""


def recovered(records: Sequence[Record], stages: Sequence[Stage], limit: float) -> dict[str, Any] | None:
    """Return how long it took, after the stages with the highest rate, until first packets were inside the limit again.

    `seconds` counts from the end of these stages to the first second after which the 99th percentile of five seconds
    is inside; a task that failed is outside. None: it was never inside again. There is no answer where no load follows.

    Args:
        records: Of one target.
        stages: Of the plan.
        limit: Seconds that a first packet may take.
    """
    last = _last_of_the_highest(stages)
    if last is None:
        return None
    end = sum(stage.seconds for stage in stages[: last + 1])
    over = sum(stage.seconds for stage in stages)
    after = [record for record in records if record.planned >= end]

    def inside(second: int) -> bool:
        begin = end + second
        waits = [_wait(record) for record in after if begin <= record.planned < begin + _WINDOW]
        return bool(waits) and (percentile(waits, 99) or 0.0) <= limit

    seconds = next((second for second in range(math.ceil(over - end)) if inside(second)), None)
    return {"after": stages[last].name, "limit": limit, "seconds": seconds}


def _last_of_the_highest(stages: Sequence[Stage]) -> int | None:
    top = max((stage.rate for stage in stages), default=0.0)
    falls = [number for number, (one, other) in enumerate(pairwise(stages)) if one.rate == top > other.rate]
    return falls[-1] if falls else None


def _wait(record: Record) -> float:
    late = record.outcome == "failed" or record.first_packet is None
    return math.inf if late else record.first_packet or 0.0
