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
`max_opening`, the pause after a failed dial and an outage say how many of them now. One that has been idle or has
lived for long enough is *renewed* (`_renew`): another one is dialled beside it and takes its place. There is no fourth
way for a connection to come or go. What holds between any two calls is written down in `invariants`.
"""

from __future__ import annotations

import enum
import math

from speechpool.limits import Backoff
from speechpool.settings import LifetimeProfile, PoolSettings

from .census import Census
from .forecast import Forecast, spread
from .lifetime import Lifetimes
from .pace import Pace
from .slot import (
    Abandon,
    Abort,
    Action,
    Fail,
    HandOver,
    Open,
    Overdue,
    Refusal,
    Report,
    Slot,
    SlotState,
)
from .waiting import BULK, BULK_AGEING, FRONT, INTERACTIVE, Waiter, WaitingLine

__all__ = ["UNKNOWN", "Core", "Phase"]

_NOTHING: list[Action] = []
"""What most calls return; nobody may change it."""
_OPENING, _IDLE, _BORROWED = SlotState.OPENING, SlotState.IDLE, SlotState.BORROWED
_CLOSING = SlotState.CLOSING
UNKNOWN = LifetimeProfile()
"""Of a provider of which nothing is known."""


class Phase(enum.Enum):
    """Where the pool is in its life."""

    NEW = "new"
    RUNNING = "running"
    DRAINING = "draining"
    CLOSED = "closed"


_RUNNING = Phase.RUNNING


class Core(Census):
    """Slots, waiters, and the rules between them.

    Args:
        settings: Sizes and times.
        backoff: Pauses between dials; the only source of randomness.
        connect_timeout: Seconds that a dial may take; None: any time.
        profile: How long the provider is known to keep connections.

    Attributes:
        phase: Where the pool is in its life.
        line: Who waits.
        pace: When the next dial may begin, and the last failure.
        forecast: How long somebody would wait.
        lifetimes: How long connections live, as far as is known.
    """

    __slots__ = ("_connect_timeout", "_serial", "forecast", "lifetimes", "line", "pace", "phase")

    def __init__(
        self,
        settings: PoolSettings,
        backoff: Backoff,
        *,
        connect_timeout: float | None = 10.0,
        profile: LifetimeProfile = UNKNOWN,
    ) -> None:
        self._connect_timeout = math.inf if connect_timeout is None else connect_timeout
        self._serial = 0
        self.phase = Phase.NEW
        self.line = WaitingLine()
        self.pace = Pace(settings, backoff)
        self.forecast = Forecast()
        self.lifetimes = Lifetimes(settings, profile)
        super().__init__(settings)

    def __repr__(self) -> str:
        return (
            f"<Core {self.phase.value}: {len(self.idle)} idle, {self.borrowed} borrowed, {self.opening} opening, "
            f"{self.closing} closing, {self.line.size} waiting>"
        )

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
        self._serial = waiter.serial = self._serial + 1
        if self.idle and not waiter.fresh:
            slot = self.take(now)
            waiter.slot, waiter.use = slot, slot.use
            return [*actions, HandOver(waiter, slot)]
        if now < self.pace.dial_after:
            self.pace.hurry()  # whoever is turned away in an outage wants its end, too
        refusal = self._refusal(waiter, now)
        if refusal is not None:
            return [*actions, Fail(waiter, refusal), *self._refill(now)]
        if not self.line.size:
            self.forecast.begin(now, self.counters.borrowed)
        self.line.join(waiter)
        if waiter.deadline < self.wake:  # noqa: PLR1730  # as in `_place`
            self.wake = waiter.deadline
        if self.total < self.max_size or waiter.fresh or self.grows:
            return actions + self._refill(now)
        return actions  # a full pool has nothing to dial

    def take(self, now: float) -> Slot:
        """Lend the idle connection that was used last.

        Only where `idle` is not empty and no tick is due. Nobody can be passed by: while a connection is idle, only
        those wait who need a fresh one, and the pool runs.
        """
        slot = self.idle.pop()
        self.counters.reused += 1
        self._lend(slot, now)
        return slot

    def _refusal(self, waiter: Waiter, now: float) -> Refusal | None:
        """Say why a waiter that finds nothing must not stand in line."""
        if self.phase is not _RUNNING and (self.phase is Phase.CLOSED or waiter.rank != FRONT):
            return Refusal.CLOSED
        if waiter.deadline <= now:
            self.counters.timeouts += 1
            return Refusal.TIMEOUT
        # A refused key cannot be helped by waiting, a connection that comes back can.
        if self.pace.refused is not None and (waiter.fresh or not self.borrowed):
            self.counters.refused += 1
            return Refusal.REFUSED
        if (waiter.fresh or not self.borrowed) and self.pace.down and (self.opening or now < self.pace.dial_after):
            self.counters.down += 1
            return Refusal.DOWN
        size, rank = self.line.size, waiter.rank
        if rank != FRONT and (size >= self.waiting_limit or (self.fails and self._hopeless(waiter))):
            self.counters.full += 1
            return Refusal.FULL
        if size * self.forecast.alarm > waiter.deadline - now or now > self.forecast.alarm_until or rank == BULK:
            return self._shed(waiter, now)
        return None

    def _shed(self, waiter: Waiter, now: float) -> Refusal | None:
        """Let a waiter go at once that would hardly be served before its deadline.

        In an overload the line is as long as this lets it be. Were it so long that half of those at its end came too
        late, these would wait for nothing; a little shorter, it keeps the connections just as busy.
        """
        # Whoever would be the first in line may stay: the pool learns by those who wait.
        if not self.line.size or waiter.rank == FRONT or waiter.fresh or self._growing:
            return None
        waiter.predicted = wait = self.expected_wait(now, waiter.rank)
        if wait is None or wait + spread(wait, self.line.size + 1) <= waiter.deadline - now:
            return None
        self.counters.shed += 1
        return Refusal.SHED

    def expected_wait(self, now: float, rank: int = INTERACTIVE) -> float | None:
        """Return the seconds that one would wait who came now; None where that is not known."""
        if self.idle:
            return 0.0
        if self._growing:
            return self.forecast.dial
        line = self.line
        if line.size:
            self.forecast.look(now, self.counters.borrowed, self.total)
        place = line.ahead(rank, now) + 1
        wait = self.forecast.wait(place, now, self.total, opening=self.opening, waiting=line.size > 0)
        if wait is not None and rank == BULK:
            # It is passed by as many interactive ones as there are among those who came lately.
            bulk = (line.bulk + 1) / place
            wait = min(wait / bulk, wait + (1 - bulk) * BULK_AGEING)
        return wait

    @property
    def _growing(self) -> bool:
        """Whether a dial can serve who comes now, so that the hand-overs so far say nothing of it."""
        return self.grows or (self.total < self.max_size and self.limited_by is None)

    def _hopeless(self, waiter: Waiter) -> bool:
        """Whether, under `overflow="fail"`, no dial can serve one more waiter."""
        room = self.max_size - self.standing + (len(self.idle) if waiter.fresh else 0)
        return self.line.size >= self.opening + room

    def cancel(self, waiter: Waiter, now: float) -> list[Action]:
        """Let a waiter go. What it was given in this very moment goes to the next one, or back."""
        slot, waiter.slot = waiter.slot, None
        if slot is not None:
            self.counters.cancelled += 1
            self.forecast.skip()
            return self.returned(slot, waiter.use, now, used=False)
        if self.line.leave(waiter):
            self.counters.cancelled += 1
        return _NOTHING

    def returned(
        self, slot: Slot, use: int, now: float, healthy: bool = True, reason: str = "unhealthy", *, used: bool = True
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
        counters = self.counters
        counters.returned += 1
        counters.uses.observe(now - slot.lent_at)
        if healthy and self.line.size and slot.state is _BORROWED and not (slot.dead or self.pace.doubtful):
            waiter = None if self._unwanted(slot, now) else self.line.serve(slot.serial)
            if waiter is not None:  # from hand to hand: it stays borrowed
                counters.borrowed += 1
                counters.reused += 1
                counters.waits.observe(now - waiter.since)
                waiter.slot = slot
                waiter.use = slot.use = use + 1
                slot.lent_at = now
                slot.due = due = now + self._leak_after
                if due < self.wake:  # noqa: PLR1730  # as in `_place`; the last borrower may have been overdue
                    self.wake = due
                if not self.line.size:
                    self.forecast.look(now, counters.borrowed, self.total)
                return [HandOver(waiter, slot)]
        slot.lent = False
        if slot.state is not _BORROWED:
            return _NOTHING  # abort_borrowed has dropped it meanwhile
        self.borrowed -= 1
        if healthy and not slot.dead:
            if self.pace.doubtful and used:
                self.pace.proved(now)
                return [*self._place(slot, now, dialled=False), *self._refill(now)]
            return self._place(slot, now, dialled=False)
        if slot.dead:
            reason = "lost"
            self._mourn(slot, now)
        return [self._close(slot, reason, now), *self._refill(now)]

    # Placing a connection that is free

    def _place(self, slot: Slot, now: float, *, dialled: bool) -> list[Action]:
        """Find the next owner of an open connection, or close it."""
        reason = self._unwanted(slot, now)
        if reason is not None:
            return [self._close(slot, reason, now), *self._refill(now)]
        line = self.line
        if line.size:
            waiter = line.serve(slot.serial)
            if waiter is not None:
                self._lend(slot, now)
                self.counters.waits.observe(now - waiter.since)
                waiter.slot, waiter.use = slot, slot.use
                if dialled:
                    waiter.reused = False
                    waiter.connect_time = now - max(waiter.since, slot.dialled_at)
                else:
                    self.counters.reused += 1
                if dialled and self.total < self.max_size:
                    self.forecast.skip()  # the pool grows
                if not line.size:
                    self.forecast.look(now, self.counters.borrowed, self.total)
                return [HandOver(waiter, slot)]
        if slot.overflow or len(self.idle) >= self.idle_limit or self.phase is not Phase.RUNNING:
            reason = "overflow" if slot.overflow else "surplus" if self.phase is Phase.RUNNING else "drained"
            return [self._close(slot, reason, now), *self._refill(now)]
        slot.state = _IDLE
        slot.idle_since = now
        slot.due = due = min(slot.retire_at, now + slot.idle_life)
        if due < self.wake:  # noqa: PLR1730  # a call of min() costs more than all of this, at every borrow
            self.wake = due
        self.idle.append(slot)
        return self._refill(now) if self.line.size else _NOTHING

    def _unwanted(self, slot: Slot, now: float) -> str | None:
        """Say why an open connection must not be lent again, whoever waits."""
        if now >= slot.expires:
            return "lifetime"
        if self.total > self.max_size and self.standing > self.max_size and not slot.overflow:
            return "resized"
        if self.phase is not _RUNNING and self.phase is Phase.CLOSED:
            return "closed"
        # Who needs a fresh connection and came first must not starve behind those whom this one serves.
        if self.line.fresh and self._missing_room(now) > 0:
            first = self.line.first()
            if first is not None and first.fresh and first.serial > slot.serial:
                return "made_room"
        return None

    # Opening connections

    def opened(self, slot: Slot, connection: object, now: float, *, jitter: float = 0.0) -> list[Action]:
        """Take in a connection that has opened.

        Args:
            slot: Whose dial it was.
            connection: What it opened; not looked into.
            now: The time.
            jitter: Which part of the time in which connections of one age are replaced it is to go earlier; 0 to 1.
        """
        if slot.state is not _OPENING:
            return [Report(slot, "opened twice")]
        self.opening -= 1
        self._serial += 1
        slot.serial = self._serial
        slot.connection = connection
        slot.opened_at = now
        self.lifetimes.born(slot, now, jitter)
        self.counters.opened += 1
        self.counters.dials.observe(now - slot.dialled_at)
        if slot.dead:
            self._mourn(slot, now)
            return [self._close(slot, "lost", now), *self._refill(now)]
        self.pace.opened(now)
        self.forecast.dialled(now - slot.dialled_at)
        self.wake = min(self.wake, self.pace.proof_at)
        actions = [] if slot.partner is None else self._supersede(slot.partner, now)
        actions += self._place(slot, now, dialled=True)
        return actions + self._refill(now)

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
        self.pace.failed(
            slot,
            error,
            now,
            permanent=permanent,
            pause=pause,
            awaited=self.line.size > 0,
            last_hope=not self.idle and not self.borrowed,
        )
        actions: list[Action] = []
        if permanent:
            waiters = self.line.dismiss()
            self.counters.refused += len(waiters)
            actions += [Fail(waiter, Refusal.REFUSED) for waiter in waiters]
        return actions + self._refill(now)

    def _refill(self, now: float) -> list[Action]:
        """Dial what the floor and the waiters miss, as far as size, herd limit, pause and outage allow; then renew."""
        if self.phase is not Phase.RUNNING and not self.line.size:
            return _NOTHING
        actions = self._turn_away(now) if self.pace.down and self.line.size else []
        waiting = self.line.size
        if not (self.grows or self.stale or self.line.fresh) and self.total >= self.max_size:
            return actions
        # A dial under way serves one waiter, whoever that will be; so a cancelled and repeated borrow dials once.
        wanted = max(self._lacking, waiting - self.opening)
        if wanted <= 0 and not self.stale:
            return actions
        if now < self.pace.dial_after:
            self.wake = min(self.wake, self.pace.dial_after)
            return actions
        missing = min(self._missing_room(now), len(self.idle))
        actions += [self._close(self.idle.pop(0), "made_room", now) for _ in range(missing)]
        limit = self._dial_limit()
        while wanted > 0 and self.opening < limit and self.total < self.max_size and self._may_dial():
            actions.append(self._dial(now))
            wanted -= 1
        if self.grows:
            while waiting > self.opening and self.opening < limit and self._may_dial():
                actions.append(self._dial(now, overflow=True))
        if self.stale and wanted <= 0:
            actions += self._renew(now, limit)
        return actions

    def _turn_away(self, now: float) -> list[Action]:
        """In an outage, let those go whom only a dial could serve, unless one is under way or about to begin."""
        if self.opening or now >= self.pace.dial_after:
            return []
        waiters = self.line.dismiss(fresh_only=self.borrowed > 0)
        self.counters.down += len(waiters)
        return [Fail(waiter, Refusal.DOWN) for waiter in waiters]

    def _dial_limit(self) -> int:
        """How many dials may run at once."""
        return self.pace.dials(self.settings.max_opening)

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
        if now < self.pace.dial_after or self.grows:
            return 0  # no dial would follow, or it needs no room
        leaving = self.closing - self.overflow_closing - (self.twins - self.twins_standing)
        return self.line.fresh - self.opening - leaving - max(0, self.max_size - self.total)

    def _dial(self, now: float, *, overflow: bool = False, replaced: Slot | None = None) -> Open:
        slot = Slot(now, now + self._connect_timeout, overflow=overflow)
        slot.round = self.pace.round
        self._enter(slot, replaced)
        return Open(slot)

    # Renewing connections

    def _renew(self, now: float, limit: int) -> list[Action]:
        """Dial beside idle connections that are due, `max_replacing` at once."""
        actions: list[Action] = []
        for slot, idle_since in list(self.stale.items()):
            if self.opening >= limit or self.twins >= self.settings.max_replacing:
                break
            del self.stale[slot]
            if slot.state is not _IDLE or slot.idle_since != idle_since or slot.partner is not None:
                continue  # it has been used since
            if self._may_dial():
                actions.append(self._dial(now, replaced=slot))
            else:  # shared limits leave no place for two, so the old one has to go first
                self.idle.remove(slot)
                actions.append(self._close(slot, self._age_reason(slot, now), now))
        return actions

    def _supersede(self, slot: Slot, now: float) -> list[Action]:
        """Let a connection go, now or on its return, because another one has opened in its place."""
        slot.expires = -math.inf
        if slot.state is not _IDLE:
            return []
        self.idle.remove(slot)
        return [self._close(slot, self._age_reason(slot, now), now)]

    @staticmethod
    def _age_reason(slot: Slot, now: float) -> str:
        return "lifetime" if now >= slot.retire_at else "idle_timeout"

    def _mourn(self, slot: Slot, now: float) -> None:
        """Learn from the end that the server made of a connection, which is not counted any more."""
        ended = slot.lost_at if slot.state is _BORROWED else now
        last_hope = not self.idle and not self.borrowed
        if self.pace.died(slot, ended, now, awaited=self.line.size > 0, last_hope=last_hope):
            return
        longest = slot.state is _IDLE and (not self.idle or slot.idle_since <= self.idle[0].idle_since)
        if self.lifetimes.ended(slot, ended, longest=longest):
            self._revise(now)

    # Ends

    def lost(self, slot: Slot, now: float) -> list[Action]:
        """Learn that a connection ended, or received what nobody asked for. It leaves the idle ones in this call."""
        if slot.state is _IDLE:
            self.idle.remove(slot)
            self._mourn(slot, now)
            return [self._close(slot, "lost", now), *self._refill(now)]
        if (slot.state is _BORROWED or slot.state is _OPENING) and not slot.dead:
            slot.dead = True  # the borrower keeps it until its return
            slot.lost_at = now
        return _NOTHING

    def closed(self, slot: Slot, now: float) -> list[Action]:
        """Learn that the peer is gone: the place is free."""
        if slot.state is not _CLOSING:
            return _NOTHING
        self._end_close(slot)
        return self._refill(now)

    # Time

    def tick(self, now: float) -> list[Action]:
        """Do what is due, and find out when that is next."""
        actions: list[Action] = []
        for waiter in self.line.expire(now):
            self.counters.timeouts += 1
            actions.append(Fail(waiter, Refusal.TIMEOUT))
        if now >= self.pace.proof_at:
            self.pace.proved(now)
        for slot in [slot for slot in self.slots if slot.due <= now]:
            actions += self._overdue(slot, now)
        actions += self._refill(now)
        dial_after = self.pace.dial_after
        self.wake = min(
            min((slot.due for slot in self.slots), default=math.inf),
            self.line.next_deadline,
            self.pace.proof_at,
            dial_after if dial_after > now else math.inf,
        )
        return actions

    def _overdue(self, slot: Slot, now: float) -> list[Action]:
        if slot.state is _IDLE:
            return self._overdue_idle(slot, now)
        if slot.state is _CLOSING:
            self._end_close(slot)
            return [Abort(slot)]
        slot.due = math.inf
        return [Abandon(slot)] if slot.state is _OPENING else [Overdue(slot)]

    def _overdue_idle(self, slot: Slot, now: float) -> list[Action]:
        lifetimes = self.lifetimes
        if lifetimes.scout_is_back(slot, now):
            self.stale.clear()
            self._revise(now)
        if slot.due > now:
            return []
        waited = slot.partner is not None or self.stale.get(slot) == slot.idle_since
        if self.pace.down and now < slot.expires and self.standing <= self.floor:
            self._expect(slot, lifetimes.grace(now))  # nothing can replace it, and it may well live on
            return []
        if waited or now >= lifetimes.end(slot) or self.standing > self.floor:
            self.idle.remove(slot)
            return [self._close(slot, self._age_reason(slot, now), now)]
        if not lifetimes.send_scout(slot, now):
            self._expect(slot, lifetimes.end(slot))
        return []

    def _expect(self, slot: Slot, end: float) -> None:
        """Let an idle connection wait for the one that replaces it."""
        self.stale[slot] = slot.idle_since
        slot.due = end
        self.wake = min(self.wake, end)

    def _revise(self, now: float) -> None:
        """Let the limits count that were just learned."""
        lifetimes = self.lifetimes
        for slot in self.slots:
            if slot.opened_at < math.inf:
                lifetimes.revise(slot, now)
            if slot.state is _IDLE and slot.partner is None and slot not in self.stale:
                slot.due = lifetimes.due(slot)
                if slot.due <= now:  # many may be, and must not all go at once
                    self._expect(slot, lifetimes.grace(now))
