"""The core under random events, with a clock that only the test moves. Every rule of the pool, after every step."""

from __future__ import annotations

import math

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speechpool.limits import Backoff
from speechpool.pool.core import Core, Phase
from speechpool.pool.invariants import check
from speechpool.pool.slot import (
    Abandon,
    Abort,
    Close,
    Fail,
    HandOver,
    Open,
    Overdue,
    Refusal,
    Report,
    SlotState,
)
from speechpool.pool.waiting import BULK, BULK_AGEING, FRONT, INTERACTIVE, Waiter
from speechpool.settings import LifetimeProfile, PoolSettings

Slots = st.integers(0, 1_000_000)  # which of the slots or waiters in question; taken modulo their number


@st.composite
def pool_settings(draw):
    max_size = draw(st.integers(1, 5))
    min_size = draw(st.none() | st.integers(0, max_size))
    max_idle = draw(st.none() | st.integers(min_size if min_size is not None else 0, 6))
    return PoolSettings(
        max_size=max_size,
        min_size=min_size,
        max_idle=max_idle,
        max_opening=draw(st.integers(1, 3)),
        max_replacing=draw(st.integers(1, 2)),
        outage_after=draw(st.none() | st.just(1.0)),
        max_waiting=draw(st.none() | st.integers(0, 6)),
        overflow=draw(st.sampled_from(["wait", "wait", "fail", "grow"])),
        idle_timeout=draw(st.none() | st.just(7.0)),
        max_lifetime=draw(st.none() | st.just(20.0)),
        leak_after=draw(st.none() | st.just(5.0)),
        open_backoff_cap=1.0,
        open_backoff_idle_cap=4.0,
    )


profiles = st.builds(LifetimeProfile, idle_timeout=st.none() | st.just(6.0), max_lifetime=st.none() | st.just(15.0))


