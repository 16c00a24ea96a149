"""A caller that thinks longer than the text clock allows, in every format: on a virtual clock, and against the service."""

import asyncio
import io
import itertools
import struct
import time

import miniaudio
import numpy as np
import pytest
import soundfile
import uvloop
from ogg_kit import pages

from speechpool import AsyncSpeechPool, Endpoint, SpeechPool, TaskFailed, TextGap, Voice
from speechpool.limits import LocalQuota
from speechpool.protocol import Audio, SentenceBegin, SentenceEnd, Word
from speechpool.protocol.cosyvoice import CancelTask, ContinueTask, FinishTask, RunTask, ServerSession
from speechpool.protocol.inference import Inference
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.encoding import new_encoder
from speechpool.service.engines.hibari import HibariEngine
from speechpool.service.engines.marker import check, marker_length
from speechpool.testing.clock import run as run_virtual
from speechpool.testing.memory import MemoryNetwork
from speechpool.transport import Accepted

RATES = {"pcm": 16000, "wav": 16000, "mp3": 22050, "opus": 24000}
LOUD = 8000


def decode(audio_format, data):
    """Decode a stream as a whole; a chain of opus link by link, because libsndfile reads the first one only."""
    if audio_format == "pcm":
        return np.frombuffer(data, "<i2").astype(int)
    if audio_format == "wav":
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:40] + struct.pack("<I", len(data) - 44) + data[44:]
    if audio_format == "opus":
        return np.concatenate([read(link) for link in links_of(data)])
    if audio_format == "mp3":
        other = miniaudio.mp3_read_s16(data)
        assert len(other.samples) == len(read(data))
    return read(data)


def read(data):
    return soundfile.read(io.BytesIO(data), dtype="int16")[0].astype(int)


def links_of(data):
    """Cut a chain at the pages that begin a stream, and check that it is one."""
    begins = [data.index(b"OggS" + bytes((0, 2)))]
    while (at := data.find(b"OggS" + bytes((0, 2)), begins[-1] + 1)) >= 0:
        begins.append(at)
    found = list(pages(data))  # with their checksums, numbers and sizes
    assert len({page.serial for page in found}) == len(begins)
    return [data[begin:end] for begin, end in itertools.pairwise([*begins, len(data)])]


# ---------------------------------------------------------------------------------------- on a virtual clock
class Speaker:
    """One connection of a server with the provider's clocks, which says 0.1 s of a tone for each character."""

    def __init__(self, server):
        self.server, self.protocol, self.alarm = server, ServerSession(), None

    def on_connected(self, connection):
        self.connection = connection

    def on_closed(self, closed):
        self.wait(None)

    def wait(self, seconds, action=None, *arguments):
        if self.alarm is not None:
            self.alarm.cancel()
        self.alarm = seconds and asyncio.get_running_loop().call_later(seconds, action, *arguments)

    def fail(self):
        self.connection.send(self.protocol.failed("CLIENT_ERROR", "request timeout after 23 seconds."))
        self.connection.close()

    def on_text(self, data):
        match self.protocol.feed(data):
            case RunTask() as run:
                self.server.append(run)
                self.rate, form = run.parameters.sample_rate, run.parameters.format
                self.encoder = new_encoder(form, self.rate, source_rate=self.rate)
                self.index, self.characters, self.at = 0, 0, 0.0
                self.connection.send(self.protocol.started())
                self.wait(23, self.fail)
            case ContinueTask(text):
                self.speak(text)
                self.wait(23, self.fail)
            case FinishTask() | CancelTask():
                self.send(self.encoder.flush())
                self.connection.send(self.protocol.finished(self.characters))
                self.wait(60, self.connection.close)

    def speak(self, text):
        seconds = len(text) / 10
        times = np.arange(int(self.rate * seconds)) / self.rate
        self.connection.send(self.protocol.sentence_begin(self.index, text))
        self.send(self.encoder.encode((LOUD * np.sin(2 * np.pi * 440 * times)).astype(np.int16)))
        self.characters += len(text)
        words = (Word(text, 0, len(text), self.at * 1000, (self.at + seconds) * 1000),)
        self.connection.send(self.protocol.sentence_end(self.index, text, words, self.characters))
        self.index += 1
        self.at += seconds

    def send(self, data):
        for at in range(0, len(data), 1001):
            self.connection.send(data[at : at + 1001], binary=True)


