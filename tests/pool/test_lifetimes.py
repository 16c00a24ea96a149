"""How long connections live: replaced before they end, and the limits that are learned."""

from __future__ import annotations

import asyncio
import math

import pytest
from fake_connector import FakeConnector, consistent, make_pool

from speechpool.pool.lifetime import JITTER, LEAD, Limit
from speechpool.settings import LifetimeProfile
from speechpool.testing.clock import run

DASHSCOPE = LifetimeProfile(idle_timeout=50.0)


class Server(FakeConnector):
    """Ends connections that are idle, or live, for too long; and counts how many there are."""

    def __init__(self, *, idle=math.inf, age=math.inf, **how):
        super().__init__(**how)
        self.idle, self.age = idle, age
        self.most_together = 0

    async def open(self, lost):
        self.most_together = max(self.most_together, len(self.alive) + self.dialling + 1)
        fake = await super().open(lost)
        fake.timer = None
        self.used(fake)
        if self.age < math.inf:
            asyncio.get_running_loop().call_later(self.age, self.end, fake)
        return fake

    def used(self, fake):
        """A task has ended on it."""
        if fake.timer is not None:
            fake.timer.cancel()
        if self.idle < math.inf:
            fake.timer = asyncio.get_running_loop().call_later(self.idle, self.end, fake)

    def end(self, fake):
        if fake.state == "open":
            fake.die()


async def pool_on(server, *, profile=DASHSCOPE, draws=None, **settings):
    """Return a pool whose floor is open; its jitter is spread evenly."""
    pool = make_pool(server, profile=profile, **{"max_size": 20, **settings})
    numbers = iter(range(1_000_000))
    pool._random = draws or (lambda: (next(numbers) % 20) / 20)
    await pool.open()
    await pool.wait_ready()
    server.most_dialling = 0
    return pool


# Make before break


def test_t30_t41_a_floor_is_replaced_before_its_time_and_never_below_its_size():
    async def main():
        server = Server(dial_time=0.2, idle=60.0)
        pool = await pool_on(server, profile=LifetimeProfile(), idle_timeout=50.0)
        loop = asyncio.get_running_loop()
        began, fewest, most = loop.time(), 20, 0
        while loop.time() < began + 300:
            await asyncio.sleep(0.05)
            fewest, most = min(fewest, pool.stats.idle), max(most, len(server.alive))
            consistent(pool)
        assert fewest == 20
        assert most <= 20 + pool.settings.max_replacing
        assert server.most_together <= 20 + pool.settings.max_replacing
        assert pool.stats.discarded.keys() == {"idle_timeout"}
        assert pool.stats.discarded["idle_timeout"] == pytest.approx(20 * 300 / 47, rel=0.2)
        await pool.close()

    run(main())


def test_t35_replacements_keep_to_max_replacing_and_leave_dials_to_those_who_wait():
    async def main():
        server = Server(dial_time=1.0)
        pool = await pool_on(server, max_idle=10, max_size=12, min_size=10, max_replacing=2, draws=lambda: 0.5)
        server.most_dialling = 0
        await asyncio.sleep(50 * (1 - LEAD - JITTER / 2) - 1 + 0.5)
        assert pool.stats.replacing == 2
        assert server.most_dialling == 2
        assert pool.stats.idle == 10
        assert "are being replaced because of their age" in pool.explain()
        # Two more than the floor: they get what is dialled already, and the floor is dialled anew.
        leases = await asyncio.gather(*(pool.borrow() for _ in range(12)))
        assert server.most_dialling <= 4
        assert len(server.alive) <= 12 + 2
        for lease in leases:
            lease.return_()
        consistent(pool)
        await pool.close()

    run(main())


def test_a_connection_above_the_floor_is_closed_and_not_replaced():
    async def main():
        server = Server()
        pool = await pool_on(server, max_size=10, min_size=2)
        for lease in [await pool.borrow() for _ in range(10)]:
            lease.return_()
        await asyncio.sleep(50)
        assert pool.stats.idle == 2
        assert pool.stats.discarded["idle_timeout"] >= 8
        await pool.close()

    run(main())


