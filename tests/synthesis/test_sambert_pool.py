"""Sambert through the pool: over the connections of CosyVoice, whole texts, and a cancel that costs a connection."""

import asyncio

import pytest
from harness import VOICE as DUPLEX
from harness import run, run_virtual, settle

from speechpool import AsyncSpeechPool, Endpoint, FirstAudioTimeout, InvalidText, LeaseError, TaskFailed, Voice
from speechpool.protocol import Audio, Finished, SentenceBegin, SentenceEnd
from speechpool.protocol.cosyvoice import ContinueTask, FinishTask, Refused, RunTask
from speechpool.protocol.inference import InferenceSession
from speechpool.protocol.sambert import RunSambert, Span, TimedWord
from speechpool.testing.memory import MemoryNetwork
from speechpool.transport import Accepted

VOICE = Voice("sambert-zhichu-v1", format="pcm")


class Server:
    """All connections of one endpoint. What `mood` names goes wrong with each Sambert task, once."""

    def __init__(self):
        self.sessions, self.runs, self.refused, self.moods, self.open = [], [], [], [], 0

    async def start(self, network):
        self.listener = await network.listen(lambda request: Accepted(Session(self)))


class Session:
    def __init__(self, server):
        self.server = server
        self.protocol = InferenceSession()

    def on_connected(self, connection):
        self.connection = connection
        self.server.sessions.append(self)
        self.server.open += 1

    def on_closed(self, closed):
        self.server.open -= 1

    def on_binary(self, data):
        raise AssertionError

    def on_text(self, data):
        try:
            instruction = self.protocol.feed(data)
        except Refused as error:
            self.server.refused.append(error)
            raise
        match instruction:
            case RunSambert(text=text):
                self.server.runs.append((self, text))
                mood = self.server.moods.pop(0) if self.server.moods else "well"
                if mood == "silent":
                    return
                self.send(self.protocol.started())
                getattr(self, mood)(text)
            case RunTask():
                self.server.runs.append((self, None))
                self.send(self.protocol.started())
            case ContinueTask(text):
                self.send(text.encode(), binary=True)
            case FinishTask():
                self.send(self.protocol.cosyvoice.finished(5))

    def send(self, frame, *, binary=False):
        self.connection.send(frame, binary)

    def well(self, text):
        begin = 0
        for sentence in text.split(". "):
            self.send(self.protocol.sambert.sentence(Span(begin, begin)))
            self.send(sentence.encode(), binary=True)
            word = TimedWord(sentence.split()[0], begin, begin + 50)
            self.send(self.protocol.sambert.sentence(Span(begin, begin + 100, (word,))))
            begin += 100
        self.send(self.protocol.sambert.finished(len(text), {"request_uuid": "theirs"}))

    def stuck(self, text):
        self.send(self.protocol.sambert.sentence(Span(0, 0)))
        self.send(b"half", binary=True)

    def busy(self, text):
        self.send(self.protocol.sambert.failed("Throttling.RateQuota", "slower"))
        self.connection.close()

    def wrong(self, text):
        self.send(self.protocol.sambert.failed("ModelNotFound", "Model not exist."))
        self.connection.close()

    def stray(self, text):
        self.well(text)
        self.send(b"more", binary=True)


def with_pool(check, *moods, how=run, **options):
    async def main():
        network, server = MemoryNetwork(), Server()
        await server.start(network)
        server.moods += moods
        options_ = {"max_size": 2, "heartbeat": None, "retry": 2, **options}
        endpoint = Endpoint(server.listener.url, api_key="key")
        async with AsyncSpeechPool(endpoint, dial=network.connect, **options_) as pool:
            await pool.wait_ready()
            await check(pool, server)
        assert server.open == 0

    how(main())


def test_a_speech():
    async def check(pool, server):
        speech = await pool.synthesize("One. Two", VOICE)
        assert speech.audio == b"OneTwo"
        assert speech.characters == 8
        assert [(word.text, word.begin_time, word.end_time) for word in speech.words] == [
            ("One", 0, 50),
            ("Two", 100, 150),
        ]
        assert speech.server_request_id == "theirs"
        assert speech.sample_rate == 16000
        assert speech.report.reused

    with_pool(check)


def test_the_events_of_a_task():
    async def check(pool, server):
        async with pool.task(VOICE) as task:
            await task.flush()  # nothing to flush, and no harm
            await task.send("One. Two")
            with pytest.raises(LeaseError, match="one piece"):
                await task.send("Three.")
            assert not server.runs  # a whole text is sent when it is known to be whole
            await task.finish()
            events = [event async for event in task]
        assert [type(event) for event in events] == [
            SentenceBegin, Audio, SentenceEnd, SentenceBegin, Audio, SentenceEnd, Finished
        ]  # fmt: skip
        assert [(event.begin_time, event.end_time) for event in events if type(event) is SentenceEnd] == [
            (0, 100), (100, 200)
        ]  # fmt: skip

    with_pool(check)


