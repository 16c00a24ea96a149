"""The questions that dashboards and rules ask, in PromQL; every name in them is looked up in the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .catalogue import named

__all__ = ["by", "mean", "names_in", "quantile", "rate", "ratio"]


def _checked(metric: str) -> str:
    named(metric)  # a KeyError here is a metric that was renamed
    return metric


def _selector(metric: str, where: str, labels: str) -> str:
    inside = ", ".join(part for part in (labels, where) if part)
    return f"{metric}{{{inside}}}" if inside else metric


def rate(metric: str, where: str = "", *, window: str, labels: str = "", also: Iterable[str] = ()) -> str:
    """How much a counter grows in a second, for each pool and each of the labels in `also`."""
    return f"sum by ({', '.join(['pool', *also])}) (rate({_selector(_checked(metric), where, labels)}[{window}]))"


def by(metric: str, where: str = "", *, labels: str = "", also: Iterable[str] = (), how: str = "sum") -> str:
    """A gauge, for each pool and each of the labels in `also`."""
    return f"{how} by ({', '.join(['pool', *also])}) ({_selector(_checked(metric), where, labels)})"


def ratio(part: str, whole: str) -> str:
    """One rate over another."""
    return f"{part} / {whole}"


def quantile(q: float, histogram: str, *, window: str, labels: str = "") -> str:
    """A quantile of a histogram for each pool."""
    buckets = _selector(f"{_checked(histogram)}_bucket", "", labels)
    return f"histogram_quantile({q:g}, sum by (pool, le) (rate({buckets}[{window}])))"


def mean(histogram: str, *, window: str, labels: str = "", also: Iterable[str] = ()) -> str:
    """The mean of a histogram for each pool and each of the labels in `also`."""
    names = ", ".join(["pool", *also])
    total, count = (_selector(f"{_checked(histogram)}_{what}", "", labels) for what in ("sum", "count"))
    return f"sum by ({names}) (rate({total}[{window}])) / sum by ({names}) (rate({count}[{window}]))"


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression asks for, without the endings of histograms."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bspeechpool_[a-z_]+\b", expression)}
