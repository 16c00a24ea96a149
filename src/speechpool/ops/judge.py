"""From evidence to the checklist: the reasons of every verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from speechpool.monitoring.rules import ALERTS
from speechpool.protocol.inference import Inference

from . import capacity, programs, report, watching
from .checklist import TITLES, Checklist, Finding, Item
from .evidence import Evidence
from .probe import Probe

__all__ = ["judged"]

_SKEW_WARN, _SKEW_FAIL = 5.0, 60.0
"""Seconds."""
_FAR = 0.15
"""Seconds of a TCP round trip that are too many for a region nearby: they are added to each first packet."""
_CERTIFICATE_DAYS = 14.0
_NAME_ONE = "add --endpoint URL or --region NAME, or set [endpoint] in speechpool.toml; and have a key"


def judged(evidence: Evidence) -> Checklist:
    """Return every item with its verdict."""
    found = {
        "key": programs.key(evidence),
        "sizes": capacity.sizes(evidence),
        "rate": capacity.rate(evidence),
        "failed": programs.failed(evidence),
        "shutdown": programs.shutdown(evidence),
        "region": _region(evidence),
        "monitoring": _monitoring(evidence),
        "load": _load(evidence),
        "retries": programs.retries(evidence),
        "alerts": _alerts(evidence),
        "idle": _idle(evidence),
        "clock": _clock(evidence),
    }
    return Checklist(tuple(Item(name, tuple(found[name])) for name in TITLES))


# ------------------------------------------------------------------------------------ the endpoint
def _region(evidence: Evidence) -> Iterator[Finding]:
    seen = evidence.probe
    if seen is None:
        yield Finding.unknown(evidence.undialled, _NAME_ONE)
        return
    if not seen.secure and not seen.local:
        yield Finding.failed(
            f"{seen.endpoint} is used without TLS: the key and all texts can be read on the way.",
            "use the wss:// URL of the endpoint",
        )
    if seen.error is not None:
        yield Finding.failed(str(seen.error), "correct the URL, the region, the workspace or the key; then check again")
        return
    yield Finding.passed(f"{seen.endpoint} took the key{_where(seen)}, {_times(seen)}.")
    yield from _doubts(seen)


def _where(seen: Probe) -> str:
    return " (this machine has no region to mistake)" if seen.local else ", and a key belongs to one region"


def _times(seen: Probe) -> str:
    parts = [f"handshake {_ms(seen.handshake)}"]
    if seen.lookup is not None:
        parts.append(f"DNS {_ms(seen.lookup)} ({', '.join(seen.addresses[:3])})")
    if seen.connect is not None:
        parts.append(f"TCP {_ms(seen.connect)}")
    if seen.tls is not None:
        parts.append(f"{seen.tls_version} {_ms(seen.tls)}")
    if seen.certificate_days is not None:
        parts.append(f"certificate for {seen.certificate_days:.0f} more days")
    return ", ".join(parts)


def _doubts(seen: Probe) -> Iterator[Finding]:
    if seen.certificate_days is not None and seen.certificate_days < _CERTIFICATE_DAYS:
        yield Finding.warned(
            f"The certificate of {seen.host} ends in {seen.certificate_days:.1f} days.", "renew it before that"
        )
    if seen.connect is not None and seen.connect > _FAR:
        yield Finding.warned(
            f"A round trip to {seen.host} takes {_ms(seen.connect)}, which every first packet pays.",
            "use a region near this machine, or move the program to the region",
        )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"


def _clock(evidence: Evidence) -> Iterator[Finding]:
    seen = evidence.probe
    if seen is None:
        yield Finding.unknown(evidence.undialled, _NAME_ONE)
    elif seen.skew is None:
        why = "A proxy is in between" if not seen.direct else f"{seen.host} told no date"
        yield Finding.unknown(f"{why}, so the clocks were not compared.", "look at timedatectl or chronyc tracking")
    elif abs(seen.skew) <= _SKEW_WARN:
        yield Finding.passed(
            f"The clock of {seen.host} differs by {abs(seen.skew):.1f} s, which is as good as a date tells."
        )
    else:
        side = "behind" if seen.skew > 0 else "ahead of"
        finding = Finding.failed if abs(seen.skew) > _SKEW_FAIL else Finding.warned
        yield finding(
            f"This machine is {abs(seen.skew):.0f} s {side} {seen.host}: certificates, tokens and logs go by it.",
            "let NTP set it (systemd-timesyncd, chrony)",
        )


def _idle(evidence: Evidence) -> Iterator[Finding]:
    seen, pool = evidence.probe, evidence.configured.pool
    if seen is None:
        yield Finding.unknown(evidence.undialled, _NAME_ONE)
        return
    if seen.handshake is None:
        yield Finding.unknown("The endpoint could not be dialled.", "see the item `region`")
        return
    chosen = None if pool is None else pool.idle_timeout
    limit = chosen or Inference().lifetime.idle_timeout or math.inf
    renewed = f"the pool renews one after {limit:g} s ({'idle_timeout' if chosen else 'known of DashScope'})"
    closed = seen.closed_after
    if closed is not None and closed <= limit:
        yield Finding.failed(
            f"{seen.host}, or something on the way, closed an idle connection after {closed:.3g} s; {renewed}.",
            f"set idle_timeout = {0.8 * closed:.2g} in [pool], or PoolSettings(idle_timeout=...)",
        )
    elif closed is not None or seen.watched >= limit:
        kept = f"closed one after {closed:.3g} s" if closed else f"kept one for {seen.watched:.3g} s"
        yield Finding.passed(f"Of idle connections, {seen.host} {kept}; {renewed}.")
    else:
        watched = f"only watched for {seen.watched:.3g} s" if seen.watched else "not watched"
        yield Finding.unknown(
            f"An idle connection to {seen.host} was {watched}; {renewed}.", f"add --watch-idle {limit + 10:.0f}"
        )


# ------------------------------------------------------------------------------------ who watches
def _monitoring(evidence: Evidence) -> Iterator[Finding]:
    yield from _exposed(evidence)
    yield from _shown(evidence)


def _exposed(evidence: Evidence) -> Iterator[Finding]:
    metrics = evidence.metrics
    remedy = "serve the metrics (monitoring.serve(pool)), and add --metrics http://HOST:9464/"
    if metrics is None:
        yield Finding.unknown("The metrics of the running program were not read.", remedy)
    elif isinstance(metrics, Exception):
        yield Finding.failed(str(metrics), remedy)
    else:
        missing = [
            signal for signal, (name, _) in watching.SIGNALS.items() if not metrics.names & {name, f"{name}_bucket"}
        ]
        place = ", ".join(metrics.places)
        if missing:
            yield Finding.failed(f"{place} shows no metric for {', '.join(missing)}.", remedy)
        else:
            yield Finding.passed(f"{place} shows all three signals for {_pools(sorted(metrics.max_size))}.")


def _pools(names: Sequence[str]) -> str:
    return f"pool{'s' * (len(names) != 1)} {', '.join(names)}"


def _shown(evidence: Evidence) -> Iterator[Finding]:
    dashboards = evidence.dashboards
    remedy = "speechpool dashboard export DIR, and load its dashboard; then --dashboards DIR or --grafana URL"
    if dashboards is None:
        yield Finding.unknown("No dashboard was looked at.", remedy)
    elif isinstance(dashboards, Exception):
        yield Finding.failed(str(dashboards), remedy)
    elif missing := [signal for signal in watching.SIGNALS if signal not in dashboards.shown]:
        yield Finding.failed(
            f"None of {dashboards.count} dashboards of {dashboards.place} shows {', '.join(missing)}.", remedy
        )
    else:
        titles = ", ".join(dict.fromkeys(dashboards.shown.values()))
        yield Finding.passed(f"All three signals are shown by {titles} of {dashboards.place}.")
    rules = evidence.rules
    if rules is not None and not isinstance(rules, Exception) and not rules.series:
        yield Finding.failed(
            f"Prometheus at {rules.place} has no series speechpool_tasks_total, so dashboards stay empty.",
            "let it scrape the program's /metrics (scrape_configs)",
        )


def _alerts(evidence: Evidence) -> Iterator[Finding]:
    rules = evidence.rules
    remedy = "speechpool dashboard export DIR, and name its rules in rule_files of Prometheus"
    if rules is None:
        yield Finding.unknown("No Prometheus was asked for its alerts.", "add --prometheus URL")
        return
    if isinstance(rules, Exception):
        yield Finding.failed(str(rules), "correct --prometheus URL")
        return
    ours = [alert.name for alert in ALERTS]
    missing = [name for name in ours if name not in rules.alerts]
    broken = [f"{name}: {rules.alerts[name]}" for name in ours if rules.alerts.get(name)]
    if broken:
        yield Finding.failed(f"Prometheus at {rules.place} cannot evaluate {'; '.join(broken)}.", remedy)
    if missing:
        told = "none of our alerts" if len(missing) == len(ours) else f"not the alerts {', '.join(missing)}"
        yield Finding.failed(f"Prometheus at {rules.place} has loaded {told}.", remedy)
    if not broken and not missing:
        yield Finding.passed(f"Prometheus at {rules.place} has loaded all {len(ours)} alerts, and evaluates them.")


# ------------------------------------------------------------------------------------ the load test
def _load(evidence: Evidence) -> Sequence[Finding]:
    plan = evidence.plan
    if evidence.report is None:
        return [
            Finding.unknown(
                "There is no report of a load test.",
                "run: speechpool load --peak N --json FILE; then add --load-report FILE",
            )
        ]
    where = None if evidence.probe is None else evidence.probe.endpoint.partition("/")[0]
    return report.judged(
        evidence.report, peak=plan.peak, task_seconds=plan.task_seconds, max_age=plan.report_age, where=where
    )
