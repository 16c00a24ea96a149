"""Cancellations and errors that arrive inside the pool's own calls: in a check, in a return, in somebody's hook."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from fake_connector import FakeConnector, consistent, open_pool, steps

from speechpool.pool import Lease, Pool
from speechpool.testing.clock import START, VirtualClockLoop, run


def cancel_me():
    """A cancellation arrives while a plain call runs; it strikes at the next await."""
    asyncio.current_task().cancel()


def test_t04_a_cancellation_during_the_check_leaves_the_connection_with_its_borrower():
    async def main():
        pool, connector = await open_pool(max_size=1)

        async def user():
            lease = await pool.borrow()
            try:
                await asyncio.sleep(3600)
            finally:
                lease.return_()

        connector.usable = lambda fake: cancel_me() or fake.open
        task = asyncio.create_task(user())
        await asyncio.wait([task])
        assert task.cancelled()
        connector.usable = lambda fake: fake.open
        assert (pool.stats.idle, pool.stats.borrowed) == (1, 0)
        assert pool.stats.discarded == {}
        consistent(pool)
        await pool.close()

    run(main())


def test_t04_a_check_that_fails_after_the_hand_over_retires_the_connection_and_keeps_the_cancellation(caplog):
    async def main():
        pool, connector = await open_pool(max_size=1)
        lease = await pool.borrow()
        task = asyncio.create_task(pool.borrow())
        await steps(1)
        lease.return_()  # handed over; its taker checks it when it runs

        def broken(fake):
            connector.usable = lambda fake: fake.open
            cancel_me()
            raise OSError("the check itself broke")

        connector.usable = broken
        await asyncio.wait([task])
        assert task.cancelled()
        await pool.wait_ready()
        assert (pool.stats.idle, pool.stats.borrowed, pool.stats.waiting) == (1, 0, 0)
        assert pool.stats.discarded == {"lost": 1}
        consistent(pool)
        await pool.close()

    run(main())
    assert "cannot tell whether" in caplog.text


def test_t05_a_return_is_a_plain_call_and_the_close_behind_it_belongs_to_the_pool():
    assert not any(inspect.iscoroutinefunction(way) for way in (Lease.return_, Lease.discard, Pool.return_))

    async def main():
        pool, connector = await open_pool(FakeConnector(close_time=1), max_size=1)

        async def user():
            lease = await pool.borrow()
            try:
                await asyncio.sleep(3600)
            finally:
                lease.discard("barge-in")
                await asyncio.sleep(3600)  # whatever its clean-up does, the pool does not wait for it

        task = asyncio.create_task(user())
        await steps(2)
        for _ in range(3):
            task.cancel()
            await steps(1)
        await asyncio.wait([task])
        assert task.cancelled()
        assert (pool.stats.borrowed, pool.stats.closing) == (0, 1)
        await pool.wait_ready()
        assert asyncio.get_running_loop().time() == START + 1  # as long as the close takes
        assert connector.most_alive == 1
        assert pool.stats.discarded == {"barge-in": 1}
        consistent(pool)
        await pool.close()

    run(main())


# Hooks. What they raise is theirs: the pool says so and goes on. What ends the process goes through, and leaves the state
# whole behind it.


def raising(error, times=1_000_000):
    left = iter(range(times))

    def hook(*arguments):
        if next(left, None) is None:
            return True
        raise error("test")

    return hook


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
@pytest.mark.parametrize("hook", ["close", "abort", "wait_closed", "usable", "on_borrowed"])
def test_t12_a_hook_may_raise_anything_at_any_time(caplog, hook, error):
    async def main():
        # Only a peer that does not answer a close is dropped.
        connector = FakeConnector(dial_time=0.1, close_time=None if hook in {"abort", "wait_closed"} else 0.0)
        pool, _ = await open_pool(connector, max_size=2)
        one, two = await pool.borrow(), await pool.borrow()
        if hook == "on_borrowed":
            pool._on_borrowed = raising(error)
        else:
            setattr(connector, hook, raising(error, 2 if hook == "usable" else 1_000_000))
        waiter = asyncio.create_task(pool.borrow())
        await steps(1)
        one.discard("test")
        two.return_()
        (await waiter).return_()
        three = await pool.borrow()
        three.return_()
        await asyncio.sleep(5)
        consistent(pool)
        assert (pool.stats.borrowed, pool.stats.waiting) == (0, 0)
        vars(connector).pop(hook, None)
        await pool.wait_ready()
        assert pool.stats.size == 2
        assert connector.most_dialling <= 2
        await pool.close()
        assert len(connector.alive) == (1 if hook == "abort" else 0)

    run(main())


def test_t12_a_dial_that_ends_in_a_cancellation_of_its_own_is_a_failed_dial():
    async def main():
        connector = FakeConnector(plan=lambda number: asyncio.CancelledError("test") if number == 2 else None)
        pool, _ = await open_pool(connector, max_size=3)
        assert (pool.stats.idle, pool.stats.open_failed) == (3, 1)
        assert connector.dials[-1] <= START + 15.0  # the longest pause
        consistent(pool)
        await pool.close()

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("hook", ["close", "usable", "on_borrowed"])
def test_t12_an_interrupt_inside_a_hook_goes_through_and_leaves_the_pool_whole(hook, error):
    loop = VirtualClockLoop()
    pool, connector = loop.run_until_complete(open_pool(max_size=2))
    held = [loop.run_until_complete(pool.borrow())]
    if hook == "on_borrowed":
        pool._on_borrowed = raising(error)
    else:
        setattr(connector, hook, raising(error))

    async def use():
        held[0].discard("test")
        held.append(await pool.borrow())
        await asyncio.sleep(1)

    task = loop.create_task(use())
    with pytest.raises(error):
        loop.run_until_complete(task)

    async def go_on():
        task.cancel()
        await asyncio.wait([task])
        pool._on_borrowed = None
        vars(connector).pop(hook, None)
        for lease in held:
            lease.return_()
        consistent(pool)
        again = [await pool.borrow(), await pool.borrow()]
        for lease in again:
            lease.return_()
        await pool.close()

    loop.run_until_complete(go_on())
    loop.close()
    if not task.cancelled():
        task.exception()  # it went through the task, too
    assert pool.stats.size == 0
    assert connector.alive == []
