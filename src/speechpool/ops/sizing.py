"""From an expected peak to the settings of a pool, and which limit binds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from speechpool.errors import SettingsError
from speechpool.telemetry.signals import as_seconds

from .queueing import chance_of_waiting, wait
from .simulation import simulate

__all__ = ["FACTOR", "Advice", "Row", "advise", "shown"]

FACTOR: Final = 1.6
"""Connections for each task at the peak: 62.5 % used. The rules of 60-80 % used and of 1.5-2 times the peak share only
1.5-1.67 times."""
WS_MEMORY, WSS_MEMORY, BASE_MEMORY = 16e3, 57e3, 60e6
"""Bytes of an idle connection without and with TLS, and of the process (`benchmarks/memory.py`)."""
REPLACING: Final = 4
"""Connections beside the pool while some are replaced (`max_replacing`)."""
SPARE: Final = 64
"""Descriptors for everything else."""
_FACTORS: Final = (1.0, 1.1, 1.25, 1.5, 1.6, 1.67, 2.0)


@dataclass(frozen=True, slots=True)
class Row:
    """A size, and what it means at the peak. Ratios, and seconds (None: borrowers never catch up)."""

    max_size: int
    utilisation: float
    waiting: float
    wait_p95: float | None
    wait_p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to set, for one of several machines.

    Attributes:
        peak: Tasks at once at the busiest time, on this machine.
        task_seconds: Mean seconds of a task.
        rate: Task starts a second at the peak, on this machine.
        chosen: The size that is advised.
        others: Sizes around it, to compare.
        memory: Bytes that such a pool takes, with its process.
        descriptors: That it needs.
        binding: Which limit is in the way, in a sentence; empty: none.
        feasible_peak: Tasks at once that the account's rate allows, on this machine; None: no rate was given.
    """

    peak: float
    task_seconds: float
    rate: float
    chosen: Row
    others: Sequence[Row]
    memory: float
    descriptors: int
    binding: str
    feasible_peak: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything ready for JSON."""
        return asdict(self)


def advise(
    peak: float,
    task_seconds: float,
    *,
    submission_rate: float | None = None,
    machines: int = 1,
    tls: bool = True,
    factor: float = FACTOR,
    service_times: Sequence[float] = (),
) -> Advice:
    """Return what to set for an expected peak.

    Args:
        peak: Tasks at once at the busiest time, over all machines.
        task_seconds: Mean seconds of a task, from its begin to the end of its audio.
        submission_rate: Task starts a second that the account may make, over all machines; None: any.
        machines: That share the load.
        tls: Connections are wss.
        factor: Connections for each task at the peak.
        service_times: Seconds for which tasks had their connections, as a load test saw them: the waits are then those
            of a simulation with these. Without, those of Erlang's formula, which assumes that most tasks are short.

    Raises:
        SettingsError: A number is out of its range.
    """
    for name, value in (("peak", peak), ("task seconds", task_seconds), ("submission rate", submission_rate)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise SettingsError(f"{name} = {value} must be above 0.")
    if machines < 1 or not 1 <= factor <= 10:
        raise SettingsError(f"machines = {machines} must be 1 or more, factor = {factor} from 1 to 10.")
    own, rate = peak / machines, peak / machines / task_seconds
    chosen = _row(own, task_seconds, math.ceil(factor * own), service_times)
    sizes = sorted({math.ceil(each * own) for each in _FACTORS} | {chosen.max_size})
    connection = WSS_MEMORY if tls else WS_MEMORY
    return Advice(
        peak=own,
        task_seconds=task_seconds,
        rate=rate,
        chosen=chosen,
        others=tuple(_row(own, task_seconds, size, service_times) for size in sizes),
        memory=BASE_MEMORY + chosen.max_size * connection,
        descriptors=chosen.max_size + REPLACING + SPARE,
        binding=_binding(peak, task_seconds, submission_rate),
        feasible_peak=None if submission_rate is None else submission_rate * task_seconds / machines,
    )


def shown(wait: float | None) -> str:
    """Return a wait of a `Row` for people."""
    return "for ever" if wait is None else as_seconds(wait)


def _row(load: float, duration: float, size: int, service_times: Sequence[float]) -> Row:
    if service_times and load < size:
        queue = simulate(load / duration, service_times, size)
        return Row(size, load / size, queue.waiting, queue.wait(0.95), queue.wait(0.99))
    p95, p99 = (wait(load, size, duration, q) for q in (0.95, 0.99))
    return Row(size, load / size, chance_of_waiting(load, size), _finite(p95), _finite(p99))


def _finite(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds


def _binding(peak: float, task_seconds: float, submission_rate: float | None) -> str:
    if submission_rate is None or peak / task_seconds <= submission_rate:
        return ""
    return (
        f"The account may start {submission_rate:g} tasks a second, and this peak needs {peak / task_seconds:.3g}: "
        f"however large the pool is, no more than {submission_rate * task_seconds:.3g} tasks run at once. "
        "Ask for a higher rate; until then, size for that."
    )
