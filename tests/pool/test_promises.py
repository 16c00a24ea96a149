"""Promises of the pool, where a plausible mistake would pass by every other test; `make mutants` makes those mistakes."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from fake_connector import Down, FakeConnector, consistent, make_pool, open_pool, steps

from speechpool.errors import ConnectFailed, EndpointDown, PoolTimeout
from speechpool.pool import Pool
from speechpool.settings import LifetimeProfile, PoolSettings
from speechpool.testing.clock import run


def now():
    return asyncio.get_running_loop().time()


def test_promise_2_an_open_that_is_cancelled_leaves_nothing_even_where_nobody_closes_the_pool():
    async def main():
        connector = FakeConnector(dial_time=1)
        pool = make_pool(connector, max_size=4)
        task = asyncio.create_task(pool.open())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(5)
        assert (connector.dialling, connector.made) == (0, [])
        assert pool.stats.phase == "closed"

    run(main())


def test_promise_3_whoever_gives_no_timeout_waits_for_borrow_timeout():
    async def main():
        pool, _ = await open_pool(max_size=1, borrow_timeout=3.0, leak_after=None, idle_timeout=None)
        lease = await pool.borrow()
        began = now()
        async with asyncio.timeout(60):
            with pytest.raises(PoolTimeout):
                await pool.borrow()
        assert now() - began == 3.0
        lease.return_()
        await pool.close()

    run(main())


def reaped(connector, after):
    """Let the server end each connection that has been open for so many seconds."""
    dial = connector.open

    async def open_for_a_while(lost):
        fake = await dial(lost)
        asyncio.get_running_loop().call_later(after, lambda: fake.open and fake.die())
        return fake

    connector.open = open_for_a_while


async def open_known(connector, idle_timeout, **settings):
    """Return a pool of a provider that is known to end what was idle for so many seconds."""
    profile = LifetimeProfile(idle_timeout=idle_timeout)
    pool = Pool(connector, PoolSettings(**settings), random=itertools.cycle((0.1, 0.5, 0.9)).__next__, profile=profile)
    await pool.open()
    await pool.wait_ready()
    return pool


def test_promise_5_a_server_that_ends_connections_earlier_is_forestalled_after_a_while():
    async def main():
        connector = FakeConnector(dial_time=0.1)
        reaped(connector, 20.0)
        pool = await open_known(connector, 50.0, max_size=5)
        await asyncio.sleep(600)
        lost = pool.stats.discarded["lost"]
        await asyncio.sleep(3600)
        assert pool.stats.discarded["lost"] - lost <= 15  # a scout asks now and then
        assert pool.stats.idle == 5
        await pool.close()

    run(main())


def test_promise_5_an_idle_pool_makes_no_handshakes_where_the_server_keeps_what_is_pinged():
    async def main():
        connector = FakeConnector(dial_time=0.1)
        pool = await open_known(connector, 50.0, max_size=5)
        await asyncio.sleep(300)
        dials = len(connector.dials)
        await asyncio.sleep(3600)
        assert (len(connector.dials), pool.stats.idle) == (dials, 5)
        await pool.close()

    run(main())


def test_promise_6_in_an_outage_borrowers_fail_at_once_with_the_reason_and_its_age():
    async def main():
        down = Down()
        down.down = False
        connector = FakeConnector(plan=down)
        pool, _ = await open_pool(connector, max_size=4, outage_after=2.0)
        down.down = True
        for fake in connector.alive:
            fake.die()
        await asyncio.sleep(60)
        tries = len(connector.dials)
        while len(connector.dials) == tries:
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)  # so soon after a try, nobody's wish is worth another one
        failed_at, began = connector.dials[-1], now()
        async with asyncio.timeout(60):
            with pytest.raises(EndpointDown) as caught:
                await pool.borrow()
        assert now() == began
        assert isinstance(caught.value.cause, ConnectFailed)
        assert caught.value.age == began - failed_at >= 0.5
        down.down = False
        await asyncio.sleep(15.1)
        lease = await pool.borrow()
        assert lease.reused
        lease.return_()
        await pool.close()

    run(main())


@pytest.mark.leaves_tasks  # dials and borrowers, which end with their loop
def test_promise_6_dials_that_end_with_their_loop_are_no_outage(caplog):
    connector = FakeConnector(dial_time=1)

    async def main():
        pool = make_pool(connector, max_size=5, min_size=1, jitter=0.0)
        await pool.open()
        lease = await pool.borrow()
        waiters = [asyncio.create_task(pool.borrow()) for _ in range(3)]
        await steps(3)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:  # as asyncio.run does at its end
            task.cancel()
        await asyncio.wait(others)
        await steps(3)
        assert all(waiter.cancelled() for waiter in waiters)
        assert (len(connector.dials), connector.dialling) == (4, 0)
        lease.return_()
        await pool.close()

    run(main())
    assert "cannot open" not in caplog.text


def test_promise_7_no_overflow_connection_stays_where_it_comes_back_first():
    async def main():
        pool, connector = await open_pool(max_size=2, overflow="grow")
        leases = [await pool.borrow() for _ in range(4)]
        for lease in reversed(leases):
            lease.return_()
            consistent(pool)
        await steps(5)
        assert (pool.stats.idle, pool.stats.overflow) == (2, 0)
        assert [fake.number for fake in connector.alive] == [1, 2]
        await pool.close()

    run(main())


def test_promise_10_a_drain_touches_nothing_that_is_borrowed():
    async def main():
        pool, _ = await open_pool(max_size=2, leak_after=None)
        lease, other = await pool.borrow(), await pool.borrow()
        other.return_()
        draining = asyncio.create_task(pool.drain())
        await asyncio.sleep(30)
        assert lease.connection.state == "open"
        assert (pool.stats.borrowed, pool.stats.size) == (1, 1)
        assert not draining.done()
        lease.return_()
        await draining
        await pool.close()

    run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_promise_10_a_forked_child_is_refused_and_the_parent_goes_on():
    code = """
        import asyncio, os, warnings
        warnings.simplefilter("ignore")
        from fake_connector import open_pool
        from speechpool.errors import WrongLoop

        async def main():
            pool, _ = await open_pool(max_size=2)
            lease = await pool.borrow()
            child = os.fork()
            if child == 0:
                refused = 0
                for use in (pool.try_borrow, lease.return_):
                    try:
                        use()
                    except WrongLoop:
                        refused += 1
                os._exit(refused)
            refused = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            lease.return_()
            print(refused, pool.stats.idle)
            await pool.close()

        asyncio.run(main())
    """
    lines = [line.removeprefix("        ") for line in code.splitlines()]
    script = [sys.executable, "-c", "\n".join(lines)]
    here = Path(__file__).parent
    done = subprocess.run(script, cwd=here, capture_output=True, text=True, timeout=30, check=False)
    # A return in the child is nothing to complain about: the connection is the parent's, and nothing can be done for it.
    assert done.stdout.split() == ["1", "2"], done.stderr


def test_promise_11_the_oldest_wait_is_that_of_the_one_who_came_first():
    async def main():
        pool, _ = await open_pool(max_size=1, leak_after=None, idle_timeout=None)
        lease = await pool.borrow()
        waiters = []
        for priority in ("interactive", "interactive", "bulk"):
            waiters.append(asyncio.create_task(pool.borrow(priority=priority, timeout=None)))
            await asyncio.sleep(10)
        assert (pool.stats.waiting, pool.stats.oldest_wait) == (3, 30.0)
        waiters[0].cancel()
        await steps(2)
        assert (pool.stats.waiting, pool.stats.oldest_wait) == (2, 20.0)
        for waiter in waiters[1:]:
            lease.return_()
            lease = await waiter
        lease.return_()
        assert (pool.stats.waiting, pool.stats.oldest_wait) == (0, 0.0)
        await pool.close()

    run(main())
