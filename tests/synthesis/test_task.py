"""One task: text in, audio out, one outcome, the connection back in order."""

import asyncio
import gc

import pytest
from harness import VOICE, pool_and_server, run, settle, speech

from speechpool import (
    Audio,
    Finished,
    InvalidText,
    LeaseError,
    PoolClosed,
    SentenceBegin,
    SentenceEnd,
    SettingsError,
    TaskFailed,
    Voice,
    Word,
)
from speechpool.protocol.cosyvoice import CancelTask, ContinueTask, FinishTask, FlushTask, RunTask


def test_synthesize_returns_the_whole_audio_and_what_is_known_of_it():
    async def main():
        async with pool_and_server() as (pool, server):
            result = await pool.synthesize("Hello there.", VOICE)
            assert result.audio == speech("Hello there.")
            assert (result.format, result.sample_rate, result.characters) == ("pcm", 16000, 12)
            assert result.request_id == server.tasks[0].task_id
            assert result.duration == 6 / 16000
            report = result.report
            assert (report.outcome, report.reused, report.retries) == ("completed", True, 0)
            parts = (report.queue, report.connect, report.start, report.synthesis)
            assert sum(parts) == pytest.approx(result.first_packet_delay)
            assert report.connect == 0.0
            assert pool.stats.idle == 2

    run(main())


def test_the_order_on_the_wire_and_one_connection_for_many_tasks():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            for text in ("One.", "Two.", "Three."):
                assert (await pool.synthesize(text, VOICE)).audio == speech(text)
            assert [type(one) for one in server.received] == [RunTask, ContinueTask, FinishTask] * 3
            assert len(server.sessions) == 1
            assert len({one.task_id for one in server.tasks}) == 3

    run(main())


def test_stream_of_pieces_leaves_as_they_come():
    async def main():
        gate = asyncio.Event()

        async def tokens():
            yield "First. "
            await gate.wait()
            yield " "
            yield "Second."

        async with pool_and_server() as (pool, server):
            got = []
            async with pool.stream(tokens(), VOICE) as stream:
                async for chunk in stream:
                    got.append(chunk)
                    gate.set()
            assert got == [b"First. ", b" Second."]
            assert stream.outcome == "completed"
            assert server.texts == ["First. ", " Second."]

    run(main())


def test_t11_a_stream_works_without_a_context_manager_and_dropping_it_cancels():
    async def main():
        async with pool_and_server() as (pool, server):
            assert [chunk async for chunk in pool.stream("All of it.", VOICE)] == [b"All of it."]
            server.hooks[FinishTask] = lambda session, _: True  # the end never comes
            stream = pool.stream("Part of it.", VOICE)
            async for _ in stream:
                break
            gc.collect()
            await settle()
            assert stream.outcome == "cancelled"
            assert isinstance(server.received[-1], CancelTask)
            assert pool.stats.idle == 2

    run(main())


def test_task_events_in_order_with_words():
    async def main():
        words = (Word("Hi", 0, 2, 0, 100),)

        def say(session, instruction):
            session.begin(instruction.text)
            session.audio(b"ab")
            session.send(session.protocol.sentence_end(0, instruction.text, words, 3))
            return True

        async with pool_and_server() as (pool, server):
            server.hooks[ContinueTask] = say
            async with pool.task(VOICE) as task:
                await task.send("Hi.")
                await task.flush()
                await task.finish()
                events = [event async for event in task]
            assert events == [SentenceBegin(0, "Hi."), Audio(b"ab"), SentenceEnd(0, "Hi.", words, 3), Finished(0)]
            assert task.words == words
            assert [type(one) for one in server.received] == [RunTask, ContinueTask, FlushTask, FinishTask]

    run(main())


def test_a_sink_gets_plain_bytes_and_events_by_a_plain_call():
    async def main():
        async with pool_and_server() as (pool, _):
            got = []
            async with pool.task(VOICE, sink=got.append) as task:
                await task.send("Hi.")
                await task.finish()
            assert got == [SentenceBegin(0, "Hi."), b"Hi.", SentenceEnd(0, "Hi.", (), 3), Finished(3)]
            assert task.outcome == "completed"
            with pytest.raises(LeaseError, match="sink"):
                aiter(task)

    run(main())


def test_an_exception_of_a_sink_reaches_the_caller_and_costs_no_connection():
    async def main():
        async with pool_and_server() as (pool, _):

            def sink(event):
                raise KeyError("mine")

            with pytest.raises(KeyError, match="mine"):
                async with pool.task(VOICE, sink=sink) as task:
                    await task.send("Hi.")
                    await task.finish()
            assert task.outcome == "failed"
            await settle()
            assert pool.stats.idle == 2
            assert pool.stats.opened == 2

    run(main())


def test_leaving_without_finish_cancels_and_the_connection_goes_back_warm():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            async with pool.task(VOICE) as task:
                await task.send("Hello.")
            assert task.outcome == "cancelled"
            assert (await pool.synthesize("Next.", VOICE)).audio == b"Next."
            assert [type(one) for one in server.received[:2]] == [RunTask, CancelTask]
            assert len(server.sessions) == 1

    run(main())


