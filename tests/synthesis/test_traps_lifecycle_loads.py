"""A pool that changes its size, or comes to its end, in full swing; and pools of several event loops at once (T63, T69)."""

import asyncio
import contextlib
import threading

import pytest
import uvloop

from speechpool import AsyncSpeechPool, ConnectionLimits, Endpoint, PoolClosed, Voice
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.engines.marker import MarkerEngine, check, marker_length
from speechpool.service.session import SpeechSession

VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
TEXT = "It says whose it is, and where. " * 3
MAX_REPLACING = 4


class Crowd:
    """The connections that a service sees."""

    now = most = 0

    def __init__(self, monkeypatch):
        came, went = SpeechSession.on_connected, SpeechSession.on_closed

        def on_connected(session, connection):
            self.now += 1
            self.most = max(self.most, self.now)
            came(session, connection)

        def on_closed(session, closed):
            self.now -= 1
            went(session, closed)

        monkeypatch.setattr(SpeechSession, "on_connected", on_connected)
        monkeypatch.setattr(SpeechSession, "on_closed", on_closed)


@pytest.fixture
def crowd(monkeypatch):
    return Crowd(monkeypatch)


@contextlib.asynccontextmanager
async def pool_and_service(**options):
    service = SpeechService(
        LocalBackend(MarkerEngine(interval=0.002)), settings=ServiceSettings(submission_rate=None), port=0
    )
    await service.start()
    try:
        endpoint = Endpoint(service.url, api_key="k")
        async with AsyncSpeechPool(endpoint, max_replacing=MAX_REPLACING, retry=0, **options) as pool:
            yield pool
    finally:
        await service.close()


async def speak(pool):
    """One task, every byte of which is looked at."""
    speech = await pool.synthesize(TEXT, VOICE)
    assert check(speech.audio, speech.request_id) == marker_length(TEXT)


async def until(met):
    while not met():
        await asyncio.sleep(0.005)


def run(main, factory=asyncio.new_event_loop):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_t63_sizes_change_under_fifty_tasks_and_no_task_fails(crowd, factory):
    async def main():
        async with pool_and_service(max_size=10, max_waiting=100, borrow_timeout=60) as pool:
            await pool.wait_ready()

            async def work():
                for _ in range(8):
                    await speak(pool)

            workers = [asyncio.create_task(work()) for _ in range(50)]
            for largest, size in ((10, 30), (30, 4), (30, 16), (16, 1), (16, 12)):
                await pool.resize(size)
                crowd.most = crowd.now
                await until(lambda size=size: pool.stats.size <= size and pool.stats.borrowed == size)
                assert crowd.most <= max(largest, size) + MAX_REPLACING
                await until(lambda size=size: crowd.now <= size)
            assert not all(worker.done() for worker in workers)  # it was under load to the last
            await asyncio.gather(*workers)
            stats = pool.stats
            assert (stats.size, stats.borrowed, stats.idle) == (12, 0, 12)
            assert set(stats.discarded) == {"resized"}

    run(main, factory)


def test_t60_a_drain_in_full_swing_ends_every_task_and_takes_no_more(crowd):
    async def main():
        async with pool_and_service(max_size=20) as pool:
            await pool.wait_ready()
            tasks = [asyncio.create_task(speak(pool)) for _ in range(50)]
            await until(lambda: pool.stats.borrowed == 20 and pool.stats.waiting == 30)
            draining = asyncio.create_task(pool.drain())
            await asyncio.sleep(0)
            with pytest.raises(PoolClosed):
                await pool.synthesize(TEXT, VOICE)
            await draining
            assert all(task.done() for task in tasks)
            await asyncio.gather(*tasks)
            assert (pool.stats.size, crowd.now, crowd.most) == (0, 0, 20)

    run(main)


@pytest.mark.parametrize("limits", [None, 8], ids=["unlimited", "under one limit"])
def test_t69_each_of_six_event_loops_in_six_threads_has_a_pool_of_its_own(limits, crowd):
    shared = ConnectionLimits() if limits is None else ConnectionLimits(total=limits)
    ended = []

    async def caller(url):
        async with AsyncSpeechPool(
            Endpoint(url, api_key="k"), max_size=4, limits=shared, retry=0, borrow_timeout=30
        ) as pool:
            await asyncio.gather(*(speak(pool) for _ in range(20)))
        ended.append(threading.get_ident())

    async def main():
        service = SpeechService(
            LocalBackend(MarkerEngine(interval=0.001)), settings=ServiceSettings(submission_rate=None), port=0
        )
        await service.start()
        factories = [asyncio.new_event_loop, uvloop.new_event_loop] * 3
        threads = [threading.Thread(target=run, args=(lambda: caller(service.url), factory)) for factory in factories]
        for thread in threads:
            thread.start()
        await until(lambda: not any(thread.is_alive() for thread in threads))
        await service.close()

    run(main)
    assert len(set(ended)) == 6
    assert crowd.most <= (24 if limits is None else limits)
    assert crowd.now == 0
