"""Promises of a task, where a plausible mistake would pass by every other test; `make mutants` makes those mistakes.

On a virtual clock, and each with a limit of its own: a mistake shall fail a test, not hang it.
"""

import asyncio

import pytest
from harness import VOICE, pool_and_server, settle
from harness import run_virtual as run

from speechpool import ConnectionLost, Deadlines, FirstAudioTimeout, InvalidText, ProtocolViolation, TaskFailed
from speechpool.limits import LocalQuota
from speechpool.protocol import Finished
from speechpool.protocol.cosyvoice import ContinueTask, FinishTask, RunTask

LIMITS = Deadlines(start=1.0, first_audio=2.0, gap=3.0, total=60.0, cancel=1.0)


def within(seconds, body):
    """Run a body that must not take longer, in virtual seconds."""

    async def main():
        async with asyncio.timeout(seconds):
            await body()

    run(main())


def ignore(session, instruction):
    return True


def half(session, instruction):
    session.begin(instruction.text)
    session.audio(b"half")
    return True


def now():
    return asyncio.get_running_loop().time()


def test_promise_4_an_idle_connection_that_the_server_closed_leaves_the_idle_set_at_once():
    async def body():
        async with pool_and_server(max_size=2) as (pool, server):
            server.sessions[0].connection.close(1000, "idle")
            await settle()
            assert pool.stats.discarded == {"lost": 1}
            await pool.wait_ready()
            assert len(server.sessions) == 3  # nobody had to borrow for it

    within(10, body)


def test_promise_9_a_task_on_a_lease_that_lost_its_connection_needs_no_retry():
    async def body():
        async with pool_and_server(max_size=1, retry=0) as (pool, server):
            async with pool.borrow() as lease:
                await lease.synthesize("One.", VOICE)
                server.sessions[0].connection.abort()
                await settle()
                speech = await lease.synthesize("Two.", VOICE)
                assert (speech.audio, speech.report.retries) == (b"Two.", 0)

    within(10, body)


def test_promise_1_a_sink_that_fails_at_the_very_end_makes_one_failure():
    async def body():
        async with pool_and_server(max_size=1) as (pool, _):

            def sink(event):
                if isinstance(event, Finished):
                    raise KeyError("mine")

            with pytest.raises(KeyError, match="mine"):
                async with pool.task(VOICE, sink=sink) as task:
                    await task.send("Hello.")
                    await task.finish()
            totals = pool.telemetry.lifetime()
            assert (task.outcome, totals.failed, totals.completed) == ("failed", 1, 0)

    within(10, body)


def test_promise_1_a_dropped_socket_is_known_in_the_same_moment():
    async def body():
        async with pool_and_server(retry=0) as (pool, server):
            server.hooks[ContinueTask] = half
            async with pool.task(VOICE) as task:
                await task.send("Hello.")
                await settle()
                began = now()
                server.used[0].connection.abort()
                with pytest.raises(ConnectionLost):
                    await task.wait()
                assert now() == began

    within(30, body)


def test_promise_1_no_task_outlives_its_total_deadline():
    async def body():
        async with pool_and_server(deadlines=LIMITS, retry=0) as (pool, server):

            async def trickle(session):
                while session.connection.closed is None:
                    session.audio(b"more")
                    await asyncio.sleep(1)

            def speak_for_ever(session, instruction):
                session.begin(instruction.text)
                session.trickle = asyncio.create_task(trickle(session))
                return True

            server.hooks[ContinueTask] = speak_for_ever
            server.hooks[FinishTask] = ignore
            with pytest.raises(FirstAudioTimeout) as caught:
                await pool.synthesize("Hello.", VOICE)
            assert caught.value.phase == "total"
            server.used[0].trickle.cancel()

    within(70, body)


def test_promise_2_audio_is_owed_within_a_sentence_whoever_asked_for_it():
    async def body():
        async with pool_and_server(deadlines=LIMITS, retry=0) as (pool, server):
            server.hooks[ContinueTask] = half
            async with pool.task(VOICE) as task:
                await task.send("No end of a sentence")
                with pytest.raises(FirstAudioTimeout) as caught:
                    async for _ in task:
                        pass
            assert caught.value.phase == "gap"

    within(30, body)


def test_promise_2_audio_is_owed_after_a_flush():
    async def body():
        async with pool_and_server(deadlines=LIMITS, retry=0) as (pool, server):
            server.hooks[ContinueTask] = ignore
            async with pool.task(VOICE) as task:
                await task.send("No end of a sentence")
                await asyncio.sleep(15)
                assert task.outcome is None
                await task.flush()
                began = now()
                with pytest.raises(FirstAudioTimeout) as caught:
                    await task.wait()
                assert caught.value.phase == "first_audio"
                assert 2.0 <= now() - began <= 2.2

    within(40, body)


def test_promise_3_binary_before_task_started_is_nobodys_audio_and_costs_the_connection():
    async def body():
        async with pool_and_server(max_size=1, retry=0) as (pool, server):

            def early(session, _):
                session.send(b"stray", binary=True)

            server.hooks[RunTask] = early
            got = []
            with pytest.raises(ProtocolViolation):
                async for chunk in pool.stream("One.", VOICE):
                    got.append(chunk)
            assert not got
            assert sum(pool.stats.discarded.values()) == 1

    within(10, body)


