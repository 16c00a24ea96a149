"""Pools that share one bound of connections, on their engines: eviction, order of arrival, floors, ends, threads."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
from contextlib import asynccontextmanager

import pytest
from fake_connector import Down, FakeConnector, consistent, make_pool, steps

from speechpool.errors import PoolFull, PoolTimeout
from speechpool.limits import ConnectionLimits
from speechpool.testing.clock import START, run


def now():
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def pools(limits, *settings, connector=None):
    """Pools of one host over one connector, so that it counts the connections of all."""
    connector = connector or FakeConnector(dial_time=0.1, close_time=0.1)
    opened = []
    for number, each in enumerate(settings):
        options = {"max_size": 10, "min_size": 0, "idle_timeout": None, "host": "h", "name": f"p{number}", **each}
        opened.append(make_pool(connector, limits=limits, **options))
        await opened[-1].open()
    try:
        yield [*opened, connector]
    finally:
        await asyncio.gather(*(pool.close(drain=0) for pool in opened))
        for pool in opened:
            consistent(pool)


async def hold(pool, seconds, log=None, name=None):
    lease = await pool.borrow(timeout=None)
    if log is not None:
        log.append(name)
    await asyncio.sleep(seconds)
    lease.return_()


def test_without_a_bound_a_pool_has_the_plain_core():
    async def main():
        pool = make_pool(FakeConnector(), limits=ConnectionLimits(), max_size=1)
        assert type(pool._core).__name__ == "Core"
        await pool.open()
        await pool.close()

    run(main())


def test_t17_at_the_limit_the_connection_that_was_idle_longest_closes_for_a_waiter_of_another_pool():
    async def main():
        limits = ConnectionLimits(total=4)
        async with pools(limits, {}, {}, {}) as (one, two, three, connector):
            await asyncio.gather(hold(one, 1), hold(one, 1))
            await asyncio.gather(hold(two, 1), hold(two, 1))
            lease = await three.borrow()
            assert lease.waited == pytest.approx(0.2)  # the close, then the dial
            assert one.stats.discarded == {"evicted": 1}
            assert two.stats.discarded == {}
            assert connector.most_alive == 4
            assert limits.state.used == 4
            lease.return_()
        assert limits.state.used == limits.state.pools == 0

    run(main())


def test_what_a_pool_keeps_warm_is_never_taken_away():
    async def main():
        limits = ConnectionLimits(total=4)
        async with pools(limits, {"min_size": 2}, {}) as (one, two, _):
            await one.wait_ready()
            await asyncio.gather(hold(two, 1), hold(two, 1))
            third = asyncio.create_task(two.borrow(timeout=None))
            (await third).return_()  # it had two of its own
            held = [await two.borrow() for _ in range(2)]
            with pytest.raises(PoolTimeout) as caught:
                await two.borrow(timeout=1)
            assert "the connection limit total = 4 is used up by 2 pools" in str(caught.value)
            assert one.stats.idle == 2
            assert one.stats.discarded == {}
            for lease in held:
                lease.return_()

    run(main())


def test_t17_the_waiters_of_all_pools_are_served_in_order_of_arrival():
    async def main():
        limits = ConnectionLimits(total=2)
        async with pools(limits, {}, {}, {}) as (one, two, three, _):
            log = []
            first = [asyncio.create_task(hold(one, 5)) for _ in range(2)]
            await asyncio.sleep(1)
            tasks = []
            for number, pool in enumerate([two, three, two, two, three, three]):
                tasks.append(asyncio.create_task(hold(pool, 3, log, number)))
                await asyncio.sleep(1.5)  # more than the credit of a warm connection
            await asyncio.gather(*first, *tasks)
            assert log == [0, 1, 2, 3, 4, 5]

    run(main())


def test_a_warm_connection_stays_in_its_pool_where_the_other_waiter_came_only_a_little_earlier():
    async def main():
        limits = ConnectionLimits(total=1)
        async with pools(limits, {}, {}) as (one, two, connector):
            log = []
            tasks = [asyncio.create_task(hold(one, 5, log, "first"))]
            await asyncio.sleep(1)
            tasks.append(asyncio.create_task(hold(two, 1, log, "other")))
            await asyncio.sleep(0.5)
            tasks.append(asyncio.create_task(hold(one, 1, log, "own")))
            await asyncio.gather(*tasks)
            assert log == ["first", "own", "other"]
            assert len(connector.dials) == 2

    run(main())


def test_a_busy_pool_gives_up_a_connection_for_whoever_waits_elsewhere():
    async def main():
        limits = ConnectionLimits(total=4)
        async with pools(limits, {}, {}) as (busy, other, connector):

            async def user():
                while True:
                    await hold(busy, 0.5)

            crowd = [asyncio.create_task(user()) for _ in range(20)]  # each waits 2 s for its turn
            await asyncio.sleep(5)
            lease = await other.borrow(timeout=10)
            assert lease.waited < 2.0 + 1.0 + 0.5  # those before it, the credit, and a close and a dial
            assert busy.stats.discarded == {"evicted": 1}
            await asyncio.sleep(10)
            assert busy.stats.size == 3
            lease.return_()
            assert other.stats.discarded == {"evicted": 1}  # the crowd needs it more
            for task in crowd:
                task.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
            assert connector.most_alive == 4

    run(main())


def test_t02_a_cancelled_waiter_gives_its_place_to_the_next():
    async def main():
        limits = ConnectionLimits(total=1)
        async with pools(limits, {}, {}, {}) as (one, two, three, _):
            lease = await one.borrow()
            leaves = asyncio.create_task(two.borrow(timeout=None))
            await asyncio.sleep(0.1)
            stays = asyncio.create_task(three.borrow(timeout=None))
            await asyncio.sleep(0.1)
            lease.discard("done")
            await asyncio.sleep(0.1)
            await steps(1)
            leaves.cancel()
            (await stays).return_()
            assert two.stats.borrows == 0
            assert limits.state.waiting == 0

    run(main())


def test_t61_a_closing_connection_counts_until_its_peer_is_gone_or_close_timeout():
    async def main():
        limits = ConnectionLimits(total=1)
        connector = FakeConnector(close_time=None)  # the peer never answers a close
        async with pools(limits, {"close_timeout": 2.0}, {}, connector=connector) as (one, two, _):
            (await one.borrow()).discard("done")
            assert (limits.state.used, limits.state.closing) == (1, 1)
            begun = now()
            lease = await two.borrow()
            assert now() == begun + 2.0
            assert connector.most_alive == 1
            lease.return_()

    run(main())


def test_a_limit_for_each_host_holds_up_only_that_host():
    async def main():
        limits = ConnectionLimits(total=5, per_host=2)
        async with pools(limits, {}, {}, {"host": "elsewhere"}) as (one, two, far, _):
            held = [await one.borrow() for _ in range(2)]
            held.append(await far.borrow())
            with pytest.raises(PoolTimeout, match="per_host = 2 is used up for h"):
                await two.borrow(timeout=1)
            held.append(await far.borrow())
            assert dict(limits.state.by_host) == {"h": 2, "elsewhere": 2}
            for lease in held:
                lease.return_()

    run(main())


def test_floors_that_do_not_fit_are_cut_in_proportion_and_the_pools_say_so(caplog):
    async def main():
        limits = ConnectionLimits(total=6)
        async with pools(limits, {"min_size": None}, {"min_size": None}) as (one, two, connector):
            await one.wait_ready()
            await two.wait_ready()
            assert (one.stats.min_size, two.stats.min_size) == (3, 3)
            assert (one.stats.size, two.stats.size) == (3, 3)
            await asyncio.gather(*(hold(two, 1) for _ in range(5)))  # half of its part is lent
            assert one.stats.discarded == {"evicted": 2 + 3}  # 3 of them when the second pool came
            await asyncio.sleep(1)
            assert (one.stats.size, two.stats.size) == (3, 3)  # and comes back
            assert connector.most_alive == 6

    with caplog.at_level(logging.WARNING, "speechpool.pool"):
        run(main())
    assert "max_size = 10 is more than the connection limit total = 6: 10 - 6 = 4 borrowers would wait" in caplog.text
    assert "keeps 3 of 10" in caplog.text


def test_pools_that_keep_none_are_not_starved_by_idle_floors():
    async def main():
        limits = ConnectionLimits(total=3)
        async with pools(limits, {"min_size": 3}, {}) as (floor, other, _):
            await floor.wait_ready()
            lease = await other.borrow(timeout=1)
            assert floor.stats.idle == 2
            lease.return_()
            await asyncio.sleep(1)
            assert floor.stats.idle == 3

    run(main())


def test_a_pool_opens_although_the_limit_leaves_it_nothing_and_explains_why():
    async def main():
        limits = ConnectionLimits(total=1)
        async with pools(limits, {}) as (one, connector):
            lease = await one.borrow()
            two = make_pool(connector, limits=limits, host="h", max_size=1, connect_timeout=3.0)
            await two.open()
            assert now() == pytest.approx(START + 3.1)
            assert two.stats.limited_by == "the connection limit total = 1 is used up by 2 pools"
            assert "1 more could be used, but the connection limit" in two.explain()
            lease.return_()
            await two.wait_ready()
            assert two.stats.limited_by is None
            await two.close()

    run(main())


def test_overflow_connections_count_too():
    async def main():
        limits = ConnectionLimits(total=3)
        async with pools(limits, {"max_size": 1, "overflow": "grow"}) as (one, connector):
            held = [await one.borrow() for _ in range(3)]
            with pytest.raises(PoolTimeout, match="total = 3"):
                await one.borrow(timeout=1)
            assert connector.most_alive == 3
            for lease in held:
                lease.return_()

    run(main())


def test_a_pool_with_overflow_does_not_open_and_evict_in_turn():
    async def main():
        limits = ConnectionLimits(total=4)
        grows = {"max_size": 1, "min_size": None, "overflow": "grow"}
        async with pools(limits, grows, {"max_size": 1, "min_size": 1}) as (one, _, connector):
            held = [await one.borrow() for _ in range(3)]
            await one.resize(4)  # its part of the floors is 3 of 4 now, and what it has beyond its old size counts
            await asyncio.sleep(60)
            assert (one.stats.min_size, one.stats.borrowed) == (3, 3)
            assert len(connector.dials) <= 5
            for lease in held:
                lease.return_()

    run(main())


def test_a_pool_that_lets_nobody_wait_does_not_let_him_wait_for_the_limit_either():
    async def main():
        limits = ConnectionLimits(total=2)
        async with pools(limits, {}, {"overflow": "fail"}) as (one, two, _):
            await asyncio.gather(hold(one, 1), hold(one, 1))
            lease = await two.borrow()  # an idle one of the other pool closes for it
            held = await one.borrow()
            with pytest.raises(PoolFull):
                await two.borrow()
            held.return_()
            lease.return_()

    run(main())


def test_a_fresh_connection_at_the_limit_is_opened_after_an_old_one_has_closed():
    async def main():
        limits = ConnectionLimits(total=2)
        async with pools(limits, {}) as (one, connector):
            await asyncio.gather(hold(one, 1), hold(one, 1))
            lease = await one.borrow(fresh=True)
            assert one.stats.discarded == {"made_room": 1}
            assert connector.most_alive == 2
            await lease.renew(reason="expired")
            assert connector.most_alive == 2
            lease.return_()

    run(main())


def test_t24_an_endpoint_that_is_away_holds_no_places():
    async def main():
        limits = ConnectionLimits(total=2)
        down = FakeConnector(dial_time=0.1, plan=Down())
        async with pools(limits, {}) as (one, _):
            two = make_pool(down, limits=limits, host="h", max_size=5, min_size=0)
            await two.open()
            waiting = [asyncio.create_task(two.borrow(timeout=20)) for _ in range(5)]
            await asyncio.sleep(0.5)
            for _ in range(20):
                await asyncio.gather(hold(one, 0.3), hold(one, 0.3))
            assert one.stats.borrows == 40
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await two.close()

    run(main())


def test_a_pool_that_its_owner_forgot_holds_no_places(caplog):
    async def main():
        limits = ConnectionLimits(total=1)
        async with pools(limits, {}) as (one, connector):
            lost = make_pool(connector, limits=limits, host="h", max_size=1)
            await lost.open()
            await lost.wait_ready()
            del lost
            gc.collect()
            lease = await one.borrow()
            assert connector.most_alive == 1
            lease.return_()

    run(main())
    assert "never closed" in caplog.text


def test_t70_a_pool_whose_loop_has_ended_holds_no_places():
    limits = ConnectionLimits(total=1)
    kept = []

    async def leaves_it_open():
        pool = make_pool(FakeConnector(), limits=limits, host="h", max_size=1)
        await pool.open()
        kept.append((pool, await pool.borrow()))

    async def main():
        async with pools(limits, {}) as (one, _):
            (await one.borrow(timeout=1)).return_()

    run(leaves_it_open())
    assert limits.state.used == 1
    run(main())


def test_t17_twenty_pools_with_a_skewed_and_shifting_load_pass_no_limit_and_starve_nobody():
    waits = {}

    async def user(number, pool, end, dice):
        while now() < end:
            since = now()
            lease = await pool.borrow(timeout=10)
            waits.setdefault(number, []).append(now() - since)
            await asyncio.sleep(dice.uniform(0.1, 0.5))
            lease.return_()
            await asyncio.sleep(dice.uniform(0.0, 0.2))

    async def main():
        dice = random.Random(5)
        limits = ConnectionLimits(total=200)
        settings = [{"max_size": 50, "min_size": 5, "max_waiting": 1000} for _ in range(20)]
        async with pools(limits, *settings) as (*many, connector):
            for phase in range(6):  # 10 s each: four hot pools, which move; the others have two users each
                hot = {(4 * phase + step) % 20 for step in range(4)}
                users = [
                    user(number, pool, now() + 10, dice)
                    for number, pool in enumerate(many)
                    for _ in range(60 if number in hot else 2)
                ]
                await asyncio.gather(*users)
                assert limits.state.used <= 200
            assert connector.most_alive <= 200
            assert connector.most_alive == 200  # and the limit was used
            assert len(waits) == 20
            assert max(map(max, waits.values())) < 3.0
            tasks = sum(map(len, waits.values()))
            assert len(connector.dials) < 0.2 * tasks

    run(main())


def test_pools_of_two_threads_share_one_limit():
    limits = ConnectionLimits(total=6)
    alive, most, lock = [0], [0], threading.Lock()
    served, errors = [], []

    class Counted(FakeConnector):
        async def open(self, lost):
            with lock:
                alive[0] += 1
                most[0] = max(most[0], alive[0])
            return await super().open(lost)

        def _gone(self, fake):
            if fake.state != "gone":
                with lock:
                    alive[0] -= 1
            super()._gone(fake)

    async def main(seed):
        dice = random.Random(seed)
        settings = [{"min_size": 1}, {}, {}]
        async with pools(limits, *settings, connector=Counted(close_time=0.0)) as (*many, _):

            async def user():
                for _ in range(60):
                    lease = await dice.choice(many).borrow(timeout=20)
                    await asyncio.sleep(dice.uniform(0, 0.002))
                    lease.return_()
                    served.append(seed)

            await asyncio.gather(*(user() for _ in range(10)))

    def thread(seed):
        try:
            asyncio.run(main(seed))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread, args=(seed,)) for seed in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors
    assert len(served) == 2 * 10 * 60
    assert most[0] <= 6
    assert alive[0] == 0
    assert limits.state.used == limits.state.pools == 0
