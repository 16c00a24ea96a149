"""Who came first is served first, and so nobody waits much longer than the queue in front of him explains."""

import asyncio
import itertools
import math
import random

import pytest
from fake_connector import consistent, open_pool

from speechpool.testing.clock import run

CONNECTIONS, TASKS = 16, 32


class Turns:
    """Counts the turns of the loop, to tell who waited: a clock may stand still meanwhile."""

    def __init__(self):
        self.number = 0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()

    async def _count(self):
        while True:
            self.number += 1
            await asyncio.sleep(0)


async def cycles(number, hold):
    """Borrow and return so often; returns how often somebody was passed by, and how many had to wait."""
    pool, connector = await open_pool(max_size=CONNECTIONS)
    arrivals, shared = itertools.count(1), itertools.repeat(None, number)
    latest = overtakings = waited = 0

    async def task(turns):
        nonlocal latest, overtakings, waited
        for _ in shared:
            arrival, came = next(arrivals), turns.number
            lease = await pool.borrow()
            if turns.number == came:  # served without waiting, so nobody may stand in line
                overtakings += pool.stats.waiting > 0
            else:  # who waited resumes in the order of the hand-overs
                waited += 1
                overtakings += arrival < latest
                latest = max(latest, arrival)
            await hold(pool)
            lease.return_()

    async with Turns() as turns, asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(task(turns))
    consistent(pool)
    assert pool.stats.returned == pool.stats.borrows == number
    assert len(connector.made) == CONNECTIONS
    await pool.close()
    return overtakings, waited


async def one_turn(_):
    await asyncio.sleep(0)


def uneven(seed):
    turns = random.Random(seed)

    async def hold(_):
        for _ in range(turns.randrange(4)):
            await asyncio.sleep(0)

    return hold


@pytest.mark.parametrize("hold", [one_turn, uneven(1), uneven(2)], ids=["even", "uneven-1", "uneven-2"])
def test_t14_ten_thousand_cycles_of_32_tasks_on_16_connections_without_an_overtaking(hold):
    overtakings, waited = asyncio.run(cycles(10_000, hold))
    assert overtakings == 0
    assert waited > 5_000  # or there was nobody to overtake


def test_t14_who_gives_up_in_line_moves_nobody_but_those_behind():
    quitters = random.Random(3)

    async def hold(pool):
        """Beside each hold somebody stands in line for a turn or two and leaves."""
        quitter = asyncio.create_task(pool.borrow())
        for _ in range(1 + quitters.randrange(2)):
            await asyncio.sleep(0)
        quitter.cancel()
        await asyncio.wait([quitter])
        if not quitter.cancelled():
            quitter.result().return_()

    async def main():
        pool, _ = await open_pool(max_size=2, max_waiting=500)
        order = []

        async def borrower(number):
            lease = await pool.borrow()
            order.append(number)
            await hold(pool)
            lease.return_()

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(borrower(number))
                await asyncio.sleep(0)
        await pool.close()
        return order

    assert run(main()) == list(range(200))


# ---- T15: the tail ---------------------------------------------------------------------------------------------------

MEAN_HOLD = 1.0
EXACT = 1e-6


def ideal_waits(arrivals, holds):
    """How long each borrower waits where the first in line takes the connection that is free first."""
    free_at = [0.0] * CONNECTIONS
    waits = []
    for arrival, hold in zip(arrivals, holds, strict=True):
        first = min(range(CONNECTIONS), key=free_at.__getitem__)
        begins = max(arrival, free_at[first])
        free_at[first] = begins + hold
        waits.append(begins - arrival)
    return waits


async def real_waits(arrivals, holds):
    pool, _ = await open_pool(max_size=CONNECTIONS, borrow_timeout=None, max_waiting=len(arrivals), leak_after=None)
    begun = asyncio.get_running_loop().time()
    waits = [math.nan] * len(arrivals)

    async def borrower(number, arrival, hold):
        await asyncio.sleep(arrival)
        lease = await pool.borrow()
        waits[number] = asyncio.get_running_loop().time() - begun - arrival
        await asyncio.sleep(hold)
        lease.return_()

    async with asyncio.TaskGroup() as group:
        for number, (arrival, hold) in enumerate(zip(arrivals, holds, strict=True)):
            group.create_task(borrower(number, arrival, hold))
    await pool.close()
    return waits


@pytest.mark.parametrize("seed", range(3))
def test_t15_under_twice_the_load_every_wait_is_that_of_the_ideal_queue(seed):
    """Twice as many come as 16 connections serve, for 60 s; the queue grows to some 1,000 and drains."""
    chance = random.Random(seed)
    gaps = [chance.expovariate(2 * CONNECTIONS / MEAN_HOLD) for _ in range(60 * 2 * CONNECTIONS)]
    arrivals = list(itertools.accumulate(gaps))
    holds = [chance.expovariate(1 / MEAN_HOLD) for _ in arrivals]
    waits, model = run(real_waits(arrivals, holds)), ideal_waits(arrivals, holds)
    assert max(model) > 20  # it really was too much
    assert max(abs(real - ideal) for real, ideal in zip(waits, model, strict=True)) < EXACT


@pytest.mark.parametrize("seed", range(3))
def test_t15_twice_as_many_tasks_as_connections_wait_for_about_one_hold(seed):
    """32 tasks in turn on 16 connections: every wait, not only 99.9 %, is within twice queue length x hold / size."""
    chance = random.Random(seed)

    async def main():
        pool, _ = await open_pool(max_size=CONNECTIONS)
        shared, waits = itertools.repeat(None, 5_000), []

        async def task():
            for _ in shared:
                lease = await pool.borrow()
                waits.append(lease.waited)
                await asyncio.sleep(MEAN_HOLD * (0.5 + chance.random()))
                lease.return_()

        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(task())
        await pool.close()
        return waits

    queue = TASKS - CONNECTIONS
    assert max(run(main())) <= 2 * queue * MEAN_HOLD / CONNECTIONS
