"""From counts to signals: computes each value, holds it against its target and says why it was missed."""

from __future__ import annotations

import math

from .histogram import Histogram
from .signals import (
    ConnectionReuse,
    EndToEndLatency,
    ErrorRate,
    FirstPacketDelay,
    PoolUtilisation,
    Signals,
    Verdict,
    as_percent,
    as_seconds,
)
from .totals import FIRST_PACKET_TARGET, PARTS, Totals

__all__ = ["judge"]

_ERROR_TARGET = 0.001
_ERROR_TASKS = 3000
"""Tasks below which an error rate of 0.1 % cannot be told from luck (three failures in expectation)."""
_LOWEST_PEAK, _HIGHEST_PEAK = 0.6, 0.8
_SIZING = 1.6
"""max_size / peak that the tools advise: 62.5 % used at peak."""
_REUSE_TARGET = 0.95

_REMEDY = {
    "queue": "callers waited for a permit or a connection; raise max_size or the quota",
    "connect": "they waited for a dial; raise min_size, or call wait_ready before the load comes",
    "start": "the server was slow to accept them; look at its load and at the distance to its region",
    "synthesis": "the server was slow to speak; look at its load, or send a shorter first sentence",
}


def judge(totals: Totals, mean: float | None, peak: float | None, max_size: int) -> Signals:
    """Return the five signals.

    Args:
        totals: Counts of the tasks of that span of time.
        mean: Mean utilisation of the pool; None where no pool has told it.
        peak: Highest ten-second mean; None in the first ten seconds.
        max_size: Size of the pool now.
    """
    return Signals(
        first_packet_delay=_first_packet_delay(totals),
        end_to_end_latency=_end_to_end_latency(totals),
        error_rate=_error_rate(totals),
        pool_utilisation=_pool_utilisation(mean, peak, max_size),
        connection_reuse=_connection_reuse(totals),
        tasks=totals.tasks,
        characters=totals.characters,
        audio_seconds=totals.audio_seconds,
        audio_bytes=totals.audio_bytes,
        retries=totals.retries,
        retried=dict(totals.retried),
    )


def _quantiles(histogram: Histogram) -> dict[str, float | None]:
    return {"p50": histogram.quantile(0.5), "p95": histogram.quantile(0.95), "p99": histogram.quantile(0.99)}


def _first_packet_delay(totals: Totals) -> FirstPacketDelay:
    delays = totals.first_packet_delay
    tasks = delays.count
    p99 = delays.quantile(0.99)
    verdict: Verdict = "ok"
    reason = ""
    if p99 is None:
        verdict, reason = "no data", "no task got audio."
    elif p99 >= FIRST_PACKET_TARGET:
        verdict, reason = "missed", _why_late(totals, p99, tasks)
    means = {part: total / tasks if tasks else None for part, total in zip(PARTS, totals.parts, strict=True)}
    return FirstPacketDelay(
        name="first packet delay",
        target="p99 < 500 ms",
        verdict=verdict,
        reason=reason,
        tasks=tasks,
        mean=delays.mean,
        text_wait=totals.text_wait / tasks if tasks else None,
        **_quantiles(delays),
        **means,
    )


def _why_late(totals: Totals, p99: float, tasks: int) -> str:
    slow = totals.slow
    few = f" (the slowest of {tasks} tasks)" if tasks < 100 else ""
    late = f"p99 is {as_seconds(p99)}{few}"
    known = sum(totals.slow_parts)
    if not known:
        return f"{late}; the parts of the delay were not reported."
    longest = max(totals.slow_parts)
    part = PARTS[totals.slow_parts.index(longest)]
    who = "the one task" if slow == 1 else f"the {slow:,} tasks"
    mean = as_seconds(longest / slow)
    return f"{late}: {part} took {longest / known:.0%} of {who} beyond 500 ms ({mean} on average): {_REMEDY[part]}."


