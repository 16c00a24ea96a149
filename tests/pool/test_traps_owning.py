"""Who owns a connection, from the hand-over to the return: nobody takes it away, and nothing but the return is needed."""

from __future__ import annotations

import asyncio
import gc
import math

import pytest
from fake_connector import FakeConnector, consistent, open_pool, steps
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from speechpool.errors import PoolClosed, PoolTimeout
from speechpool.limits import Backoff, ConnectionLimits
from speechpool.pool.core import Core
from speechpool.pool.invariants import check
from speechpool.pool.limited import LimitedCore
from speechpool.pool.slot import Abort, Close, Open, SlotState
from speechpool.pool.waiting import Waiter
from speechpool.settings import PoolSettings
from speechpool.testing.clock import run

SETTINGS = {"max_size": 3, "min_size": 1, "idle_timeout": 5.0, "max_lifetime": 60.0, "leak_after": 9.0}


class Assigned:
    """A core that has handed a connection to a waiter who has not run since, and a neighbour under the same limit."""

    def __init__(self, way, *, limited):
        self.now = 100.0
        self.limits = ConnectionLimits(total=3)
        self.core = self.make(limited)
        self.slot = None
        self.dials, self.ended = [], []
        self.do(self.core.start(self.now))
        self.neighbour = None
        getattr(self, way)()
        if limited:
            self.neighbour = self.make(limited)
            self.neighbour.start(self.now)

    def make(self, limited):
        settings, backoff = PoolSettings(**SETTINGS), Backoff(0.1, 15.0, random=lambda: 0.5)
        if not limited:
            return Core(settings, backoff)
        places = self.limits.places("h")
        core = LimitedCore(settings, backoff, places=places)
        places.join(core.spare, lambda: None)
        return core

    def do(self, actions):
        for action in actions:
            if isinstance(action, Open):
                self.dials.append(action.slot)
            elif isinstance(action, Close | Abort):
                self.ended.append(action.slot)

    def open(self):
        while self.dials:
            self.do(self.core.opened(self.dials.pop(), object(), self.now, jitter=0.5))

    def borrow(self):
        waiter = Waiter(self.now, self.now + 10.0)
        self.do(self.core.borrow(waiter, self.now))
        return waiter

    # Ways to a connection

    def idle(self):
        self.open()
        self.waiter = self.borrow()

    def returned(self):
        self.open()
        other = self.borrow()
        self.do(self.core.resize(PoolSettings(**SETTINGS | {"max_size": 1}), self.now))
        self.waiter = self.borrow()
        self.do(self.core.returned(other.slot, other.use, self.now))

    def dialled(self):
        self.waiter = self.borrow()
        self.open()

    # What may happen before the waiter runs

    def time(self, seconds):
        self.now += seconds
        self.do(self.core.tick(self.now))

    def resize(self, seconds):
        self.do(self.core.resize(PoolSettings(**SETTINGS | {"max_size": 1, "max_idle": 1}), self.now))

    def press(self, seconds):
        """Somebody waits elsewhere."""
        if self.neighbour is not None:
            for _ in range(3):
                self.neighbour.borrow(Waiter(self.now - seconds, math.inf), self.now)
            self.do(self.core.look(self.now))

    def lose(self, seconds):
        for slot in list(self.core.idle):
            self.do(self.core.lost(slot, self.now))

    def others(self, seconds):
        """Another borrower comes and goes."""
        other = self.borrow()
        self.open()
        if other.slot is not None:
            self.do(self.core.returned(other.slot, other.use, self.now, healthy=seconds < 5))
        else:
            self.do(self.core.cancel(other, self.now))

    def hold(self, seconds):
        """Another one comes and stays."""
        self.borrow()
        self.open()

    def refuse(self, seconds):
        while self.dials:
            self.do(self.core.open_failed(self.dials.pop(), OSError("test"), self.now, permanent=seconds > 5))

    def drain(self, seconds):
        self.do(self.core.drain(self.now))

    def close(self, seconds):
        self.do(self.core.close(self.now))