def test_one_that_was_borrowed_while_its_replacement_opened_goes_on_its_return():
    async def main():
        server = Server(dial_time=1.0)
        pool = await pool_on(server, profile=LifetimeProfile(), max_size=1, max_lifetime=100.0, draws=lambda: 0.0)
        old = server.made[0]
        await asyncio.sleep(90 + 0.5)
        assert pool.stats.replacing == 1
        lease = await pool.borrow()
        assert lease.connection is old
        await asyncio.sleep(1)
        assert (pool.stats.idle, pool.stats.borrowed) == (1, 1)
        lease.return_()
        assert pool.stats.discarded == {"lifetime": 1}
        await asyncio.sleep(0.1)
        assert (pool.stats.size, pool.stats.replacing) == (1, 0)
        await pool.close()

    run(main())


def test_a_replacement_that_fails_is_tried_again_and_the_old_one_stays_until_its_end():
    async def main():
        server = Server()
        pool = await pool_on(server, profile=LifetimeProfile(), max_size=3, draws=lambda: 0.0, max_lifetime=1000.0)
        server.plan = lambda number: OSError("no")
        await asyncio.sleep(900 + 50)
        assert pool.stats.idle == 3
        assert pool.stats.open_failed > 3
        await asyncio.sleep(51)
        assert pool.stats.idle == 0
        server.plan = lambda number: None
        await asyncio.sleep(15.1)
        assert pool.stats.idle == 3
        await pool.close()

    run(main())


def test_in_an_outage_nothing_idle_is_given_up_for_its_age():
    async def main():
        server = Server()
        pool = await pool_on(server, max_size=3)
        server.plan = lambda number: OSError("no")
        server.made[0].die()
        await asyncio.sleep(600)
        assert pool.stats.outage > 500
        assert pool.stats.idle == 2
        server.plan = lambda number: None
        await asyncio.sleep(15.1)
        assert pool.stats.idle == 3
        await pool.close()

    run(main())


def test_t42_nothing_is_lent_beyond_its_whole_life():
    async def main():
        server = Server()
        pool = await pool_on(server, profile=LifetimeProfile(), max_size=2, max_lifetime=100.0)
        server.dial_time = None  # no replacement ever opens
        await asyncio.sleep(99.9)
        lease = await pool.borrow()
        assert lease.usable
        await asyncio.sleep(0.2)
        assert not lease.usable
        lease.return_()
        await asyncio.sleep(0)
        assert pool.stats.idle == 0
        assert pool.stats.discarded == {"lifetime": 2}
        await pool.close()

    run(main())


# Learning


@pytest.mark.parametrize("kept", [True, False], ids=["the server keeps what is pinged", "the server ends what is idle"])
def test_t79_a_pool_that_was_idle_for_five_minutes_hands_out_a_live_warm_connection(kept):
    async def main():
        server = Server(dial_time=0.3, idle=math.inf if kept else 60.0)
        pool = await pool_on(server)
        await asyncio.sleep(300)
        assert server.most_together <= 20 + pool.settings.max_replacing
        leases = [await pool.borrow() for _ in range(20)]
        assert all(lease.reused and lease.connection.open for lease in leases)
        assert all(lease.waited == 0 for lease in leases)
        for lease in leases:
            server.used(lease.connection)
            lease.return_()
        handshakes = len(server.dials)
        await asyncio.sleep(3600)
        if kept:
            assert len(server.dials) == handshakes, (
                "an idle pool makes no handshake, once it has learned that it need not"
            )
            assert pool.stats.idle_limit is None
            assert "Idle connections stay" in pool.explain()
        else:
            assert pool.stats.idle_limit <= 50
            assert len(server.dials) - handshakes == pytest.approx(20 * 3600 / 43, rel=0.2)
        assert server.most_together <= 20 + pool.settings.max_replacing
        assert pool.stats.idle == 20
        await pool.close()

    run(main())


def test_a_server_that_ends_idle_connections_earlier_shortens_the_limit():
    async def main():
        server = Server(dial_time=0.1, idle=20.0)
        pool = await pool_on(server, max_size=5)
        await asyncio.sleep(100)
        assert pool.stats.idle_limit == pytest.approx(16, rel=0.05)
        lost = pool.stats.discarded["lost"]
        assert lost <= 10 + 1
        await asyncio.sleep(200)
        assert pool.stats.discarded["lost"] <= lost + 1  # a scout
        assert "Idle connections are replaced within 16 s" in pool.explain()
        await pool.close()

    run(main())


