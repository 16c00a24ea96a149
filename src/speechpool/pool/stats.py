"""The numbers of a pool at one moment, and the same in a few sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .core import Core, Phase
from .lifetime import Limit

__all__ = ["PoolStats", "explain", "take_stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A pool at one moment. Counters only go up; `opened` is always `closed` plus idle, borrowed and closing.

    Attributes:
        name: The name of the pool.
        endpoint: Where its connections go.
        phase: `new`, `running`, `draining` or `closed`.
        max_size: Most connections, without overflow.
        min_size: The warm floor.
        size: All connections: idle, borrowed, opening and closing, overflow included.
        idle: Connections that can be borrowed at once.
        borrowed: Connections that are lent.
        opening: Dials under way.
        closing: Connections that close and whose peer is not gone yet.
        overflow: Those of `size` that exist beyond `max_size` (`overflow="grow"`).
        replacing: Those of `size` that exist beyond `max_size`, because another one takes their place.
        waiting: Borrowers in line.
        oldest_wait: Seconds that the first of them has waited; 0 where nobody waits.
        predicted_wait: Seconds that an interactive borrower would wait that came now: 0 where a connection is idle,
            None where too little is known.
        opened: Connections that opened.
        open_failed: Dials that failed.
        borrows: Connections that were handed over.
        reused: Those of them that were open before.
        returned: Leases that came back.
        double_returns: Leases that came back twice.
        timeouts: Borrowers whose limit passed.
        cancelled: Borrowers that were cancelled before they had a connection.
        full: Borrowers turned away because too many waited.
        shed: Borrowers turned away at once because they would have waited beyond their deadline.
        refused: Borrowers that failed because the endpoint refuses connections.
        down: Borrowers that failed at once, or waited no longer, because the endpoint was away.
        closed: Connections that are gone.
        discarded: Connections that were closed or began to, by reason; from the 65th reason on, `other`.
        last_error: The last failure to open a connection, if there was one since the last success.
        last_error_age: Seconds since then.
        retry_in: Seconds until the next dial may begin; 0 where it may now.
        outage: Seconds that the endpoint has been away; None: it is not.
        idle_limit: Seconds for which a connection may be idle, as far as is known by now; None: any time.
        age_limit: Seconds for which a connection may live, as far as is known by now; None: any time.
        limited_by: Which limit that it shares with other pools would be in the way of another connection; None: none.
    """

    name: str
    endpoint: str
    phase: str
    max_size: int
    min_size: int
    size: int
    idle: int
    borrowed: int
    opening: int
    closing: int
    overflow: int
    replacing: int
    waiting: int
    oldest_wait: float
    predicted_wait: float | None
    opened: int
    open_failed: int
    borrows: int
    reused: int
    returned: int
    double_returns: int
    timeouts: int
    cancelled: int
    full: int
    shed: int
    refused: int
    down: int
    closed: int
    discarded: Mapping[str, int]
    last_error: BaseException | None
    last_error_age: float | None
    retry_in: float
    outage: float | None
    idle_limit: float | None
    age_limit: float | None
    limited_by: str | None


def take_stats(core: Core, name: str, endpoint: str, now: float) -> PoolStats:
    """Read everything at once, so that the numbers agree with each other."""
    counters, pace = core.counters, core.pace
    return PoolStats(
        name=name,
        endpoint=endpoint,
        phase=core.phase.value,
        max_size=core.max_size,
        min_size=core.floor,
        size=len(core.slots),
        idle=len(core.idle),
        borrowed=core.borrowed,
        opening=core.opening,
        closing=core.closing,
        overflow=core.overflow,
        replacing=core.twins,
        waiting=core.line.size,
        oldest_wait=max(0.0, now - core.line.oldest_since) if core.line.size else 0.0,
        predicted_wait=core.expected_wait(now),
        opened=counters.opened,
        open_failed=counters.open_failed,
        borrows=counters.borrowed,
        reused=counters.reused,
        returned=counters.returned,
        double_returns=counters.double_returns,
        timeouts=counters.timeouts,
        cancelled=counters.cancelled,
        full=counters.full,
        shed=counters.shed,
        refused=counters.refused,
        down=counters.down,
        closed=counters.closed,
        discarded=MappingProxyType(dict(counters.discarded)),
        last_error=pace.error,
        last_error_age=None if pace.error is None else now - pace.error_at,
        retry_in=max(0.0, pace.dial_after - now),
        outage=now - pace.breaker.since if pace.down else None,
        idle_limit=_or_none(core.lifetimes.idle),
        age_limit=_or_none(core.lifetimes.age),
        limited_by=core.limited_by,
    )


