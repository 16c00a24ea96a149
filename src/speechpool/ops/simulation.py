"""How long borrowers wait for one of c connections, with service times that were measured: drawn, not assumed."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Queue", "simulate"]

TASKS: Final = 40_000
"""Tasks of one simulation: p99 is then off by some per cent."""
_WARM_UP: Final = 0.05
"""Share of them that finds the connections emptier than later ones do, and does not count."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What came out. Seconds, and ratios.

    Attributes:
        utilisation: Share of the connections that was in use.
        waiting: Share of the borrowers that had to wait.
        waits: Of all borrowers, ascending.
    """

    utilisation: float
    waiting: float
    waits: Sequence[float]

    def wait(self, q: float) -> float:
        """Return the seconds within which a share `q` of all borrowers is served."""
        return self.waits[min(len(self.waits) - 1, math.ceil(q * len(self.waits)))]


def simulate(rate: float, service_times: Sequence[float], servers: int, *, tasks: int = TASKS, seed: int = 1) -> Queue:
    """Play the line of a pool: tasks come by chance, the first in line is served first.

    Args:
        rate: Tasks that come in a second.
        service_times: Seconds for which a task has its connection; each is as likely as the others.
        servers: Connections.
        tasks: How many are played.
        seed: Of all chances: the same arguments give the same waits.
    """
    chance = random.Random(seed)
    free, now, busy, waits = [0.0] * servers, 0.0, 0.0, []
    for _ in range(tasks):
        now += chance.expovariate(rate)
        begin = max(now, free[0])
        service = chance.choice(service_times)
        heapq.heapreplace(free, begin + service)
        busy += service
        waits.append(begin - now)
    kept = sorted(waits[int(_WARM_UP * tasks) :])
    return Queue(busy / servers / max(now, *free), sum(wait > 0 for wait in kept) / len(kept), kept)