def on_a_virtual_clock(body):
    async def main():
        network, runs = MemoryNetwork(), []
        listener = await network.listen(lambda _: Accepted(Speaker(runs)))
        endpoint = Endpoint(listener.url, api_key="k")
        async with AsyncSpeechPool(endpoint, dial=network.connect, max_size=1, heartbeat=None) as pool:
            await body(pool, runs)
            await asyncio.sleep(3)
            assert pool.stats.borrowed == 0

    run_virtual(main())


TEXTS = ("The first sentence. ", "After a minute, the second one. ", "Yes. ", "Yes. ", "The last one.")


@pytest.mark.parametrize("audio_format", RATES)
@pytest.mark.parametrize("pause", [60, 90])
def test_promise_8_a_sentence_a_minute_of_silence_and_the_next_are_one_stream(audio_format, pause):
    async def body(pool, runs):
        rate = RATES[audio_format]
        voice = Voice("cosyvoice-v3-flash", "longanyang", format=audio_format, sample_rate=rate, word_timestamps=True)
        events = []

        async def read(task):
            async for event in task:
                events.append(event)

        async with pool.task(voice) as task:
            reader = asyncio.create_task(read(task))
            for text in TEXTS:
                await task.send(text)
                await asyncio.sleep(pause)
            await task.finish()
            await reader
        report = task.report
        assert len(runs) == len(report.request_ids) == len(TEXTS)
        assert (report.outcome, report.retries, report.characters) == ("completed", 0, sum(map(len, TEXTS)))
        seconds = sum(map(len, TEXTS)) / 10
        samples = decode(audio_format, b"".join(event.data for event in events if isinstance(event, Audio)))
        # An mp3 encoder begins with its delay, and fills its last frame up: three frames a segment at most.
        surplus = len(samples) / rate - seconds
        assert 0 <= surplus <= (len(TEXTS) * 3 * 576 / rate if audio_format == "mp3" else 0.001)
        assert len(samples) / rate == pytest.approx(report.audio_seconds, abs=1e-6)
        assert np.abs(samples).max() <= 1.1 * LOUD, "a click"
        assert [event.index for event in events if isinstance(event, SentenceBegin)] == list(range(len(TEXTS)))
        words = [word for event in events if isinstance(event, SentenceEnd) for word in event.words]
        assert [word.text for word in words] == list(TEXTS)
        assert all(one.end_time <= two.begin_time for one, two in itertools.pairwise(words))
        for word in words:  # and are where they are heard
            heard = samples[int(word.begin_time * rate / 1000) : int(word.end_time * rate / 1000)]
            assert np.abs(heard[len(heard) // 4 :]).max() > LOUD / 2
        if audio_format != "mp3":
            assert words[-1].end_time == pytest.approx(seconds * 1000)

    on_a_virtual_clock(body)


# ---------------------------------------------------------------------------------------- against the service
GAP = 0.6
IMPATIENT = ServiceSettings(submission_rate=None, text_gap=GAP, idle_timeout=2.0)


def with_service(engine, body, *, settings=IMPATIENT, **options):
    async def main():
        async with SpeechService(LocalBackend(engine), port=0, settings=settings) as service:
            options.setdefault("dialect", Inference(text_gap=GAP))
            endpoint = Endpoint.local(service.port)
            async with AsyncSpeechPool(endpoint, max_size=2, heartbeat=None, **options) as pool:
                await body(pool, service)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def thoughtful(pool, voice, texts, pause):
    """Send a text, think, send the next; return the task and its events."""
    events = []

    async def read(task):
        async for event in task:
            events.append(event)

    async with pool.task(voice) as task:
        reader = asyncio.create_task(read(task))
        try:
            for text in texts[:-1]:
                await task.send(text)
                await asyncio.sleep(pause)
            await task.send(texts[-1])
            await task.finish()
        finally:
            await reader
    return task, b"".join(event.data for event in events if isinstance(event, Audio)), events


def test_promise_8_against_the_service_no_byte_is_lost_or_doubled():
    async def body(pool, _):
        voice = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
        texts = ("One sentence. ", "And then ", "another one. ", "The end.")

        async def one():
            return await thoughtful(pool, voice, texts, 0.9)

        for task, audio, _events in await asyncio.gather(one(), one()):
            at = 0
            assert len(task.request_ids) == len(texts)
            for text, segment_id in zip(texts, task.request_ids, strict=True):
                length = marker_length(text)
                assert check(audio[at : at + length], segment_id) == length
                at += length
            assert at == len(audio)
        assert pool.stats.opened == 2

    with_service("marker", body, quota=LocalQuota(concurrency=2))


@pytest.fixture(scope="module")
def hibari():
    engine = HibariEngine()
    engine.load()
    return engine


@pytest.mark.parametrize("audio_format", RATES)
@pytest.mark.parametrize("pause", [0.9, pytest.param(3.0, marks=pytest.mark.slow)])
def test_promise_8_against_the_service_in_every_format(hibari, audio_format, pause):
    async def body(pool, _):
        rate = RATES[audio_format]
        voice = Voice("cosyvoice-v3-flash", "longanyang", format=audio_format, sample_rate=rate, word_timestamps=True)
        texts = ("Hello there. ", "How are you?")
        task, audio, events = await thoughtful(pool, voice, texts, pause)
        assert len(task.request_ids) == 2
        samples = decode(audio_format, audio)
        assert len(samples) / rate == pytest.approx(task.report.audio_seconds, abs=0.001)
        alone = [await pool.synthesize(text, voice) for text in texts]
        parts = [decode(audio_format, speech.audio) for speech in alone]
        assert len(samples) == sum(map(len, parts))
        loudest = max(np.abs(part).max() for part in parts)
        assert loudest / 2 < np.abs(samples).max() <= 1.2 * loudest, "a click"
        words = [word for event in events if isinstance(event, SentenceEnd) for word in event.words]
        assert [word.text.strip(".?") for word in words] == ["Hello", "there", "How", "are", "you"]
        assert all(one.end_time <= two.begin_time for one, two in itertools.pairwise(words))
        assert words[2].begin_time >= len(parts[0]) * 1000 / rate
        assert task.characters == sum(speech.characters for speech in alone)

    with_service(hibari, body)


@pytest.mark.keeps_descriptors
def test_promise_8_for_threads():
    async def body(_, service):
        def tokens():
            yield "One sentence. "
            time.sleep(0.9)
            yield "The end."

        def speak():
            voice = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
            endpoint = Endpoint.local(service.port)
            with SpeechPool(endpoint, max_size=1, heartbeat=None, dialect=Inference(text_gap=GAP)) as pool:
                with pool.stream(tokens(), voice) as stream:
                    heard = b"".join(stream)
                with pytest.raises(TextGap), pool.stream(tokens(), voice, bridge=False) as stream:
                    b"".join(stream)
                return len(heard)

        assert await asyncio.to_thread(speak) == marker_length("One sentence. The end.")

    with_service("marker", body)


def test_without_the_bridge_the_service_would_give_the_task_up():
    async def body(pool, _):
        with pytest.raises(TaskFailed, match="CLIENT_ERROR"):
            await thoughtful(pool, Voice("cosyvoice-v3-flash", "longanyang", format="pcm"), ("One. ", "Two."), 0.9)

    with_service("marker", body, dialect=Inference(text_gap=None))
