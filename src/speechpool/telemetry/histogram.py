"""Counts of values in buckets: one `bisect` and two additions a value, and quantiles with a known error.

The bounds are a grid of 20 steps a decade, joined with the edges that dashboards know. So a quantile is off by less
than one step (14 %), every published edge is a bound and exports without error, and 0.5 s, where the first packet delay
is judged, is a bound, too: "p99 is below 500 ms" is decided exactly, never by interpolation.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

__all__ = [
    "CREATE_EDGES",
    "DELAY_BOUNDS",
    "DURATION_BOUNDS",
    "DURATION_EDGES",
    "FACTOR_EDGES",
    "FIRST_PACKET_EDGES",
    "LAG_EDGES",
    "USES_EDGES",
    "WAIT_EDGES",
    "Histogram",
    "log_bounds",
]

FIRST_PACKET_EDGES = (
    0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Buckets to publish for the first packet delay, in seconds."""
DURATION_EDGES = (
    0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Buckets to publish for whole tasks, in seconds."""
WAIT_EDGES = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Buckets to publish for waits, in seconds."""
CREATE_EDGES = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
"""Buckets to publish for opening a connection, in seconds."""
FACTOR_EDGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)
"""Buckets to publish for the real-time factor."""
LAG_EDGES = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Buckets to publish for the lag of the event loop, in seconds."""
USES_EDGES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Buckets to publish for borrows a connection."""

_STEPS = 20
"""Buckets a decade."""
_TOO_NEAR = 1.03
"""A grid bound nearer to an edge than this ratio gives way to it."""


def log_bounds(lowest: float, highest: float, edges: Iterable[float] = ()) -> tuple[float, ...]:
    """Return bounds from `lowest` to `highest`, 20 a decade and evenly spaced in their logarithm, `edges` included."""
    kept = sorted({lowest, highest, *edges})
    first, last = math.floor(_STEPS * math.log10(lowest)), math.ceil(_STEPS * math.log10(highest))
    grid = (float(f"{10 ** (step / _STEPS):.3g}") for step in range(first, last + 1))
    free = [
        bound
        for bound in grid
        if lowest < bound < highest and all(max(bound / edge, edge / bound) > _TOO_NEAR for edge in kept)
    ]
    return tuple(sorted([*kept, *free]))


DELAY_BOUNDS = log_bounds(0.005, 60.0, FIRST_PACKET_EDGES)
"""Bounds for first packet delays, in seconds: 5 ms to a minute."""
DURATION_BOUNDS = log_bounds(0.005, 600.0, DURATION_EDGES)
"""Bounds for whole tasks, in seconds: 5 ms to the ten minutes of the longest task."""


class Histogram:
    """How often values fell into which bucket. Bucket i holds `bounds[i - 1] < value <= bounds[i]`.

    Args:
        bounds: Upper bounds, ascending; one more bucket holds whatever is larger than the last.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values in each bucket; not cumulative."""
        self.sum = 0.0
        """Sum of all values."""

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Mean of all values, exact; None without any."""
        count = self.count
        return self.sum / count if count else None

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def quantile(self, q: float) -> float | None:
        """Return the value that a share `q` of all values does not exceed; None without any.

        It is the value of nearest rank. Its bucket is exact, its place inside is interpolated: the error is below the
        width of the bucket, which is below 14 % of the value inside the bounds. A value beyond the last bound is
        given as that bound; one below the first lies between 0 and it.
        """
        rank = max(1, math.ceil(q * self.count - 1e-9))
        below = 0
        for index, held in enumerate(self.counts):
            if held and below + held >= rank:
                return self._inside(index, (rank - below - 0.5) / held)
            below += held
        return None

    def _inside(self, index: int, share: float) -> float:
        if index == len(self.bounds):
            return self.bounds[-1]
        lower = self.bounds[index - 1] if index else 0.0
        return lower + share * (self.bounds[index] - lower)

    def at_most(self, edges: Iterable[float]) -> list[int]:
        """Return how many values do not exceed each edge, as Prometheus counts its buckets.

        Exact where the edge is one of the bounds, as the published edges are; else counted at the next lower bound.
        The bucket of everything, `+Inf`, is `count`.
        """
        totals = [0, *accumulate(self.counts)]
        return [totals[bisect_left(self.bounds, edge) + (edge in self.bounds)] for edge in edges]

    def add(self, other: Histogram) -> None:
        """Add the values of `other`, which has the same bounds."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum
