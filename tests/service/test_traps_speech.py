"""Traps of speech against the real service over real sockets: what the server counts is what the client meant."""

import asyncio
import random

import pytest
import uvloop

from speechpool import AsyncSpeechPool, Audio, ConnectionLost, Deadlines, Endpoint, PoolClosed, Voice
from speechpool.limits import LocalQuota
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.engines.marker import MarkerEngine, check, marker_length

PCM = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
ANY_RATE = ServiceSettings(submission_rate=None)
SENTENCE = "The quick brown fox jumps over the lazy dog. "
LONG = SENTENCE * 40


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def service_of(engine="marker", settings=ANY_RATE, **options):
    return SpeechService(LocalBackend(engine), port=0, settings=settings, **options)


def pool_of(service, *, port=None, **options):
    options = {"borrow_timeout": 60.0, "heartbeat": None, **options}
    return AsyncSpeechPool(Endpoint.local(port or service.port), **options)


async def until(condition):
    """A test that never gets there fails by its timeout."""
    while not condition():
        await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------ whose audio it is
def cancel_at_random(tasks, size, callers):
    async def one(pool, number):
        text = SENTENCE * random.randint(1, 3)
        audio = bytearray()
        stream = pool.stream(text, PCM)

        async def listen():
            async with stream:
                async for chunk in stream:
                    audio.extend(chunk)

        listening = asyncio.create_task(listen())
        if number % 2:
            await asyncio.wait([listening], timeout=random.choice((0.0, 0.001, 0.003, 0.01, 0.02)))
            listening.cancel()
        await asyncio.wait([listening])
        assert listening.cancelled() or listening.exception() is None
        assert check(bytes(audio), stream.request_id or "") <= marker_length(text)
        assert number % 2 or len(audio) == marker_length(text)

    async def caller(pool, numbers):
        for number in numbers:
            await one(pool, number)

    async def main():
        async with service_of() as service, pool_of(service, max_size=size) as pool:
            await pool.wait_ready()
            numbers = iter(range(tasks))
            await asyncio.gather(*(caller(pool, numbers) for _ in range(callers)))
            await until(lambda: pool.stats.borrowed == 0)
            stats, totals = pool.stats, pool.telemetry.lifetime()
            assert (totals.failed, totals.tasks) == (0, tasks)
            assert totals.cancelled >= tasks // 10
            assert (stats.opened, stats.idle) == (size, size), stats.discarded
            assert service.counts.running == 0
            assert sum(service.counts.tasks.values()) <= tasks
            assert service.counts.errors == {}

    random.seed(37)
    run(main())


def test_t37_random_cancels_over_real_sockets():
    cancel_at_random(300, size=8, callers=24)


@pytest.mark.slow
def test_t37_ten_thousand_random_cancels_over_real_sockets():
    cancel_at_random(10_000, size=20, callers=60)


# ------------------------------------------------------------------------------------------ what is left at the server
@pytest.mark.parametrize("drain", [None, 0.1])
def test_t61_a_pool_that_closes_leaves_no_task_and_no_connection_at_the_server(drain):
    async def main():
        async with service_of(MarkerEngine(profile="paced")) as service:
            pool = pool_of(service, max_size=6, close_timeout=0.5)
            async with pool:
                await pool.wait_ready()
                speaking = [asyncio.create_task(pool.synthesize(LONG, PCM)) for _ in range(3)]
                thinking = [await pool.task(PCM).__aenter__() for _ in range(2)]  # no text yet
                lease = await pool.borrow().__aenter__()  # held, idle
                await until(lambda: service.counts.running == 5)
                await pool.close(drain)
                results = await asyncio.gather(*speaking, return_exceptions=True)
                assert {type(result) for result in results} == {ConnectionLost if drain else PoolClosed}
                assert {task.outcome for task in thinking} == {"failed"}
                lease.leave()
            await until(lambda: service.connections == 0)
            assert service.counts.running == 0
            assert sum(service.counts.tasks.values()) == 5
            assert service.counts.tasks["cancelled"] + service.counts.tasks["failed"] == 5
            assert pool.stats.size == 0

    run(main())


def test_t76_a_thousand_tasks_on_five_connections_all_end_at_the_server():
    tasks, size = 1000, 5

    async def one(pool, number):
        match number % 5:
            case 0:
                await pool.synthesize("Hello there.", PCM)
            case 1:  # left before the text
                async with pool.task(PCM):
                    pass
            case 2:  # left in the middle
                async for _ in pool.stream(LONG, PCM):
                    break
            case 3:  # read to the end, never finished by hand
                async with pool.stream(["Hello. ", "There."], PCM) as stream:
                    async for _ in stream:
                        pass
            case 4:  # a caller that is cancelled
                caller = asyncio.create_task(pool.synthesize(LONG, PCM))
                await asyncio.sleep(random.random() / 50)
                caller.cancel()
                await asyncio.wait([caller])

    async def main():
        async with service_of() as service, pool_of(service, max_size=size, max_waiting=tasks) as pool:
            await pool.wait_ready()
            random.seed(76)
            peak = 0
            for batch in range(0, tasks, 20):
                await asyncio.gather(*(one(pool, number) for number in range(batch, batch + 20)))
                peak = max(peak, service.counts.running)
            await until(lambda: pool.stats.borrowed == 0)
            assert peak <= size
            counts, totals = service.counts, pool.telemetry.lifetime()
            assert (counts.running, counts.connections, service.connections) == (0, size, size)
            assert (totals.tasks, totals.failed, pool.telemetry.tasks_running) == (tasks, 0, 0)
            assert sum(counts.tasks.values()) == totals.connected
            assert counts.tasks["completed"] >= totals.completed >= tasks * 2 // 5

    run(main())


def test_t77_twenty_barge_ins_reuse_two_connections_and_dial_no_other():
    async def main():
        async with service_of(MarkerEngine(profile="paced")) as service, pool_of(service, max_size=2) as pool:
            await pool.wait_ready()
            reports = []
            for _ in range(20):
                async with pool.stream(LONG, PCM) as stream:
                    async for _ in stream:
                        break
                reports.append(stream.report)
            await until(lambda: pool.stats.borrowed == 0)
            assert [(report.outcome, report.reused, report.connect) for report in reports] == [
                ("cancelled", True, 0.0)
            ] * 20
            totals = pool.telemetry.lifetime()
            assert (totals.connected, totals.reused) == (20, 20)
            assert (pool.stats.opened, service.counts.connections) == (2, 2)
            assert service.counts.tasks["cancelled"] == 20

    run(main())


# ------------------------------------------------------------------------------------------ the account's limit
@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        # A fifth below the account's limit: at the limit itself, a late turn of the loop would be an offence.
        ({"submission_rate": 50.0}, {"rate": 40.0}),
        ({"submission_rate": None, "max_tasks_per_key": 3}, {"concurrency": 3}),
    ],
    ids=["rate", "at once"],
)
@pytest.mark.parametrize("limited", [True, False])
def test_t78_an_account_that_may_less_than_its_pool_waits_here_and_is_never_throttled(limits, quota, limited):
    tasks, size = 80, 12

    async def main():
        async with service_of(MarkerEngine(profile="paced"), ServiceSettings(**limits)) as service:
            async with pool_of(
                service, max_size=size, max_waiting=tasks, retry=0, quota=LocalQuota(**quota) if limited else None
            ) as pool:
                await pool.wait_ready()
                results = await asyncio.gather(
                    *(pool.synthesize("Hello there.", PCM) for _ in range(tasks)), return_exceptions=True
                )
                failed = [result for result in results if isinstance(result, Exception)]
                await until(lambda: pool.stats.borrowed == 0)
                if limited:
                    assert failed == []
                    assert service.counts.errors == {}
                    assert (pool.stats.opened, service.counts.connections) == (size, size)
                else:  # that the service does throttle
                    assert failed
                    assert sum(service.counts.errors.values()) == len(failed)

    run(main())


