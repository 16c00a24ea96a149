"""The pool on a virtual clock, over connections that a test controls. One trap, one test; its number is in the name."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import weakref

import pytest
from fake_connector import Down, FakeConnector, consistent, make_pool, open_pool, steps

from speechpool.errors import (
    ConnectFailed,
    LeaseError,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    RateLimited,
    SettingsError,
    Unauthorized,
    WrongLoop,
)
from speechpool.pool.lifetime import JITTER, LEAD
from speechpool.testing.clock import START, VirtualClockLoop, run


def now():
    return asyncio.get_running_loop().time()


def test_the_floor_opens_in_parallel_and_open_returns_with_the_first():
    async def main():
        connector = FakeConnector(dial_time=1)
        pool = make_pool(connector, max_size=20, max_opening=8)
        await pool.open()
        assert now() == START + 1
        await pool.wait_ready(8)
        assert now() == START + 1
        await pool.wait_ready()
        assert now() == START + 3  # 8, 8 and 4 at once
        assert connector.most_dialling == 8
        assert (pool.stats.idle, pool.stats.size, pool.stats.opened) == (20, 20, 20)
        await pool.close()

    run(main())


def test_an_idle_connection_is_lent_without_a_turn_of_the_loop_and_the_last_used_one_first():
    async def main():
        pool, connector = await open_pool(max_size=3)
        first = pool.try_borrow()
        second = pool.try_borrow()
        first.return_()
        second.return_()
        third = await pool.borrow()
        assert third.connection is second._connection
        assert (third.reused, third.waited, third.connect_time) == (True, 0.0, 0.0)
        third.return_()
        assert len(connector.dials) == 3
        await pool.close()

    run(main())


def test_a_borrower_that_waits_for_a_dial_knows_how_long_it_ran():
    async def main():
        pool = make_pool(FakeConnector(dial_time=2), max_size=1)
        opening = asyncio.create_task(pool.open())
        await asyncio.sleep(0.5)
        lease = await pool.borrow()
        await opening
        assert (lease.reused, lease.waited, lease.connect_time) == (False, 1.5, 1.5)
        task = asyncio.create_task(pool.borrow())
        await asyncio.sleep(1)
        lease.return_()
        second = await task
        assert (second.reused, second.waited, second.connect_time) == (True, 1.0, 0.0)
        second.return_()
        await pool.close()

    run(main())


# Waiting


def test_t14_first_come_first_served_without_barging():
    async def main():
        pool, _ = await open_pool(max_size=5, max_waiting=500)
        order = []

        async def user(number):
            lease = await pool.borrow(timeout=None)
            order.append(number)
            await asyncio.sleep(0.01 * (number % 7))
            lease.return_()
            if number % 50 == 0:
                assert pool.stats.waiting == 0 or pool.try_borrow() is None  # a newcomer passes nobody

        await asyncio.gather(*(user(number) for number in range(500)))
        assert order == list(range(500))
        await pool.close()

    run(main())


def test_t16_a_connection_lost_on_the_way_costs_no_place():
    async def main():
        pool, connector = await open_pool(FakeConnector(dial_time=1), max_size=1)
        await asyncio.sleep(60)
        lease = await pool.borrow()
        fake = lease.connection
        first = asyncio.create_task(pool.borrow())
        second = asyncio.create_task(pool.borrow())
        await steps(1)
        lease.return_()  # handed to the first, whose task has not run
        fake.die()
        lease = await first
        assert lease.connection is not fake
        assert not second.done()
        assert lease.waited == 1
        lease.return_()
        (await second).return_()
        assert len(connector.dials) == 2
        await pool.close()

    run(main())


def test_t18_phases_do_not_add_up_beyond_the_limit():
    async def main():
        pool, _ = await open_pool(FakeConnector(dial_time=1), max_size=1)
        lease = await pool.borrow()

        async def give_it_what_is_dead(lease):
            for _ in range(20):
                await asyncio.sleep(0.3)
                fake = lease.connection
                lease.return_()  # handed over, and lost before the borrower runs: it waits on, not anew
                fake.die()
                lease = await pool.borrow(timeout=None)

        giver = asyncio.create_task(give_it_what_is_dead(lease))
        del lease
        with pytest.raises(PoolTimeout) as caught:
            await pool.borrow(timeout=3, deadline=now() + 0.7)
        assert caught.value.waited == pytest.approx(0.7)
        giver.cancel()
        await asyncio.wait([giver])
        await pool.close(drain=0)

    run(main())


def test_t19_a_full_queue_turns_the_next_one_away_at_once():
    async def main():
        pool, _ = await open_pool(max_size=1, max_waiting=3)
        lease = await pool.borrow()
        tasks = [asyncio.create_task(pool.borrow()) for _ in range(3)]
        await steps(1)
        with pytest.raises(PoolFull, match="max_waiting = 3"):
            await pool.borrow()
        assert pool.stats.full == 1
        lease.return_()
        for task in tasks:
            (await task).return_()
        await pool.close()

    run(main())


def test_t21_nobody_spins_while_all_wait():
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        tasks = [asyncio.create_task(pool.borrow(timeout=None)) for _ in range(10)]
        await steps(2)
        loop = asyncio.get_running_loop()
        turns = 0
        original = loop._run_once

        def counted():
            nonlocal turns
            turns += 1
            original()

        loop._run_once = counted
        await asyncio.sleep(60)
        assert turns < 10
        lease.return_()
        for task in tasks:
            (await task).return_()
        await pool.close()

    run(main())


def test_t22_bulk_waits_behind_interactive_but_not_for_ever():
    async def main():
        pool, _ = await open_pool(max_size=1)
        order = []

        async def user(name, priority):
            lease = await pool.borrow(timeout=None, priority=priority)
            order.append(name)
            await asyncio.sleep(0.5)
            lease.return_()

        first = await pool.borrow()
        tasks = [asyncio.create_task(user("bulk", "bulk"))]
        for number in range(12):  # more than the pool can serve
            await asyncio.sleep(0.4)
            tasks.append(asyncio.create_task(user(number, "interactive")))
            if number == 1:
                first.return_()
        await asyncio.gather(*tasks)
        assert order[0] == 0  # it came later, but is interactive
        # Whoever came up to two seconds later goes first, and nobody else.
        assert order.index("bulk") == len([n for n in range(12) if 0.4 * (n + 1) <= 2.0])
        await pool.close()

    run(main())


def test_a_priority_that_does_not_exist():
    async def main():
        pool, _ = await open_pool(max_size=1)
        with pytest.raises(SettingsError, match="interactive"):
            await pool.borrow(priority="urgent")
        await pool.close()

    run(main())


def test_t26_a_timeout_says_why_and_what_to_do():
    async def main():
        down = Down()
        connector = FakeConnector()
        pool = make_pool(connector, max_size=2, min_size=1)
        await pool.open()
        connector.plan = down
        lease = await pool.borrow()
        with pytest.raises(PoolTimeout) as caught:
            await pool.borrow(timeout=3)
        error = caught.value
        assert (error.waited, error.borrowed, error.idle) == (3, 1, 0)
        assert isinstance(error.last_error, ConnectFailed)
        assert error.__cause__ is error.last_error
        assert 0 <= error.last_error_age <= 2
        assert "connection refused" in str(error)
        assert error.endpoint == connector.endpoint
        # Once a dial succeeds the cause is history.
        down.down = False
        other = await pool.borrow(timeout=3)
        assert pool.stats.last_error is None
        with pytest.raises(PoolTimeout, match="Raise max_size") as caught:
            await pool.borrow(timeout=1)
        assert caught.value.last_error is None
        lease.return_()
        other.return_()
        await pool.close()

    run(main())


def test_a_limit_of_nothing_asks_only_for_what_is_there():
    async def main():
        pool, connector = await open_pool(max_size=2, min_size=0)
        with pytest.raises(PoolTimeout):
            await pool.borrow(timeout=0)
        assert connector.dials == []
        await pool.close()

    run(main())


# Outage and refill


def test_t12_hooks_that_raise_change_nothing(caplog):
    async def main():
        def on_borrowed(borrowed, max_size, now):
            raise ValueError("test")

        connector = FakeConnector()
        pool, _ = await open_pool(connector, max_size=2, on_borrowed=on_borrowed)
        lease = await pool.borrow()
        lease.return_()
        connector.close = connector.usable = lambda fake: 1 / 0
        assert pool.try_borrow() is None
        assert pool.stats.discarded["lost"] == 2
        consistent(pool)
        await pool.close()
        assert connector.alive == []

    run(main())
    assert "on_borrowed failed" in caplog.text
    assert "cannot tell whether" in caplog.text


def test_t23_after_an_outage_the_floor_comes_back_by_itself():
    async def main():
        down = Down()
        down.down = False
        pool, connector = await open_pool(FakeConnector(plan=down), max_size=10)
        await asyncio.sleep(60)
        down.down = True
        for fake in connector.alive:
            fake.die()
        await asyncio.sleep(600)
        assert pool.stats.size == 0
        down.down = False
        await asyncio.sleep(15 + 0.1)
        assert pool.stats.idle == 10
        await pool.close()

    run(main())


@pytest.mark.parametrize("every", [2, 3])
def test_t24_every_kth_dial_fails(every):
    async def main():
        connector = FakeConnector(dial_time=0.1, plan=lambda n: OSError("reset") if n % every == 0 else None)
        pool, _ = await open_pool(connector, max_size=10)
        assert pool.stats.idle == 10
        leases = [await pool.borrow() for _ in range(10)]
        task = asyncio.create_task(pool.borrow())
        await steps(1)
        for lease in leases:
            lease.discard("test")
        (await task).return_()
        await pool.wait_ready()
        consistent(pool)
        assert connector.most_alive <= 10
        await pool.close()

    run(main())


def test_t25_t27_no_herd_and_growing_pauses():
    async def main():
        down = Down()
        connector = FakeConnector(plan=down)
        pool = make_pool(
            connector, max_size=50, min_size=0, max_waiting=500, max_opening=8, jitter=0.999, outage_after=None
        )
        await pool.open()
        tasks = [asyncio.create_task(pool.borrow(timeout=60)) for _ in range(500)]
        await asyncio.wait(tasks)
        assert all(isinstance(task.exception(), PoolTimeout) for task in tasks)
        assert connector.most_dialling <= 8
        rounds = sorted(set(connector.dials))
        gaps = [later - earlier for earlier, later in itertools.pairwise(rounds)]
        assert gaps[0] == pytest.approx(0.1, rel=0.01)
        assert gaps[1] == pytest.approx(0.2, rel=0.01)
        assert max(gaps) == pytest.approx(2.0, rel=0.01)
        assert len(connector.dials) <= 8 * 40
        await pool.close()

    run(main())


def test_t27_nobody_waits_so_the_pauses_grow_longer_and_a_borrower_shortens_them():
    async def main():
        down = Down()
        down.down = False
        pool, connector = await open_pool(FakeConnector(plan=down), max_size=1, jitter=0.999)
        await asyncio.sleep(10)
        down.down = True
        connector.alive[0].die()
        await asyncio.sleep(300)
        assert connector.dials[-1] - connector.dials[-2] == pytest.approx(15, rel=0.01)
        await asyncio.sleep(connector.dials[-1] + 15 + 3 - now())
        before = len(connector.dials)
        down.down = False
        lease = await pool.borrow()
        assert len(connector.dials) == before + 1
        assert lease.waited == 0  # the last failure is longer ago than borrowers' pauses
        lease.return_()
        await pool.close()

    run(main())


def test_t34_a_server_that_asks_to_wait_is_not_dialled_before():
    async def main():
        down = Down(lambda: RateLimited("429", status=429, retry_after=30))
        connector = FakeConnector(plan=down)
        pool = make_pool(connector, max_size=1, min_size=0)
        await pool.open()
        with pytest.raises(PoolTimeout):
            await pool.borrow(timeout=29)
        assert len(connector.dials) == 1
        with pytest.raises(PoolTimeout):
            await pool.borrow(timeout=29)
        assert connector.dials[1] == START + 30
        await pool.close()

    run(main())


def test_t28_accept_and_close_is_no_success():
    async def main():
        connector = FakeConnector()
        pool = make_pool(connector, max_size=4, max_opening=4)
        await pool.open()
        for _ in range(600):
            await asyncio.sleep(0.1)
            for fake in connector.alive:
                fake.die()
        assert len(connector.dials) < 4 * 25
        assert "ended a new connection" in str(pool.stats.last_error)
        await asyncio.sleep(30)
        assert pool.stats.idle == 4
        assert pool.stats.last_error is None  # they last now
        await pool.close()

    run(main())


def test_t31_one_dial_that_hangs_blocks_no_other():
    async def main():
        connector = FakeConnector(dial_time=None)
        pool = make_pool(connector, max_size=2, connect_timeout=5)
        opening = asyncio.create_task(pool.open())
        await steps(2)
        connector.dial_time = 0.1
        with pytest.raises(ConnectFailed, match="within 5 s"):
            await opening
        assert now() == START + 5
        assert pool.stats.size == 0

    run(main())


def test_t62_a_failed_first_dial_is_tried_again():
    async def main():
        connector = FakeConnector(plan=lambda number: OSError("unreachable") if number <= 5 else None)
        pool = make_pool(connector, max_size=1)
        await pool.open()
        assert pool.stats.idle == 1
        assert pool.stats.open_failed == 5
        await pool.close()

    run(main())


def test_open_raises_a_permanent_refusal_at_once_and_closes_everything():
    async def main():
        pool = make_pool(FakeConnector(plan=lambda number: Unauthorized("401: wrong key")), max_size=8)
        with pytest.raises(Unauthorized, match="wrong key") as caught:
            await pool.open()
        assert caught.value.status == 401
        assert caught.value.permanent
        assert now() == START
        assert pool.stats.phase == "closed"
        assert pool.stats.size == 0
        with pytest.raises(PoolClosed):
            await pool.open()

    run(main())


def test_open_raises_the_last_error_when_its_time_is_over():
    async def main():
        connector = FakeConnector(plan=lambda number: OSError(f"try {number}"))
        pool = make_pool(connector, max_size=1, connect_timeout=3)
        with pytest.raises(OSError, match=r"try \d+"):
            await pool.open()
        assert now() == START + 3
        assert pool.stats.phase == "closed"

    run(main())


def test_a_cancelled_open_closes_everything():
    async def main():
        connector = FakeConnector(dial_time=1)
        pool = make_pool(connector, max_size=4)
        task = asyncio.create_task(pool.open())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await pool.close()
        assert connector.made == []
        assert pool.stats.phase == "closed"

    run(main())


def test_t20_a_refused_key_fails_waiters_at_once_and_is_tried_again_slowly():
    async def main():
        down = Down(lambda: Unauthorized("401: revoked"))
        down.down = False
        pool, connector = await open_pool(FakeConnector(dial_time=1, plan=down), max_size=1)
        await asyncio.sleep(60)
        down.down = True
        connector.alive[0].die()
        start = now()
        with pytest.raises(Unauthorized, match="revoked"):
            await pool.borrow()
        assert now() == start + 1
        with pytest.raises(Unauthorized, match="revoked") as caught:
            await pool.borrow()
        assert now() == start + 1  # the next one does not wait at all
        assert caught.value is not pool.stats.last_error  # no borrower's frames hang on the pool
        with pytest.raises(Unauthorized):
            await pool.wait_ready()
        dials = len(connector.dials)
        await asyncio.sleep(14)
        assert len(connector.dials) == dials
        down.down = False
        await asyncio.sleep(3)
        (await pool.borrow()).return_()  # the key was rotated
        await pool.close()

    run(main())


# Stale


def test_t36_a_dead_idle_connection_is_never_lent():
    async def main():
        pool, _ = await open_pool(max_size=2)
        top = pool._core.idle[-1].connection
        top.die()
        assert pool.stats.idle == 1  # at that very moment
        assert pool.stats.discarded["lost"] == 1
        lease = pool.try_borrow()
        assert lease.connection is not top
        lease.return_()
        # Dead, though nobody has said so.
        pool._core.idle[-1].connection.open = False
        lease = await pool.borrow()
        assert lease.connection.open
        lease.return_()
        consistent(pool)
        await pool.close()

    run(main())


def test_t37_what_is_not_usable_on_return_is_discarded():
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        lease.connection.open = False  # unread bytes stand on it
        lease.return_()
        assert pool.stats.idle == 0
        assert pool.stats.discarded == {"unusable": 1}
        await pool.wait_ready()
        await pool.close()

    run(main())


def test_t40_many_stale_ones_cost_one_dial():
    async def main():
        pool, _ = await open_pool(FakeConnector(dial_time=1), max_size=50, max_opening=8)
        await asyncio.sleep(60)
        for slot in pool._core.idle:
            slot.connection.open = False  # the server was restarted, nobody has noticed
        lease = await pool.borrow()
        assert lease.waited == 1
        lease.return_()
        await pool.close()

    run(main())


def test_t41_t30_idle_connections_leave_before_the_server_ends_them_and_not_all_at_once():
    async def main():
        shares = iter(range(1_000_000))
        connector = FakeConnector()
        pool = make_pool(connector, max_size=20, idle_timeout=50.0, max_opening=20)
        pool._random = lambda: (next(shares) % 20) / 20
        await pool.open()
        await asyncio.sleep(50 * (1 - LEAD - JITTER) - 0.1)
        assert len(connector.dials) == 20
        await asyncio.sleep(50 * JITTER + 0.2)
        assert len(connector.dials) == 40
        assert len(set(connector.dials)) == 21  # the first twenty at once, then one by one
        assert pool.stats.discarded == {"idle_timeout": 20}
        assert pool.stats.idle == 20
        await pool.close()

    run(main())


def test_the_lifetime_ends_on_return_or_while_idle():
    async def main():
        pool, _ = await open_pool(max_size=2, max_lifetime=10.0, jitter=0)
        lease = await pool.borrow()
        await asyncio.sleep(9.9)
        assert lease.usable
        assert pool.stats.discarded == {"lifetime": 1}  # the idle one was replaced before its end
        await asyncio.sleep(0.2)
        assert not lease.usable
        lease.return_()
        assert pool.stats.discarded == {"lifetime": 2}
        await pool.wait_ready()
        await pool.close()

    run(main())


def test_t42_a_retry_gets_a_connection_that_opened_after_it():
    async def main():
        pool, connector = await open_pool(max_size=3)
        first = pool._core.idle[0].connection
        old = set(connector.alive)
        lease = await pool.borrow(fresh=True)
        assert lease.connection not in old
        assert not lease.reused
        assert first.state == "gone"  # the least recently used made room
        assert pool.stats.discarded == {"made_room": 1}
        assert connector.most_alive <= 3
        lease.return_()
        await pool.close()

    run(main())


# Ownership


def test_t47_returned_twice_with_a_borrow_between(caplog):
    async def main():
        pool, _ = await open_pool(max_size=1)
        first = await pool.borrow()
        first.return_()
        second = await pool.borrow()
        first.return_()
        first.discard("late")
        assert (pool.stats.borrowed, pool.stats.idle, pool.stats.double_returns) == (1, 0, 2)
        assert second.connection.open
        second.return_()
        assert pool.stats.idle == 1
        consistent(pool)
        await pool.close()

    run(main())
    assert caplog.text.count("returned twice") == 1


def test_t48_returned_to_another_pool():
    async def main():
        one, _ = await open_pool(max_size=1, name="one")
        two, _ = await open_pool(max_size=1, name="two")
        lease = await one.borrow()
        with pytest.raises(LeaseError, match=r"'one'.*'two'"):
            two.return_(lease)
        one.return_(lease)
        assert one.stats.idle == 1
        await one.close()
        await two.close()

    run(main())


def test_t49_used_after_return():
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        lease.return_()
        with pytest.raises(LeaseError, match="over"):
            _ = lease.connection
        with pytest.raises(LeaseError):
            await lease.renew()
        assert not lease.usable
        await pool.close()

    run(main())


def test_t50_lost_and_returned_at_the_same_time():
    async def main():
        pool, _ = await open_pool(max_size=1)
        for order in ("lost first", "returned first"):
            lease = await pool.borrow()
            fake = lease.connection
            if order == "lost first":
                fake.die()
            lease.return_()
            if order == "returned first":
                fake.die()
            fake.lost(fake)
            consistent(pool)
            await pool.wait_ready()
        assert pool.stats.discarded["lost"] + pool.stats.discarded.get("unusable", 0) == 2
        assert pool.stats.opened == 3
        await pool.close()

    run(main())


@pytest.mark.parametrize("way", ["idle", "waiting", "renewed"])
def test_t52_a_lease_held_too_long_is_reported_once_with_who_borrowed_it(caplog, way):
    async def a_forgetful_borrower(pool):
        if way == "renewed":
            lease = await pool.borrow()
            await lease.renew(reason="worn out")
            return lease
        return await pool.borrow()

    async def main():
        pool, _ = await open_pool(max_size=1, leak_after=30.0)
        before = await pool.borrow() if way == "waiting" else None
        borrowing = asyncio.create_task(a_forgetful_borrower(pool))
        await asyncio.sleep(1)
        if before is not None:
            before.return_()
        lease = await borrowing
        await asyncio.sleep(300)
        lease.return_()
        lease = await pool.borrow()
        lease.return_()
        await asyncio.sleep(300)
        await pool.close()

    run(main())
    reports = [record.getMessage() for record in caplog.records if "leak_after" in record.getMessage()]
    assert len(reports) == 1
    assert "a_forgetful_borrower" in reports[0]
    assert ("await lease.renew" if way == "renewed" else "return await pool.borrow()") in reports[0]


def test_t52_a_lease_that_is_dropped_comes_back_with_a_report(caplog):
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        waiter = asyncio.create_task(pool.borrow())
        await steps(1)
        del lease
        gc.collect()
        (await waiter).return_()
        assert pool.stats.discarded == {"forgotten": 1}
        consistent(pool)
        await pool.close()

    run(main())
    assert "dropped without being returned" in caplog.text


def test_promise_9_a_lease_that_lost_its_connection_gets_another_ahead_of_the_queue():
    async def main():
        pool, connector = await open_pool(FakeConnector(dial_time=1), max_size=1)
        await asyncio.sleep(60)
        lease = await pool.borrow()
        waiter = asyncio.create_task(pool.borrow())
        await steps(1)
        old = lease.connection
        old.die()
        assert not lease.usable
        assert pool.stats.borrowed == 1  # it keeps its place
        await lease.renew()
        assert lease.connection is not old
        assert (lease.usable, lease.reused, lease.waited, lease.connect_time) == (True, False, 1, 1)
        assert not waiter.done()
        assert connector.most_alive == 1
        lease.return_()
        (await waiter).return_()
        await pool.close()

    run(main())


def test_a_renewal_that_fails_leaves_the_lease_empty_and_may_be_repeated():
    async def main():
        pool, _ = await open_pool(FakeConnector(dial_time=1), max_size=1)
        lease = await pool.borrow()
        lease.connection.die()
        task = asyncio.create_task(lease.renew())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        with pytest.raises(LeaseError, match="empty"):
            _ = lease.connection
        with pytest.raises(PoolTimeout):
            await lease.renew(timeout=0.1)
        await lease.renew()
        assert lease.usable
        lease.return_()
        assert pool.stats.double_returns == 0
        lease.return_()
        assert pool.stats.double_returns == 1
        consistent(pool)
        await pool.close()

    run(main())


# Closing


def test_t54_close_fails_every_waiter_in_the_same_call():
    async def main():
        pool, _ = await open_pool(max_size=1, max_waiting=100)
        lease = await pool.borrow()
        tasks = [asyncio.create_task(pool.borrow()) for _ in range(100)]
        await steps(1)
        closing = asyncio.create_task(pool.close())
        await steps(2)
        assert all(isinstance(task.exception(), PoolClosed) for task in tasks)
        await closing
        lease.return_()
        assert pool.stats.discarded == {"closed": 1}
        await pool.close()
        assert pool.stats.size == 0

    run(main())


def test_t55_borrowing_from_a_closed_pool_dials_nothing():
    async def main():
        pool, connector = await open_pool(max_size=1)
        await pool.close()
        with pytest.raises(PoolClosed, match="is closed"):
            await pool.borrow()
        assert pool.try_borrow() is None
        assert len(connector.dials) == 1
        unopened = make_pool(connector)
        with pytest.raises(PoolClosed, match="never opened"):
            await unopened.borrow()
        with pytest.raises(PoolClosed, match="never opened"):
            unopened.try_borrow()

    run(main())


@pytest.mark.parametrize("stubborn", [False, True])
def test_t56_a_dial_that_ends_after_the_close(stubborn):
    async def main():
        connector = FakeConnector(dial_time=1)
        if stubborn:
            dial = connector.open

            async def open_anyway(lost):
                task = asyncio.create_task(dial(lost))
                try:
                    return await asyncio.shield(task)
                except asyncio.CancelledError:
                    return await task

            connector.open = open_anyway
        pool = make_pool(connector, max_size=3)
        opening = asyncio.create_task(pool.open())
        await asyncio.sleep(0.5)
        await pool.close()
        with pytest.raises(PoolClosed):
            await opening
        assert connector.alive == []
        assert len(connector.made) == (3 if stubborn else 0)
        assert pool.stats.size == 0
        consistent(pool)

    run(main())


def test_t58_close_twice_at_once_and_before_open():
    async def main():
        pool, connector = await open_pool(FakeConnector(close_time=1), max_size=3)
        ends = []

        async def close(drain):
            await pool.close(drain)
            ends.append(now())

        await asyncio.gather(close(None), close(2.0), close(None))
        assert ends == [START + 1] * 3
        await pool.close()
        assert connector.alive == []
        assert pool.stats.size == 0
        unopened = make_pool(connector)
        await unopened.close()
        with pytest.raises(PoolClosed):
            await unopened.open()

    run(main())


def test_t59_a_peer_that_never_answers_the_close():
    async def main():
        pool, connector = await open_pool(FakeConnector(close_time=None), max_size=2, close_timeout=2.0)
        lease = await pool.borrow()
        lease.discard("test")
        assert (pool.stats.closing, pool.stats.size) == (1, 2)  # it counts until then
        (await pool.borrow()).return_()  # off the borrow path
        await asyncio.sleep(1.9)
        assert len(connector.dials) == 2
        await asyncio.sleep(0.2)
        assert len(connector.dials) == 3
        assert connector.most_alive == 2
        start = now()
        await pool.close()
        assert now() == start + 2
        assert connector.alive == []

    run(main())


def test_t60_close_with_drain_waits_for_leases_and_drops_the_rest(caplog):
    async def main():
        pool, connector = await open_pool(max_size=10)
        leases = [await pool.borrow() for _ in range(10)]
        loop = asyncio.get_running_loop()
        for number, lease in enumerate(leases[:7]):
            loop.call_later(0.1 * number, lease.return_)
        start = now()
        first = asyncio.create_task(pool.close(drain=5.0))
        await asyncio.sleep(1)
        assert pool.stats.borrowed == 3
        with pytest.raises(PoolClosed):
            await pool.borrow()
        await asyncio.gather(first, pool.close())
        assert now() == start + 5
        assert connector.alive == []
        assert pool.stats.discarded == {"closed": 7, "aborted": 3}
        for lease in leases[7:]:
            lease.return_()
        assert pool.stats.double_returns == 0
        consistent(pool)

    run(main())
    assert "3 leases did not come back" in caplog.text


def test_t60_drain_serves_who_waits_and_ends_when_all_is_back():
    async def main():
        pool, connector = await open_pool(max_size=2)
        first, second = await pool.borrow(), await pool.borrow()
        waiter = asyncio.create_task(pool.borrow())
        await steps(1)
        draining = asyncio.create_task(pool.drain())
        await steps(1)
        with pytest.raises(PoolClosed, match="drains"):
            await pool.borrow()
        first.return_()
        third = await waiter
        second.return_()
        await asyncio.sleep(10)
        assert not draining.done()
        await third.renew()  # who runs may go on
        third.return_()
        await draining
        assert connector.alive == []
        await pool.close()

    run(main())


def test_t63_a_smaller_size_comes_with_the_returns():
    async def main():
        told = []
        pool, connector = await open_pool(
            FakeConnector(), max_size=20, on_borrowed=lambda borrowed, max_size, now: told.append((borrowed, max_size))
        )
        leases = [await pool.borrow() for _ in range(18)]
        await pool.resize(5)
        assert told[-1] == (18, 5)
        await steps(5)
        assert (pool.stats.borrowed, pool.stats.size) == (18, 18)
        for lease in leases:
            lease.return_()
            consistent(pool)
        await asyncio.sleep(1)
        assert (pool.stats.idle, pool.stats.size) == (5, 5)
        await pool.resize(8, 2)
        assert (pool.stats.max_size, pool.stats.min_size, pool.stats.size) == (8, 2, 5)
        await pool.resize(30, 30)
        await pool.wait_ready()
        assert pool.stats.idle == 30
        with pytest.raises(SettingsError):
            await pool.resize(3, 4)
        assert pool.stats.max_size == 30
        await pool.close()
        assert connector.alive == []

    run(main())


def test_idle_connections_beyond_max_idle_close_on_return():
    async def main():
        pool, _ = await open_pool(max_size=5, min_size=0, max_idle=2)
        leases = [await pool.borrow() for _ in range(5)]
        for lease in leases:
            lease.return_()
        await steps(5)
        assert (pool.stats.idle, pool.stats.size) == (2, 2)
        assert pool.stats.discarded == {"surplus": 3}
        await pool.close()

    run(main())


def test_overflow_fail_and_grow():
    async def main():
        pool, _ = await open_pool(max_size=1, overflow="fail")
        lease = await pool.borrow()
        with pytest.raises(PoolFull, match="overflow"):
            await pool.borrow()
        lease.return_()
        await pool.close()
        cold, _ = await open_pool(FakeConnector(dial_time=1), max_size=1, min_size=0, overflow="fail")
        lease = await cold.borrow()  # there is room, so it is opened
        lease.return_()
        await cold.close()
        pool, connector = await open_pool(max_size=2, overflow="grow")
        leases = [await pool.borrow() for _ in range(5)]
        assert (pool.stats.borrowed, pool.stats.overflow, pool.stats.size) == (5, 3, 5)
        for lease in leases:
            lease.return_()
        await steps(5)
        assert (pool.stats.idle, pool.stats.overflow, pool.stats.size) == (2, 0, 2)
        assert pool.stats.discarded == {"overflow": 3}
        await pool.close()
        assert connector.alive == []

    run(main())


# Time, loops, memory


def test_t67_a_machine_that_slept_is_served_by_paced_dials():
    async def main():
        pool, connector = await open_pool(FakeConnector(dial_time=0.5), max_size=20, idle_timeout=50.0, max_opening=4)
        asyncio.get_running_loop()._virtual_now += 3600
        lease = await pool.borrow()
        assert lease.waited == 0.5
        assert connector.most_dialling <= 4
        lease.return_()
        await pool.close()

    run(main())


def test_t68_one_timer_however_many_connections():
    async def main():
        pool, _ = await open_pool(max_size=50, idle_timeout=50.0, max_lifetime=500.0)
        loop = asyncio.get_running_loop()
        for _ in range(2000):
            leases = [pool.try_borrow() for _ in range(3)]
            for lease in leases:
                lease.return_()
        assert len([timer for timer in loop._scheduled if not timer.cancelled()]) == 1
        await pool.close()

    run(main())


def test_t69_a_second_loop_is_refused():
    loop = VirtualClockLoop()
    pool = make_pool(FakeConnector(), max_size=1)
    loop.run_until_complete(pool.open())

    async def elsewhere():
        for use in (pool.borrow, pool.open, pool.close, pool.wait_ready):
            with pytest.raises(WrongLoop, match="belongs to"):
                await use()
        with pytest.raises(WrongLoop):
            pool.try_borrow()

    run(elsewhere())
    with pytest.raises(WrongLoop, match="no event loop"):
        pool.try_borrow()
    loop.run_until_complete(pool.close())
    loop.close()


@pytest.mark.leaves_tasks  # a dial and a borrower, which end with their loop
def test_t70_a_loop_that_ends_with_the_pool_open_leaves_no_noise(caplog):
    async def main():
        connector = FakeConnector(dial_time=0.01)
        pool = make_pool(connector, max_size=5, min_size=1)
        await pool.open()
        lease = await pool.borrow()
        asyncio.create_task(pool.borrow()).add_done_callback(lambda task: None)
        await steps(2)
        return pool, lease

    pool, lease = run(main())
    lease.return_()  # nothing to do any more, and nothing to say
    del lease, pool
    gc.collect()
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


def test_a_pool_that_is_dropped_lets_go_of_everything(caplog):
    async def main():
        connector = FakeConnector(dial_time=0.1, close_time=None)
        pool = make_pool(connector, max_size=5, max_opening=2, idle_timeout=50.0)
        await pool.open()
        alive = weakref.ref(pool)
        assert connector.dialling or len(connector.made) < 5
        del pool
        assert alive() is None  # at once: no task and no timer holds it
        await asyncio.sleep(1)
        assert connector.alive == []
        assert connector.dialling == 0

    run(main())
    assert "never closed" in caplog.text


def test_on_borrowed_hears_every_change():
    async def main():
        told = []
        pool, _ = await open_pool(max_size=2, on_borrowed=lambda *args: told.append(args))
        one = await pool.borrow()
        await asyncio.sleep(1)
        two = await pool.borrow()
        one.return_()
        two.return_()
        assert told == [(1, 2, START), (2, 2, START + 1), (1, 2, START + 1), (0, 2, START + 1)]
        await pool.close()

    run(main())


def test_explain_says_what_it_does_and_why():
    async def main():
        connector = FakeConnector()
        pool = make_pool(connector, max_size=2, min_size=1)
        assert "never entered" in pool.explain()
        await pool.open()
        assert "1 of at most 2 connections to wss://fake.test/v1: 1 idle. Nobody waits." in pool.explain()
        lease = await pool.borrow()
        connector.plan = Down()
        task = asyncio.create_task(pool.borrow())
        await asyncio.sleep(1)
        text = pool.explain()
        assert "1 borrower waits, the first for 1.0 s." in text
        assert "the next dial comes in" in text
        assert "connection refused" in text
        task.cancel()
        lease.return_()
        await pool.close()
        assert "closed" in pool.explain()

    run(main())


def test_stats_are_frozen():
    async def main():
        pool, _ = await open_pool(max_size=1)
        stats = pool.stats
        with pytest.raises(AttributeError):
            stats.idle = 5
        with pytest.raises(TypeError):
            stats.discarded["lost"] = 1
        await pool.close()

    run(main())


def test_wait_ready_for_more_than_fits():
    async def main():
        pool, _ = await open_pool(max_size=2)
        with pytest.raises(SettingsError, match="max_size = 2"):
            await pool.wait_ready(3)
        await pool.close()

    run(main())


# The clock itself


@pytest.mark.leaves_tasks  # its main coroutine, which waits for ever
def test_the_clock_jumps_and_says_when_nothing_will_ever_happen(monkeypatch):
    monkeypatch.setattr("speechpool.testing.clock.PATIENCE", 0.01)

    async def main():
        await asyncio.sleep(86400)
        assert now() == START + 86400
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        run(main())


def test_t36_a_connection_that_is_dead_when_its_dial_ends_is_never_lent():
    async def main():
        connector = FakeConnector(dial_time=1)
        dial = connector.open

        async def stillborn(lost):
            fake = await dial(lost)
            fake.open = fake.number > 1
            return fake

        connector.open = stillborn
        pool = make_pool(connector, max_size=1)
        await pool.open()
        assert (pool.stats.opened, pool.stats.idle) == (2, 1)  # the first one was nothing to return for
        lease = await pool.borrow()
        assert lease.connection.number == 2
        assert pool.stats.discarded == {"lost": 1}
        lease.return_()
        await pool.close()

    run(main())


def test_t56_a_dial_that_outlives_its_pool_is_dropped():
    async def main():
        connector = FakeConnector(dial_time=1)
        dial = connector.open

        async def open_anyway(lost):
            task = asyncio.create_task(dial(lost))
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            return task.result()

        connector.open = open_anyway
        pool = make_pool(connector, max_size=1)
        opening = asyncio.create_task(pool.open())
        await asyncio.sleep(0.5)
        opening.cancel()
        await asyncio.wait([opening])
        del pool, opening
        gc.collect()
        await asyncio.sleep(2)
        assert len(connector.made) == 1
        assert connector.alive == []

    run(main())
