"""A pool for which this process may not open enough descriptors is refused before the first dial."""

import asyncio
import resource

import pytest
from harness import VOICE, pool_and_server, run_virtual
from threaded_server import serving

from speechpool import AsyncSpeechPool, SettingsError
from speechpool.transport import descriptors


@pytest.fixture
def room_for_forty(monkeypatch):
    """The limit allows forty descriptors beside what is open now."""
    used = descriptors._used()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 40 + descriptors.RESERVE, 4096))


def test_a_pool_beyond_the_soft_limit_is_refused_when_it_is_entered(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))

    async def main():
        with pytest.raises(SettingsError, match=r"max_size = 2000 .*may open 1024 .*`ulimit -n \d+`.*lower max_size"):
            async with AsyncSpeechPool(server.endpoint, max_size=2000):
                pass

    with serving() as server:
        asyncio.run(main())
        assert server.sessions == []


def test_so_is_a_resize_and_the_pool_stays_what_it_was(room_for_forty):
    async def main():
        async with AsyncSpeechPool(server.endpoint, max_size=2, max_replacing=1) as pool:
            await pool.wait_ready()
            with pytest.raises(SettingsError, match="max_size = 2000 "):
                await pool.resize(2000)
            await pool.resize(3)  # the two that are open already count once
            await pool.wait_ready()
            assert pool.stats.size == 3
            assert await pool.synthesize("Text.", VOICE)

    with serving() as server:
        asyncio.run(main())


def test_connections_in_memory_need_none(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))

    async def main():
        async with pool_and_server(max_size=100) as (pool, _):
            assert pool.stats.idle == 100
            await pool.resize(200)

    run_virtual(main())
