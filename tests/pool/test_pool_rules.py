"""Rules of the core that random events meet too rarely to rely on, one small story each."""

from __future__ import annotations

import math

from speechpool.errors import ConnectFailed
from speechpool.limits import Backoff
from speechpool.pool.core import Core
from speechpool.pool.invariants import check
from speechpool.pool.slot import Close, Fail, HandOver, Open, Refusal
from speechpool.pool.waiting import FRONT, Waiter
from speechpool.settings import PoolSettings


class Story:
    """A core whose dials end when the story says so. The time is 100 seconds, unless it says otherwise."""

    def __init__(self, *, opened=True, **settings):
        self.now = 100.0
        self.core = Core(PoolSettings(**settings), Backoff(0.1, 15.0, random=lambda: 0.5))
        self.dials = []
        self.closing = []
        self.do(self.core.start(self.now))
        while opened and self.dials:
            self.open()

    def do(self, actions):
        for action in actions:
            if isinstance(action, Open):
                self.dials.append(action.slot)
            elif isinstance(action, Close):
                self.closing.append(action.slot)
        check(self.core)
        return actions

    def open(self):
        return self.do(self.core.opened(self.dials.pop(0), object(), self.now))

    def fail(self, error=None, **how):
        return self.do(self.core.open_failed(self.dials.pop(0), error or OSError("test"), self.now, **how))

    def gone(self):
        return self.do(self.core.closed(self.closing.pop(0), self.now))

    def borrow(self, **how):
        waiter = Waiter(self.now, math.inf, **how)
        self.do(self.core.borrow(waiter, self.now))
        return waiter

    def give_back(self, waiter, **how):
        return self.do(self.core.returned(waiter.slot, waiter.use, self.now, **how))


def test_t63_a_pool_that_shrinks_closes_on_return_even_where_somebody_waits():
    story = Story(max_size=3)
    held = [story.borrow() for _ in range(3)]
    waiter = story.borrow()
    story.do(story.core.resize(PoolSettings(max_size=1), story.now))
    story.give_back(held[0])
    story.give_back(held[1])
    assert waiter.slot is None
    assert story.core.counters.discarded == {"resized": 2}
    story.give_back(held[2])
    assert waiter.slot is held[2].slot


def test_a_drain_goes_on_serving_who_waits_when_it_is_given_room():
    story = Story(max_size=1)
    story.borrow()
    story.borrow()
    story.do(story.core.drain(story.now))
    story.do(story.core.resize(PoolSettings(max_size=2), story.now))
    assert len(story.dials) == 1


def test_t42_an_old_connection_passes_by_whoever_needs_a_fresh_one():
    story = Story(max_size=2)
    old = story.borrow()
    story.give_back(story.borrow(), healthy=False)
    story.gone()
    assert len(story.dials) == 1  # this one will do for the next
    fresh, plain = story.borrow(fresh=True), story.borrow()
    story.give_back(old)
    assert (fresh.slot, plain.slot) == (None, old.slot)
    story.open()
    assert fresh.slot is not None
    assert not fresh.reused


def test_t14_whoever_needs_a_fresh_one_does_not_starve_behind_those_who_do_not():
    story = Story(max_size=1)
    held = story.borrow()
    fresh, plain = story.borrow(fresh=True), story.borrow()
    story.give_back(held)  # the first in line cannot use it, and nothing else makes room
    assert plain.slot is None
    assert story.core.counters.discarded == {"made_room": 1}
    story.gone()
    story.open()
    assert fresh.slot is not None
    story.give_back(fresh)
    assert plain.slot is fresh.slot


def test_no_warm_connection_makes_room_for_a_dial_that_cannot_begin():
    story = Story(max_size=2)
    story.do(story.core.lost(story.core.idle[0], story.now + 60))
    story.gone()
    story.fail()
    fresh = story.borrow(fresh=True)
    assert len(story.core.idle) == 1
    assert story.dials == []
    story.now = story.core.wake
    story.do(story.core.tick(story.now))
    assert len(story.dials) == 1  # there is room by now
    assert len(story.core.idle) == 1
    story.open()
    assert fresh.slot is not None


def test_t28_a_healthy_return_proves_that_connections_last_and_ends_the_pause():
    story = Story(max_size=2)
    held = story.borrow()
    story.do(story.core.lost(story.core.idle[0], story.now))
    story.gone()
    assert story.dials == []  # it lived for no time at all
    story.give_back(held)
    assert len(story.dials) == 1
    assert story.core.pace.error is None


def test_t28_who_was_cancelled_in_the_moment_of_the_hand_over_proves_nothing():
    story = Story(max_size=2)
    held = story.borrow()
    story.do(story.core.lost(story.core.idle[0], story.now))
    story.do(story.core.cancel(held, story.now))
    assert story.core.pace.error is not None


def test_t20_a_refusal_turns_newcomers_away_only_where_nothing_can_come_back():
    story = Story(max_size=2)
    held = story.borrow()
    story.do(story.core.lost(story.core.idle[0], story.now + 60))
    story.gone()
    story.fail(ConnectFailed("404", permanent=True), permanent=True)
    waiter = story.borrow()
    assert story.core.line.size == 1
    story.give_back(held)
    assert waiter.slot is held.slot
    late = Waiter(story.now, math.inf, fresh=True)
    assert story.core.borrow(late, story.now) == [Fail(late, Refusal.REFUSED)]
    assert story.dials == []


def test_t03_a_dial_serves_whoever_waits_then_and_otherwise_becomes_idle():
    story = Story(max_size=4, min_size=0)
    for _ in range(100):
        story.do(story.core.cancel(story.borrow(), story.now))
    assert len(story.dials) == 1
    story.open()
    assert len(story.core.idle) == 1


def test_t16_a_lease_that_lost_its_connection_goes_before_everybody_and_past_a_full_queue():
    story = Story(max_size=1, max_waiting=1)
    held = story.borrow()
    waiter = story.borrow()
    story.do(story.core.lost(held.slot, story.now))
    story.give_back(held)
    again = story.borrow(rank=FRONT)
    story.gone()
    story.now += 1
    story.do(story.core.tick(story.now))
    actions = story.open()
    assert [type(action) for action in actions] == [HandOver]
    assert again.slot is not None
    assert waiter.slot is None


def test_t41_after_a_long_stall_the_expired_ones_are_not_lent():
    story = Story(max_size=2, idle_timeout=50.0)
    story.now += 3600
    waiter = story.borrow()
    assert waiter.slot is None
    assert story.core.counters.discarded == {"idle_timeout": 2}


def test_t59_a_peer_that_does_not_go_is_dropped_in_time_and_its_place_is_filled():
    story = Story(max_size=1, close_timeout=2.0)
    story.give_back(story.borrow(), healthy=False, reason="cancel")
    assert story.dials == []
    story.now += 2.0
    story.do(story.core.tick(story.now))
    assert len(story.dials) == 1
    assert story.core.counters.discarded == {"cancel": 1}
    story.gone()  # too late to matter
    assert story.core.counters.closed == 1