def test_both_protocols_share_the_connections_of_a_pool():
    async def check(pool, server):
        for _ in range(3):
            assert (await pool.synthesize("One", VOICE)).audio == b"One"
            assert (await pool.synthesize("Two", DUPLEX)).audio == b"Two"
        assert len({session for session, _ in server.runs}) == 1
        assert pool.stats.opened == 1
        assert not server.refused

    with_pool(check, max_size=1)


def test_tasks_on_a_lease_may_be_of_either():
    async def check(pool, server):
        async with pool.borrow() as lease:
            for voice in (VOICE, DUPLEX, VOICE):
                assert (await lease.synthesize("One", voice)).audio == b"One"
        assert pool.stats.opened == 1

    with_pool(check, max_size=1)


def test_a_stream_of_pieces_is_refused_after_the_first():
    async def check(pool, server):
        assert [chunk async for chunk in pool.stream("One", VOICE)] == [b"One"]
        with pytest.raises(LeaseError, match="one piece"):
            async for _ in pool.stream(["One. ", "Two."], VOICE):
                pass

    with_pool(check)


def test_t39_a_cancel_costs_the_connection_and_the_pool_opens_another():
    async def check(pool, server):
        async with pool.stream("One.", VOICE) as stream:
            assert await anext(aiter(stream)) == b"half"
        await settle()
        assert pool.stats.discarded["cancelled"] == 1
        assert pool.stats.borrowed == 0
        await pool.wait_ready()
        assert (await pool.synthesize("Two", VOICE)).audio == b"Two"
        assert len(server.sessions) == 2

    with_pool(check, "stuck", max_size=1)


def test_a_cancel_before_the_text_costs_nothing():
    async def check(pool, server):
        async with pool.task(VOICE):
            pass
        assert pool.stats.idle == 1
        assert not pool.stats.discarded
        assert not server.runs

    with_pool(check, max_size=1)


def test_a_failure_that_may_pass_is_tried_again_with_the_whole_text():
    async def check(pool, server):
        speech = await pool.synthesize("One", VOICE)
        assert speech.audio == b"One"
        assert speech.report.retries == 1
        assert [text for _, text in server.runs] == ["One", "One"]

    with_pool(check, "busy", how=run_virtual)


def test_a_failure_for_good():
    async def check(pool, server):
        with pytest.raises(TaskFailed, match="Model not exist") as caught:
            await pool.synthesize("One", VOICE)
        assert caught.value.code == "ModelNotFound"
        assert len(server.runs) == 1

    with_pool(check, "wrong")


def test_t37_audio_after_the_end_costs_the_connection_and_reaches_nobody():
    async def check(pool, server):
        assert (await pool.synthesize("One", VOICE)).audio == b"One"
        await settle()
        await pool.wait_ready()
        assert (await pool.synthesize("Two", VOICE)).audio == b"Two"
        assert len(server.sessions) == 2

    with_pool(check, "stray", max_size=1)


def test_a_server_that_never_accepts():
    async def check(pool, server):
        with pytest.raises(FirstAudioTimeout) as caught:
            await pool.synthesize("One", VOICE)
        assert caught.value.phase == "start"

    with_pool(check, "silent", how=run_virtual, retry=0)


def test_a_server_that_stops_in_the_middle():
    async def check(pool, server):
        with pytest.raises(FirstAudioTimeout) as caught:
            await pool.synthesize("One", VOICE)
        assert caught.value.phase == "gap"
        assert caught.value.audio_delivered == 4

    with_pool(check, "stuck", how=run_virtual)


def test_the_text_is_counted_as_sambert_counts():
    async def check(pool, server):
        with pytest.raises(InvalidText, match="10,000"):
            await pool.synthesize("好" * 10_001, VOICE)
        assert (await pool.synthesize("好" * 10_000, VOICE)).characters == 10_000

    with_pool(check)


def test_many_tasks_of_both_at_once_keep_their_audio():
    async def check(pool, server):
        async def one(n):
            voice = (VOICE, DUPLEX)[n % 2]
            assert (await pool.synthesize(f"text{n}", voice)).audio == f"text{n}".encode()

        await asyncio.gather(*(one(n) for n in range(200)))
        assert pool.stats.opened == 5

    with_pool(check, max_size=5, max_waiting=200)
