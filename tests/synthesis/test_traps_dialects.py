"""What a connection was opened for, and what may run on it: dialects without cancel and ids, keys, voices, parameters."""

import asyncio
import base64
import json

import pytest
from harness import VOICE, Server, Session, pool_and_server, run, run_virtual, settle

from speechpool import AsyncSpeechPool, Endpoint, SettingsError, Unauthorized, Voice
from speechpool.protocol.cosyvoice import FinishTask
from speechpool.testing.memory import MemoryNetwork
from speechpool.testing.tiny import Tiny
from speechpool.transport import Accepted, Refusal

ADA, BOB = Voice("tiny", "ada", format="pcm"), Voice("tiny", "bob", format="pcm")


# ------------------------------------------------------------------------------------------ no cancel, no ids
class Reusing(Tiny):
    """Tiny over connections that carry any number of tasks, one after another; still without a cancel."""

    tasks_per_connection = None


class TinySession:
    """Answers only when told to."""

    def __init__(self, sessions):
        self.sessions = sessions
        self.closed = None
        self.ids = []

    def on_connected(self, connection):
        self.connection = connection
        self.sessions.append(self)

    def on_text(self, data):
        self.ids.append(json.loads(data)["id"])

    def on_closed(self, closed):
        self.closed = closed

    def speak(self, audio, number=-1):
        self.reply(number, audio=base64.b64encode(audio).decode())

    def end(self, number=-1):
        self.reply(number, done=True)

    def reply(self, number, **fields):
        if self.connection.closed is None:
            self.connection.send(json.dumps({"id": self.ids[number], **fields}).encode())


def with_tiny(check, dialect):
    async def main():
        network, sessions = MemoryNetwork(), []
        listener = await network.listen(lambda request: Accepted(TinySession(sessions)))
        pool = AsyncSpeechPool(
            Endpoint(listener.url, api_key="k"), dial=network.connect, dialect=dialect, voice=ADA, heartbeat=None,
            max_size=1, retry=1,
        )  # fmt: skip
        async with pool:
            await pool.wait_ready()
            await check(pool, sessions)

    run(main())


def test_t39_without_a_cancel_a_connection_is_reused_only_after_the_end_of_its_task():
    async def check(pool, sessions):
        first = asyncio.create_task(pool.synthesize("One.", ADA))
        await settle()
        second = asyncio.create_task(pool.synthesize("Two.", ADA))
        sessions[0].speak(b"one")
        await settle()
        assert len(sessions[0].ids) == 1  # all of the audio may be there, the end is not
        sessions[0].end()
        await settle()
        assert len(sessions[0].ids) == 2
        sessions[0].speak(b"two")
        sessions[0].end()
        assert ((await first).audio, (await second).audio) == (b"one", b"two")
        assert (len(sessions), pool.stats.opened) == (1, 1)

    with_tiny(check, Reusing())


@pytest.mark.parametrize("heard", [False, True])
def test_t39_whoever_leaves_before_the_end_takes_the_connection_along(heard):
    async def check(pool, sessions):
        async with pool.task(ADA) as task:
            await task.send("One.")
            await task.finish()
            await settle()
            if heard:
                sessions[0].speak(b"one")
                await settle()
        assert pool.stats.discarded["cancelled"] == 1
        sessions[0].speak(b"late")
        sessions[0].end()
        second = asyncio.create_task(pool.synthesize("Two.", ADA))
        await settle()
        sessions[0].speak(b"later")
        sessions[1].speak(b"two")
        sessions[1].end()
        assert (await second).audio == b"two"
        assert sessions[0].closed is not None
        assert len(sessions) == 2

    with_tiny(check, Reusing())


def test_t39_the_end_of_the_task_before_ends_no_other_and_costs_the_connection():
    async def check(pool, sessions):
        first = asyncio.create_task(pool.synthesize("One.", ADA))
        await settle()
        sessions[0].speak(b"one")
        sessions[0].end()
        await first
        second = asyncio.create_task(pool.synthesize("Two.", ADA))
        await settle()
        sessions[0].speak(b"late", number=0)
        sessions[0].end(number=0)
        await settle()
        sessions[0].speak(b"two")
        sessions[0].end()
        speech = await second
        assert (speech.audio, speech.report.retries) == (b"two", 0)
        await settle()
        assert sessions[0].closed is not None

    with_tiny(check, Reusing())


