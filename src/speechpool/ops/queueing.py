"""How long borrowers wait for one of c connections: Erlang's formula, for tasks that come by chance (M/M/c)."""

from __future__ import annotations

import math

__all__ = ["chance_of_waiting", "wait"]


def chance_of_waiting(load: float, servers: int) -> float:
    """Return the probability that whoever comes has to wait.

    Args:
        load: Tasks at once on average (erlangs): arrivals a second times seconds a task.
        servers: Connections.
    """
    if load >= servers:
        return 1.0
    blocked = 1.0  # Erlang B, step by step: no factorial grows too large
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def wait(load: float, servers: int, duration: float, q: float) -> float:
    """Return the seconds within which a share `q` of all borrowers is served; infinite where they never catch up.

    Args:
        load: As above.
        servers: Connections.
        duration: Mean seconds of a task.
        q: 0.95: nineteen in twenty.
    """
    if load >= servers:
        return math.inf
    waits = chance_of_waiting(load, servers)
    return max(0.0, math.log(waits / (1 - q)) * duration / (servers - load)) if waits > 0 else 0.0
