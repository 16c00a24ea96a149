"""A reader that does not read costs only itself: what is made for it is bounded, and nobody else notices."""

import asyncio
import json

import numpy as np
import pytest
import uvloop
from scripted import FakeConnection, instruction
from speaking_kit import LIMIT

from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.audio import pcm_seconds
from speechpool.service import LocalBackend, SpeechService
from speechpool.service.engines import Chunk
from speechpool.service.limits import ServiceSettings
from speechpool.service.outbox import LOOK_EVERY, Outbox
from speechpool.service.voices import VOICES
from speechpool.transport import connect
from speechpool.transport.websocket import WRITE_LIMIT

PCM = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
WINDOW = 43_200  # samples: 1.8 s, 86 kB
SENTENCES, WINDOWS = 100, 10  # 86 MB: much more than the kernel's buffers of a connection take
EVENTS = 8192  # bytes of the frames between the windows
BOUND = WRITE_LIMIT + LOOK_EVERY + 4 * (2 * WINDOW) + EVENTS
"""Bytes that wait in the service for one reader: the write buffer until it is full, what is added between two looks at
it, and windows that are made, delivered or sent at that moment."""


class Torrent:
    """A synthesis engine that makes long windows at no cost; it counts those for each sentence."""

    name = "torrent"
    profile = None
    sample_rate = 24000

    def __init__(self):
        self.made = 0

    def load(self):
        pass

    def voices(self):
        return VOICES

    def speaks(self, text):
        return True

    def synthesize(self, sentence):
        flood = sentence.text.startswith("Flood")
        for number in range(WINDOWS if flood else 2):
            self.made += flood
            yield Chunk(np.full(WINDOW, len(sentence.text) * 100 + number, np.int16))


class Reader:
    """The owner of a connection by hand."""

    def __init__(self):
        self.events = asyncio.Queue()
        self.bytes = 0

    def on_text(self, data):
        event = json.loads(data)["header"]["event"]
        if event != "result-generated":
            self.events.put_nowait(event)

    def on_binary(self, data):
        self.bytes += len(data)

    def on_closed(self, closed):
        self.events.put_nowait(closed)

    async def expect(self, event):
        async with asyncio.timeout(LIMIT):
            assert await self.events.get() == event


def run(scenario):
    async def main():
        engine = Torrent()
        settings = ServiceSettings(submission_rate=None)
        async with SpeechService(LocalBackend(engine, workers=2), port=0, settings=settings) as service:
            await scenario(service, engine)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def until_still(engine):
    """Wait until nothing is made any more. What goes on is seen: a window is made within microseconds."""
    made = -1
    async with asyncio.timeout(LIMIT):
        while made != engine.made:
            made = engine.made
            await asyncio.sleep(0.2)
    return made


def waiting_bytes(service):
    return max(each._transport.underlying_transport.get_write_buffer_size() for each in service._listener.connections)


async def deaf_reader(service):
    """Start a long task, and read nothing of it."""
    reader = Reader()
    connection = await connect(service.url, reader, headers={"Authorization": "bearer k"})
    connection.send(instruction("run-task", "a", parameters={"format": "pcm", "sample_rate": 24000}))
    await reader.expect("task-started")
    connection.pause()
    connection.send(instruction("continue-task", "a", text="Flood. " * SENTENCES))
    connection.send(instruction("finish-task", "a"))
    return reader, connection


async def speak(service, count):
    async with AsyncSpeechPool(Endpoint(service.url, api_key="other"), max_size=4) as pool:
        texts = [f"Number {number:0{number + 1}}." for number in range(count)]
        speeches = await asyncio.gather(*(pool.synthesize(text, PCM) for text in texts))
        return [speech.audio for speech in speeches]


def test_a_loop_whose_tasks_start_eagerly_makes_no_reader_slow():
    def eager(loop, coroutine, **_options):
        with pytest.raises(StopIteration):  # the reader is quick: nothing is waited for
            coroutine.send(None)
        done = loop.create_future()
        done.set_result(None)
        return done

    async def main():
        full = []
        outbox = Outbox(FakeConnection(), lambda: full.append(True), lambda: None)
        asyncio.get_running_loop().set_task_factory(eager)
        for _ in range(3):
            outbox.add_audio(bytes(LOOK_EVERY))
            for _ in range(3):
                await asyncio.sleep(0)
        asyncio.get_running_loop().set_task_factory(None)
        assert full == []
        assert outbox._connection.drains == 3

    asyncio.run(main())


def test_a_reader_that_never_reads_is_not_made_audio_for_and_the_others_hear_the_same():
    async def scenario(service, engine):
        alone = await speak(service, 8)
        reader, connection = await deaf_reader(service)
        made = await until_still(engine)
        assert WINDOWS < made < SENTENCES * WINDOWS / 2  # some; by far not all
        assert WRITE_LIMIT / 4 < waiting_bytes(service) <= BOUND
        assert await speak(service, 8) == alone
        assert engine.made == made
        assert reader.bytes < BOUND
        connection.abort()
        await connection.wait_closed()
        async with asyncio.timeout(LIMIT):
            while service.connections or service._backend.speaking:
                await asyncio.sleep(0.01)
        assert service._backend._admission.open_claims == 0

    run(scenario)


def test_a_reader_that_reads_on_gets_everything():
    async def scenario(service, engine):
        reader, connection = await deaf_reader(service)
        await until_still(engine)
        connection.resume()
        await reader.expect("task-finished")
        assert pcm_seconds(reader.bytes, 24000) == SENTENCES * WINDOWS * 1.8
        connection.close()
        await connection.wait_closed()

    run(scenario)


def test_many_readers_that_never_read_are_bounded_each():
    async def scenario(service, engine):
        readers = [await deaf_reader(service) for _ in range(6)]
        await until_still(engine)
        assert waiting_bytes(service) <= BOUND
        assert engine.made < len(readers) * SENTENCES * WINDOWS / 2
        assert len(await speak(service, 4)) == 4
        for _, connection in readers:
            connection.abort()
            await connection.wait_closed()

    run(scenario)
