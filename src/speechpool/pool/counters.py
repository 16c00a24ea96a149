"""What has happened in a pool so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from speechpool.telemetry.histogram import CREATE_EDGES, DURATION_EDGES, USES_EDGES, WAIT_EDGES, Histogram

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Numbers that only go up.

    Attributes:
        opened: Connections that opened; always `closed` plus those that live.
        open_failed: Dials that failed.
        borrowed: Hand-overs, including those that met a cancellation.
        reused: Those of them whose connection was open before.
        returned: Connections that came back, in whatever state.
        double_returns: Returns of what had come back already.
        timeouts: Borrowers whose deadline came first.
        cancelled: Borrowers that were cancelled before they had a connection.
        full: Borrowers turned away because of `max_waiting` or `overflow="fail"`.
        shed: Borrowers turned away at once because they would have waited beyond their deadline.
        refused: Borrowers that failed because the endpoint refuses connections for good.
        down: Borrowers that failed at once, or waited no longer, because the endpoint was away.
        closed: Connections that are gone.
        discarded: Connections that were closed or began to, by reason; from the 65th reason on, `other`.
        waits: Seconds that borrowers waited; those who did not wait are not among them, so that they cost nothing.
        dials: Seconds from the beginning of a dial to its connection.
        uses: Seconds for which connections were lent.
        borrows_per_connection: How often each was lent until it was gone.
    """

    opened: int = 0
    open_failed: int = 0
    borrowed: int = 0
    reused: int = 0
    returned: int = 0
    double_returns: int = 0
    timeouts: int = 0
    cancelled: int = 0
    full: int = 0
    shed: int = 0
    refused: int = 0
    down: int = 0
    closed: int = 0
    discarded: Counter[str] = field(default_factory=Counter)
    waits: Histogram = field(default_factory=partial(Histogram, WAIT_EDGES))
    dials: Histogram = field(default_factory=partial(Histogram, CREATE_EDGES))
    uses: Histogram = field(default_factory=partial(Histogram, DURATION_EDGES))
    borrows_per_connection: Histogram = field(default_factory=partial(Histogram, USES_EDGES))
