"""Recording and alert rules for Prometheus: burn rates of the error budget to get up for, causes for the next day.

Windows and factors of the burn rates are those of the SRE workbook: https://sre.google/workbook/alerting-on-slos/
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .queries import by, quantile, rate, ratio

__all__ = ["ALERTS", "BUDGET", "RECORDS", "Alert", "Condition", "written"]

BUDGET: Final = 0.001
"""Share of the tasks that may fail: the target of the error rate."""
GUIDE: Final = "docs/monitoring.md#"
_TASKS: Final = "speechpool_tasks_total"
_JUDGED: Final = 'outcome=~"completed|failed"'


def _errors(window: str) -> str:
    return ratio(rate(_TASKS, 'outcome="failed"', window=window), rate(_TASKS, _JUDGED, window=window))


def _reuse() -> str:
    tasks = "speechpool_tasks_connected_total"
    return ratio(rate(tasks, 'reused="true"', window="5m"), rate(tasks, window="5m"))


RECORDS: Final = {
    **{f"speechpool:error_ratio:{window}": _errors(window) for window in ("5m", "30m", "1h", "6h", "3d")},
    **{
        f"speechpool:first_packet_delay_seconds:p{100 * q:g}_5m": quantile(
            q, "speechpool_first_packet_delay_seconds", window="5m"
        )
        for q in (0.5, 0.95, 0.99)
    },
    "speechpool:end_to_end_seconds:p99_5m": quantile(0.99, "speechpool_end_to_end_seconds", window="5m"),
    "speechpool:pool_utilisation:5m": f"avg by (pool) ({rate('speechpool_pool_used_seconds_total', window='5m')})",
    "speechpool:connection_reuse:5m": _reuse(),
}
"""Recording rules: the five signals, ready for dashboards and alerts."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A value and what it must exceed (or fall below) for an alert."""

    value: str
    compared: str
    limit: float

    @property
    def expression(self) -> str:
        """The whole comparison."""
        return f"{self.value} {self.compared} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        name: As Prometheus shows it.
        severity: `page`: somebody must look now; `ticket`: on the next working day.
        conditions: All of them must hold.
        lasting: For how long, before it fires.
        summary: What is the matter, in one line.
        todo: What to do.
    """

    name: str
    severity: str
    conditions: tuple[Condition, ...]
    lasting: str
    summary: str
    todo: str

    @property
    def expression(self) -> str:
        """What Prometheus evaluates."""
        return " and ".join(one.expression for one in self.conditions)


def _burn(name: str, severity: str, factor: float, *, long: str, short: str, lasting: str) -> Alert:
    enough = Condition(f"sum by (pool) (increase({_TASKS}{{{_JUDGED}}}[{long}]))", ">", 20)
    return Alert(
        name,
        severity,
        (
            Condition(f"speechpool:error_ratio:{long}", ">", factor * BUDGET),
            Condition(f"speechpool:error_ratio:{short}", ">", factor * BUDGET),
            enough,
        ),
        lasting,
        f"Tasks fail {factor:g} times as often as the budget of 0.1 % allows, over {long} and {short}.",
        "Look at the error codes (`speechpool_task_errors_total`) and at what the pool says in words on the live page. "
        "ConnectionLost or EndpointDown: the network or the service; a provider's code: its documentation; timeouts: "
        "compare the parts of the first packet delay.",
    )


def _one(name: str, condition: Condition, lasting: str, summary: str, todo: str) -> Alert:
    return Alert(name, "ticket", (condition,), lasting, summary, todo)


ALERTS: Final = (
    _burn("SpeechErrorBudgetBurnsFast", "page", 14.4, long="1h", short="5m", lasting="2m"),
    _burn("SpeechErrorBudgetBurns", "page", 6, long="6h", short="30m", lasting="15m"),
    _burn("SpeechErrorBudgetBurnsSlowly", "ticket", 1, long="3d", short="6h", lasting="1h"),
    Alert(
        "SpeechEndpointDown",
        "page",
        (Condition(by("speechpool_pool_outage_seconds", how="max"), ">", 30),),
        "0m",
        "The endpoint has been away for more than 30 s; borrowers fail at once.",
        "The live page says why (refused, no name, TLS, 401). Check the network and the provider's status; the pool "
        "tries again by itself and needs no restart.",
    ),
    _one(
        "SpeechFirstPacketLate",
        Condition("speechpool:first_packet_delay_seconds:p99_5m", ">", 0.5),
        "5m",
        "The 99th percentile of the first packet delay is above its target of 500 ms.",
        "Compare the stages. `queue`: the pool or the quota is too small; `connect`: too few warm connections, raise "
        "`min_size`; `start` and `synthesis`: the provider, or the way to it.",
    ),
    _one(
        "SpeechBorrowersWait",
        Condition(by("speechpool_pool_oldest_wait_seconds", how="max"), ">", 1),
        "2m",
        "A borrower has waited for more than a second, for minutes on end.",
        "Raise `max_size` (1.6 times the peak of tasks at once), or take fewer tasks. Where `explain()` names a limit, "
        "raise that one.",
    ),
    _one(
        "SpeechPoolNearlyFull",
        Condition("speechpool:pool_utilisation:5m", ">", 0.85),
        "10m",
        "More than 85 % of the pool are in use.",
        "Raise `max_size` to 1.6 times the peak, if the account allows so many tasks at once.",
    ),
    Alert(
        "SpeechConnectionsNotReused",
        "ticket",
        (
            Condition("speechpool:connection_reuse:5m", "<", 0.9),
            Condition(rate("speechpool_tasks_connected_total", window="5m"), ">", 0.1),
        ),
        "15m",
        "Fewer than 90 % of the tasks run on a connection that was open before.",
        "See why connections close (`speechpool_pool_closed_total`). `lost`: something on the way ends idle "
        "connections; `surplus`: raise `max_idle`; errors: the tasks themselves break them.",
    ),
    _one(
        "SpeechLeasesLeak",
        Condition("sum by (pool) (increase(speechpool_pool_leaks_total[15m]))", ">", 0),
        "0m",
        "Leases were dropped without being returned.",
        "Use `async with pool.borrow()`. The log names the place of each borrow.",
    ),
    _one(
        "SpeechThrottled",
        Condition(
            ratio(
                rate("speechpool_quota_throttled_total", window="5m"),
                rate("speechpool_quota_granted_total", window="5m"),
            ),
            ">",
            0.01,
        ),
        "5m",
        "The provider answers more than 1 % of the tasks with throttling.",
        "Set `LocalQuota(rate=...)` slightly below the account's rate, share one quota between all pools of an "
        "account, or ask for a higher one.",
    ),
    _one(
        "SpeechTasksShed",
        Condition(ratio(rate(_TASKS, 'outcome="shed"', window="5m"), rate(_TASKS, window="5m")), ">", 0.01),
        "5m",
        "More than 1 % of the tasks are refused at once, because they would have waited beyond their deadline.",
        "There is more load than pool and quota can carry: raise them, or send some of it elsewhere.",
    ),
    _one(
        "SpeechEventLoopLate",
        Condition(quantile(0.99, "speechpool_event_loop_lag_seconds", window="5m"), ">", 0.1),
        "5m",
        "The event loop is late by more than 100 ms.",
        "Something blocks it: a callback or sink that computes or waits. Move that to a thread, or use more processes.",
    ),
)
"""Every alert, and what to do."""


def written() -> str:
    """Return the rules as a file for Prometheus."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Made by `speechpool dashboard export`; a new version of speechpool may change it."
    yield "groups:"
    yield "  - name: speechpool-signals"
    yield "    rules:"
    for name, expression in RECORDS.items():
        yield f"      - record: {name}"
        yield f"        expr: {json.dumps(expression)}"
    yield "  - name: speechpool-alerts"
    yield "    rules:"
    for alert in ALERTS:
        yield f"      - alert: {alert.name}"
        yield f"        expr: {json.dumps(alert.expression)}"
        yield f"        for: {alert.lasting}"
        yield f"        labels: {{severity: {alert.severity}}}"
        yield "        annotations:"
        yield f"          summary: {json.dumps('{{ $labels.pool }}: ' + alert.summary)}"
        yield f"          description: {json.dumps(alert.todo)}"
        yield f"          runbook_url: {json.dumps(GUIDE + alert.name.lower())}"