def test_a_server_that_ends_connections_by_age_shortens_their_life():
    async def main():
        server = Server(dial_time=0.1, age=600.0)
        pool = await pool_on(server, max_size=3, profile=LifetimeProfile())
        for _ in range(3000):  # always in use, so that no idle time is to blame
            lease = await pool.borrow()
            await asyncio.sleep(0.5)
            lease.return_()
            for other in [await pool.borrow() for _ in range(3)]:
                other.return_()
            await asyncio.sleep(0.5)
        assert pool.stats.age_limit == pytest.approx(480, rel=0.05)
        assert pool.stats.idle_limit is None
        lost = pool.stats.discarded["lost"]
        for _ in range(3000):
            lease = await pool.borrow()
            await asyncio.sleep(1)
            lease.return_()
            for other in [await pool.borrow() for _ in range(3)]:
                other.return_()
        assert pool.stats.discarded["lost"] == lost
        await pool.close()

    run(main())


def test_a_lease_that_is_kept_through_a_pause_teaches_nothing_about_the_age():
    async def main():
        server = Server(dial_time=0.1, idle=60.0)
        pool = await pool_on(server, max_size=2, profile=LifetimeProfile(), leak_after=10_000.0)
        for _ in range(4):
            lease = await pool.borrow()
            await asyncio.sleep(61)  # the server ends it: it has heard nothing for too long
            assert not lease.usable
            await asyncio.sleep(600)  # noticed long after
            lease.return_()
        assert pool.stats.age_limit is None
        await pool.close()

    run(main())


def test_what_its_owner_has_set_is_never_exceeded():
    async def main():
        server = Server()
        pool = await pool_on(server, max_size=4, idle_timeout=30.0)
        await asyncio.sleep(1000)
        assert pool.stats.idle_limit == 30.0
        assert len(server.dials) >= 4 * 1000 / 30
        await pool.close()

    run(main())


def test_a_crash_of_the_server_teaches_nothing():
    async def main():
        server = Server()
        pool = await pool_on(server, max_size=10)
        for lived in (27.0, 12.0, 35.0, 18.0, 5.0):
            await asyncio.sleep(lived)
            for fake in list(server.alive):
                fake.die()
        assert pool.stats.idle_limit == 50.0
        assert pool.stats.age_limit is None
        await pool.close()

    run(main())


def test_connections_that_die_young_or_right_after_their_use_do_not_let_the_pool_dial_without_end():
    async def main():
        server = Server()
        pool = await pool_on(server, max_size=1)
        for pause in (5, 12, 28, 3):
            for _ in range(6):  # always in use, so that its age might be to blame
                lease = await pool.borrow()
                await asyncio.sleep(0.2)
                lease.return_()
            server.alive[0].die()
            await asyncio.sleep(pause)
        assert (pool.stats.idle_limit, pool.stats.age_limit) == (50.0, None)
        assert len(server.dials) == 5
        await pool.close()

    run(main())


def test_a_limit_that_was_lifted_comes_back_when_the_longest_idle_one_dies():
    async def main():
        server = Server(idle=300.0)
        pool = await pool_on(server, max_size=5)
        await asyncio.sleep(150)
        assert pool.stats.idle_limit is None
        await asyncio.sleep(200)
        assert pool.stats.idle_limit == pytest.approx(240)
        handed_out_dead = 0
        for _ in range(100):
            await asyncio.sleep(30)
            handed_out_dead += 5 - pool.stats.idle
        assert handed_out_dead == 0
        await pool.close()

    run(main())


def test_two_endings_that_agree_are_a_rule_and_one_is_an_accident():
    limit = Limit(50.0)
    assert not limit.ended(20.0, 1000.0)
    assert not limit.ended(20.0, 1001.0)  # of the same burst
    assert limit.ended(21.0, 1030.0)
    assert limit.seconds == pytest.approx(16.8)
    other = Limit(50.0)
    assert not other.ended(20.0, 1000.0)
    assert not other.ended(40.0, 1100.0)
    assert not other.ended(10.0, 1200.0)
    assert other.seconds == 50.0


def test_an_ending_beyond_what_was_known_counts_at_once_and_never_lengthens():
    limit = Limit(50.0)
    assert not limit.ended(62.5, 1000.0)
    assert limit.lift()
    assert limit.seconds == math.inf
    assert limit.ended(100.0, 2000.0)
    assert limit.seconds == 80.0
    assert not limit.ended(200.0, 3000.0)
    assert not Limit(50.0, fixed=True).lift()
