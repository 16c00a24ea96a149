"""The server goes and comes back; the server ends what is idle: what the first caller after it finds."""

from __future__ import annotations

import asyncio
import itertools

from fake_connector import Down, FakeConnector, consistent, open_pool

from speechpool.testing.clock import run


def test_t35_the_return_of_the_server_begins_with_one_probe_and_goes_on_at_max_opening():
    async def main():
        down = Down()
        down.down = False
        connector = FakeConnector(dial_time=0.1, plan=down)
        pool, _ = await open_pool(connector, max_size=200, max_opening=8, outage_after=2.0)
        await asyncio.sleep(60)
        down.down = True
        for fake in connector.alive:
            fake.die()
        before = len(connector.dials)
        await asyncio.sleep(120)
        # Six rounds of eight, with growing pauses, until it is an outage; then a probe each 7.5 s.
        assert len(connector.dials) - before <= 6 * 8 + 120 / 7.5 + 1
        connector.most_dialling = 0
        await asyncio.sleep(60)
        assert connector.most_dialling == 1  # an outage is watched by one probe at a time
        down.down = False
        before = len(connector.dials)
        await asyncio.sleep(15.0 + 0.1 + 200 / 8 * 0.1)  # the longest pause, the probe, the ramp
        assert pool.stats.idle == 200
        back = connector.dials[before:]
        assert back[1] - back[0] > 0.09  # the probe alone, until it has succeeded
        ramp = [len(list(dials)) for _, dials in itertools.groupby(back[1:])]
        assert max(ramp) == 8
        assert connector.most_dialling == 8
        consistent(pool)
        await pool.close()

    run(main())


def test_t79_four_minutes_after_the_warm_up_the_first_borrow_is_a_reuse():
    """The server ends what was idle for a minute. Each connection is replaced before, with another one in its place."""

    async def main():
        connector = FakeConnector(dial_time=0.2)
        dial = connector.open

        async def open_for_a_minute(lost):
            fake = await dial(lost)
            asyncio.get_running_loop().call_later(60.0, lambda: fake.open and fake.die())
            return fake

        connector.open = open_for_a_minute
        pool, _ = await open_pool(connector, max_size=5, idle_timeout=50.0, max_replacing=2)
        for _ in range(4 * 60 * 20):
            await asyncio.sleep(1 / 20)
            assert pool.stats.idle >= 5  # through every renewal
        dials = len(connector.dials)
        lease = await pool.borrow()
        assert (lease.reused, lease.waited, lease.connect_time) == (True, 0.0, 0.0)
        assert lease.connection.open
        assert len(connector.dials) == dials
        assert connector.most_alive <= 5 + 2
        assert "lost" not in pool.stats.discarded  # the server never was the first
        assert dials <= 5 * (1 + 240 / (50 * 0.8))  # a renewal each 40 to 45 s, and no other handshake
        lease.return_()
        await pool.close()

    run(main())
