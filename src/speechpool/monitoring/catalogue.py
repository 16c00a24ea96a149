"""Every metric, once: exporters, dashboards, rules and the table of docs/monitoring.md are made from this.

Names are the words of the project; labels come from closed sets, or are bounded where they are counted (64 error
codes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from speechpool.telemetry.totals import PARTS

from .snapshot import BUILD, Buckets, Snapshot

__all__ = ["METRICS", "Metric", "named"]

Samples = Iterable[tuple[tuple[str, ...], float | Buckets]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: As Prometheus shows it, with its unit; a counter also with `_total`.
        kind: counter, gauge or histogram.
        help: What it is, in one line.
        read: Its samples in a snapshot: the values of `labels`, and a number or buckets.
        labels: Beside `pool`, which every one has.
        unit: Seconds, bytes or nothing.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    read: Callable[[Snapshot], Samples]
    labels: tuple[str, ...] = ()
    unit: str = ""


def _one(read: Callable[[Snapshot], float | None]) -> Callable[[Snapshot], Samples]:
    def samples(snapshot: Snapshot) -> Samples:
        value = read(snapshot)
        return () if value is None else (((), float(value)),)

    return samples


def _buckets(name: str) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: (((), snapshot.histograms[name]),)


def _stages(snapshot: Snapshot) -> Samples:
    return (((part,), snapshot.histograms[f"stage_{part}"]) for part in PARTS)


OUTCOMES: Final = ("completed", "failed", "cancelled", "shed")
STATES: Final = ("idle", "borrowed", "opening", "closing")


def _outcomes(snapshot: Snapshot) -> Samples:
    return (((outcome,), getattr(snapshot.totals, outcome)) for outcome in OUTCOMES)


def _states(snapshot: Snapshot) -> Samples:
    return (((state,), getattr(snapshot.stats, state)) for state in STATES)


def _borrows(snapshot: Snapshot) -> Samples:
    stats = snapshot.stats
    counts = {
        "reused": stats.reused,
        "new": stats.borrows - stats.reused,
        "timeout": stats.timeouts,
        "cancelled": stats.cancelled,
        "full": stats.full,
        "shed": stats.shed,
        "refused": stats.refused,
        "down": stats.down,
    }
    return (((result,), count) for result, count in counts.items())


def _connected(snapshot: Snapshot) -> Samples:
    reused = snapshot.totals.reused
    return ((("true",), reused), (("false",), snapshot.totals.connected - reused))


def _quota(name: str) -> Callable[[Snapshot], Samples]:
    def samples(snapshot: Snapshot) -> Samples:
        for state in snapshot.quotas:
            value = getattr(state, name)
            if value is not None:
                yield (state.account, state.model), float(value)

    return samples


METRICS: Final = (
    # what users notice
    Metric("speechpool_tasks_total", "counter", "Tasks that ended, by outcome.", _outcomes, ("outcome",)),
    Metric("speechpool_tasks_started_total", "counter", "Tasks that began.", _one(lambda s: s.tasks_started)),
    Metric(
        "speechpool_tasks_running",
        "gauge",
        "Tasks that have begun and not ended.",
        _one(lambda s: s.report.tasks_running),
    ),
    Metric(
        "speechpool_task_errors_total",
        "counter",
        "Failed tasks, by error code or class.",
        lambda s: (((code,), n) for code, n in s.totals.errors.items()),
        ("error",),
    ),
    Metric(
        "speechpool_first_packet_delay_seconds",
        "histogram",
        "From the first text to the first audio byte.",
        _buckets("first_packet_delay"),
        unit="seconds",
    ),
    Metric(
        "speechpool_first_packet_stage_seconds",
        "histogram",
        "The parts of the first packet delay, which sum to it.",
        _stages,
        ("stage",),
        "seconds",
    ),
    Metric(
        "speechpool_end_to_end_seconds",
        "histogram",
        "From the first text to the last byte, of completed tasks.",
        _buckets("end_to_end"),
        unit="seconds",
    ),
    Metric(
        "speechpool_real_time_factor",
        "histogram",
        "End-to-end seconds over seconds of audio.",
        _buckets("real_time_factor"),
    ),
    Metric(
        "speechpool_characters_total",
        "counter",
        "Characters of all texts, as the provider counts them.",
        _one(lambda s: s.totals.characters),
    ),
    Metric(
        "speechpool_audio_seconds_total",
        "counter",
        "Seconds of audio, where the format tells them.",
        _one(lambda s: s.totals.audio_seconds),
        unit="seconds",
    ),
    Metric(
        "speechpool_audio_bytes_total", "counter", "Bytes of audio.", _one(lambda s: s.totals.audio_bytes), unit="bytes"
    ),
    Metric(
        "speechpool_retries_total",
        "counter",
        "Attempts after the first, by reason.",
        lambda s: (((reason,), n) for reason, n in s.totals.retried.items()),
        ("reason",),
    ),
    Metric(
        "speechpool_tasks_connected_total",
        "counter",
        "Tasks that got a connection, by whether it was open before.",
        _connected,
        ("reused",),
    ),
    # the pool
    Metric("speechpool_pool_connections", "gauge", "Connections, by state.", _states, ("state",)),
    Metric("speechpool_pool_max_size", "gauge", "Most connections.", _one(lambda s: s.stats.max_size)),
    Metric("speechpool_pool_min_size", "gauge", "The warm floor.", _one(lambda s: s.stats.min_size)),
    Metric(
        "speechpool_pool_used_seconds_total",
        "counter",
        "Share of the pool that is borrowed, summed over time; its rate is the utilisation.",
        _one(lambda s: s.used_seconds),
        unit="seconds",
    ),
    Metric("speechpool_pool_waiting", "gauge", "Borrowers in line.", _one(lambda s: s.stats.waiting)),
    Metric(
        "speechpool_pool_oldest_wait_seconds",
        "gauge",
        "How long the first of them has waited.",
        _one(lambda s: s.stats.oldest_wait),
        unit="seconds",
    ),
    Metric(
        "speechpool_pool_predicted_wait_seconds",
        "gauge",
        "How long one that came now would wait; absent where that is unknown.",
        _one(lambda s: s.stats.predicted_wait),
        unit="seconds",
    ),
    Metric("speechpool_pool_borrows_total", "counter", "Borrows, by what became of them.", _borrows, ("result",)),
    Metric(
        "speechpool_pool_wait_seconds",
        "histogram",
        "How long borrowers waited that got a connection.",
        _buckets("wait"),
        unit="seconds",
    ),
    Metric(
        "speechpool_pool_dial_seconds",
        "histogram",
        "How long connections took to open.",
        _buckets("dial"),
        unit="seconds",
    ),
    Metric(
        "speechpool_pool_use_seconds", "histogram", "How long connections were lent.", _buckets("use"), unit="seconds"
    ),
    Metric(
        "speechpool_pool_borrows_per_connection",
        "histogram",
        "How often a connection was lent until it was gone.",
        _buckets("borrows_per_connection"),
    ),
    Metric("speechpool_pool_opened_total", "counter", "Connections that opened.", _one(lambda s: s.stats.opened)),
    Metric("speechpool_pool_open_failed_total", "counter", "Dials that failed.", _one(lambda s: s.stats.open_failed)),
    Metric(
        "speechpool_pool_closed_total",
        "counter",
        "Connections that were closed or lost, by reason.",
        lambda s: (((reason,), n) for reason, n in s.stats.discarded.items()),
        ("reason",),
    ),
    Metric(
        "speechpool_pool_leaks_total",
        "counter",
        "Leases that nobody returned.",
        _one(lambda s: s.stats.discarded.get("forgotten", 0)),
    ),
    Metric(
        "speechpool_pool_double_returns_total",
        "counter",
        "Leases that came back twice.",
        _one(lambda s: s.stats.double_returns),
    ),
    Metric(
        "speechpool_pool_outage_seconds",
        "gauge",
        "How long the endpoint has been away; 0: it is not.",
        _one(lambda s: s.stats.outage or 0.0),
        unit="seconds",
    ),
    # quota
    Metric(
        "speechpool_quota_rate",
        "gauge",
        "Task starts a second that are allowed now.",
        _quota("rate"),
        ("account", "model"),
    ),
    Metric(
        "speechpool_quota_limit",
        "gauge",
        "Task starts a second that are configured.",
        _quota("limit"),
        ("account", "model"),
    ),
    Metric("speechpool_quota_running", "gauge", "Permits in use.", _quota("running"), ("account", "model")),
    Metric(
        "speechpool_quota_waiting", "gauge", "Requests for a permit in line.", _quota("waiting"), ("account", "model")
    ),
    Metric("speechpool_quota_granted_total", "counter", "Permits granted.", _quota("granted"), ("account", "model")),
    Metric(
        "speechpool_quota_throttled_total",
        "counter",
        "Answers of the provider that said too much.",
        _quota("throttled"),
        ("account", "model"),
    ),
    Metric(
        "speechpool_quota_shed_total",
        "counter",
        "Requests refused because of their deadline.",
        _quota("shed"),
        ("account", "model"),
    ),
    # the process
    Metric(
        "speechpool_event_loop_lag_seconds",
        "histogram",
        "How late the event loop was, looked at while tasks run.",
        _buckets("loop_lag"),
        unit="seconds",
    ),
    Metric(
        "speechpool_build_info",
        "gauge",
        "Always 1; what runs.",
        lambda _: ((tuple(BUILD.values()), 1.0),),
        tuple(BUILD),
    ),
)
"""All of them."""


def named(name: str) -> Metric:
    """Return the metric of this name; KeyError where there is none."""
    return _BY_NAME[name]


_BY_NAME: Final = {metric.name: metric for metric in METRICS}
