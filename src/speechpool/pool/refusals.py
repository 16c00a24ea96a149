"""What a borrower is told when it gets no connection: what happened, the numbers, and what to do."""

from __future__ import annotations

from speechpool.errors import EndpointDown, PoolClosed, PoolFull, PoolTimeout, Shed

from .core import Core, Phase
from .forecast import spread
from .slot import Refusal
from .stats import PoolStats
from .waiting import Waiter

__all__ = ["away", "copied", "refusal"]


def refusal(reason: Refusal, core: Core, stats: PoolStats, waiter: Waiter, now: float) -> BaseException:
    """Return the error for a borrower that was turned away."""
    if reason is Refusal.CLOSED:
        return _closed(core, stats)
    if reason is Refusal.FULL:
        return _full(core, stats)
    if reason is Refusal.REFUSED and core.pace.refused is not None:
        return copied(core.pace.refused)
    if reason is Refusal.DOWN and stats.last_error is not None:
        return away(stats)
    if reason is Refusal.SHED and waiter.predicted is not None:
        return _shed(stats, waiter.predicted, waiter.deadline - waiter.since)
    return _timeout(stats, now - waiter.since)


def _closed(core: Core, stats: PoolStats) -> PoolClosed:
    state = {
        Phase.NEW: "was never opened; await open() first",
        Phase.DRAINING: "drains and lends nothing more; use another one",
    }.get(core.phase, "is closed; open a new one")
    return PoolClosed(f"pool {stats.name!r} {state}.", endpoint=stats.endpoint)


def away(stats: PoolStats) -> EndpointDown:
    """Return the error for somebody who would have to wait for an endpoint that is away."""
    error, age = stats.last_error, stats.last_error_age or 0.0
    tries = "It is being tried now" if stats.opening else f"The next try comes in {stats.retry_in:.1f} s"
    down = EndpointDown(
        f"{stats.endpoint} has been away for {stats.outage or 0.0:.1f} s; the last try failed {age:.1f} s ago: "
        f"{str(error).rstrip('.')}. {tries}; pool {stats.name!r} goes on by itself when one succeeds. "
        "Check the endpoint, or raise outage_after if borrowers should wait for longer.",
        cause=error,
        age=age,
        endpoint=stats.endpoint,
    )
    down.__cause__ = error
    return down


def _full(core: Core, stats: PoolStats) -> PoolFull:
    settings = core.settings
    limit = (
        'overflow="fail" lets nobody wait'
        if settings.overflow == "fail" and stats.waiting < settings.waiting_limit
        else f"{stats.waiting} borrowers wait already (max_waiting = {settings.waiting_limit})"
    )
    return PoolFull(
        f"pool {stats.name!r} has nothing idle ({stats.borrowed} borrowed of max_size = {stats.max_size}), "
        f"and {limit}. Slow down, or raise the limit.",
        endpoint=stats.endpoint,
    )


def _shed(stats: PoolStats, wait: float, left: float) -> Shed:
    margin = spread(wait, stats.waiting + 1)
    return Shed(
        f"a connection of pool {stats.name!r} would come in {wait:.3g} s, give or take {margin:.2g} s, "
        f"the deadline in {left:.3g} s: {stats.waiting} wait already, for {stats.size} connections. Send less, wait "
        "longer, or raise max_size.",
        predicted_wait=wait,
        endpoint=stats.endpoint,
    )


def _timeout(stats: PoolStats, waited: float) -> PoolTimeout:
    if stats.last_error is not None:
        remedy = (
            f"The last dial failed {stats.last_error_age:.1f} s ago: {stats.last_error} "
            "Check the endpoint; the pool keeps trying."
        )
    elif stats.limited_by is not None:
        remedy = f"The pool may not dial: {stats.limited_by}. Raise it, or lower the min_size of other pools."
    elif stats.opening and stats.size < stats.max_size:
        remedy = "Dials are slow: raise min_size or max_opening so that connections are warm before they are needed."
    else:
        remedy = "Raise max_size, shorten the tasks, or accept a longer borrow_timeout."
    error = PoolTimeout(
        f"no connection of pool {stats.name!r} to {stats.endpoint} became free within {waited:.3g} s: {stats.size} of "
        f"at most {stats.max_size} exist, {stats.idle} idle, {stats.borrowed} borrowed, {stats.opening} opening, and "
        f"{stats.waiting} others wait. {remedy}",
        waited=waited,
        total=stats.size,
        idle=stats.idle,
        borrowed=stats.borrowed,
        waiting=stats.waiting,
        last_error=stats.last_error,
        last_error_age=stats.last_error_age,
        endpoint=stats.endpoint,
    )
    error.__cause__ = stats.last_error
    return error


def copied(error: BaseException) -> BaseException:
    """Return an error of its own for one borrower.

    The kept one is raised by nobody: each raise would add the frames of a borrower to it, and keep their variables
    alive.
    """
    copy = type(error).__new__(type(error))
    copy.__dict__.update(error.__dict__)
    copy.args = error.args
    copy.__cause__ = error.__cause__
    return copy
