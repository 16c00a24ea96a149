"""The dashboard for Grafana: what users notice first, below it the pool, the quota and the process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from .queries import by, mean, quantile, rate, ratio

__all__ = ["PANELS", "Panel", "written"]

_LABELS: Final = 'job=~"$job", instance=~"$instance", pool=~"$pool"'
_WINDOW: Final = "$__rate_interval"
_TASKS: Final = "speechpool_tasks_total"
_WIDE, _HIGH = 8, 8


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart.

    Attributes:
        row: Which part of the dashboard it is in.
        title: As it is shown.
        description: What one should see in it.
        unit: Grafana's word for it.
        questions: PromQL, and the legend of its lines.
        limit: The target, drawn as a line.
    """

    row: str
    title: str
    description: str
    unit: str
    questions: dict[str, str] = field(default_factory=dict)
    limit: float | None = None


def _grows(metric: str, where: str = "", *also: str) -> str:
    return rate(metric, where, window=_WINDOW, labels=_LABELS, also=also)


def _is(metric: str, *also: str, how: str = "sum") -> str:
    return by(metric, labels=_LABELS, also=also, how=how)


def _quantiles(histogram: str) -> dict[str, str]:
    return {
        quantile(q, histogram, window=_WINDOW, labels=_LABELS): f"p{100 * q:g} {{{{pool}}}}" for q in (0.5, 0.95, 0.99)
    }


_ERRORS = ratio(_grows(_TASKS, 'outcome="failed"'), _grows(_TASKS, 'outcome=~"completed|failed"'))
_REUSE = ratio(_grows("speechpool_tasks_connected_total", 'reused="true"'), _grows("speechpool_tasks_connected_total"))
_USED = f"avg by (pool) ({_grows('speechpool_pool_used_seconds_total')})"