def test_cancel_before_the_server_has_answered_is_sent_after_its_answer():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[RunTask] = lambda session, _: True
            async with pool.task(VOICE) as task:
                await task.send("Hello.")
                await settle()
                await task.cancel()
                assert [event async for event in task] == []
            await settle()
            assert [type(one) for one in server.received] == [RunTask]
            server.hooks.clear()
            server.sessions[0].send(server.sessions[0].protocol.started())
            await settle()
            assert [type(one) for one in server.received] == [RunTask, CancelTask]
            assert pool.stats.idle == 1

    run(main())


def test_t38_audio_in_flight_after_a_cancel_reaches_nobody():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):

            def late(session, _):
                session.audio(b"late")
                session.audio(b"later")

            server.hooks[CancelTask] = late
            got = []
            async with pool.task(VOICE, sink=got.append) as task:
                await task.send("Hello.")
                await settle()
                before = list(got)
                await task.cancel()
            await settle()
            assert got == before
            assert (await pool.synthesize("Next.", VOICE)).audio == b"Next."
            assert len(server.sessions) == 1

    run(main())


def test_t06_a_cancelled_caller_is_a_cancelled_task():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[ContinueTask] = server.hooks[FinishTask] = lambda session, _: True
            caller = asyncio.create_task(pool.synthesize("Hello.", VOICE))
            await settle()
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            await settle()
            assert isinstance(server.received[-1], CancelTask)
            assert pool.stats.idle == 1
            assert pool.telemetry.lifetime().cancelled == 1
            assert pool.telemetry.lifetime().failed == 0

    run(main())


def test_t37_a_duplicate_end_makes_the_connection_useless():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):

            def twice(session, _):
                end = session.protocol.finished(session.characters)
                session.send(end)
                session.send(end)
                return True

            server.hooks[FinishTask] = twice
            assert (await pool.synthesize("One.", VOICE)).audio == b"One."
            server.hooks.clear()
            await settle()
            assert (await pool.synthesize("Two.", VOICE)).audio == b"Two."
            assert len(server.sessions) == 2

    run(main())


def test_t37_frames_between_tasks_discard_an_idle_connection_at_once():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.sessions[0].send(b"nobody asked", binary=True)
            await settle()
            assert (await pool.synthesize("Two.", VOICE)).audio == b"Two."
            assert len(server.sessions) == 2

    run(main())


def test_t36_an_idle_connection_that_the_server_closed_is_never_handed_out():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.sessions[0].connection.close(1000, "idle")
            await settle()
            assert (await pool.synthesize("Two.", VOICE)).report.retries == 0
            assert len(server.sessions) == 2

    run(main())


def test_task_failed_carries_the_providers_words_and_the_request_id():
    async def main():
        async with pool_and_server() as (pool, server):
            server.hooks[RunTask] = lambda session, _: session.fail("InvalidParameter", "418") or True
            with pytest.raises(TaskFailed) as caught:
                await pool.synthesize("Hello.", VOICE)
            error = caught.value
            assert (error.code, error.message, error.retryable) == ("InvalidParameter", "418", False)
            assert error.request_id == server.tasks[0].task_id
            assert error.endpoint
            assert "canary" not in repr(error) + str(error) + error.endpoint
            assert len(server.tasks) == 1

    run(main())


def test_an_end_without_audio_is_no_success():
    async def main():
        async with pool_and_server() as (pool, server):
            server.hooks[ContinueTask] = lambda session, _: True
            with pytest.raises(TaskFailed, match="without any audio"):
                await pool.synthesize("Hello.", VOICE)
            assert len(server.tasks) == 1

    run(main())


def test_bad_text_is_refused_before_anything_is_sent_and_loses_nothing():
    async def main():
        async with pool_and_server() as (pool, server):
            for text in ("", "  ", "a" * 20_001, None):
                with pytest.raises(InvalidText):
                    await pool.synthesize(text, VOICE)
                with pytest.raises(InvalidText):
                    pool.stream(text, VOICE) if isinstance(text, str) else await pool.synthesize(text, VOICE)
            assert not server.received
            async with pool.task(VOICE) as task:
                with pytest.raises(InvalidText):
                    await task.send("")
                with pytest.raises(InvalidText):
                    await task.finish()
                await task.send("Good.")
                await task.finish()
                assert [event async for event in task][-1] == Finished(5)
                with pytest.raises(LeaseError, match="finished"):
                    await task.send("More.")
            assert pool.stats.idle == 2

    run(main())


def test_ssml_comes_in_one_piece():
    async def main():
        async with pool_and_server() as (pool, _):
            async with pool.task(Voice("m", "v", ssml=True, format="pcm")) as task:
                await task.send("<speak>Hi.</speak>")
                with pytest.raises(LeaseError, match="one piece"):
                    await task.send("More.")

    run(main())


