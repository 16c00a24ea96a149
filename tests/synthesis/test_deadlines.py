"""Bounded waits, on a virtual clock: whoever owes something and is silent ends the task; whoever thinks does not."""

import asyncio

import pytest
from harness import VOICE, pool_and_server, run_virtual, settle

from speechpool import Deadlines, FirstAudioTimeout, PoolTimeout
from speechpool.protocol.cosyvoice import CancelTask, ContinueTask, FinishTask, RunTask

LIMITS = Deadlines(start=2.0, first_audio=3.0, gap=4.0, total=60.0, cancel=1.0)


def ignore(session, instruction):
    return True


def half(session, instruction):
    session.begin(instruction.text)
    session.audio(b"half")
    return True


@pytest.mark.parametrize(
    ("step", "hook", "phase", "limit"),
    [(RunTask, ignore, "start", 2.0), (ContinueTask, ignore, "first_audio", 3.0), (ContinueTask, half, "gap", 4.0)],
)
def test_t43_a_silent_server_ends_the_task_within_its_deadline(step, hook, phase, limit):
    async def main():
        async with pool_and_server(deadlines=LIMITS, retry=0) as (pool, server):
            server.hooks[FinishTask] = ignore
            server.hooks[step] = hook
            began = asyncio.get_running_loop().time()
            with pytest.raises(FirstAudioTimeout) as caught:
                await pool.synthesize("Hello.", VOICE)
            took = asyncio.get_running_loop().time() - began
            assert (caught.value.phase, caught.value.limit) == (phase, limit)
            assert limit <= took <= limit * 1.2
            await settle()
            server.hooks.clear()
            await pool.wait_ready()
            assert (await pool.synthesize("Hello.", VOICE)).audio == b"Hello."

    run_virtual(main())


def test_a_server_that_stops_between_two_sentences_is_noticed():
    async def main():
        async with pool_and_server(deadlines=LIMITS) as (pool, server):

            def first_only(session, instruction):
                session.begin("One.")
                session.audio(b"One.")
                session.characters = 4
                session.end("One.")
                return True

            server.hooks[ContinueTask] = first_only
            async with pool.task(VOICE) as task:
                await task.send("One. Two.")
                with pytest.raises(FirstAudioTimeout) as caught:
                    async for _event in task:
                        pass
            assert caught.value.phase == "gap"

    run_virtual(main())


def test_a_flush_of_what_is_spoken_already_makes_nobody_late():
    async def main():
        async with pool_and_server(deadlines=LIMITS) as (pool, _):
            async with pool.task(VOICE) as task:
                await task.send("One. ")
                await settle()
                await task.flush()
                await asyncio.sleep(30)
                await task.send("Two.")
                await task.finish()
                async for _event in task:
                    pass
            assert task.outcome == "completed"

    run_virtual(main())


def test_a_server_of_the_older_form_that_tells_no_sentences_is_no_timeout_while_the_caller_thinks():
    async def main():
        async with pool_and_server(deadlines=LIMITS) as (pool, server):
            server.hooks[ContinueTask] = lambda session, one: session.send(one.text.encode(), binary=True) or True
            async with pool.task(VOICE) as task:
                await task.send("One. ")
                await asyncio.sleep(30)
                await task.send("Two.")
                await task.finish()
                async for _event in task:
                    pass
            assert task.outcome == "completed"

    run_virtual(main())


def test_t43_a_stalled_server_costs_a_retry_before_the_first_audio():
    async def main():
        async with pool_and_server(deadlines=LIMITS) as (pool, server):
            server.hooks[RunTask] = lambda session, _: len(server.tasks) == 1
            assert (await pool.synthesize("Hello.", VOICE)).report.retries == 1

    run_virtual(main())


def test_a_caller_that_thinks_is_no_timeout():
    async def main():
        async with pool_and_server(deadlines=LIMITS) as (pool, _):
            async with pool.task(VOICE) as task:
                await asyncio.sleep(15)
                await task.send("One. ")
                await asyncio.sleep(15)
                await task.send("and then")  # no sentence yet: nothing is owed
                await asyncio.sleep(15)
                await task.finish()
                async for _event in task:
                    pass
            assert task.outcome == "completed"
            assert task.report.text_wait == pytest.approx(15, abs=0.1)

    run_virtual(main())