PANELS: Final = (
    Panel(
        "Users",
        "First packet delay",
        "From the first text to the first audio. Target: p99 below 500 ms.",
        "s",
        _quantiles("speechpool_first_packet_delay_seconds"),
        0.5,
    ),
    Panel(
        "Users",
        "End-to-end latency",
        "From the first text to the last byte, of completed tasks.",
        "s",
        _quantiles("speechpool_end_to_end_seconds"),
    ),
    Panel(
        "Users",
        "Error rate",
        "Failed of completed and failed. Target: below 0.1 %.",
        "percentunit",
        {_ERRORS: "{{pool}}"},
        0.001,
    ),
    Panel("Users", "Tasks a second", "By outcome.", "ops", {_grows(_TASKS, "", "outcome"): "{{outcome}} {{pool}}"}),
    Panel(
        "Users",
        "Parts of the first packet delay",
        "Means; they sum to the mean delay.",
        "s",
        {
            mean(
                "speechpool_first_packet_stage_seconds", window=_WINDOW, labels=_LABELS, also=["stage"]
            ): "{{stage}} {{pool}}"
        },
    ),
    Panel(
        "Users",
        "Errors and retries",
        "Failed tasks by code, retried attempts by reason.",
        "ops",
        {
            _grows("speechpool_task_errors_total", "", "error"): "{{error}} {{pool}}",
            _grows("speechpool_retries_total", "", "reason"): "retry: {{reason}} {{pool}}",
        },
    ),
    Panel(
        "Pool",
        "Utilisation",
        "Mean share of the pool that is borrowed. Target: a peak of 60-80 %.",
        "percentunit",
        {_USED: "{{pool}}"},
        0.8,
    ),
    Panel(
        "Pool",
        "Connection reuse",
        "Tasks on a connection that was open before. Target: above 95 %.",
        "percentunit",
        {_REUSE: "{{pool}}"},
        0.95,
    ),
    Panel(
        "Pool",
        "Connections",
        "By state; at most max_size.",
        "short",
        {
            _is("speechpool_pool_connections", "state"): "{{state}} {{pool}}",
            _is("speechpool_pool_max_size"): "max_size {{pool}}",
        },
    ),
    Panel("Pool", "Waiting", "Borrowers in line.", "short", {_is("speechpool_pool_waiting"): "{{pool}}"}),
    Panel(
        "Pool",
        "Oldest wait",
        "The best sign of overload. Above a second is an alert.",
        "s",
        {_is("speechpool_pool_oldest_wait_seconds", how="max"): "{{pool}}"},
        1.0,
    ),
    Panel(
        "Pool",
        "Borrows a second",
        "By what became of them.",
        "ops",
        {_grows("speechpool_pool_borrows_total", "", "result"): "{{result}} {{pool}}"},
    ),
    Panel("Pool", "Waits for a connection", "Of those who got one.", "s", _quantiles("speechpool_pool_wait_seconds")),
    Panel(
        "Pool",
        "Dials",
        "How long connections take to open, and how many dials fail a second.",
        "s",
        {
            quantile(0.95, "speechpool_pool_dial_seconds", window=_WINDOW, labels=_LABELS): "p95 {{pool}}",
            _grows("speechpool_pool_open_failed_total"): "failed/s {{pool}}",
        },
    ),
    Panel(
        "Pool",
        "Connections closed a second",
        "By reason.",
        "ops",
        {_grows("speechpool_pool_closed_total", "", "reason"): "{{reason}} {{pool}}"},
    ),
    Panel(
        "Pool",
        "Outage",
        "How long the endpoint has been away.",
        "s",
        {_is("speechpool_pool_outage_seconds", how="max"): "{{pool}}"},
    ),
    Panel(
        "Quota",
        "Task starts a second",
        "Granted, and the rate in force.",
        "ops",
        {
            _grows("speechpool_quota_granted_total", "", "model"): "granted {{model}} {{pool}}",
            _is("speechpool_quota_rate", "model"): "rate {{model}} {{pool}}",
        },
    ),
    Panel(
        "Quota",
        "Throttled and shed a second",
        "What the provider, and what our own deadline refused.",
        "ops",
        {
            _grows("speechpool_quota_throttled_total", "", "model"): "throttled {{model}} {{pool}}",
            _grows("speechpool_quota_shed_total", "", "model"): "shed {{model}} {{pool}}",
        },
    ),
    Panel(
        "Quota",
        "Characters a second",
        "As the provider bills them.",
        "short",
        {_grows("speechpool_characters_total"): "{{pool}}"},
    ),
    Panel(
        "Process",
        "Event loop lag",
        "p99 above 100 ms is an alert.",
        "s",
        {quantile(0.99, "speechpool_event_loop_lag_seconds", window=_WINDOW, labels=_LABELS): "p99 {{pool}}"},
        0.1,
    ),
    Panel("Process", "Running tasks", "Begun and not ended.", "short", {_is("speechpool_tasks_running"): "{{pool}}"}),
    Panel(
        "Process", "Leaks", "Leases that nobody returned.", "short", {_is("speechpool_pool_leaks_total"): "{{pool}}"}
    ),
)
"""Every chart."""


def written() -> str:
    """Return the dashboard as a file for Grafana, to import or to provision."""
    return json.dumps(_dashboard(), indent=1) + "\n"


def _dashboard() -> dict[str, Any]:
    return {
        "uid": "speechpool",
        "title": "speechpool",
        "tags": ["speechpool", "tts"],
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    for name in ("job", "instance", "pool"):
        yield {
            "name": name,
            "type": "query",
            "datasource": _SOURCE,
            "query": f"label_values({_TASKS}, {name})",
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
            "refresh": 2,
        }


_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def _panels() -> Iterator[dict[str, Any]]:
    number, top, row, column = 1, 0, "", 0
    for panel in PANELS:
        if panel.row != row:
            top, row, column = top + (_HIGH if column else 0), panel.row, 0
            place = {"x": 0, "y": top, "w": 24, "h": 1}
            yield {"id": number, "type": "row", "title": row, "gridPos": place, "panels": []}
            number, top = number + 1, top + 1
        elif column == 24 // _WIDE:
            top, column = top + _HIGH, 0
        place = {"x": column * _WIDE, "y": top, "w": _WIDE, "h": _HIGH}
        yield _chart(panel, number, place)
        number, column = number + 1, column + 1


def _chart(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    style = {"thresholdsStyle": {"mode": "off" if panel.limit is None else "line"}, "showPoints": "never"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [
            {"refId": chr(65 + at), "expr": question, "legendFormat": legend, "datasource": _SOURCE}
            for at, (question, legend) in enumerate(panel.questions.items())
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": style,
            },
            "overrides": [],
        },
        "options": {"tooltip": {"mode": "multi", "sort": "desc"}},
    }
