"""Prometheus: a collector that reads the pools when it is asked, so that nothing happens in between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from .catalogue import METRICS, Metric
from .snapshot import Buckets, Snapshot, Snapshots

__all__ = ["SpeechCollector", "registry_of"]

_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}


class SpeechCollector(Collector):
    """Shows pools to `prometheus_client`, e.g. `REGISTRY.register(SpeechCollector([Source(pool)]))`."""

    def __init__(self, sources: Sequence[Snapshots]) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Family]:
        """Return what `collect` will, without samples: so that registering it does not ask the pools."""
        return [_family(metric) for metric in METRICS]

    def collect(self) -> Iterator[Family]:
        """Read every pool once, and return all metrics. One whose loop has ended is left out."""
        snapshots = list(taken(self._sources))
        for metric in METRICS:
            family = _family(metric)
            for snapshot in snapshots:
                for labels, value in metric.read(snapshot):
                    _add(family, (snapshot.stats.name, *labels), value)
            yield family


def taken(sources: Iterable[Snapshots]) -> Iterator[Snapshot]:
    """Take a snapshot of every pool that is still there."""
    from speechpool.errors import PoolClosed

    for source in sources:
        try:
            yield source.take()
        except (PoolClosed, TimeoutError):
            continue


def registry_of(sources: Sequence[Snapshots]) -> CollectorRegistry:
    """Return a registry of its own for these pools."""
    registry = CollectorRegistry()
    registry.register(SpeechCollector(sources))
    return registry


def _family(metric: Metric) -> Family:
    family: Family = _FAMILIES[metric.kind](
        metric.name.removesuffix("_total"), metric.help, labels=("pool", *metric.labels)
    )
    return family


def _add(family: Family, labels: tuple[str, ...], value: float | Buckets) -> None:
    if not isinstance(value, Buckets):
        family.add_metric(labels, value)  # type: ignore[attr-defined]  # each of the three has it
        return
    rows = []
    for edge, count in zip((*value.edges, math.inf), value.at_most, strict=True):
        seen = value.exemplars.get(edge)
        name = "+Inf" if edge == math.inf else repr(float(edge))
        rows.append((name, count) if seen is None else (name, count, Exemplar({"trace_id": seen[0]}, seen[1])))
    family.add_metric(labels, rows, value.sum)  # type: ignore[attr-defined]  # it is the family of histograms
