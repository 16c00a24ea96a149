"""Every way to cancel a borrower, at every moment. A barge-in is a cancellation, so this is the common path."""

from __future__ import annotations

import asyncio

import pytest
from fake_connector import FakeConnector, consistent, open_pool, steps

from speechpool.errors import PoolTimeout
from speechpool.testing.clock import run


def borrower(pool, **options):
    return asyncio.create_task(pool.borrow(**options))


async def finish(pool):
    consistent(pool)
    await pool.close()
    assert pool.stats.size == 0
    assert pool.stats.opened == pool.stats.closed


@pytest.mark.parametrize("position", range(5))
def test_t01_a_cancelled_waiter_leaves_the_queue(position):
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        tasks = [borrower(pool) for _ in range(5)]
        await steps(1)
        assert pool.stats.waiting == 5
        tasks[position].cancel()
        await steps(1)
        assert tasks[position].cancelled()
        assert pool.stats.waiting == 4
        assert pool.stats.cancelled == 1
        for index, task in enumerate(tasks):
            if index != position:
                lease.return_()
                lease = await task
        lease.return_()
        assert (pool.stats.idle, pool.stats.borrowed, pool.stats.opened) == (1, 0, 1)
        await finish(pool)

    run(main())


def test_t01_when_all_have_given_up_nobody_waits():
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        tasks = [borrower(pool) for _ in range(3)]
        await steps(1)
        for left, task in enumerate(reversed(tasks)):
            task.cancel()
            await steps(1)
            assert pool.stats.waiting == 2 - left
        lease.return_()
        assert (pool.stats.idle, pool.stats.waiting, pool.stats.cancelled) == (1, 0, 3)
        await finish(pool)

    run(main())


@pytest.mark.parametrize("turns", range(4))
def test_t02_cancelled_in_the_tick_of_the_hand_over(turns):
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        first, second = borrower(pool), borrower(pool)
        await steps(1)
        lease.return_()
        await steps(turns)
        first.cancel()
        if turns == 0:
            await steps(2)  # one in which the first declines, one in which the second runs
            assert first.cancelled()
            assert second.done()
            (await second).return_()
        else:
            (await first).return_()
            (await second).return_()
        assert (pool.stats.idle, pool.stats.borrowed) == (1, 0)
        await finish(pool)

    run(main())


def test_t02_a_future_that_is_cancelled_already_is_passed_by_in_the_same_call():
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        first, second = borrower(pool), borrower(pool)
        await steps(1)
        first.cancel()  # its future is cancelled, its task has not run
        lease.return_()
        assert pool.stats.waiting == 0
        assert pool.stats.borrowed == 1
        (await second).return_()
        assert first.cancelled()
        await finish(pool)

    run(main())


def test_t02_the_last_one_cancelled_in_the_tick_leaves_it_idle():
    async def main():
        pool, _ = await open_pool(max_size=1)
        lease = await pool.borrow()
        task = borrower(pool)
        await steps(1)
        lease.return_()
        task.cancel()
        await steps(1)
        assert pool.stats.idle == 1
        await finish(pool)

    run(main())


