"""The connections of a pool, in whatever state, and how many there are of each kind.

Every change of a slot's state goes through here, so that the numbers cannot differ from the slots. What they mean and
what follows from them is decided in `core`.

A connection that is due is replaced before it goes: for a while there are *twins*, of which one is about to leave. They
count once, so that a pool may renew itself although it is full.
"""

from __future__ import annotations

import math

from speechpool.settings import PoolSettings
from speechpool.telemetry.totals import count_label

from .counters import Counters
from .slot import Close, Slot, SlotState

__all__ = ["Census"]

_OPENING, _IDLE, _BORROWED = SlotState.OPENING, SlotState.IDLE, SlotState.BORROWED
_CLOSING, _GONE = SlotState.CLOSING, SlotState.GONE


class Census:
    """Slots and their counts.

    Attributes:
        slots: All connections that count, in order of their dials.
        idle: Connections that wait for a borrower; the last one was used last.
        opening: Dials under way.
        borrowed: Connections that are lent.
        closing: Connections whose peer is not gone yet.
        overflow: Connections beyond `max_size`, in whatever state (`overflow="grow"`).
        overflow_closing: Those of them that close.
        twins: Connections that exist beside the one that replaces them.
        twins_standing: Those of them that neither close nor have a replacement that does.
        total: Connections that count towards `max_size`.
        stale: Idle connections that are due and not replaced yet, with since when they were idle.
        counters: What happened so far.
        settings: Sizes and times.
        wake: When something is due next; never later than the truth.
        ceiling: `max_size`, or what a smaller `max_size` has not brought down yet.
    """

    __slots__ = (
        "_leak_after",
        "borrowed",
        "ceiling",
        "closing",
        "counters",
        "fails",
        "floor",
        "grows",
        "idle",
        "idle_limit",
        "max_size",
        "opening",
        "overflow",
        "overflow_closing",
        "settings",
        "slots",
        "stale",
        "total",
        "twins",
        "twins_standing",
        "waiting_limit",
        "wake",
    )

    def __init__(self, settings: PoolSettings) -> None:
        self.slots: dict[Slot, None] = {}
        self.idle: list[Slot] = []
        self.stale: dict[Slot, float] = {}
        self.opening = self.borrowed = self.closing = self.overflow = self.overflow_closing = 0
        self.total = self.twins = self.twins_standing = 0
        self.counters = Counters()
        self.wake = math.inf
        self.ceiling = 0
        self._adopt(settings)

    def _adopt(self, settings: PoolSettings) -> None:
        self.settings = settings
        # Copied, because they are read at every return.
        self.max_size = settings.max_size
        self.floor = settings.floor
        self.idle_limit = settings.idle_limit
        self.waiting_limit = settings.waiting_limit
        self.fails, self.grows = settings.overflow == "fail", settings.overflow == "grow"
        self._leak_after = math.inf if settings.leak_after is None else settings.leak_after
        self.ceiling = max(self.max_size, self.total)

    @property
    def standing(self) -> int:
        """Those of them that do not close: idle, borrowed or opening."""
        return len(self.slots) - self.overflow - self.closing + self.overflow_closing - self.twins_standing

    def _enter(self, slot: Slot, replaced: Slot | None = None) -> None:
        """Count a connection whose dial begins, and which replaces another one."""
        self.slots[slot] = None
        self.opening += 1
        self.overflow += slot.overflow
        if replaced is not None:
            slot.partner, replaced.partner = replaced, slot
            self.twins += 1
            self.twins_standing += 1
        self._count()
        self.wake = min(self.wake, slot.due)

    def _lend(self, slot: Slot, now: float) -> None:
        slot.state = _BORROWED
        slot.lent = True
        slot.lent_at = now
        slot.use += 1
        slot.due = due = now + self._leak_after
        if due < self.wake:  # noqa: PLR1730  # a call of min() costs more than all of this, at every borrow
            self.wake = due
        self.borrowed += 1
        self.counters.borrowed += 1

    def _close(self, slot: Slot, reason: str, now: float) -> Close:
        """Begin to close a connection that the caller has taken out of its former state."""
        if slot.partner is not None and slot.partner.state is not _CLOSING:
            self.twins_standing -= 1
        slot.state = _CLOSING
        slot.due = now + self.settings.close_timeout
        self.closing += 1
        self.overflow_closing += slot.overflow
        count_label(self.counters.discarded, reason)
        self.wake = min(self.wake, slot.due)
        return Close(slot, reason)

    def _end_close(self, slot: Slot) -> None:
        self.closing -= 1
        self.overflow_closing -= slot.overflow
        self._forget(slot)

    def _forget(self, slot: Slot) -> None:
        """Count a connection no longer, whatever it was."""
        if slot.partner is not None:
            self._part(slot, slot.partner)
        # One that never opened counts as a failed dial, not as closed.
        if slot.opened_at < math.inf:
            self.counters.closed += 1
            self.counters.borrows_per_connection.observe(slot.use)
        slot.state = _GONE
        slot.due = math.inf
        del self.slots[slot]
        self.stale.pop(slot, None)
        self.overflow -= slot.overflow
        self._count()
        self.ceiling = max(self.max_size, min(self.ceiling, self.total))

    def _count(self) -> None:
        self.total = len(self.slots) - self.overflow - self.twins

    def _part(self, slot: Slot, partner: Slot) -> None:
        self.twins -= 1
        self.twins_standing -= slot.state is not _CLOSING and partner.state is not _CLOSING
        slot.partner = partner.partner = None
        if slot.state is _OPENING and partner.state is _IDLE:
            self.stale[partner] = partner.idle_since  # its replacement failed
