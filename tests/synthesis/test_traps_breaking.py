"""Connections that die or fall silent under a task: each costs its own task at most a retry, or gives it a clear error."""

import asyncio

import pytest
from harness import VOICE, pool_and_server, run, run_virtual, settle

from speechpool import Audio, ConnectionLost, Deadlines, FirstAudioTimeout, Voice
from speechpool.protocol.cosyvoice import ContinueTask, FinishTask, FlushTask, RunTask

LIMITS = Deadlines(start=2.0, first_audio=3.0, gap=4.0)


def hold(session, instruction):
    return True


def first_task_only(server, action):
    """A hook that acts on the connection of the first task."""
    return lambda session, instruction: session is server.used[0] and action(session, instruction) is not False


def slow_down(pool, seconds):
    """Let each dial take a while."""
    connector = pool._pool._jobs._connector
    dial = connector._dial

    async def slowly(*arguments, **options):
        await asyncio.sleep(seconds)
        return await dial(*arguments, **options)

    connector._dial = slowly


async def audio_of(task):
    return b"".join([event.data async for event in task if isinstance(event, Audio)])


# ------------------------------------------------------------------------------------------ before the first frame
def cut_by_the_network(session, connection):
    session.connection.cut()


def closed_by_the_server(session, connection):
    session.connection.close(1000, "idle")


def refuses_to_send(session, connection):
    """What is left when the end came between the look and the first frame."""

    def send(data, binary=False):
        session.connection.abort()
        raise ConnectionLost("it has ended")

    connection.transport.send = send


@pytest.mark.parametrize("on_a_lease", [False, True])
@pytest.mark.parametrize(
    "end", [cut_by_the_network, closed_by_the_server, refuses_to_send], ids=lambda end: end.__name__
)
def test_t04_t36_a_connection_that_dies_between_the_borrow_and_the_first_frame_costs_a_retry(end, on_a_lease):
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            async with pool.borrow() as lease:
                connection = lease._held().connection
                if on_a_lease:
                    end(server.sessions[0], connection)  # in the same turn: nobody has noticed yet
                    speech = await lease.synthesize("Hello.", VOICE)
            if not on_a_lease:
                end(server.sessions[0], connection)
                speech = await pool.synthesize("Hello.", VOICE)
            assert (speech.audio, speech.report.retries) == (b"Hello.", 1)
            assert len(server.sessions) == 2
            assert pool.telemetry.lifetime().failed == 0
            await settle()
            assert (pool.stats.idle, pool.stats.borrowed) == (1, 0)

    run(main())


# ------------------------------------------------------------------------------------------ half-open
def test_t43_text_that_is_taken_and_never_spoken_is_said_again_on_a_fresh_connection():
    async def main():
        async with pool_and_server(deadlines=LIMITS) as (pool, server):
            old = list(server.sessions)
            slow_down(pool, 0.5)  # the other warm one would be quicker, and as likely to be half-open
            server.hooks[ContinueTask] = server.hooks[FinishTask] = first_task_only(server, hold)
            began = asyncio.get_running_loop().time()
            async with pool.stream("Hello.", VOICE) as stream:
                heard = [chunk async for chunk in stream]
            took = asyncio.get_running_loop().time() - began
            assert heard == [b"Hello."]
            assert stream.report.retries == 1
            assert 3.0 <= took <= 3.0 * 1.05 + 0.1 + 0.5  # the deadline, the pause before a retry, and the dial
            assert server.used[1] not in old
            await settle()
            assert server.used[0].closed is not None  # never lent again

    run_virtual(main())


def test_t43_where_every_connection_is_half_open_the_error_says_so_and_nothing_counts_as_spoken():
    async def main():
        async with pool_and_server(deadlines=LIMITS, retry=1) as (pool, server):
            server.hooks[ContinueTask] = server.hooks[FinishTask] = hold
            with pytest.raises(FirstAudioTimeout, match="first_audio") as caught:
                await pool.synthesize("Hello.", VOICE)
            assert (caught.value.phase, caught.value.limit, caught.value.audio_delivered) == ("first_audio", 3.0, 0)
            assert caught.value.request_id == server.tasks[1].task_id
            assert len(server.tasks) == 2
            totals = pool.telemetry.lifetime()
            assert (totals.completed, totals.failed) == (0, 1)
            await settle()
            assert pool.stats.borrowed == 0

    run_virtual(main())


# ------------------------------------------------------------------------------------------ in the middle of the audio
def stop_reading(session):
    session.connection.pause()