def _or_none(limit: Limit) -> float | None:
    return None if limit.seconds == math.inf else limit.seconds


def explain(core: Core, stats: PoolStats) -> str:
    """Say what the pool does now, and why."""
    sentences = [_census(stats), _queue(stats)]
    if stats.phase == Phase.RUNNING.value:
        sentences += [_dialling(core, stats), *_renewing(core, stats)]
    else:
        sentences.append(
            {
                Phase.NEW.value: "It was never entered, so it opens nothing.",
                Phase.DRAINING.value: "It drains: nobody new gets a connection, and each closes when it comes back.",
                Phase.CLOSED.value: "It is closed; what is still borrowed closes when it comes back.",
            }[stats.phase]
        )
    if stats.last_error is not None:
        error = f"{type(stats.last_error).__name__}: {stats.last_error}"
        sentences.append(f"The last dial failed {stats.last_error_age:.1f} s ago ({error}).")
    if stats.discarded:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(stats.discarded.items()))
        sentences.append(f"Closed so far: {reasons}.")
    return " ".join(sentences)


def _census(stats: PoolStats) -> str:
    states = (
        (stats.idle, "idle"),
        (stats.borrowed, "borrowed"),
        (stats.opening, "opening"),
        (stats.closing, "closing"),
    )
    parts = ", ".join(f"{count} {state}" for count, state in states if count) or "none"
    extra = f" ({stats.overflow} of them beyond it)" if stats.overflow else ""
    size = f"{stats.size} of at most {stats.max_size} connections to {stats.endpoint}"
    return f"Pool {stats.name!r} has {size}{extra}: {parts}."


def _queue(stats: PoolStats) -> str:
    if not stats.waiting:
        return f"Nobody waits.{_shed(stats)}"
    who = "1 borrower waits" if stats.waiting == 1 else f"{stats.waiting} borrowers wait"
    expected = "" if stats.predicted_wait is None else f" One more would wait about {stats.predicted_wait:.2g} s."
    return f"{who}, the first for {stats.oldest_wait:.1f} s.{expected}{_shed(stats)}"


def _shed(stats: PoolStats) -> str:
    late = "who would have waited beyond the deadline"
    return f" So far {stats.shed} were shed, {late}." if stats.shed else ""


def _dialling(core: Core, stats: PoolStats) -> str:
    missing = max(core._lacking, stats.waiting - stats.opening)
    if stats.outage is not None:
        probe = "one dial tries it now" if stats.opening else f"one dial tries it in {stats.retry_in:.1f} s"
        if core.pace.proof_at < math.inf:
            probe = "one connection has opened and has to last for a moment"
        return f"The endpoint has been away for {stats.outage:.1f} s, so nobody waits for it; {probe}."
    if missing <= 0:
        return f"Nothing more has to be opened (the floor is {stats.min_size})."
    if stats.retry_in > 0:
        pause = f"the next dial comes in {stats.retry_in:.1f} s, because the last one failed"
        return f"{missing} more should be opened; {pause}."
    if stats.limited_by is not None:
        return f"{missing} more could be used, but {stats.limited_by}."
    if core.total >= core.max_size:
        return f"{missing} more could be used, but max_size is reached: a borrower waits until one comes back."
    return f"{missing} more should be opened, but {stats.opening} dials at once is the limit (max_opening)."


def _renewing(core: Core, stats: PoolStats) -> list[str]:
    sentences = []
    if stats.replacing:
        sentences.append(f"{stats.replacing} of them are being replaced because of their age.")
    idle, age = core.lifetimes.idle, core.lifetimes.age
    if idle.learned:
        sentences.append(
            "Idle connections stay: the server was seen to keep them."
            if stats.idle_limit is None
            else f"Idle connections are replaced within {stats.idle_limit:.3g} s: the server ended some soon after."
        )
    if age.learned and stats.age_limit is not None:
        sentences.append(
            f"Connections are replaced when they are {stats.age_limit:.3g} s old: the server ended some soon after."
        )
    return sentences
