"""`pool.on`: what happens is told to those who listen, in order, and costs nothing where nobody does."""

import asyncio
import logging

import pytest
from monitored import KEY, PCM, SECRET, pool_with_traffic, running_service, traffic

from speechpool import AsyncSpeechPool, Endpoint, SpeechPool
from speechpool.limits import LocalQuota
from speechpool.telemetry import (
    ConnectionClosed,
    ConnectionOpened,
    EndpointAway,
    EndpointBack,
    Listeners,
    TaskEnded,
    TaskStarted,
)
from speechpool.testing.proxy import FaultProxy


def test_tasks_and_connections_are_told_in_order():
    events = []

    async def main():
        async with running_service() as service:
            pool = AsyncSpeechPool(Endpoint(service.url, api_key=KEY), max_size=1)
            pool.on(events.append)
            async with pool:
                await pool.synthesize(SECRET, PCM)
                async with pool.stream(SECRET, PCM) as stream:
                    await stream.cancel()
            return stream

    stream = asyncio.run(main())
    kinds = [type(event) for event in events]
    assert kinds == [ConnectionOpened, TaskStarted, TaskEnded, TaskStarted, TaskEnded, ConnectionClosed]
    opened, _, first, begun, second, closed = events
    assert {event.pool for event in events} == {"default"}
    assert first.outcome == "completed"
    assert first.first_packet_delay == pytest.approx(first.queue + first.connect + first.start + first.synthesis)
    assert first.seconds >= first.end_to_end > 0
    assert first.audio_bytes > 0
    assert (second.outcome, second.number, second.request_id) == ("cancelled", begun.number, stream.request_id)
    assert (closed.borrows, closed.seconds > 0, opened.seconds > 0) == (2, True, True)
    assert "giraffe" not in repr(events)


def test_an_outage_begins_and_ends():
    events = []

    async def main():
        async with running_service() as service:
            host, port = service.url.split("/")[2].split(":")
            async with FaultProxy(host, int(port)) as proxy:
                url = proxy.url("ws", "/" + service.url.split("/", 3)[3])
                async with AsyncSpeechPool(
                    Endpoint(url, api_key=KEY), max_size=2, outage_after=0.1, open_backoff=0.02
                ) as pool:
                    pool.on(
                        lambda event: events.append(event) if isinstance(event, EndpointAway | EndpointBack) else None
                    )
                    refused = proxy.add("refuse")
                    proxy.cut()
                    while not events:
                        await asyncio.sleep(0.01)
                    refused.remove()
                    while len(events) < 2:
                        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert [type(event) for event in events] == [EndpointAway, EndpointBack]


def test_one_that_fails_is_logged_once_and_changes_nothing(caplog):
    def fails(_):
        raise ValueError("of the listener")

    async def main():
        async with pool_with_traffic(1, ()) as pool:
            seen = []
            pool.on(fails)
            remove = pool.on(seen.append)
            await traffic(pool, 3)
            told = len(seen)
            remove()
            await traffic(pool, 3)
            return told, len(seen), pool.report().lifetime.error_rate

    with caplog.at_level(logging.ERROR):
        told, after, rate = asyncio.run(main())
    assert told == after == 6
    assert (rate.completed, rate.failed) == (7, 0)
    assert caplog.text.count("A listener of pool 'default' failed") == 1


@pytest.mark.keeps_descriptors
def test_a_pool_for_threads_tells_on_its_loop():
    events = []

    def threaded(url):
        with SpeechPool(Endpoint(url, api_key=KEY), quota=LocalQuota()) as pool:
            pool.on(events.append)
            pool.synthesize(SECRET, PCM)

    async def main():
        async with running_service() as service:
            await asyncio.to_thread(threaded, service.url)

    asyncio.run(main())
    assert [event.outcome for event in events if isinstance(event, TaskEnded)] == ["completed"]


def test_any_callable_can_listen_and_each_is_removed_alone(caplog):
    class Unhashable:
        __hash__ = None

        def __call__(self, _):
            raise ValueError("of the listener")

    listeners, seen = Listeners(), []
    listeners.add(Unhashable())
    twice = [listeners.add(seen.append) for _ in range(2)]
    listeners.tell(EndpointAway(pool="p"))
    twice[0]()
    listeners.tell(EndpointBack(pool="p"))
    assert [type(event) for event in seen] == [EndpointAway, EndpointAway, EndpointBack]
    assert caplog.text.count("A listener of pool 'p' failed") == 1