class World(RuleBasedStateMachine):
    """What a perfect engine knows: who dials, who closes, who holds what, who waits."""

    @initialize(
        settings=pool_settings(),
        profile=profiles,
        jitter=st.floats(0, 1, exclude_max=True),
        timeout=st.none() | st.just(3.0),
        turn=st.none() | st.sampled_from([0.1, 2.0, 30.0]),
    )
    def begin(self, settings, profile, jitter, timeout, turn):
        self.now = 100.0
        backoff = Backoff(0.1, 4.0, random=lambda: jitter)
        self.core = Core(settings, backoff, connect_timeout=timeout, profile=profile)
        if turn is not None:  # how long borrowers keep their connections is known already
            self.core.forecast.begin(self.now - 20 * turn, 0)
            self.core.forecast.look(self.now, 20, 1)
        self.largest = settings.max_size
        self.dialling, self.closing, self.abandoned = [], [], set()
        self.held = {}  # slot: use
        self.past = []  # leases that are over
        self.waiting = []
        self.opened = self.failed = self.gone = 0
        self.do(self.core.start(self.now))

    # A perfect engine

    def do(self, actions):
        for action in actions:
            getattr(self, f"do_{type(action).__name__.lower()}")(action)

    def do_open(self, action):
        assert action.slot not in self.dialling
        assert self.core.phase is Phase.RUNNING or self.waiting
        assert self.now >= self.core.pace.dial_after, "a dial in the pause"
        if self.core.pace.down:
            assert not self.dialling, "more than one probe in an outage"
        self.dialling.append(action.slot)

    def do_abandon(self, action):
        assert action.slot in self.dialling
        self.abandoned.add(action.slot)

    def do_close(self, action):
        assert action.slot not in self.held
        assert action.slot not in self.closing
        assert action.slot.state is SlotState.CLOSING
        self.closing.append(action.slot)

    def do_abort(self, action):
        assert action.slot.state is SlotState.GONE
        if action.slot in self.closing:
            self.closing.remove(action.slot)
        else:
            self.past.append((action.slot, self.held.pop(action.slot), True))
        self.gone += 1

    def do_handover(self, action):
        waiter, slot = action.waiter, action.slot
        assert slot not in self.held, "two owners"
        assert slot.state is SlotState.BORROWED
        assert not slot.dead
        assert (waiter.slot, waiter.use) == (slot, slot.use)
        assert not waiter.fresh or slot.serial > waiter.serial, "an old connection for one who needs a fresh one"
        assert self.now < slot.expires
        assert waiter.connect_time <= self.now - waiter.since
        for other in self.waiting:  # nobody of the same kind came before
            if other is not waiter and (other.rank, other.fresh) == (waiter.rank, waiter.fresh):
                assert other.serial > waiter.serial, "first come, first served"
            if other.rank == BULK and waiter.rank == INTERACTIVE and other.fresh == waiter.fresh:
                assert waiter.since <= other.since + BULK_AGEING, "bulk starves"
        self.waiting.remove(waiter)
        self.held[slot] = slot.use

    def do_fail(self, action):
        self.waiting.remove(action.waiter)
        if action.reason is Refusal.TIMEOUT:
            assert action.waiter.deadline <= self.now
        if action.reason is Refusal.SHED:
            waiter = action.waiter
            assert self.now == waiter.since < waiter.deadline < math.inf, "shed at once, because of a deadline"
            assert waiter.rank != FRONT
            assert not waiter.fresh
            assert waiter.predicted is not None
            assert waiter.predicted * 2 > waiter.deadline - self.now, "shed with much time left"
            assert not self.core.idle
            assert self.waiting, "the first in line was shed"
            assert self.core.total >= self.core.max_size, "a dial could have served it"
        if action.reason is Refusal.REFUSED:
            assert self.core.pace.refused is not None
        if action.reason is Refusal.DOWN:
            assert self.core.pace.down
            assert action.waiter.fresh or not self.core.borrowed, "what is borrowed may come back"

    def do_overdue(self, action):
        assert action.slot in self.held

    def do_report(self, action):
        raise AssertionError(action)

    def pick(self, things, which):
        return list(things)[which % len(things)]

    # Events

    @rule(
        rank=st.sampled_from([INTERACTIVE, INTERACTIVE, BULK]),
        fresh=st.sampled_from([False, False, False, True]),
        patience=st.sampled_from([0.0, 0.5, 3.0, math.inf]),
    )
    def borrow(self, rank, fresh, patience):
        waiter = Waiter(self.now, self.now + patience, rank=rank, fresh=fresh)
        idle = bool(self.core.idle)
        self.waiting.append(waiter)
        served = self.core.wake > self.now and idle and not fresh
        self.do(self.core.borrow(waiter, self.now))
        if served:
            assert waiter.slot is not None
            assert waiter.reused
            assert waiter.connect_time == 0

    @precondition(lambda self: self.held and not self.core.opening)
    @rule(number=st.integers(2, 6), rank=st.sampled_from([INTERACTIVE, INTERACTIVE, BULK]))
    def a_crowd_comes(self, number, rank):
        for _ in range(number):
            self.borrow(rank, fresh=False, patience=3.0)

    @precondition(lambda self: self.waiting)
    @rule(which=Slots)
    def cancel_while_waiting(self, which):
        waiter = self.pick(self.waiting, which)
        self.waiting.remove(waiter)
        before = self.core.counters.cancelled
        self.do(self.core.cancel(waiter, self.now))
        self.do(self.core.cancel(waiter, self.now))
        assert self.core.counters.cancelled == before + 1

    @rule()
    def cancel_after_hand_over(self):
        waiter = Waiter(self.now, math.inf)
        self.waiting.append(waiter)
        self.do(self.core.borrow(waiter, self.now))
        if waiter.slot is not None:
            slot, use = waiter.slot, waiter.use
            del self.held[slot]
            self.do(self.core.cancel(waiter, self.now))
            self.past.append((slot, use, False))

    @precondition(lambda self: self.held)
    @rule(which=Slots, healthy=st.booleans())
    def give_back(self, which, healthy):
        slot = self.pick(self.held, which)
        use = self.held.pop(slot)
        first = self.core.line.first()
        plain = first is not None and not first.fresh
        sound = healthy and not slot.dead and self.now < slot.expires
        shrinking = self.core.standing > self.core.max_size
        self.do(self.core.returned(slot, use, self.now, healthy=healthy, reason="test"))
        if sound and plain and (slot.overflow or not shrinking):
            assert first.slot is slot, "a returned connection goes to the first waiter in the same call"
        if not sound or (shrinking and not slot.overflow):
            assert slot.state is SlotState.CLOSING
        self.past.append((slot, use, False))

    @precondition(lambda self: self.held)
    @rule(which=Slots, fresh=st.booleans())
    def renew(self, which, fresh):
        slot = self.pick(self.held, which)
        use = self.held.pop(slot)
        self.do(self.core.returned(slot, use, self.now, healthy=False, reason="renewed"))
        self.past.append((slot, use, False))
        waiter = Waiter(self.now, self.now + 3.0, rank=FRONT, fresh=fresh)
        self.waiting.append(waiter)
        self.do(self.core.borrow(waiter, self.now))

    @precondition(lambda self: self.past)
    @rule(which=Slots, healthy=st.booleans())
    def return_twice(self, which, healthy):
        index = which % len(self.past)
        slot, use, aborted = self.past[index]
        before = self.core.counters.double_returns
        actions = self.core.returned(slot, use, self.now, healthy=healthy)
        if aborted:  # the borrower's first return, after close(drain=...)
            assert actions == []
            self.past[index] = (slot, use, False)
        else:
            assert [type(action) for action in actions] == [Report]
            assert self.core.counters.double_returns == before + 1

    @precondition(lambda self: self.dialling)
    @rule(which=Slots, jitter=st.floats(0, 1))
    def dial_succeeds(self, which, jitter):
        slot = self.pick(self.dialling, which)
        self.dialling.remove(slot)
        self.opened += 1
        self.do(self.core.opened(slot, object(), self.now, jitter=jitter))

    @precondition(lambda self: self.dialling)
    @rule(which=Slots, permanent=st.sampled_from([False, False, True]), pause=st.sampled_from([0.0, 0.0, 6.0]))
    def dial_fails(self, which, permanent, pause):
        slot = self.pick(self.dialling, which)
        self.dialling.remove(slot)
        self.failed += 1
        self.do(self.core.open_failed(slot, OSError("test"), self.now, permanent=permanent, pause=pause))
        assert self.core.pace.error is not None
        if permanent:
            assert not self.waiting

    @precondition(lambda self: self.core.slots)
    @rule(which=Slots)
    def lose(self, which):
        slot = self.pick(self.core.slots, which)
        was_idle = slot.state is SlotState.IDLE
        self.do(self.core.lost(slot, self.now))
        assert slot not in self.core.idle
        assert not was_idle or slot.state is SlotState.CLOSING

    @precondition(lambda self: self.closing)
    @rule(which=Slots)
    def peer_is_gone(self, which):
        slot = self.pick(self.closing, which)
        self.closing.remove(slot)
        self.gone += 1
        self.do(self.core.closed(slot, self.now))
        self.do(self.core.closed(slot, self.now))

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 2.0, 2.0, 8.0, 3600.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.do(self.core.tick(self.now))
        assert self.core.wake > self.now
        assert all(waiter.deadline > self.now for waiter in self.waiting)
        assert all(slot.due > self.now for slot in self.core.slots)

    @rule()
    def time_jumps_to_the_next_deadline(self):
        if self.core.wake < math.inf:
            self.now = max(self.now, self.core.wake)
            self.do(self.core.tick(self.now))

    @rule(times=st.integers(1, 12), succeed=st.sampled_from([True, True, True, False]))
    def a_calm_time(self, times, succeed):
        """Nothing happens but what the pool does by itself: every dial ends, every peer goes, the clock moves on."""
        for _ in range(times):
            for _ in range(20):  # a dial that fails may be followed by the next one at once
                if not (self.dialling or self.closing):
                    break
                if not self.dialling:
                    self.peer_is_gone(0)
                elif succeed:
                    self.dial_succeeds(0, 0.5)
                else:
                    self.dial_fails(0, permanent=False, pause=0.0)
                check(self.core)
            self.time_jumps_to_the_next_deadline()
            check(self.core)

    @precondition(lambda self: self.core.idle)
    @rule(all_of_them=st.booleans())
    def the_server_ends_what_is_idle_longest(self, all_of_them):
        for slot in self.core.idle.copy()[: None if all_of_them else 1]:
            if slot in self.core.idle:
                self.do(self.core.lost(slot, self.now))

    @rule(max_size=st.integers(1, 6), share=st.none() | st.floats(0, 1))
    def resize(self, max_size, share):
        old = self.core.settings
        min_size = None if share is None else int(max_size * share)
        new = PoolSettings(
            **{
                name: getattr(old, name)
                for name in PoolSettings.__dataclass_fields__
                if name not in {"max_size", "min_size", "max_idle"}
            }
            | {"max_size": max_size, "min_size": min_size}
        )
        self.largest = max(self.largest, max_size)
        self.do(self.core.resize(new, self.now))

    @rule(really=st.integers(0, 39))
    def drain(self, really):
        if not really:
            self.do(self.core.drain(self.now))
            assert not self.core.idle

    @rule(really=st.integers(0, 39))
    def close(self, really):
        if not really:
            self.do(self.core.close(self.now))
            assert not self.waiting
            assert not self.core.idle
            assert self.abandoned >= set(self.dialling)

    @rule(really=st.integers(0, 5))
    def abort_borrowed(self, really):
        if not really and self.core.phase is Phase.CLOSED:
            self.do(self.core.abort_borrowed(self.now))
            assert not self.held

    # Every rule, after every step

    @invariant()
    def consistent(self):
        if hasattr(self, "core"):
            check(self.core)

    @invariant()
    def agrees_with_the_world(self):
        if not hasattr(self, "core"):
            return
        core = self.core
        assert set(core.line) == set(self.waiting)
        assert {slot for slot in core.slots if slot.state is SlotState.BORROWED} == set(self.held)
        assert {slot for slot in core.slots if slot.state is SlotState.CLOSING} == set(self.closing)
        assert {slot for slot in core.slots if slot.state is SlotState.OPENING} == set(self.dialling)
        assert core.total <= self.largest
        counters = core.counters
        assert (counters.opened, counters.open_failed, counters.closed) == (self.opened, self.failed, self.gone)
        assert counters.borrowed == counters.returned + len(self.held) + sum(aborted for *_, aborted in self.past)

    @invariant()
    def works_as_much_as_it_may(self):
        """Nobody waits, and no floor is missing, for want of a dial that is allowed now."""
        if not hasattr(self, "core"):
            return
        core = self.core
        if core.opening >= core._dial_limit() or core.total >= core.max_size or self.now < core.pace.dial_after:
            return
        if core.wake <= self.now:
            return
        if core.phase is Phase.RUNNING:
            assert core.standing >= core.floor, "the floor is not refilled"
        assert core.line.size <= core.opening, "somebody waits and nobody dials"

    @invariant()
    def nobody_waits_for_ever(self):
        """Whoever waits has a deadline, or something is under way that serves somebody, or a time to go on is set."""
        if hasattr(self, "core") and self.waiting and not (self.held or self.dialling or self.closing):
            assert self.core.wake < math.inf

    @invariant()
    def the_floor_is_held_through_renewals(self):
        """An idle connection that is due stays until another one has come or its own end, however many are due."""
        if hasattr(self, "core"):
            for slot in self.core.stale:
                assert slot.state is not SlotState.IDLE or slot.due > self.now or self.core.wake <= self.now

    def teardown(self):
        """Whatever happened: when all is returned and closed, nothing is left."""
        if not hasattr(self, "core"):
            return
        self.do(self.core.close(self.now))
        for slot in self.dialling.copy():
            self.dialling.remove(slot)
            self.opened += 1
            self.do(self.core.opened(slot, object(), self.now))
        for slot in self.held.copy():
            self.do(self.core.returned(slot, self.held.pop(slot), self.now))
        for slot in self.closing.copy():
            self.closing.remove(slot)
            self.gone += 1
            self.do(self.core.closed(slot, self.now))
        check(self.core)
        assert not self.core.slots
        assert self.core.total == self.core.overflow == 0


assert {Open, Abandon, HandOver, Fail, Close, Abort, Overdue, Report}  # each has its do_ method

TestCore = World.TestCase
TestCore.settings = hypothesis_settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    derandomize=True,
)
