"""The heart of the pool: a state machine that decides, and does nothing else.

Theory of operation. Every method takes an event and the time, changes the state at once, and returns what has to be
done about it. Nothing awaits, so no cancellation can fall between a check and a hand-over; there is no clock, no
loop, no log and no randomness, so a property test can drive it through any interleaving
(tests/pool/test_core_stateful.py).

    slot:    OPENING ──opened──▶ IDLE ◀──returned── BORROWED
                │                 │  ──hand over──▶    │
                │ open_failed     │ lost, expired      │ unhealthy, expired, lost
                ▼                 ▼                    ▼
               GONE ◀──closed, or close_timeout── CLOSING

A free connection is *placed* (`_place`): with the first waiter that may use it, else among the idle ones, else it is
closed. Missing connections are *refilled* (`_refill`): the floor and the waiters say how many, `max_size`,
`max_opening` and the pause after a failed dial say how many of them now. There is no third way for a connection to
come or go. What holds between any two calls is written down in `invariants`.
"""

from __future__ import annotations

import enum
import math

from speechpool.limits import Backoff
from speechpool.settings import PoolSettings

from .counters import Counters
from .pace import Pace
from .slot import (
    Abandon,
    Abort,
    Action,
    Close,
    Fail,
    HandOver,
    Open,
    Overdue,
    Refusal,
    Report,
    Slot,
    SlotState,
)
from .waiting import FRONT, Waiter, WaitingLine

__all__ = ["LIFETIME_JITTER", "Core", "Phase"]

LIFETIME_JITTER = 0.1
"""Largest share by which the lifetime and the idle time of one connection are shortened, drawn once at its birth:
connections that were warmed up in one burst must not die in one."""
_NOTHING: list[Action] = []
"""What most calls return; nobody may change it."""
_OPENING, _IDLE, _BORROWED = SlotState.OPENING, SlotState.IDLE, SlotState.BORROWED
_CLOSING, _GONE = SlotState.CLOSING, SlotState.GONE


class Phase(enum.Enum):
    """Where the pool is in its life."""

    NEW = "new"
    RUNNING = "running"
    DRAINING = "draining"
    CLOSED = "closed"