def test_t03_a_dial_outlives_its_borrower_and_a_thousand_borrowers_dial_no_more():
    async def main():
        connector = FakeConnector(dial_time=0.1)
        pool, _ = await open_pool(connector, max_size=10, min_size=0, max_opening=8)
        for _ in range(100):
            tasks = [borrower(pool) for _ in range(10)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(result, BaseException):
                    result.return_()  # it was served before the cancel
            consistent(pool)
        await asyncio.sleep(1)
        assert connector.most_alive <= 10
        assert len(connector.dials) == pool.stats.opened <= 10
        assert pool.stats.idle == pool.stats.opened
        await finish(pool)

    run(main())


@pytest.mark.parametrize("dialled", [False, True])
@pytest.mark.parametrize("turns", range(12))
def test_t06_a_cancelled_task_ends_cancelled_at_every_step(turns, dialled):
    """Hand-over, dial and cancel in all orders: nothing is lost and no cancellation is swallowed."""

    async def main():
        connector = FakeConnector(dial_time=0.5)
        pool, _ = await open_pool(connector, max_size=2, min_size=0 if dialled else 2)
        held = [] if dialled else [await pool.borrow(), await pool.borrow()]
        inside = asyncio.Event()

        async def user():
            lease = await pool.borrow()
            try:
                inside.set()
                await asyncio.sleep(3600)
            finally:
                lease.return_()

        tasks = [asyncio.create_task(user()) for _ in range(4)]
        if dialled:
            await asyncio.sleep(0.5)
        else:
            await steps(turns // 2)
        for lease in held:
            lease.return_()
        await steps(turns)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        consistent(pool)
        await asyncio.sleep(1)
        assert pool.stats.borrowed == pool.stats.waiting == 0
        assert pool.stats.idle == pool.stats.opened == 2
        await finish(pool)

    run(main())


def test_t06_three_hundred_interleavings():
    """Hand-over and cancel, a different number of steps apart each time; the capacity stays and so does each cancel."""

    async def main():
        pool, _ = await open_pool(max_size=1)
        swallowed = 0
        for number in range(300):
            lease = await pool.borrow()
            task = borrower(pool)
            other = borrower(pool)
            await steps(number % 3)
            if number % 2:
                lease.return_()
                await steps(number // 3 % 3)
                cancelled = not task.done() and task.cancel()
            else:
                cancelled = task.cancel()
                await steps(number // 3 % 3)
                lease.return_()
            await asyncio.wait([task])
            swallowed += cancelled and not task.cancelled()
            if not task.cancelled():
                task.result().return_()
            (await other).return_()
            consistent(pool)
            assert (pool.stats.idle, pool.stats.borrowed, pool.stats.opened) == (1, 0, 1)
        assert swallowed == 0
        await finish(pool)

    run(main())


def test_t07_timeout_and_hand_over_in_the_same_instant():
    async def main():
        pool, _ = await open_pool(max_size=1)
        loop = asyncio.get_running_loop()
        for first in ("return", "timeout"):
            lease = await pool.borrow()
            deadline = loop.time() + 1
            if first == "return":
                loop.call_at(deadline, lease.return_)
            task = borrower(pool, timeout=None, deadline=deadline)
            await steps(1)
            if first == "timeout":
                loop.call_at(deadline, lease.return_)
            await asyncio.wait([task])
            if task.exception() is None:
                task.result().return_()
            else:
                assert isinstance(task.exception(), PoolTimeout)
            await steps(2)
            consistent(pool)
            assert (pool.stats.idle, pool.stats.borrowed, pool.stats.waiting) == (1, 0, 0)
        assert pool.stats.timeouts <= 1
        await finish(pool)

    run(main())


def test_t08_cancelled_while_its_connection_dials():
    async def main():
        pool, connector = await open_pool(FakeConnector(dial_time=1), max_size=2, min_size=0)
        tasks = [borrower(pool), borrower(pool)]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        lease = await pool.borrow()
        assert lease.waited == pytest.approx(0.5)
        assert lease.connect_time == pytest.approx(0.5)  # of the dial that somebody else had begun
        assert len(connector.dials) == 2
        lease.return_()
        await finish(pool)

    run(main())


def test_t10_cancelled_again_and_again_while_it_closes():
    async def main():
        pool, connector = await open_pool(FakeConnector(close_time=1), max_size=3)
        for _ in range(3):
            task = asyncio.create_task(pool.close())
            await steps(2)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        await asyncio.sleep(1)
        assert connector.alive == []
        await finish(pool)

    run(main())


def test_t13_a_storm_of_cancels_leaves_nothing_behind():
    async def main():
        pool, _ = await open_pool(max_size=2)
        held = [await pool.borrow(), await pool.borrow()]
        for _ in range(50):
            tasks = [borrower(pool, timeout=60) for _ in range(20)]
            await steps(1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        line = pool._core.line
        assert line.size == 0
        assert len(line._deadlines) < 200
        for lease in held:
            lease.return_()
        assert pool.stats.cancelled == 1000
        await finish(pool)

    run(main())