EVENTS = ["time", "resize", "press", "lose", "others", "hold", "refuse", "drain", "close"]


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("way", ["idle", "returned", "dialled"])
@given(events=st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from([0.0, 1.0, 7.0, 70.0])), max_size=8))
@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
def test_t09_whatever_happens_before_the_borrower_runs_its_connection_is_its_own(way, limited, events):
    story = Assigned(way, limited=limited)
    slot, use = story.waiter.slot, story.waiter.use
    assert slot is not None
    for event, seconds in events:
        getattr(story, event)(seconds)
        check(story.core)
        assert slot not in story.ended, f"{event} closed a connection that was assigned"
        assert (slot.state, slot.use, story.waiter.slot) == (SlotState.BORROWED, use, slot)
    story.do(story.core.returned(slot, use, story.now))
    assert slot.state in {SlotState.IDLE, SlotState.BORROWED, SlotState.CLOSING}
    check(story.core)


def test_t09_a_connection_that_ages_out_in_the_turn_of_its_hand_over_is_not_closed_under_the_borrower():
    async def main():
        pool, _ = await open_pool(FakeConnector(close_time=1), max_size=1, max_lifetime=30.0, idle_timeout=30.0)
        lease = await pool.borrow()
        waiter = asyncio.create_task(pool.borrow())
        await steps(1)
        fake = lease.connection
        lease.return_()  # the waiter's task has not run
        await pool.resize(5)
        pool._tick()
        assert fake.state == "open"
        lease = await waiter
        assert lease.connection is fake
        assert lease.usable
        lease.return_()
        consistent(pool)
        await pool.close()

    run(main())


def test_t53_an_error_that_somebody_keeps_holds_no_connection():
    async def main():
        pool, _ = await open_pool(max_size=1, borrow_timeout=1.0)
        kept = []

        async def speak():
            lease = await pool.borrow()
            try:
                raise RuntimeError("in the middle")
            finally:
                lease.return_()

        for _ in range(3):
            try:
                await speak()
            except RuntimeError as error:
                kept.append(error)  # and with it the frame of `speak`, with its lease
            assert (pool.stats.idle, pool.stats.borrowed) == (1, 0)
        lease = await pool.borrow()
        try:
            await pool.borrow()
        except PoolTimeout as error:
            kept.append(error)
        assert pool.stats.waiting == 0
        lease.return_()
        assert pool.stats.idle == 1
        del lease
        kept.clear()
        gc.collect()
        assert pool.stats.discarded == {}  # none of those leases was taken for a forgotten one
        assert pool.stats.double_returns == 0
        await pool.close()

    run(main())


@pytest.mark.parametrize("healthy", [True, False])
def test_t57_a_return_after_the_close_is_quiet(caplog, healthy):
    async def main():
        pool, connector = await open_pool(max_size=2)
        one, two = await pool.borrow(), await pool.borrow()
        await pool.close()
        assert len(connector.alive) == 2  # whoever speaks may end the sentence
        one.return_(healthy)
        await steps(3)
        assert len(connector.alive) == 1
        await pool.close(drain=0)
        two.return_(healthy)  # it was dropped meanwhile
        assert connector.alive == []
        assert (pool.stats.size, pool.stats.double_returns) == (0, 0)
        consistent(pool)

    run(main())
    assert "returned" not in caplog.text


def test_t64_those_whom_a_drain_still_serves_keep_their_deadlines_and_their_order():
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        order = []

        async def wait(name, timeout):
            lease = await pool.borrow(timeout=timeout)
            order.append(name)
            lease.return_()

        tasks = [asyncio.create_task(wait(name, timeout)) for name, timeout in [("a", 9), ("late", 1), ("b", 9)]]
        await steps(1)
        draining = asyncio.create_task(pool.drain())
        start = asyncio.get_running_loop().time()
        with pytest.raises(PoolTimeout):
            await tasks[1]
        assert asyncio.get_running_loop().time() == start + 1
        with pytest.raises(PoolClosed):
            await pool.borrow(timeout=None)
        lease.return_()
        await asyncio.gather(tasks[0], tasks[2], draining)
        assert order == ["a", "b"]
        await pool.close()

    run(main())