class Core:
    """Slots, waiters, and the rules between them.

    Args:
        settings: Sizes and times.
        backoff: Pauses between dials; the only source of randomness.
        connect_timeout: Seconds that a dial may take; None: any time.

    Attributes:
        phase: Where the pool is in its life.
        idle: Connections that wait for a borrower; the last one was used last.
        opening: Dials under way.
        borrowed: Connections that are lent.
        closing: Connections whose peer is not gone yet.
        overflow: Connections beyond `max_size`, in whatever state (`overflow="grow"`).
        overflow_closing: Those of them that close.
        slots: All connections that count.
        line: Who waits.
        pace: When the next dial may begin, and the last failure.
        wake: When `tick` is wanted next; never later than the truth.
        ceiling: `max_size`, or what a smaller `max_size` has not brought down yet.
    """

    __slots__ = (
        "_connect_timeout",
        "_leak_after",
        "_serial",
        "borrowed",
        "ceiling",
        "closing",
        "counters",
        "floor",
        "idle",
        "idle_limit",
        "line",
        "max_size",
        "opening",
        "overflow",
        "overflow_closing",
        "pace",
        "phase",
        "settings",
        "slots",
        "wake",
    )

    def __init__(self, settings: PoolSettings, backoff: Backoff, *, connect_timeout: float | None = 10.0) -> None:
        self._connect_timeout = _or_never(connect_timeout)
        self._serial = 0
        self.phase = Phase.NEW
        self.slots: dict[Slot, None] = {}
        self.idle: list[Slot] = []
        self.opening = self.borrowed = self.closing = self.overflow = self.overflow_closing = 0
        self.line = WaitingLine()
        self.pace = Pace(settings, backoff)
        self.counters = Counters()
        self.wake = math.inf
        self.ceiling = 0
        self._adopt(settings)

    def __repr__(self) -> str:
        return (
            f"<Core {self.phase.value}: {len(self.idle)} idle, {self.borrowed} borrowed, {self.opening} opening, "
            f"{self.closing} closing, {self.line.size} waiting>"
        )

    def _adopt(self, settings: PoolSettings) -> None:
        self.settings = settings
        # Copied, because they are read at every return.
        self.max_size = settings.max_size
        self.floor = settings.floor
        self.idle_limit = settings.idle_limit
        self._leak_after = _or_never(settings.leak_after)
        self.ceiling = max(self.max_size, self.total)

    @property
    def total(self) -> int:
        """Connections that count towards `max_size`."""
        return len(self.slots) - self.overflow

    @property
    def standing(self) -> int:
        """Those of them that do not close: idle, borrowed or opening."""
        return self.total - self.closing + self.overflow_closing

    # Life of the pool

    def start(self, now: float) -> list[Action]:
        """Begin: open the floor."""
        if self.phase is not Phase.NEW:
            return _NOTHING
        self.phase = Phase.RUNNING
        return self._refill(now)

    def resize(self, settings: PoolSettings, now: float) -> list[Action]:
        """Take other sizes. Borrowed connections beyond a smaller one live until their return."""
        self._adopt(settings)
        actions: list[Action] = []
        while self.idle and (self.standing > self.max_size or len(self.idle) > self.idle_limit):
            actions.append(self._close(self.idle.pop(0), "resized", now))
        return actions + self._refill(now)

    def drain(self, now: float) -> list[Action]:
        """Lend to nobody new. Who waits already is served; what nobody needs is closed."""
        if self.phase is Phase.RUNNING or self.phase is Phase.NEW:
            self.phase = Phase.DRAINING
            return self._close_idle("drained", now)
        return _NOTHING

    def close(self, now: float) -> list[Action]:
        """End: waiters fail in this call, idle connections close, dials stop, borrowed connections close on return."""
        if self.phase is Phase.CLOSED:
            return _NOTHING
        self.phase = Phase.CLOSED
        actions: list[Action] = [Fail(waiter, Refusal.CLOSED) for waiter in self.line.dismiss()]
        for slot in self.slots:
            if slot.state is _OPENING:
                slot.due = math.inf
                actions.append(Abandon(slot))
        return actions + self._close_idle("closed", now)

    def abort_borrowed(self, now: float) -> list[Action]:
        """Drop what is still lent. The borrowers may return it later, without effect."""
        actions: list[Action] = []
        for slot in [slot for slot in self.slots if slot.state is _BORROWED]:
            self.borrowed -= 1
            self.counters.discarded["aborted"] += 1
            self._forget(slot)
            actions.append(Abort(slot))
        return actions + self._refill(now)

    def _close_idle(self, reason: str, now: float) -> list[Action]:
        slots = self.idle.copy()
        self.idle.clear()
        return [self._close(slot, reason, now) for slot in slots]

    # Borrowing and returning

    def borrow(self, waiter: Waiter, now: float) -> list[Action]:
        """Serve a waiter: at once, later, or not at all.

        A waiter of rank FRONT has had a connection already: neither a full queue nor a drain turns it away.
        """
        actions = self.tick(now) if now >= self.wake else _NOTHING
        self._serial += 1
        waiter.stand(self._serial)
        if self.idle and not waiter.fresh:
            slot = self.take(now)
            waiter.slot, waiter.use = slot, slot.use
            return [*actions, HandOver(waiter, slot)]
        refusal = self._refusal(waiter, now)
        if refusal is not None:
            return [*actions, Fail(waiter, refusal)]
        self.line.join(waiter)
        self.wake = min(self.wake, waiter.deadline)
        self.pace.hurry()
        return actions + self._refill(now)

    def take(self, now: float) -> Slot:
        """Lend the idle connection that was used last.

        Only where `idle` is not empty and no tick is due. Nobody can be passed by: while a connection is idle, only
        those wait who need a fresh one, and the pool runs.
        """
        slot = self.idle.pop()
        self.counters.reused += 1
        self._lend(slot, now)
        return slot

    def _lend(self, slot: Slot, now: float) -> None:
        slot.state = _BORROWED
        slot.lent = True
        slot.use += 1
        slot.due = due = now + self._leak_after
        if due < self.wake:  # noqa: PLR1730  # a call of min() costs more than all of this, at every borrow
            self.wake = due
        self.borrowed += 1
        self.counters.borrowed += 1

    def _refusal(self, waiter: Waiter, now: float) -> Refusal | None:
        """Say why a waiter that finds nothing must not stand in line."""
        if self.phase is Phase.CLOSED or (self.phase is not Phase.RUNNING and waiter.rank != FRONT):
            return Refusal.CLOSED
        if waiter.deadline <= now:
            self.counters.timeouts += 1
            return Refusal.TIMEOUT
        # A refused key cannot be helped by waiting, a connection that comes back can.
        if self.pace.refused is not None and (waiter.fresh or not self.borrowed):
            self.counters.refused += 1
            return Refusal.REFUSED
        if waiter.rank != FRONT and (self.line.size >= self.settings.waiting_limit or self._hopeless(waiter)):
            self.counters.full += 1
            return Refusal.FULL
        return None

    def _hopeless(self, waiter: Waiter) -> bool:
        """Whether, under `overflow="fail"`, no dial can serve one more waiter."""
        if self.settings.overflow != "fail":
            return False
        room = self.max_size - self.standing + (len(self.idle) if waiter.fresh else 0)
        return self.line.size >= self.opening + room

    def cancel(self, waiter: Waiter, now: float) -> list[Action]:
        """Let a waiter go. What it was given in this very moment goes to the next one, or back."""
        slot, waiter.slot = waiter.slot, None
        if slot is not None:
            self.counters.cancelled += 1
            return self.returned(slot, waiter.use, now, used=False)
        if self.line.leave(waiter):
            self.counters.cancelled += 1
        return _NOTHING

    def returned(
        self, slot: Slot, use: int, now: float, *, healthy: bool = True, reason: str = "unhealthy", used: bool = True
    ) -> list[Action]:
        """Take back a connection.

        Runs without awaiting, so no cancellation can fall between the checks and the hand-over
        (tests/pool/test_cancellation.py::test_t02_cancelled_in_the_tick_of_the_hand_over).

        Args:
            slot: What was lent.
            use: Which hand-over it was.
            now: The time.
            healthy: It may be lent again.
            reason: Why not.
            used: False where the borrower was cancelled before it could do anything.
        """
        if not slot.lent or slot.use != use:
            self.counters.double_returns += 1
            return [Report(slot, "returned twice")]
        slot.lent = False
        self.counters.returned += 1
        if slot.state is not _BORROWED:
            return _NOTHING  # abort_borrowed has dropped it meanwhile
        self.borrowed -= 1
        if healthy and not slot.dead:
            if self.pace.doubtful and used:
                self.pace.proved()
                return [*self._place(slot, now, dialled=False), *self._refill(now)]
            return self._place(slot, now, dialled=False)
        if slot.dead:
            reason = "lost"
            self.pace.died(slot, now, awaited=self.line.size > 0)
        return [self._close(slot, reason, now), *self._refill(now)]

    # Placing a connection that is free

    def _place(self, slot: Slot, now: float, *, dialled: bool) -> list[Action]:
        """Find the next owner of an open connection, or close it."""
        reason = self._unwanted(slot, now)
        if reason is not None:
            return [self._close(slot, reason, now), *self._refill(now)]
        if self.line.size:
            waiter = self.line.first(slot.serial)
            if waiter is not None:
                self._give(waiter, slot, now, dialled=dialled)
                return [HandOver(waiter, slot)]
        if slot.overflow or len(self.idle) >= self.idle_limit or self.phase is not Phase.RUNNING:
            reason = "overflow" if slot.overflow else "surplus" if self.phase is Phase.RUNNING else "drained"
            return [self._close(slot, reason, now), *self._refill(now)]
        slot.state = _IDLE
        slot.due = due = min(slot.expires, now + slot.idle_life)
        if due < self.wake:  # noqa: PLR1730  # a call of min() costs more than all of this, at every borrow
            self.wake = due
        self.idle.append(slot)
        return self._refill(now) if self.line.size else _NOTHING

    def _unwanted(self, slot: Slot, now: float) -> str | None:
        """Say why an open connection must not be lent again, whoever waits."""
        if now >= slot.expires:
            return "lifetime"
        if len(self.slots) > self.max_size and self.standing > self.max_size and not slot.overflow:
            return "resized"
        if self.phase is Phase.CLOSED:
            return "closed"
        # Who needs a fresh connection and came first must not starve behind those whom this one serves.
        if self.line.size and self._missing_room(now) > 0:
            first = self.line.first()
            if first is not None and first.fresh and first.serial > slot.serial:
                return "made_room"
        return None

    def _give(self, waiter: Waiter, slot: Slot, now: float, *, dialled: bool) -> None:
        self.line.leave(waiter)
        self._lend(slot, now)
        waiter.slot, waiter.use = slot, slot.use
        waiter.reused = not dialled
        if dialled:
            waiter.connect_time = now - max(waiter.since, slot.dialled_at)
        else:
            self.counters.reused += 1

    # Opening connections

    def opened(self, slot: Slot, connection: object, now: float, *, jitter: float = 0.0) -> list[Action]:
        """Take in a connection that has opened.

        Args:
            slot: Whose dial it was.
            connection: What it opened; not looked into.
            now: The time.
            jitter: How much of `LIFETIME_JITTER` shortens the life of this connection; 0 to 1.
        """
        if slot.state is not _OPENING:
            return [Report(slot, "opened twice")]
        self.opening -= 1
        self._serial += 1
        slot.serial = self._serial
        slot.connection = connection
        slot.opened_at = now
        share = 1.0 - LIFETIME_JITTER * jitter
        slot.expires = now + share * _or_never(self.settings.max_lifetime)
        slot.idle_life = share * _or_never(self.settings.idle_timeout)
        self.counters.opened += 1
        if slot.dead:
            self.pace.died(slot, now, awaited=self.line.size > 0)
            return [self._close(slot, "lost", now), *self._refill(now)]
        self.pace.opened(now)
        self.wake = min(self.wake, self.pace.proof_at)
        actions = self._place(slot, now, dialled=True)
        return [*actions, *self._refill(now)]

    def open_failed(
        self, slot: Slot, error: BaseException, now: float, *, permanent: bool = False, pause: float = 0.0
    ) -> list[Action]:
        """Learn that a dial failed. Nothing stops the refill for good; it only slows down.

        Args:
            slot: Whose dial it was.
            error: Why.
            now: The time.
            permanent: Trying again does not help: whoever waits fails at once, and the pauses are the longest.
            pause: Seconds without a dial, at least (the server asked for them).
        """
        if slot.state is not _OPENING:
            return [Report(slot, "failed twice")]
        self.opening -= 1
        self._forget(slot)
        self.counters.open_failed += 1
        self.pace.failed(slot, error, now, permanent=permanent, pause=pause, awaited=self.line.size > 0)
        actions: list[Action] = []
        if permanent:
            waiters = self.line.dismiss()
            self.counters.refused += len(waiters)
            actions += [Fail(waiter, Refusal.REFUSED) for waiter in waiters]
        return actions + self._refill(now)

    def _refill(self, now: float) -> list[Action]:
        """Dial what the floor and the waiters miss, as far as size, herd limit and pause allow."""
        if self.phase is not Phase.RUNNING and not self.line.size:
            return _NOTHING
        waiting = self.line.size
        # A dial under way serves one waiter, whoever that will be; so a cancelled and repeated borrow dials once.
        wanted = max(self._lacking, waiting - self.opening)
        if wanted <= 0:
            return _NOTHING
        if now < self.pace.dial_after:
            self.wake = min(self.wake, self.pace.dial_after)
            return _NOTHING
        missing = min(self._missing_room(now), len(self.idle))
        actions: list[Action] = [self._close(self.idle.pop(0), "made_room", now) for _ in range(missing)]
        limit = self._dial_limit()
        while wanted > 0 and self.opening < limit and self.total < self.max_size and self._may_dial():
            actions.append(self._dial(now, overflow=False))
            wanted -= 1
        if self.settings.overflow == "grow":
            while waiting > self.opening and self.opening < limit and self._may_dial():
                actions.append(self._dial(now, overflow=True))
        return actions

    def _dial_limit(self) -> int:
        """How many dials may run at once."""
        return self.settings.max_opening

    @property
    def _lacking(self) -> int:
        """How many connections the floor misses."""
        return self.floor - self.standing if self.phase is Phase.RUNNING else 0

    def _may_dial(self) -> bool:
        """Take a place for one more connection, where they are shared with other pools."""
        return True

    @property
    def limited_by(self) -> str | None:
        """What would be in the way of a dial that its own sizes allow; None: nothing."""
        return None

    def _missing_room(self, now: float) -> int:
        """How many idle connections stand in the way of waiters that need a fresh one."""
        if now < self.pace.dial_after or self.settings.overflow == "grow":
            return 0  # no dial would follow, or it needs no room
        coming = self.opening + self.closing - self.overflow_closing + max(0, self.max_size - self.total)
        return self.line.fresh - coming

    def _dial(self, now: float, *, overflow: bool) -> Open:
        slot = Slot(now, now + self._connect_timeout, overflow=overflow)
        slot.round = self.pace.round
        self.slots[slot] = None
        self.opening += 1
        self.overflow += overflow
        self.wake = min(self.wake, slot.due)
        return Open(slot)

    # Ends

    def lost(self, slot: Slot, now: float) -> list[Action]:
        """Learn that a connection ended, or received what nobody asked for. It leaves the idle ones in this call."""
        if slot.state is _IDLE:
            self.idle.remove(slot)
            self.pace.died(slot, now, awaited=self.line.size > 0)
            return [self._close(slot, "lost", now), *self._refill(now)]
        if slot.state is _BORROWED or slot.state is _OPENING:
            slot.dead = True  # the borrower keeps it until its return
        return _NOTHING

    def closed(self, slot: Slot, now: float) -> list[Action]:
        """Learn that the peer is gone: the place is free."""
        if slot.state is not _CLOSING:
            return _NOTHING
        self.closing -= 1
        self.overflow_closing -= slot.overflow
        self._forget(slot)
        return self._refill(now)

    def _close(self, slot: Slot, reason: str, now: float) -> Close:
        slot.state = _CLOSING
        slot.due = now + self.settings.close_timeout
        self.closing += 1
        self.overflow_closing += slot.overflow
        self.counters.discarded[reason] += 1
        self.wake = min(self.wake, slot.due)
        return Close(slot, reason)

    def _forget(self, slot: Slot) -> None:
        # One that never opened counts as a failed dial, not as closed.
        self.counters.closed += slot.opened_at < math.inf
        slot.state = _GONE
        slot.due = math.inf
        del self.slots[slot]
        self.overflow -= slot.overflow
        self.ceiling = max(self.max_size, min(self.ceiling, self.total))

    # Time

    def tick(self, now: float) -> list[Action]:
        """Do what is due, and find out when that is next."""
        actions: list[Action] = []
        for waiter in self.line.expire(now):
            self.counters.timeouts += 1
            actions.append(Fail(waiter, Refusal.TIMEOUT))
        if now >= self.pace.proof_at:
            self.pace.proved()
        actions += [self._overdue(slot, now) for slot in [slot for slot in self.slots if slot.due <= now]]
        actions += self._refill(now)
        dial_after = self.pace.dial_after
        self.wake = min(
            min((slot.due for slot in self.slots), default=math.inf),
            self.line.next_deadline,
            self.pace.proof_at,
            dial_after if dial_after > now else math.inf,
        )
        return actions

    def _overdue(self, slot: Slot, now: float) -> Action:
        if slot.state is _IDLE:
            self.idle.remove(slot)
            return self._close(slot, "lifetime" if now >= slot.expires else "idle_timeout", now)
        if slot.state is _CLOSING:
            self.closing -= 1
            self.overflow_closing -= slot.overflow
            self._forget(slot)
            return Abort(slot)
        slot.due = math.inf
        return Abandon(slot) if slot.state is _OPENING else Overdue(slot)


def _or_never(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds
