"""No byte of one task in another: the whole house over real sockets, under load and under cancels."""

import asyncio
import random

import pytest
import uvloop

from speechpool import AsyncSpeechPool, ConnectionLost, Endpoint, Voice
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.engines.marker import check, marker_length

PCM = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
ANY_RATE = ServiceSettings(submission_rate=None)
SENTENCE = "The quick brown fox jumps over the lazy dog. "


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def settle(condition):
    """Give the last frames of cancelled tasks their way; a test that never settles fails by its timeout."""
    while not condition():
        await asyncio.sleep(0.01)


def test_t37_200_tasks_half_of_them_cancelled_midway():
    tasks, size = 200, 40
    random.seed(20)

    async def main():
        async with SpeechService(LocalBackend("marker"), port=0, settings=ANY_RATE) as service:
            endpoint = Endpoint(service.url, api_key="k")
            async with AsyncSpeechPool(endpoint, max_size=size, borrow_timeout=60.0) as pool:
                await pool.wait_ready()
                outcomes = await asyncio.gather(*(speak(pool, number) for number in range(tasks)))
                await settle(lambda: pool.stats.borrowed == 0)
                stats, totals = pool.stats, pool.telemetry.lifetime()
                assert (stats.idle, stats.size, stats.waiting) == (size, size, 0)
                assert outcomes.count("completed") == outcomes.count("cancelled") == tasks // 2
                assert (totals.completed, totals.cancelled, totals.failed) == (tasks // 2, tasks // 2, 0)
                assert stats.opened == size, stats.discarded  # cancelling cost no connection
            await settle(lambda: service.connections == 0)
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, left

    async def speak(pool, number):
        text = SENTENCE * random.randint(2, 6)
        stop_at = random.randint(1, marker_length(text) - 1) if number % 2 else None
        audio = bytearray()
        async with pool.stream(text, PCM) as stream:
            async for chunk in stream:
                audio += chunk
                if stop_at is not None and len(audio) >= stop_at:
                    break
            else:
                assert stop_at is None or len(audio) < stop_at
            if stop_at is not None and stream.outcome == "completed":
                await stream.cancel()  # the whole of it was there before we looked
        check(bytes(audio), stream.request_id)
        if stream.outcome == "completed":
            assert len(audio) == marker_length(text)
        return "cancelled" if stop_at is not None and len(audio) < marker_length(text) else stream.outcome

    run(main())


@pytest.fixture(scope="module")
def texts():
    words = ["river", "morning", "window", "garden", "letter", "winter", "silver", "market", "music", "paper"]
    return [
        f"Number {number}: the {words[number % 10]} waits behind the {words[(number * 7 + 3) % 10]}."
        for number in range(20)
    ]


@pytest.mark.slow
def test_20_tasks_on_the_real_voice_sound_as_each_alone(texts):
    async def main():
        async with SpeechService(LocalBackend("hibari", max_first_audio=None), port=0, settings=ANY_RATE) as service:
            async with AsyncSpeechPool(Endpoint(service.url, api_key="k"), max_size=20) as pool:
                together = await asyncio.gather(*(collect(pool, text) for text in texts))
                alone = [await collect(pool, text) for text in texts]
        assert [len(audio) > 24000 for audio in alone] == [True] * 20
        assert together == alone

    async def collect(pool, text):
        return b"".join([chunk async for chunk in pool.stream(text, PCM)])

    run(main())


def test_t44_a_socket_cut_mid_task_ends_the_wait_at_once_and_one_cut_before_is_retried():
    async def main():
        async with SpeechService(LocalBackend("marker"), port=0, settings=ANY_RATE) as service:
            async with AsyncSpeechPool(Endpoint(service.url, api_key="k"), max_size=1) as pool:
                delivered = 0
                with pytest.raises(ConnectionLost) as caught:
                    async for chunk in pool.stream(SENTENCE * 50, PCM):
                        delivered += len(chunk)
                        cut(service)
                assert delivered == caught.value.audio_delivered > 0
                async with pool.task(PCM) as task:
                    cut(service)
                    await task.send(SENTENCE)
                    await task.finish()
                    audio = b"".join([event.data async for event in task if hasattr(event, "data")])
                assert task.report.retries == 1
                assert check(audio, task.request_id) == marker_length(SENTENCE)

    def cut(service):
        for connection in list(service._listener.connections):
            connection._transport.underlying_transport.abort()

    run(main())