@pytest.mark.parametrize(
    ("break_", "error"),
    [
        (lambda session: session.connection.abort(), ConnectionLost),
        (lambda session: session.connection.close(1011, "internal error"), ConnectionLost),
        (stop_reading, FirstAudioTimeout),
    ],
    ids=["reset", "closed", "silent"],
)
@pytest.mark.parametrize("size", [1, 300_000])
def test_t44_after_some_audio_the_error_says_how_much_and_nothing_is_said_twice(size, break_, error):
    async def main():
        async with pool_and_server(deadlines=LIMITS, retry=5) as (pool, server):

            def half(session, instruction):
                session.begin(instruction.text)
                session.audio(b"x" * size)
                asyncio.get_running_loop().call_later(0.1, break_, session)
                return True

            server.hooks[ContinueTask] = half
            server.hooks[FinishTask] = hold
            heard = 0
            with pytest.raises(error) as caught:
                async for chunk in pool.stream("Hello.", VOICE):
                    heard += len(chunk)
            assert caught.value.audio_delivered == heard == size
            assert caught.value.request_id == server.tasks[0].task_id
            assert (len(server.tasks), server.texts) == (1, ["Hello."])
            totals = pool.telemetry.lifetime()
            assert (totals.failed, totals.retries) == (1, 0)
            await settle()
            server.hooks.clear()
            await pool.wait_ready()
            assert pool.stats.borrowed == 0

    run_virtual(main())


# ------------------------------------------------------------------------------------------ what a connection was told
@pytest.mark.parametrize("moment", ["idle", "started", "texts", "flushed"])
def test_t46_a_fresh_connection_is_told_everything_that_the_lost_one_knew(moment):
    """Nothing is set up on a connection in advance: parameters belong to the task, and a retry begins it anew."""
    voice = Voice(
        "cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=16000, rate=1.5, pitch=0.75, volume=70, seed=7,
        language_hints=("de",), instruction="calm",
    )  # fmt: skip

    async def main():
        async with pool_and_server() as (pool, server):
            server.hooks[ContinueTask] = first_task_only(server, hold)
            async with pool.borrow() as lease, lease.task(voice) as task:
                await settle()
                for step in ("started", "texts", "flushed"):
                    if moment == step:
                        server.used[0].connection.abort()
                        await settle()
                    if step == "started":
                        await task.send("One. ")
                        await task.send("Two. ")
                        await settle()
                    elif step == "texts":
                        await task.flush()
                        await settle()
                if moment == "idle":
                    server.used[0].connection.abort()
                await task.send("Three.")
                await task.finish()
                assert await audio_of(task) == b"One. Two. Three."
                assert task.report.retries == 1
            first, second = server.tasks
            assert first.task_id != second.task_id
            assert (first.model, first.parameters) == (second.model, second.parameters)
            assert second.parameters.rate == 1.5
            again = server.received[server.received.index(second) :]
            assert [type(one) for one in again] == [
                RunTask, ContinueTask, ContinueTask, FlushTask, ContinueTask, FinishTask
            ]  # fmt: skip
            assert [one.text for one in again if isinstance(one, ContinueTask)] == ["One. ", "Two. ", "Three."]

    run(main())


# ------------------------------------------------------------------------------------------ one of many
@pytest.mark.parametrize("spoken", [False, True])
def test_t82_a_connection_that_dies_costs_its_own_task_and_one_dial(spoken):
    """One task a connection: no other can be lost with it."""
    texts = [f"Task {number}." for number in range(5)]

    async def main():
        async with pool_and_server(max_size=5) as (pool, server):
            server.hooks[FinishTask] = hold
            server.hooks[ContinueTask] = lambda session, one: session.speak(one.text) or True if spoken else True
            callers = [asyncio.create_task(pool.synthesize(text, VOICE)) for text in texts]
            await settle()
            sessions = list(server.used)
            assert len({id(session) for session in sessions}) == 5
            server.hooks.clear()
            sessions[2].connection.abort()
            await settle()
            for session, text in zip(sessions, texts, strict=True):
                if session is not sessions[2]:
                    if not spoken:
                        session.speak(text)
                    session.send(session.protocol.finished(7))
            results = await asyncio.gather(*callers, return_exceptions=True)
            if spoken:
                lost = results.pop(2)
                assert isinstance(lost, ConnectionLost)
                assert lost.audio_delivered == 7
                del texts[2]
            assert [result.audio for result in results] == [text.encode() for text in texts]
            assert [result.report.retries for result in results] == ([0] * 4 if spoken else [0, 0, 1, 0, 0])
            await pool.wait_ready()
            assert (pool.stats.opened, pool.stats.idle, len(server.sessions)) == (6, 5, 6)

    run(main())
