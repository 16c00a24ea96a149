"""The server is away: who is told what, who tries, and how it heals."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from fake_connector import Down, FakeConnector, consistent, make_pool, open_pool

from speechpool.errors import ConnectFailed, EndpointDown, PoolTimeout
from speechpool.testing.clock import run


def now():
    return asyncio.get_running_loop().time()


async def in_outage(connector=None, **settings):
    """Return a pool whose server went away some time ago, its connector, and what brings the server back."""
    down = Down()
    down.down = False
    connector = connector or FakeConnector()
    connector.plan = down
    pool, _ = await open_pool(connector, **{"max_size": 20, "jitter": 0.999, **settings})
    await asyncio.sleep(10)
    down.down = True
    for fake in connector.alive:
        fake.die()
    await asyncio.sleep(5)
    assert pool.stats.outage is not None
    return pool, connector, down


async def after_a_failure(pool):
    """Wait until a try has just failed, so that the next one is some time away."""
    failed = pool.stats.open_failed
    while pool.stats.open_failed == failed:
        await asyncio.sleep(0.01)


def test_t20_borrowers_fail_at_once_with_the_reason_and_its_age():
    async def main():
        pool, _connector, _ = await in_outage()
        await after_a_failure(pool)
        await asyncio.sleep(0.1)
        for _ in range(1000):
            with pytest.raises(EndpointDown) as caught:
                await pool.borrow()
        assert isinstance(caught.value.cause, ConnectFailed)
        assert caught.value.__cause__ is caught.value.cause
        assert 0.1 <= caught.value.age <= 0.12
        assert "connection refused" in str(caught.value)
        assert "the next try comes in" in str(caught.value).lower()
        assert caught.value.retryable
        assert pool.stats.down == 1000
        assert pool.stats.waiting == 0
        assert "nobody waits for it" in pool.explain()
        await pool.close()

    run(main())


def test_t19_t20_who_waits_when_it_becomes_an_outage_waits_no_longer():
    async def main():
        down = Down()
        connector = FakeConnector(plan=down)
        pool = make_pool(connector, max_size=4, min_size=0, jitter=0.999)
        await pool.open()
        began = now()
        tasks = [asyncio.create_task(pool.borrow(timeout=60)) for _ in range(10)]
        await asyncio.wait(tasks)
        assert all(isinstance(task.exception(), EndpointDown) for task in tasks)
        assert 2.0 <= now() - began <= 4.5
        assert pool.stats.down == 10
        consistent(pool)
        await pool.close()

    run(main())


def test_before_it_is_an_outage_a_short_absence_costs_a_wait_and_no_error():
    async def main():
        down = Down()
        connector = FakeConnector(plan=down)
        pool = make_pool(connector, max_size=4, min_size=0)
        await pool.open()
        task = asyncio.create_task(pool.borrow())
        await asyncio.sleep(1.5)
        down.down = False
        lease = await task
        lease.return_()
        await pool.close()

    run(main())


def test_a_borrowed_connection_that_may_come_back_is_waited_for():
    async def main():
        down = Down()
        down.down = False
        pool, _connector = await open_pool(FakeConnector(plan=down), max_size=2)
        kept, lost = await pool.borrow(), await pool.borrow()
        down.down = True
        lost.connection.die()
        lost.return_()
        await asyncio.sleep(30)
        assert pool.stats.outage is not None
        task = asyncio.create_task(pool.borrow())
        await asyncio.sleep(1)
        assert not task.done()
        kept.return_()
        (await task).return_()
        with pytest.raises(EndpointDown):  # a fresh one can only come from a dial
            await pool.borrow(fresh=True)
        await pool.close()

    run(main())


def test_the_last_borrowed_connection_that_comes_back_broken_frees_those_who_waited_for_it():
    async def main():
        down = Down()
        down.down = False
        pool, _connector = await open_pool(FakeConnector(plan=down), max_size=2, jitter=0.999)
        kept, lost = await pool.borrow(), await pool.borrow()
        down.down = True
        lost.connection.die()
        lost.return_()
        await asyncio.sleep(30)
        task = asyncio.create_task(pool.borrow(timeout=None))
        await after_a_failure(pool)
        kept.discard("test")
        with pytest.raises(EndpointDown):
            await task
        await pool.close()

    run(main())


def test_t25_t27_an_outage_costs_one_dial_at_a_time_and_the_pauses_grow():
    async def main():
        pool, connector, _ = await in_outage(FakeConnector(dial_time=0.01))
        connector.most_dialling = 0
        before = len(connector.dials)
        await asyncio.sleep(3600)
        dials = connector.dials[before:]
        assert connector.most_dialling == 1
        assert 3600 / 15 - 1 <= len(dials) <= 3600 / 15 + 8
        gaps = [later - earlier for earlier, later in itertools.pairwise(dials)]
        assert gaps == sorted(gaps) or max(gaps) == pytest.approx(15, rel=0.01)
        await pool.close()

    run(main())


def test_demand_keeps_the_pauses_short():
    async def main():
        pool, connector, _ = await in_outage()
        await asyncio.sleep(60)
        for _ in range(600):
            await asyncio.sleep(0.1)
            with pytest.raises(EndpointDown):
                await pool.borrow()
        gaps = [later - earlier for earlier, later in itertools.pairwise(connector.dials[-20:])]
        assert max(gaps) <= 2.0 + 0.1
        await pool.close()

    run(main())


@pytest.mark.parametrize("min_size", [20, 0])
def test_t23_t35_it_heals_by_itself_with_one_probe_and_then_a_ramp(min_size):
    async def main():
        pool, connector, down = await in_outage(FakeConnector(dial_time=0.05), max_opening=4)
        await after_a_failure(pool)
        await pool.resize(20, min_size)
        connector.most_dialling = 0
        before = len(connector.dials)
        down.down = False
        if min_size == 0:  # nobody keeps a floor, so the first who comes after the pause is the probe
            await asyncio.sleep(2.1)
            leases = [await pool.borrow()]
        else:
            leases = []
            await asyncio.sleep(16)
        assert pool.stats.outage is None
        assert pool.stats.last_error is None
        dials = connector.dials[before:]
        if min_size:
            assert pool.stats.idle == 20
            assert len(dials) == 20
            assert connector.most_dialling == 4
            assert dials[1] - dials[0] > 0.04, "the second dial comes only when the first has succeeded"
            assert dials.count(dials[1]) == 4
        else:
            assert len(dials) == 1
        for lease in leases:
            lease.return_()
        consistent(pool)
        await pool.close()

    run(main())


def test_with_a_floor_or_without_somebody_always_probes():
    async def main():
        pool, connector, down = await in_outage(max_size=5)
        await pool.resize(5, 0)
        await asyncio.sleep(600)
        tries = len(connector.dials)
        tasks = [asyncio.create_task(pool.borrow()) for _ in range(5)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, EndpointDown) for result in results)
        assert len(connector.dials) == tries + 1
        down.down = False
        await asyncio.sleep(2.1)
        (await pool.borrow()).return_()
        await pool.close()

    run(main())


def test_t31_t32_dials_into_a_black_hole_are_an_outage_after_the_first_timeout():
    async def main():
        connector = FakeConnector()
        pool, _ = await open_pool(connector, max_size=4, connect_timeout=10.0, jitter=0.999)
        await asyncio.sleep(30)
        connector.dial_time = None
        for fake in connector.alive:
            fake.die()
        first = asyncio.create_task(pool.borrow(timeout=None))
        await asyncio.sleep(10.5)
        assert isinstance(first.exception(), EndpointDown)
        began = now()
        with pytest.raises(EndpointDown, match=r"no connection .* opened within 10 s"):
            await pool.borrow()
        assert now() == began
        connector.dial_time = 0.1
        await asyncio.sleep(10 + 15)
        assert pool.stats.idle == 4
        await pool.close()

    run(main())


def test_t28_a_server_that_accepts_and_ends_what_it_accepts_is_away_until_one_connection_lasts():
    async def main():
        connector = FakeConnector()
        pool, _ = await open_pool(connector, max_size=8, jitter=0.999)
        await asyncio.sleep(30)
        loop = asyncio.get_running_loop()
        kind = {"ends": True}
        opened = connector.open

        async def open_briefly(lost):
            fake = await opened(lost)
            if kind["ends"]:
                loop.call_later(0.1, fake.die)
            return fake

        connector.open = open_briefly
        for fake in connector.alive:
            fake.die()
        await asyncio.sleep(60)
        assert pool.stats.outage is not None
        assert "ended a new connection" in str(pool.stats.last_error)
        before = len(connector.dials)
        await asyncio.sleep(600)
        assert len(connector.dials) - before <= 600 / 15 + 2
        kind["ends"] = False
        await asyncio.sleep(15 + 0.1)
        assert pool.stats.idle == 1
        assert "has to last for a moment" in pool.explain()
        await asyncio.sleep(2.0)
        assert pool.stats.idle == 8
        assert pool.stats.outage is None
        await pool.close()

    run(main())


def test_wait_ready_tells_of_an_outage_and_may_be_called_again():
    async def main():
        pool, _, down = await in_outage(max_size=3)
        with pytest.raises(EndpointDown):
            await pool.wait_ready()
        down.down = False
        await asyncio.sleep(15.1)
        await pool.wait_ready()
        await pool.close()

    run(main())


def test_without_outage_after_borrowers_wait_as_long_as_they_like():
    async def main():
        down = Down()
        connector = FakeConnector(plan=down)
        pool = make_pool(connector, max_size=4, min_size=0, outage_after=None)
        await pool.open()
        with pytest.raises(PoolTimeout) as caught:
            await pool.borrow(timeout=20)
        assert caught.value.waited == 20
        assert pool.stats.outage is None
        await pool.close()

    run(main())