def test_promise_3_text_waits_for_task_started():
    async def body():
        async with pool_and_server(max_size=1, retry=0) as (pool, server):
            server.hooks[RunTask] = ignore
            async with pool.task(VOICE) as task:
                await task.send("One. ")
                await task.send("Two.")
                await task.finish()
                await settle()
                assert [type(one) for one in server.received] == [RunTask]
                session = server.used[0] if server.used else server.sessions[0]
                session.send(session.protocol.started())
                assert b"".join([event.data async for event in task if hasattr(event, "data")]) == b"One. Two."

    within(20, body)


def test_promise_4_an_error_that_a_repetition_cannot_help_is_not_repeated():
    async def body():
        async with pool_and_server(retry=5) as (pool, server):
            server.hooks[RunTask] = lambda session, _: session.fail("InvalidParameter", "no such voice") or True
            with pytest.raises(TaskFailed) as caught:
                await pool.synthesize("Hello.", VOICE)
            assert not caught.value.retryable
            assert len(server.tasks) == 1

    within(30, body)


def test_promise_4_a_retry_trusts_no_connection_that_was_open_before():
    async def body():
        async with pool_and_server(max_size=4) as (pool, server):
            warm = list(server.sessions)
            served = []

            def stale(session, _):
                served.append(session)
                if session in warm:
                    session.connection.abort()
                    return True

            server.hooks[RunTask] = stale
            assert (await pool.synthesize("Hello.", VOICE)).report.retries == 1
            assert [session in warm for session in served] == [True, False]

    within(10, body)


def test_promise_4_no_retry_after_the_first_audio():
    async def body():
        async with pool_and_server(retry=5) as (pool, server):

            def cut(session, instruction):
                half(session, instruction)
                asyncio.get_running_loop().call_later(0.01, session.connection.abort)
                return True

            server.hooks[ContinueTask] = cut
            server.hooks[FinishTask] = ignore
            with pytest.raises(ConnectionLost) as caught:
                await pool.synthesize("Hello.", VOICE)
            assert caught.value.audio_delivered == 4
            assert len(server.tasks) == 1

    within(10, body)


def flood(session, instruction):
    session.begin(instruction.text)
    for _ in range(64):
        session.audio(b"x" * 16_384)
    session.end(instruction.text)
    return True


def test_promise_5_a_consumer_that_catches_up_gets_all_of_it():
    async def body():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[ContinueTask] = flood
            async with pool.stream("Hello.", VOICE) as stream:
                await asyncio.sleep(1)
                assert stream.audio_bytes < 512 * 1024
                assert sum([len(chunk) async for chunk in stream]) == 64 * 16_384

    within(20, body)


def test_promise_5_a_connection_that_was_held_is_read_again_when_it_goes_back():
    async def body():
        async with pool_and_server(deadlines=LIMITS, max_size=1, retry=0) as (pool, server):

            def too_much(session, instruction):
                session.begin(instruction.text)
                session.audio(b"x" * 300_000)
                return True

            server.hooks[ContinueTask] = too_much
            server.hooks[FinishTask] = ignore
            async with pool.stream("Hello.", VOICE) as stream:
                await settle()
                # A few frames that were read already may follow a pause; so may the end.
                stream.on_text(server.used[0].protocol.finished(6))
                assert stream.outcome == "completed"
            server.hooks.clear()
            assert (await pool.synthesize("Next.", VOICE)).audio == b"Next."
            assert len(server.sessions) == 1

    within(20, body)


def test_promise_7_a_task_adds_up_what_it_sends():
    async def body():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[ContinueTask] = ignore
            async with pool.task(VOICE) as task:
                await settle()
                for _ in range(10):
                    await task.send("\u4f60" * 10_000)
                with pytest.raises(InvalidText, match="200,000"):
                    await task.send("a")
                await settle()
                assert len(server.texts) == 10

    within(20, body)


def test_a_task_settles_its_permit_however_it_ends():
    async def body():
        quota = LocalQuota(concurrency=1, clock=asyncio.get_running_loop().time)
        async with pool_and_server(max_size=2, retry=0, quota=quota) as (pool, server):

            async def ended():
                await settle()
                (state,) = quota.states()
                return state.running, state.waiting

            await pool.synthesize("Hello.", VOICE)
            assert await ended() == (0, 0)
            async with pool.task(VOICE) as task:
                await task.send("Hello.")
                (state,) = quota.states()
                assert state.running == 1
            assert await ended() == (0, 0)
            for action in (
                lambda session: session.fail("InvalidParameter"),
                lambda session: session.connection.abort(),
            ):
                server.hooks[RunTask] = lambda session, _, action=action: action(session) or True
                with pytest.raises((TaskFailed, ConnectionLost)):
                    await pool.synthesize("Hello.", VOICE)
                assert await ended() == (0, 0)
                server.hooks.clear()
                await pool.wait_ready()
            first = asyncio.create_task(pool.synthesize("Hello.", VOICE))
            second = asyncio.create_task(pool.synthesize("Hello.", VOICE))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            second.cancel()
            await first
            assert await ended() == (0, 0)

    within(20, body)