# ------------------------------------------------------------------------------------------ half-open
class Freezer:
    """A TCP relay to a service. Frozen connections stay open, and nothing comes through any more; new ones are fine."""

    def __init__(self, port):
        self._port = port
        self._tasks = set()
        self._links = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def accepted(self):
        return len(self._links)

    def answered(self, number):
        """Pieces that came back over connection `number`."""
        return self._links[number]["back"]

    def freeze(self):
        for link in self._links:
            link["open"] = False

    async def _accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        link = {"open": True, "back": 0}
        self._links.append(link)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def copy(source, sink, *, back):
            while data := await source.read(65536):
                if link["open"]:
                    link["back"] += back
                    sink.write(data)

        copies = [
            asyncio.ensure_future(copy(reader, there_writer, back=False)),
            asyncio.ensure_future(copy(there_reader, writer, back=True)),
        ]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in copies:
                each.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            for each in (writer, there_writer):
                each.close()


def test_t43_a_half_open_connection_is_noticed_by_its_heartbeat_and_the_text_said_again():
    beat = 0.1

    async def main():
        async with service_of() as service, Freezer(service.port) as relay:
            limits = Deadlines(first_audio=30.0, start=30.0)  # it is not they that notice
            async with pool_of(service, port=relay.port, max_size=1, heartbeat=beat, deadlines=limits) as pool:
                await pool.wait_ready()
                heard = relay.answered(0)
                await until(lambda: relay.answered(0) > heard)  # a pong: from now on silence means something
                async with pool.task(PCM) as task:
                    await until(lambda: task._progress.started)
                    relay.freeze()
                    await task.send(SENTENCE)  # taken by the kernel, heard by nobody
                    await task.finish()
                    began = asyncio.get_running_loop().time()
                    audio = b"".join([event.data async for event in task if isinstance(event, Audio)])
                    took = asyncio.get_running_loop().time() - began
                assert check(audio, task.request_id) == marker_length(SENTENCE)
                assert task.report.retries == 1
                assert relay.accepted == 2
                assert took < 5.0  # far from the deadlines, on a slow machine too

    run(main())


def test_t43_t44_one_that_freezes_in_the_middle_of_the_audio_ends_the_task_with_what_was_heard():
    async def main():
        async with service_of(MarkerEngine(profile="paced")) as service, Freezer(service.port) as relay:
            async with pool_of(service, port=relay.port, max_size=1, heartbeat=0.1) as pool:
                await pool.wait_ready()
                heard = relay.answered(0)
                await until(lambda: relay.answered(0) > heard)
                audio = bytearray()
                with pytest.raises(ConnectionLost) as caught:
                    async with pool.stream(LONG, PCM) as stream:
                        async for chunk in stream:
                            audio.extend(chunk)
                            relay.freeze()
                assert caught.value.audio_delivered == len(audio) > 0
                assert check(bytes(audio), stream.request_id) < marker_length(LONG)
                assert stream.report.retries == 0

    run(main())


# ------------------------------------------------------------------------------------------ one reader that does not read
def test_t83_one_of_five_that_stops_reading_holds_its_own_socket_only():
    text = SENTENCE * 60  # 1.4 MB of audio

    async def main():
        async with service_of() as service, pool_of(service, max_size=5) as pool:
            await pool.wait_ready()
            async with pool.stream(text, PCM) as slow:
                chunks = aiter(slow)
                audio = bytearray(await anext(chunks))
                others = await asyncio.gather(*(pool.synthesize(text, PCM) for _ in range(4)))
                assert [check(one.audio, one.request_id) for one in others] == [marker_length(text)] * 4
                assert slow.audio_bytes - len(audio) < 512 * 1024  # as `SpeechStream` promises
                async for chunk in chunks:
                    audio.extend(chunk)
            assert check(bytes(audio), slow.request_id) == marker_length(text)
            assert slow.outcome == "completed"
            assert (pool.stats.opened, pool.stats.idle) == (5, 5)

    run(main())