def test_a_consumer_that_does_not_read_is_no_timeout():
    async def main():
        async with pool_and_server(deadlines=LIMITS) as (pool, server):

            def flood(session, instruction):
                session.begin(instruction.text)
                for _ in range(64):
                    session.audio(b"x" * 16_384)
                session.end(instruction.text)
                return True

            server.hooks[ContinueTask] = flood
            async with pool.stream("Hello.", VOICE) as stream:
                await asyncio.sleep(30)
                async for _chunk in stream:
                    pass
            assert stream.outcome == "completed"

    run_virtual(main())


def test_the_whole_task_is_bounded():
    async def main():
        async with pool_and_server(deadlines=LIMITS) as (pool, server):

            def drip(session, instruction):
                async def forever():
                    session.begin(instruction.text)
                    while session.connection.closed is None:
                        session.audio(b"x")
                        await asyncio.sleep(1)

                server.dripping = asyncio.create_task(forever())
                return True

            server.hooks[ContinueTask] = drip
            server.hooks[FinishTask] = ignore
            server.hooks[CancelTask] = lambda session, _: server.dripping.cancel() and None
            with pytest.raises(FirstAudioTimeout) as caught:
                await pool.synthesize("Hello.", VOICE)
            assert caught.value.phase == "total"
            assert 50 < caught.value.audio_delivered < 70
            await settle()
            assert pool.stats.idle == 2  # the cancel was confirmed, and the connection kept

    run_virtual(main())


def test_t38_a_cancel_that_the_server_does_not_confirm_costs_the_connection():
    async def main():
        async with pool_and_server(deadlines=LIMITS, max_size=1) as (pool, server):
            server.hooks[CancelTask] = ignore
            server.hooks[FinishTask] = ignore
            async with pool.task(VOICE) as task:
                await task.send("Hello.")
                await settle()
            assert pool.stats.borrowed == 1
            await asyncio.sleep(1.5)
            assert pool.stats.borrowed == 0
            assert server.sessions[0].closed is not None
            await pool.wait_ready()
            assert len(server.open) == 1

    run_virtual(main())


def test_borrowing_is_bounded_and_the_error_says_what_to_do():
    async def main():
        async with pool_and_server(deadlines=LIMITS, max_size=1, borrow_timeout=2.0) as (pool, _):
            async with pool.task(VOICE):
                with pytest.raises(PoolTimeout) as caught:
                    await pool.synthesize("Hello.", VOICE)
            assert (caught.value.total, caught.value.borrowed, caught.value.idle) == (1, 1, 0)
            assert "max_size" in str(caught.value)

    run_virtual(main())


def test_waiting_for_a_connection_counts_for_the_whole_task():
    async def main():
        async with pool_and_server(deadlines=LIMITS, max_size=1, borrow_timeout=None, leak_after=None) as (pool, _):
            async with pool.borrow():
                began = asyncio.get_running_loop().time()
                with pytest.raises(PoolTimeout):
                    await pool.synthesize("Hello.", VOICE)
                assert asyncio.get_running_loop().time() - began == pytest.approx(60)
            assert (await pool.synthesize("Hello.", VOICE)).audio == b"Hello."

    run_virtual(main())


def test_a_consumer_that_never_reads_costs_no_connection_when_the_task_is_over():
    async def main():
        async with pool_and_server(deadlines=LIMITS, max_size=1, leak_after=None, idle_timeout=None) as (pool, server):

            def flood(session, instruction):
                session.begin(instruction.text)
                for _ in range(64):
                    session.audio(b"x" * 16_384)
                return True

            server.hooks[ContinueTask] = flood
            server.hooks[FinishTask] = ignore
            async with pool.stream("Hello.", VOICE) as stream:
                await asyncio.sleep(61)
                assert stream.outcome == "failed"
                await asyncio.sleep(0.5)
                assert pool.stats.idle == 1  # the cancel was confirmed although nobody had read
            assert len(server.sessions) == 1

    run_virtual(main())


def test_no_deadline_runs_while_it_is_turned_off():
    async def main():
        off = Deadlines(start=None, first_audio=None, gap=None, total=None, cancel=None)
        async with pool_and_server(deadlines=off, max_size=1, leak_after=None) as (pool, server):
            server.hooks[RunTask] = ignore
            caller = asyncio.create_task(pool.synthesize("Hello.", VOICE))
            await asyncio.sleep(3600)
            assert not caller.done()
            (session,) = server.open
            session.send(session.protocol.started())
            assert (await caller).audio == b"Hello."

    run_virtual(main())
