"""Synthesis over a second dialect: its text in one frame, audio inside text frames, one task a connection, no cancel."""

import asyncio
import base64
import json

import pytest
from harness import run, settle

from speechpool import AsyncSpeechPool, Endpoint, LeaseError, SettingsError, TaskFailed, Voice
from speechpool.testing.memory import MemoryNetwork
from speechpool.testing.tiny import Tiny
from speechpool.transport import Accepted

ADA, BOB = Voice("tiny", "ada", format="pcm"), Voice("tiny", "bob", format="pcm")


class TinyServer:
    def __init__(self):
        self.requests, self.connections, self.answer = [], 0, True

    async def start(self):
        self.listener = await MemoryNetwork.listen(self.network, self.accept)

    def accept(self, request):
        assert request.headers["X-Tiny-Key"] == "k"
        self.requests.append(request.path + "?" + request.query)
        return Accepted(TinySession(self))


class TinySession:
    def __init__(self, server):
        self.server = server

    def on_connected(self, connection):
        self.connection = connection
        self.server.connections += 1

    def on_text(self, data):
        task = json.loads(data)
        self.server.texts.append(task["text"])
        if self.server.error:
            self.reply(id=task["id"], error=self.server.error)
        elif self.server.answer:
            self.reply(id=task["id"], audio=base64.b64encode(task["text"].encode()).decode())
            self.reply(id=task["id"], done=True)

    def reply(self, **fields):
        self.connection.send(json.dumps(fields).encode())

    def on_binary(self, data):
        raise AssertionError

    def on_closed(self, closed):
        self.server.connections -= 1


def tiny_pool(check, **options):
    async def main():
        server = TinyServer()
        server.network, server.texts, server.error = MemoryNetwork(), [], None
        await server.start()
        pool = AsyncSpeechPool(
            Endpoint(server.listener.url, api_key="k"), dial=server.network.connect, dialect=Tiny(), voice=ADA,
            heartbeat=None, max_size=2, **options,
        )  # fmt: skip
        async with pool:
            await pool.wait_ready()
            await check(pool, server)

    run(main())


def test_t39_a_task_and_its_connection():
    async def check(pool, server):
        for text in ("One.", "Two.", "Three."):
            await pool.wait_ready()
            speech = await pool.synthesize(text, ADA)
            assert speech.audio == text.encode()
            assert speech.report.reused  # it was open before it was borrowed
        assert [chunk async for chunk in pool.stream(["In ", "pieces? No."][1], ADA)] == [b"pieces? No."]
        await pool.wait_ready()
        assert pool.stats.opened >= 5  # each connection carried one task
        assert pool.stats.discarded["spent"] == 4
        assert set(server.requests) == {"/tiny?voice=ada"}

    tiny_pool(check)


def test_t45_text_comes_in_one_piece_and_voices_share_nothing():
    async def check(pool, _):
        async with pool.task(ADA) as task:
            await task.send("One.")
            with pytest.raises(LeaseError, match="one piece"):
                await task.send("Two.")
            await task.finish()
            assert (await anext(aiter(task))).data == b"One."
        with pytest.raises(SettingsError, match="ada"):
            await pool.synthesize("Hello.", BOB)

    tiny_pool(check)


def test_t39_a_cancel_costs_the_connection_because_this_dialect_has_none():
    async def check(pool, server):
        server.answer = False
        caller = asyncio.create_task(pool.synthesize("Hello.", ADA))
        await settle()
        assert server.texts == ["Hello."]
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await settle()
        assert pool.stats.borrowed == 0
        assert pool.stats.discarded["cancelled"] == 1

    tiny_pool(check)


def test_a_failure():
    async def check(pool, server):
        server.error = "busy"
        with pytest.raises(TaskFailed, match="busy"):
            await pool.synthesize("Hello.", ADA)

    tiny_pool(check)
