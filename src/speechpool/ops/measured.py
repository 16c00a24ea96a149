"""What was measured already: a report of a load test, or a monitor of running pools, read as a peak and its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from speechpool.errors import SettingsError
from speechpool.monitoring.remote import Remote

from .report import read
from .simulation import simulate

__all__ = ["Measured", "Prediction", "of_monitor", "of_report"]

_ENOUGH: Final = 100
"""Tasks of a stage from which on its waits are compared."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What stands for an expected load. None where it was not measured.

    Attributes:
        peak: Tasks at once at the busiest time.
        task_seconds: Mean seconds for which a task has its connection.
        service_times: The same of many tasks, as quantiles.
    """

    peak: float | None
    task_seconds: float | None
    service_times: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """A stage of a load test, and what would have been predicted for it. Ratios and seconds."""

    stage: str
    max_size: int
    utilisation: float
    predicted_utilisation: float
    wait_p95: float
    predicted_wait_p95: float

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def of_report(path: Path) -> tuple[Measured, list[Prediction]]:
    """Read a report of `speechpool load --json`: what load it stands for, and its stages beside their predictions.

    Raises:
        SettingsError: It cannot be read, or is something else.
    """
    test = read(path)
    try:
        held = test.content["targets"].get("pool", {}).get("total", {}).get("held", ())
        measured = Measured(test.peak, fmean(held) if held else test.task_seconds, tuple(held))
        return measured, _predictions(test.content)
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"the load report {path} is damaged: {error!r} is not as it should be.") from error


def of_monitor(url: str, name: str | None = None) -> Measured:
    """Ask a monitor: its busiest ten seconds so far, and how long tasks had their connections.

    Args:
        url: Of the monitor.
        name: Of the pool; needed where it shows several.

    Raises:
        SettingsError: It shows no such pool, or that pool has not been busy yet.
        ConnectFailed: Nobody answers there.
        Unauthorized: The token is missing or wrong.
    """
    pools = {pool["pool"]: pool for pool in Remote(url).take()}
    if name is None and len(pools) == 1:
        (name,) = pools
    if name not in pools:
        raise SettingsError(f"{url} shows the pools {', '.join(sorted(pools)) or '-'}; say which one with --pool.")
    pool = pools[name]
    peak, use = pool["report"]["lifetime"]["pool_utilisation"]["peak"], pool["histograms"]["use"]
    if not peak or not use["at_most"][-1]:
        raise SettingsError(f"pool {name!r} has not been busy for ten seconds yet, so there is no peak to size for.")
    return Measured(peak * pool["stats"]["max_size"], use["sum"] / use["at_most"][-1])


def _predictions(report: Mapping[str, Any]) -> list[Prediction]:
    """Return, for each judged stage of the pool, what was measured beside what a simulation says of it."""
    size, found = report["setting"].get("size"), []
    for stage in report.get("targets", {}).get("pool", {}).get("stages", ()):
        held, wait, used = stage.get("held"), (stage.get("connection") or {}).get("p95"), stage["utilisation"]
        if not (size and held and stage["rate"] and stage["judged"]) or wait is None or used is None:
            continue
        if stage["tasks"] >= _ENOUGH:
            queue = simulate(stage["tasks"] / stage["seconds"], held, size)
            found.append(Prediction(stage["name"], size, used, queue.utilisation, wait, queue.wait(0.95)))
    return found
