"""What holds in a core between any two calls."""

from __future__ import annotations

import math

from .core import Core, Phase
from .slot import SlotState

__all__ = ["check"]


def check(core: Core) -> None:
    """Raise AssertionError where a core contradicts itself. For tests; looks at every slot and waiter."""
    for problem, holds in _rules(core):
        if not holds:
            raise AssertionError(f"{problem}: {core!r}")


def _rules(core: Core) -> list[tuple[str, bool]]:
    return [*_counts(core), *_limits(core), *_waiters(core), *_books(core), *_timers(core)]


def _counts(core: Core) -> list[tuple[str, bool]]:
    states = [slot.state for slot in core.slots]
    overflow = [slot for slot in core.slots if slot.overflow]
    pairs = [(slot, slot.partner) for slot in core.slots if slot.partner is not None]
    twins = [pair for pair in pairs if pair[0].dialled_at < pair[1].dialled_at]
    standing = [pair for pair in twins if SlotState.CLOSING not in {pair[0].state, pair[1].state}]
    closing = [slot for slot in overflow if slot.state is SlotState.CLOSING]
    return [
        ("idle is miscounted", len(core.idle) == len(set(core.idle)) == states.count(SlotState.IDLE)),
        ("opening is miscounted", core.opening == states.count(SlotState.OPENING)),
        ("borrowed is miscounted", core.borrowed == states.count(SlotState.BORROWED)),
        ("closing is miscounted", core.closing == states.count(SlotState.CLOSING)),
        ("twins are miscounted", core.twins == len(twins)),
        ("standing twins are miscounted", core.twins_standing == len(standing)),
        (
            "a partner that is none",
            all(partner.partner is slot and partner in core.slots for slot, partner in pairs),
        ),
        ("overflow is miscounted", core.overflow == len(overflow)),
        ("closing overflow is miscounted", core.overflow_closing == len(closing)),
        ("a slot is kept that is gone", SlotState.GONE not in states),
        ("an idle one is not", all(slot.state is SlotState.IDLE for slot in core.idle)),
        ("an idle one is dead or extra", not any(slot.dead or slot.overflow for slot in core.idle)),
        ("lent and not borrowed", all(slot.lent == (slot.state is SlotState.BORROWED) for slot in core.slots)),
    ]


def _limits(core: Core) -> list[tuple[str, bool]]:
    return [
        ("more connections than max_size", core.total <= core.ceiling),
        ("more replacements than max_replacing", core.twins <= core.settings.max_replacing),
        ("overflow that was not asked for", not core.overflow or core.settings.overflow == "grow"),
        ("a herd of dials", core.opening <= core.settings.max_opening),
        ("more idle connections than max_idle", len(core.idle) <= core.idle_limit),
    ]


def _waiters(core: Core) -> list[tuple[str, bool]]:
    youngest = max((slot.serial for slot in core.idle), default=0)
    return [
        ("waiters are miscounted", core.line.size == len(list(core.line))),
        ("somebody waits beside an idle connection", not core.idle or core.line.first(youngest) is None),
        ("idle connections outlive the pool", not core.idle or core.phase is Phase.RUNNING),
        ("somebody waits for a pool that is closed", not core.line.size or core.phase is not Phase.CLOSED),
    ]


def _books(core: Core) -> list[tuple[str, bool]]:
    counters = core.counters
    alive = len(core.idle) + core.borrowed
    return [
        ("opened is not closed + live", counters.opened == counters.closed + alive + core.closing),
        ("discarded is not opened - alive", sum(counters.discarded.values()) == counters.opened - alive),
    ]


def _timers(core: Core) -> list[tuple[str, bool]]:
    return [
        ("a slot is not looked at", core.wake <= min((slot.due for slot in core.slots), default=math.inf)),
        ("a waiter is not looked at", core.wake <= core.line.next_deadline),
    ]
