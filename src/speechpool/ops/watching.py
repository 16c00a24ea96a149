"""Who watches: the metrics of the running program, the dashboards, and the alerts of Prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from speechpool.errors import ConnectFailed, SettingsError

from .fetching import Server

__all__ = ["SIGNALS", "Dashboards", "Metrics", "Rules", "from_files", "from_grafana", "rules_of", "scraped"]

SIGNALS: Final[Mapping[str, tuple[str, ...]]] = {
    "first packet delay": ("speechpool_first_packet_delay_seconds", "speechpool:first_packet_delay_seconds"),
    "error rate": ("speechpool_tasks_total", "speechpool:error_ratio"),
    "pool utilisation": ("speechpool_pool_used_seconds_total", "speechpool:pool_utilisation"),
}
"""What the list asks for, and the metrics or recording rules that show it."""
_MOST: Final = 500
"""Dashboards of a Grafana that are looked at."""


# ------------------------------------------------------------------------------------ the program's own metrics
@dataclass(slots=True)
class Metrics:
    """What the metrics of one or several processes say.

    Attributes:
        places: Where they were read.
        names: The names of all samples.
        max_size: By pool, added up over the processes.
        quota: Task starts a second that the program allows itself, by account and model, added up likewise.
    """

    places: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    max_size: dict[str, float] = field(default_factory=dict)
    quota: dict[str, float] = field(default_factory=dict)


def scraped(urls: Iterable[str]) -> Metrics:
    """Read the metrics at URLs of `speechpool.monitoring`, or of anything that shows its collector.

    Raises:
        SettingsError: A URL is none, or `prometheus-client` is missing.
        ConnectFailed: Nobody answers, or what answers has no metrics.
    """
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ModuleNotFoundError as error:
        raise SettingsError("--metrics needs prometheus-client: pip install 'speechpool[monitoring]'") from error
    metrics = Metrics()
    for url in urls:
        server = Server("the program with the metrics", url, access="add ?token=TOKEN to its URL")
        path = server.path if server.path.endswith("metrics") else f"{server.path}/metrics"
        try:
            samples = [one for each in text_string_to_metric_families(server.text(path)) for one in each.samples]
        except ValueError:
            raise ConnectFailed(f"what answers at {server.place}{path} shows no metrics of Prometheus.") from None
        metrics.places.append(server.place)
        for sample in samples:
            metrics.names.add(sample.name)
            labels = sample.labels
            if sample.name == "speechpool_pool_max_size":
                _add(metrics.max_size, labels.get("pool", ""), sample.value)
            elif sample.name == "speechpool_quota_limit":
                _add(metrics.quota, f"{labels.get('account', '')} {labels.get('model', '')}".strip(), sample.value)
    return metrics


def _add(into: dict[str, float], name: str, value: float) -> None:
    into[name] = into.get(name, 0.0) + value


# ------------------------------------------------------------------------------------ Prometheus
@dataclass(frozen=True, slots=True)
class Rules:
    """What a Prometheus has loaded.

    Attributes:
        place: Host and port.
        alerts: Names of all alert rules, with what is wrong with each; empty: nothing.
        series: Series of `speechpool_tasks_total` that it has now.
    """

    place: str
    alerts: Mapping[str, str]
    series: int


def rules_of(url: str) -> Rules:
    """Ask a Prometheus for its rules, and whether it has our metrics.

    Raises:
        SettingsError: It is no URL.
        ConnectFailed: Nobody answers, or what answers is no Prometheus.
    """
    server = Server("Prometheus", url)
    try:
        groups = server.json("/api/v1/rules")["data"]["groups"]
        alerts = {
            str(rule["name"]): "" if rule["health"] != "err" else str(rule.get("lastError") or "it has an error")
            for group in groups
            for rule in group["rules"]
            if rule["type"] == "alerting"
        }
        asked = f"query={quote('count(speechpool_tasks_total)')}"
        found = server.json("/api/v1/query", asked)["data"]["result"]
        series = int(float(found[0]["value"][1])) if found else 0
    except (KeyError, TypeError, IndexError) as error:
        raise ConnectFailed(f"what answers at {server.place} is no Prometheus: its answer has another form.") from error
    return Rules(server.place, alerts, series)


# ------------------------------------------------------------------------------------ dashboards
@dataclass(frozen=True, slots=True)
class Dashboards:
    """What dashboards show.

    Attributes:
        place: A folder, or Grafana's host and port.
        count: How many were looked at.
        shown: By signal, the title of one that shows it.
    """

    place: str
    count: int
    shown: Mapping[str, str]


def from_files(folder: Path) -> Dashboards:
    """Look at the dashboards of Grafana in a folder: what provisioning loads.

    Raises:
        SettingsError: There is no such folder, or a dashboard in it is no JSON.
    """
    if not folder.is_dir():
        raise SettingsError(f"--dashboards {folder} is no folder; name the one that Grafana's provisioning reads.")
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"--dashboards: {path} cannot be read as JSON ({error}).") from error
        if isinstance(content, dict) and "panels" in content:
            found.append((path.name, content))
    return _shown(str(folder), found)


def from_grafana(url: str, token: str | None) -> Dashboards:
    """Look at all dashboards of a Grafana, 500 at most.

    Raises:
        SettingsError: It is no URL.
        ConnectFailed: Nobody answers, or what answers is no Grafana.
        Unauthorized: The token is missing or wrong.
    """
    server = Server("Grafana", url, token=token, access="put the token of a service account into GRAFANA_TOKEN")
    try:
        uids = [one["uid"] for one in server.json("/api/search", f"type=dash-db&limit={_MOST}")]
        pages = [server.json(f"/api/dashboards/uid/{quote(str(uid))}")["dashboard"] for uid in uids]
        return _shown(server.place, [(str(page.get("title")), page) for page in pages])
    except (KeyError, TypeError, AttributeError) as error:
        raise ConnectFailed(f"what answers at {server.place} is no Grafana: its answer has another form.") from error


def _shown(place: str, dashboards: list[tuple[str, Any]]) -> Dashboards:
    shown: dict[str, str] = {}
    for title, content in dashboards:
        questions = " ".join(_questions(content))
        for signal, names in SIGNALS.items():
            if any(name in questions for name in names):
                shown.setdefault(signal, title)
    return Dashboards(place, len(dashboards), shown)


def _questions(content: Any) -> Iterator[str]:
    """Yield every PromQL expression in a dashboard."""
    if isinstance(content, dict):
        for name, value in content.items():
            if name == "expr" and isinstance(value, str):
                yield value
            else:
                yield from _questions(value)
    elif isinstance(content, list):
        for each in content:
            yield from _questions(each)
