"""Speech pools under one bound of connections, and leases that close their connection."""

import asyncio
import random
import time

import pytest
from harness import VOICE, Server, pool_and_server, run, run_virtual, settle

from speechpool import (
    AsyncSpeechPool,
    ConnectionLimits,
    Endpoint,
    LeaseError,
    PoolTimeout,
    SettingsError,
    SpeechPool,
    Voice,
)
from speechpool.protocol.cosyvoice import FinishTask
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.testing.memory import MemoryNetwork


def test_the_environment_bounds_all_pools_of_the_process(monkeypatch):
    monkeypatch.setenv("DASHSCOPE_MAXIMUM_ASYNC_REQUESTS", "3")

    async def main():
        network = MemoryNetwork()
        server = await Server(network).start()
        options = {"dial": network.connect, "heartbeat": None, "max_size": 3, "min_size": 0}
        endpoint = Endpoint(server.listener.url, api_key="k")
        async with AsyncSpeechPool(endpoint, **options) as one, AsyncSpeechPool(endpoint, **options) as two:
            async with one.borrow(), two.borrow(), one.borrow():
                assert len(server.open) == 3
                with pytest.raises(PoolTimeout, match="total = 3 is used up by 2 pools"):
                    async with two.borrow(timeout=0.5):
                        pass
                async with AsyncSpeechPool(endpoint, **options, limits=ConnectionLimits()) as free:
                    await free.synthesize("Hello.", VOICE)
                    assert len(server.open) == 4
            assert (await two.synthesize("One.", VOICE)).audio == b"One."

    run_virtual(main())


def test_a_wrong_variable_is_an_error_before_any_dial(monkeypatch):
    monkeypatch.setenv("DASHSCOPE_CONNECTION_POOL_SIZE", "lots")
    with pytest.raises(SettingsError, match="DASHSCOPE_CONNECTION_POOL_SIZE = 'lots'"):
        AsyncSpeechPool(Endpoint.local())
    with pytest.raises(SettingsError, match="DASHSCOPE_CONNECTION_POOL_SIZE = 'lots'"):
        SpeechPool(Endpoint.local())


def test_a_limit_for_each_host_counts_host_names():
    assert Endpoint("wss://a.test:8443/x", api_key="k").host == Endpoint("wss://A.test", api_key="k").host == "a.test"


def test_a_discarded_lease_is_over_and_its_connection_closes():
    async def main():
        async with pool_and_server(max_size=1, min_size=0) as (pool, server):
            async with pool.borrow() as lease:
                await lease.synthesize("One.", VOICE)
                lease.discard("bad audio")
                assert pool.stats.discarded == {"bad audio": 1}
                with pytest.raises(LeaseError):
                    lease.task(VOICE)
                lease.discard()
            await settle()
            assert pool.stats.discarded == {"bad audio": 1}
            assert (pool.stats.borrowed, pool.stats.size, pool.stats.double_returns) == (0, 0, 0)
            assert (await pool.synthesize("Two.", VOICE)).audio == b"Two."
            assert len(server.sessions) == 2

    run(main())


def test_a_lease_that_is_discarded_while_a_task_runs_ends_the_task_and_closes():
    async def main():
        async with pool_and_server(max_size=1, min_size=0) as (pool, server):
            server.hooks[FinishTask] = lambda session, _: True
            async with pool.borrow() as lease:
                speaking = asyncio.create_task(lease.synthesize("One.", VOICE))
                await settle()
                lease.discard("gone wrong")
                with pytest.raises(LeaseError):
                    await speaking
            await settle()
            assert pool.stats.discarded == {"gone wrong": 1}
            assert pool.stats.borrowed == 0

    run(main())


@pytest.mark.slow
def test_twenty_pools_of_fifty_share_two_hundred_connections_for_ten_seconds():
    """Skewed, shifting load against the service: it never sees more than the limit, and no pool starves."""
    voice = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=16000)
    waits = {}
    tasks, most = [0], [0]

    async def user(number, pool, end, dice):
        while time.monotonic() < end:
            async with pool.borrow() as lease:
                waits.setdefault(number, []).append(lease._lease.waited)
                assert (await lease.synthesize("Hello.", voice)).audio
                await asyncio.sleep(dice.uniform(0.2, 0.6))  # it listens, or thinks
            tasks[0] += 1

    async def watch(service):
        while True:
            most[0] = max(most[0], len(service._listener.connections))
            await asyncio.sleep(0.005)

    async def main():
        dice = random.Random(5)
        limits = ConnectionLimits(total=200)
        settings = ServiceSettings(submission_rate=None)
        async with SpeechService(LocalBackend("marker"), port=0, settings=settings) as service:
            endpoint = Endpoint.local(service.port)
            pools = [AsyncSpeechPool(endpoint, limits=limits, max_size=50, min_size=5) for _ in range(20)]
            watching = asyncio.create_task(watch(service))
            for pool in pools:
                await pool.__aenter__()
            for phase in range(5):
                hot = {(4 * phase + step) % 20 for step in range(4)}
                end = time.monotonic() + 2
                await asyncio.gather(
                    *(
                        user(number, pool, end, dice)
                        for number, pool in enumerate(pools)
                        for _ in range(60 if number in hot else 2)
                    )
                )
            dials = sum(pool.stats.opened for pool in pools)
            await asyncio.gather(*(pool.close() for pool in pools))
            watching.cancel()
            assert most[0] <= 200
            assert most[0] >= 190  # and the limit was used
            assert len(waits) == 20
            assert max(map(max, waits.values())) < 5.0
            assert dials < 0.3 * tasks[0]

    run(main())
