"""Sizes and rates against what is expected: `sizes` and `rate` of the checklist."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from speechpool.errors import SettingsError
from speechpool.transport.descriptors import check_descriptors

from .checklist import Finding
from .evidence import Evidence, Plan
from .sizing import FACTOR, advise

__all__ = ["rate", "sizes"]

_LEAST: Final = 1.25
"""Connections for each task at the peak: less, and more than 80 % are used."""
_MOST: Final = 2.0
_DEFAULT_RATE: Final = 3
"""Task starts a second that DashScope documents for an account and a model."""


@dataclass(frozen=True, slots=True)
class _Size:
    """A size of a pool, or of several, and who says so."""

    value: float
    said: str


def _known(evidence: Evidence) -> Iterator[_Size]:
    """Yield every size that is known, from the strongest evidence: what runs, what is set, what is written."""
    metrics, configured, source = evidence.metrics, evidence.configured, evidence.source
    running = {} if metrics is None or isinstance(metrics, Exception) else metrics.max_size
    if running:
        yield _Size(sum(running.values()), f"the running pool{'s' * (len(running) != 1)} {', '.join(sorted(running))}")
    if configured.pool is not None:
        yield _Size(configured.pool.max_size, configured.pool_origin)
    for name, value in configured.object_pools.items():
        yield _Size(value, name)
    if source is not None and not running and len(source.pools) == 1 and source.pools[0].size is not None:
        yield _Size(source.pools[0].size, f"{source.pools[0].kind} in {source.pools[0].place}")


# ------------------------------------------------------------------------------------ sizes
def sizes(evidence: Evidence) -> Iterator[Finding]:
    """Judge the sizes of pools, and the limits around them."""
    plan, known = evidence.plan, list(_known(evidence))
    if plan.peak is None:
        told = f" (known is: {_listed(known)})" if known else ""
        yield Finding.unknown(f"The expected peak is not known{told}.", "add --peak: tasks at once at the busiest time")
        return
    peak = plan.peak / plan.machines
    if not known:
        yield Finding.unknown(
            "The size of the pool is not known.",
            "add --metrics URL of the running program, or set max_size in [pool] of speechpool.toml",
        )
    for size in known:
        yield _fits(size, peak, plan)
    yield from _unused(evidence)
    yield from _bounds(evidence, peak, known)


def _unused(evidence: Evidence) -> Iterator[Finding]:
    """Settings that nothing reads prove nothing."""
    configured, source = evidence.configured, evidence.source
    if configured.pool is not None and source is not None and source.pools and not source.loads:
        yield Finding.warned(
            f"[pool] is set ({configured.pool_origin}), but nothing in {source.folder} loads it.",
            "make pools with settings=PoolSettings.load()",
        )


def _listed(known: list[_Size]) -> str:
    return ", ".join(f"{size.value:g} by {size.said}" for size in known)


def _fits(size: _Size, peak: float, plan: Plan) -> Finding:
    advised = advise(peak, plan.task_seconds or 1.0, factor=FACTOR).chosen.max_size
    told = f"max_size is {size.value:g} ({size.said}), {size.value / peak:.2f} times the peak of {peak:g}"
    remedy = f"set max_size = {advised}; see: speechpool size"
    if size.value < _LEAST * peak:
        why = "tasks have to wait" if size.value < peak else "more than 80 % are used at the peak"
        return Finding.failed(f"{told}: {why}.", remedy)
    if size.value > _MOST * peak:
        return Finding.warned(f"{told}: less than half of it is ever used.", remedy)
    return Finding.passed(f"{told}, so {peak / size.value:.0%} are used then.")


def _bounds(evidence: Evidence, peak: float, known: list[_Size]) -> Iterator[Finding]:
    needed = max((size.value for size in known), default=peak)
    configured = evidence.configured
    for value, name in ((configured.total, "in total"), (configured.per_host, "for one host")):
        if value is not None and value < needed:
            yield Finding.failed(
                f"The environment allows {value} connections {name}, fewer than the {needed:g} of the pool.",
                "raise DASHSCOPE_CONNECTION_POOL_SIZE, DASHSCOPE_MAXIMUM_ASYNC_REQUESTS and "
                "DASHSCOPE_MAXIMUM_ASYNC_REQUESTS_PER_HOST to twice the peak, or unset them",
            )
    try:
        check_descriptors(math.ceil(needed), f"max_size = {needed:g}")
    except SettingsError as error:
        # Of this machine, and the program may run on another one: so it is a doubt only.
        yield Finding.warned(f"On this machine: {error}", "raise it where the program runs (LimitNOFILE=, ulimit -n)")


# ------------------------------------------------------------------------------------ rate
def rate(evidence: Evidence) -> Iterator[Finding]:
    """Judge the starts a second that pools can ask for against the account's."""
    plan = evidence.plan
    if plan.submission_rate is None:
        yield Finding.unknown(
            "The account's limit is not known.",
            f"add --submission-rate; DashScope documents {_DEFAULT_RATE} task starts a second, by account and model",
        )
        return
    if plan.task_seconds is None:
        yield Finding.unknown(
            "How long a task takes is not known, so sizes tell no rates.",
            "add --task-seconds; `speechpool load` measures them",
        )
        return
    if plan.peak is not None:
        yield _peak(plan.peak, plan.task_seconds, plan.submission_rate)
    known = list(_known(evidence))
    for size in known:
        yield _full(size, evidence)
    if not known:
        yield Finding.unknown(
            "The size of the pool is not known.",
            "add --metrics URL of the running program, or set max_size in [pool] of speechpool.toml",
        )


def _peak(peak: float, task_seconds: float, allowed: float) -> Finding:
    asked = peak / task_seconds
    told = f"A peak of {peak:g} tasks of {task_seconds:.3g} s starts {asked:.3g} a second; the account may {allowed:g}"
    if asked > allowed:
        at_once = allowed * task_seconds
        return Finding.failed(
            f"{told}: no more than {at_once:.3g} run at once, however large a pool is.",
            "ask for a higher rate, or size for that",
        )
    return Finding.passed(f"{told}.")


def _full(size: _Size, evidence: Evidence) -> Finding:
    plan = evidence.plan
    assert plan.task_seconds is not None  # noqa: S101  # see `rate`
    assert plan.submission_rate is not None  # noqa: S101  # likewise
    asked = size.value * plan.machines / plan.task_seconds
    told = f"{size.value:g} connections ({size.said}) can start {asked:.3g} tasks a second"
    if asked <= plan.submission_rate:
        return Finding.passed(f"{told}, which the account may.")
    quota = _quota(evidence)
    if quota is not None and quota * plan.machines <= plan.submission_rate:
        return Finding.passed(f"{told}, but the program's own quota lets {quota:g} a second pass.")
    remedy = "share one LocalQuota(rate=...) below the account's rate between its pools, or take fewer connections"
    if plan.peak is not None and plan.peak / plan.task_seconds <= plan.submission_rate:
        return Finding.warned(
            f"{told}, the account only {plan.submission_rate:g}: beyond the peak it is throttled.", remedy
        )
    return Finding.failed(f"{told}, the account only {plan.submission_rate:g}.", remedy)


def _quota(evidence: Evidence) -> float | None:
    metrics = evidence.metrics
    if metrics is None or isinstance(metrics, Exception) or not metrics.quota:
        return None
    return max(metrics.quota.values())