# ------------------------------------------------------------------------------------------ what belongs to a connection
def test_t45_a_key_that_rotates_reaches_every_new_dial_and_disturbs_no_old_connection():
    async def main():
        network, keys, seen = MemoryNetwork(), ["first"], []
        server = Server(network)

        def accept(request):
            seen.append(request.headers["Authorization"])
            return Accepted(Session(server)) if seen[-1] == f"Bearer {keys[-1]}" else Refusal(401)

        listener = await network.listen(accept)
        endpoint = Endpoint(listener.url, api_key=lambda: keys[-1])
        async with AsyncSpeechPool(endpoint, dial=network.connect, heartbeat=None, max_size=2, retry=2) as pool:
            await pool.wait_ready()
            server.hooks[FinishTask] = lambda session, _: keys[-1] == "first"
            running = asyncio.create_task(pool.synthesize("Before.", VOICE))
            await settle()
            keys.append("second")
            server.used[0].send(server.used[0].protocol.finished(7))
            assert (await running).audio == b"Before."
            await pool.synthesize("On an old connection.", VOICE)
            assert pool.stats.opened == 2
            network.cut()
            await settle()
            assert (await pool.synthesize("On a new one.", VOICE)).audio == b"On a new one."
            await pool.wait_ready()
            assert seen == ["Bearer first"] * 2 + ["Bearer second"] * 2

    run(main())


@pytest.mark.parametrize("wrong", ["", None, 7, "two\nlines"])
def test_t45_a_key_function_that_gives_no_key_is_an_error_that_names_it(wrong):
    async def main():
        network = MemoryNetwork()
        server = await Server(network).start()
        endpoint = Endpoint(server.listener.url, api_key=lambda: wrong)
        with pytest.raises(SettingsError, match="key"):  # after `connect`: a key function may recover
            async with AsyncSpeechPool(endpoint, dial=network.connect, heartbeat=None, max_size=1):
                pass
        assert not server.sessions

    run_virtual(main())


def test_t45_a_key_that_is_refused_later_fails_the_borrower_with_the_reason():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.refusal = Refusal(401, b"the key has expired")
            server.network.cut()
            await settle()
            with pytest.raises(Unauthorized, match="the key has expired"):
                await pool.synthesize("Hello.", VOICE)

    run(main())


def test_t45_a_voice_that_needs_other_connections_is_refused_and_has_a_pool_of_its_own():
    async def main():
        network, sessions, paths = MemoryNetwork(), [], []

        def accept(request):
            paths.append(request.query)
            return Accepted(TinySession(sessions))

        listener = await network.listen(accept)

        def pool_for(voice):
            endpoint = Endpoint(listener.url, api_key="k")
            return AsyncSpeechPool(
                endpoint, dial=network.connect, dialect=Tiny(), voice=voice, heartbeat=None, max_size=1
            )

        async with pool_for(ADA) as ada, pool_for(BOB) as bob:
            for wrong in (
                lambda: ada.task(BOB), lambda: ada.stream("Hello.", BOB), lambda: bob.task(ADA)
            ):  # fmt: skip
                with pytest.raises(SettingsError, match="serve"):
                    wrong()
            with pytest.raises(SettingsError, match="serve"):
                await ada.synthesize("Hello.", BOB)
            assert not any(session.ids for session in sessions)
            speaking = [asyncio.create_task(pool.synthesize("Hello.", v)) for pool, v in ((ada, ADA), (bob, BOB))]
            await settle()
            for session in sessions[:2]:
                session.speak(b"x")
                session.end()
            assert [(await one).audio for one in speaking] == [b"x", b"x"]
        assert sorted(set(paths)) == ["voice=ada", "voice=bob"]

    run(main())


def test_t45_a_lease_takes_no_voice_that_needs_other_connections():
    async def check(pool, sessions):
        async with pool.borrow() as lease:
            for wrong in (lease.task, lambda voice: lease.stream("Hello.", voice)):
                with pytest.raises(SettingsError, match="serve"):
                    wrong(BOB)
            with pytest.raises(SettingsError, match="serve"):
                await lease.synthesize("Hello.", BOB)
        assert not sessions[0].ids

    with_tiny(check, Reusing())


def test_t45_the_parameters_of_a_voice_belong_to_the_task_not_to_the_connection():
    voices = [
        VOICE,
        Voice("cosyvoice-v3-flash", "longxiaochun_v3", format="pcm", sample_rate=24000, rate=2.0),
        Voice("cosyvoice-v3-plus", "longanyang", format="pcm", sample_rate=8000, volume=10, seed=3),
        VOICE,
    ]

    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            for voice in voices:
                await pool.synthesize("Hello.", voice)
            assert len(server.sessions) == 1
            said = [(one.model, one.parameters) for one in server.tasks]
            assert [
                (model, told.voice, told.sample_rate, told.rate, told.volume, told.seed or 0) for model, told in said
            ] == [(one.model, one.voice, one.sample_rate, one.rate, one.volume, one.seed) for one in voices]

    run(main())