def test_whatever_the_text_iterator_raises_reaches_the_reader():
    async def main():
        async def tokens():
            yield "First. "
            raise OSError("the model went away")

        async with pool_and_server() as (pool, server):
            got = []
            with pytest.raises(OSError, match="went away"):
                async for chunk in pool.stream(tokens(), VOICE):
                    got.append(chunk)
            await settle()
            assert pool.stats.idle == 2
            assert isinstance(server.received[-1], CancelTask)

    run(main())


def test_a_text_iterator_that_is_cancelled_by_somebody_else_ends_the_stream():
    async def main():
        async def tokens():
            yield "First. "
            raise asyncio.CancelledError

        async with pool_and_server() as (pool, _):
            with pytest.raises(RuntimeError, match="iterator was cancelled"):
                async for _chunk in pool.stream(tokens(), VOICE):
                    pass
            await settle()
            assert pool.stats.idle == 2

    run(main())


def test_a_stream_has_one_reader():
    async def main():
        async with pool_and_server() as (pool, _):
            async with pool.stream("Hello.", VOICE) as stream:
                chunks = aiter(stream)
                with pytest.raises(LeaseError, match="read once"):
                    aiter(stream)
                assert [chunk async for chunk in chunks] == [b"Hello."]

    run(main())


def test_t51_two_readers_of_one_task_are_refused():
    async def main():
        async with pool_and_server() as (pool, server):
            server.hooks[ContinueTask] = lambda session, _: True
            async with pool.task(VOICE) as task:
                await task.send("Hello.")
                first = asyncio.create_task(anext(aiter(task)))
                await settle()
                with pytest.raises(LeaseError, match="two consumers"):
                    await anext(aiter(task))
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first

    run(main())


def test_t83_a_consumer_that_does_not_read_holds_its_own_socket_only():
    async def main():
        async with pool_and_server(max_size=2) as (pool, server):
            piece = b"x" * 16_384

            def flood(session, instruction):
                if instruction.text == "Flood.":
                    session.begin(instruction.text)
                    for _ in range(64):
                        session.audio(piece)
                    session.end(instruction.text)
                    return True

            server.hooks[ContinueTask] = flood
            async with pool.stream("Flood.", VOICE) as slow:
                await settle(100)
                held = slow.audio_bytes
                assert held < 512 * 1024
                assert (await pool.synthesize("Other.", VOICE)).audio == b"Other."
                total = 0
                async for chunk in slow:
                    total += len(chunk)
            assert total == 64 * len(piece) > held
            await settle()
            assert pool.stats.idle == 2

    run(main())


def test_t61_closing_the_pool_ends_running_tasks_and_leaves_no_socket():
    async def main():
        async with pool_and_server() as (pool, server):
            server.hooks[FinishTask] = lambda session, _: True
            caller = asyncio.create_task(pool.synthesize("Hello.", VOICE))
            await settle()
            async with pool.task(VOICE) as left:
                await left.send("Hello.")
                await settle()
            await pool.close()
            with pytest.raises(PoolClosed, match="while the task ran"):
                await caller
            await settle()
            assert not server.open
            assert pool.stats.size == 0
            assert sum(isinstance(one, CancelTask) for one in server.received) == 2

    run(main())


def test_t60_closing_with_drain_lets_running_tasks_end():
    async def main():
        gate = asyncio.Event()

        async def tokens():
            yield "One. "
            await gate.wait()
            yield "Two."

        async with pool_and_server() as (pool, server):
            stream = pool.stream(tokens(), VOICE)
            reader = asyncio.create_task(collect(stream))
            await settle()
            closing = asyncio.create_task(pool.close(drain=5.0))
            await settle()
            with pytest.raises(PoolClosed):
                await pool.synthesize("Late.", VOICE)
            gate.set()
            assert await reader == b"One. Two."
            await closing
            assert not server.open

    async def collect(stream):
        return b"".join([chunk async for chunk in stream])

    run(main())


def test_a_pool_that_is_not_entered_says_so():
    async def main():
        async with pool_and_server() as (pool, _):
            pass
        with pytest.raises(PoolClosed):
            await pool.synthesize("Hello.", VOICE)

    run(main())
    with pytest.raises(PoolClosed, match="async with"):
        fresh_pool().stream("Hello.", VOICE)


def fresh_pool(**options):
    from speechpool import AsyncSpeechPool, Endpoint

    return AsyncSpeechPool(Endpoint.local(), **options)


def test_an_unknown_setting_gets_a_suggestion():
    with pytest.raises(SettingsError, match="Did you mean 'max_size'"):
        fresh_pool(max_sise=3)


def test_the_report_counts_what_happened():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            for _ in range(3):
                await pool.synthesize("Hello.", VOICE)
            server.hooks[RunTask] = lambda session, _: session.fail("InvalidParameter", "no") or True
            with pytest.raises(TaskFailed):
                await pool.synthesize("Hello.", VOICE)
            totals = pool.telemetry.lifetime()
            assert (totals.completed, totals.failed, totals.cancelled) == (3, 1, 0)
            assert totals.connected == totals.reused == 4
            assert "first packet" in str(pool.report()).lower()
            assert pool.explain()

    run(main())