def _end_to_end_latency(totals: Totals) -> EndToEndLatency:
    tasks = totals.end_to_end.count
    return EndToEndLatency(
        name="end-to-end latency",
        target="",
        verdict="shown" if tasks else "no data",
        reason="" if tasks else "no task completed.",
        tasks=tasks,
        real_time_factor=totals.spoken / totals.spoken_audio if totals.spoken_audio else None,
        **_quantiles(totals.end_to_end),
    )


def _error_rate(totals: Totals) -> ErrorRate:
    tasks = totals.completed + totals.failed
    verdict, reason = _judge_errors(totals, tasks)
    return ErrorRate(
        name="error rate",
        target="< 0.1 %",
        verdict=verdict,
        reason=reason,
        rate=totals.failed / tasks if tasks else None,
        completed=totals.completed,
        failed=totals.failed,
        cancelled=totals.cancelled,
        shed=totals.shed,
        errors=dict(totals.errors),
    )


def _judge_errors(totals: Totals, tasks: int) -> tuple[Verdict, str]:
    if not tasks:
        return "no data", "no task completed or failed."
    # Even if every task up to 3,000 completed, the rate would not come below the target: no need to wait for them.
    if totals.failed / max(tasks, _ERROR_TASKS) >= _ERROR_TARGET:
        return "missed", f"{totals.failed:,} of {tasks:,} tasks failed{_most_often(totals.errors)}."
    if tasks < _ERROR_TASKS:
        return "too few tasks", f"{tasks:,} tasks are too few to judge 0.1 %; it takes {_ERROR_TASKS:,}."
    return "ok", ""


def _most_often(errors: dict[str, int]) -> str:
    if not errors:
        return ""
    code = max(errors, key=errors.__getitem__)
    return f", {errors[code]:,} of them with {code}"


def _pool_utilisation(mean: float | None, peak: float | None, max_size: int) -> PoolUtilisation:
    verdict, reason = _judge_peak(mean, peak, max_size)
    return PoolUtilisation(
        name="pool utilisation",
        target="peak 60-80 %",
        verdict=verdict,
        reason=reason,
        mean=mean,
        peak=peak,
        max_size=max_size,
    )


def _judge_peak(mean: float | None, peak: float | None, max_size: int) -> tuple[Verdict, str]:
    if mean is None:
        return "no data", "no pool has told its size."
    if peak is None:
        return "no data", "a peak is a ten-second mean, and ten seconds have not passed."
    # A sum of ten seconds is a hair off: exactly 60 % must not be "below 60 %".
    peak = round(peak, 6)
    if not peak:
        return "no data", "nothing was borrowed."
    advised = max(1, math.ceil(_SIZING * peak * max_size - 1e-6))
    if peak > _HIGHEST_PEAK:
        return (
            "missed",
            f"peak {as_percent(peak)} is above 80 %: raise max_size from {max_size} to {advised} (1.6 x peak).",
        )
    if peak >= _LOWEST_PEAK:
        return "ok", ""
    low = f"peak {as_percent(peak)} is below 60 %"
    if advised >= max_size:
        return "missed", f"{low}, but no smaller max_size than {max_size} leaves room above the peak."
    return "missed", f"{low}: max_size {max_size} is larger than this load needs; 1.6 x peak would be {advised}."


def _connection_reuse(totals: Totals) -> ConnectionReuse:
    connected = totals.connected
    ratio = totals.reused / connected if connected else None
    verdict: Verdict = "ok"
    reason = ""
    if ratio is None:
        verdict, reason = "no data", "no task got a connection."
    elif ratio <= _REUSE_TARGET:
        verdict = "missed"
        reason = (
            f"{connected - totals.reused:,} of {connected:,} tasks waited for a connection to be opened; raise "
            "min_size, call wait_ready before the load, or see in the pool's statistics why connections are discarded."
        )
    return ConnectionReuse(
        name="connection reuse",
        target="> 95 %",
        verdict=verdict,
        reason=reason,
        ratio=ratio,
        reused=totals.reused,
        connected=connected,
    )
