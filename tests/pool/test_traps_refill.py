"""What the endpoint sees when many connections end at once, when it asks for less, and what borrowers pay for it."""

from __future__ import annotations

import asyncio

import pytest
from fake_connector import FakeConnector, consistent, make_pool, open_pool, steps

from speechpool.errors import RateLimited
from speechpool.limits import ConnectionLimits
from speechpool.testing.clock import run


def now():
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("way", ["discarded", "lost"])
def test_t29_two_hundred_ends_at_once_are_refilled_at_the_pace_of_max_opening(way):
    async def main():
        connector = FakeConnector(dial_time=1)
        pool, _ = await open_pool(connector, max_size=200, max_opening=8)
        await asyncio.sleep(60)
        leases = [await pool.borrow() for _ in range(200)]
        for lease in leases:
            if way == "lost":
                lease.connection.die()
                lease.return_()
            else:
                lease.discard("test")
        await asyncio.sleep(0)
        start, before = now(), len(connector.dials)
        await asyncio.sleep(0.5)
        assert connector.dialling == 8
        await pool.wait_ready()
        assert now() - start == pytest.approx(200 / 8)
        assert len(connector.dials) == before + 200
        assert connector.most_dialling == 8
        assert connector.most_alive == 200
        consistent(pool)
        await pool.close()

    run(main())


def test_t35_the_end_of_two_hundred_is_not_paid_by_the_next_borrower():
    async def main():
        connector = FakeConnector(dial_time=0.25, close_time=None)
        pool, _ = await open_pool(connector, max_size=400, min_size=200, close_timeout=2.0)
        await asyncio.sleep(60)
        for fake in connector.alive:
            fake.open = False  # nobody has noticed yet; the borrow finds out, one by one
        start = now()
        lease = await pool.borrow()
        assert now() - start == 0.25  # the next dial; nobody waits for the closes, which take 2 s each
        assert pool.stats.closing == 200
        lease.return_()
        await pool.close()

    run(main())


def test_t34_a_429_costs_no_connection_and_its_pause_is_kept():
    async def main():
        refusing = True
        connector = FakeConnector(
            plan=lambda number: RateLimited("429", status=429, retry_after=5.0) if refusing and number > 4 else None
        )
        pool, _ = await open_pool(connector, max_size=12, min_size=4, max_opening=4)
        start = now()
        await pool.resize(12, 8)  # it wants more, and is refused
        await steps(3)
        assert (pool.stats.idle, pool.stats.open_failed) == (4, 4)
        spoken = []

        async def speak(number):
            lease = await pool.borrow(timeout=None)
            await asyncio.sleep(0.5)
            lease.return_()
            spoken.append(number)

        tasks = [asyncio.create_task(speak(number)) for number in range(80)]
        await asyncio.sleep(4.9)
        assert len(spoken) == 4 * 9  # by the four that are open
        assert len(connector.dials) - 4 <= 4  # one round, and not one dial more while the pause lasts
        assert pool.stats.discarded == {}
        await asyncio.sleep(5.0)
        assert len(connector.dials) - 4 <= 8
        gaps = [at - start for at in connector.dials[4:]]
        assert all(at == 0 or at >= 5.0 for at in gaps)
        refusing = False
        await asyncio.gather(*tasks)
        assert sorted(spoken) == list(range(80))
        assert pool.stats.discarded == {}
        assert connector.most_dialling <= 4
        await pool.close()

    run(main())


def test_t17_a_place_freed_by_one_pool_wakes_the_waiter_of_another_whatever_frees_it():
    async def main():
        limits = ConnectionLimits(total=1)
        connector = FakeConnector(dial_time=0.1, close_time=0.1)
        made = [
            make_pool(connector, limits=limits, host=host, name=host, max_size=1, min_size=0, idle_timeout=None)
            for host in ("one", "two")
        ]
        for pool in made:
            await pool.open()
        one, two = made
        for free in ("return", "discard", "die", "close"):
            lease = await one.borrow()
            waiter = asyncio.create_task(two.borrow(timeout=None))
            await steps(2)
            await asyncio.sleep(5)
            assert not waiter.done()
            if free == "return":
                lease.return_()  # the pool keeps no floor, and the other one waits longer than its credit
            elif free == "discard":
                lease.discard("test")
            elif free == "die":
                lease.connection.die()
                lease.return_()
            else:
                lease.return_()
                await one.close()
            start = now()
            other = await waiter
            assert now() - start <= 0.2 + 1e-6, free
            other.discard("test")
            await asyncio.sleep(1)
        assert connector.most_alive == 1
        await two.close()

    run(main())
