"""Everything that the checklist may rest on; what was not looked at is None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from speechpool.errors import ConnectFailed
from speechpool.settings import PoolSettings

from .probe import Probe
from .report import LoadTest
from .source import Source
from .watching import Dashboards, Metrics, Rules

__all__ = ["Configured", "Evidence", "Failure", "Key", "Plan"]

Failure = ConnectFailed
"""Why something that was asked for could not be looked at."""


@dataclass(frozen=True, slots=True)
class Key:
    """Where the key comes from.

    Attributes:
        origin: In words, e.g. "environment variable DASHSCOPE_API_KEY".
        safe: It is an environment variable.
    """

    origin: str
    safe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """What is set.

    Attributes:
        key: The key; None: there is none.
        pool: The settings of pools, where any is set.
        pool_origin: Where they are set.
        object_pools: Sizes of object pools, by the environment variable of the Java SDK that names them.
        total: Most connections of a process, by the environment.
        per_host: Most connections to one host, likewise.
    """

    key: Key | None = None
    pool: PoolSettings | None = None
    pool_origin: str = ""
    object_pools: Mapping[str, int] = field(default_factory=dict)
    total: int | None = None
    per_host: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is expected.

    Attributes:
        peak: Tasks at once at the busiest time, on the machines that share it.
        task_seconds: Mean seconds of a task.
        submission_rate: Task starts a second that the account may make.
        machines: That share the peak.
        report_age: Days after which a load test proves nothing.
    """

    peak: float | None = None
    task_seconds: float | None = None
    submission_rate: float | None = None
    machines: int = 1
    report_age: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All of it. A `Failure` stands where something was asked for and could not be seen.

    Attributes:
        undialled: Why there is no probe.
    """

    configured: Configured
    plan: Plan
    undialled: str = ""
    probe: Probe | None = None
    source: Source | None = None
    report: LoadTest | None = None
    metrics: Metrics | Failure | None = None
    rules: Rules | Failure | None = None
    dashboards: Dashboards | Failure | None = None
