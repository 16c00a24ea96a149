"""A task that is left in the middle: what is cancelled, dropped or interrupted ends on the server, and its connection
comes back or closes."""

import asyncio
import gc

import pytest
from harness import VOICE, pool_and_server, run, run_virtual, settle

from speechpool import Deadlines, PoolClosed
from speechpool.protocol.cosyvoice import CancelTask, ContinueTask, FinishTask, RunTask, State

LIMITS = Deadlines(cancel=1.0)


def hold(session, instruction):
    """A hook for a server that does nothing."""
    return True


def finish(session):
    """Let the server end the task that was held."""
    if session.protocol.state is not State.IDLE:
        session.send(session.protocol.finished(session.characters))


async def cancelled(caller):
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert caller.cancelled()


# ------------------------------------------------------------------------------------------ cancelled during the return
@pytest.mark.parametrize("borrowed_first", [False, True])
@pytest.mark.parametrize("fate", ["confirmed", "silent", "dies"])
def test_t05_a_cancellation_while_the_cancel_is_confirmed_loses_no_connection(fate, borrowed_first):
    async def main():
        async with pool_and_server(max_size=1, deadlines=LIMITS) as (pool, server):
            server.hooks[CancelTask] = server.hooks[FinishTask] = hold

            async def caller():
                try:
                    if borrowed_first:
                        async with pool.borrow() as lease, lease.task(VOICE) as task:
                            await barge_in(task)
                    else:
                        async with pool.task(VOICE) as task:
                            await barge_in(task)
                finally:
                    await asyncio.sleep(0.1)  # the return runs, and is met by the second cancellation

            async def barge_in(task):
                await task.send("Hello.")
                await settle()
                await task.cancel()

            running = asyncio.create_task(caller())
            await asyncio.sleep(0.05)
            assert isinstance(server.received[-1], CancelTask)
            assert pool.stats.borrowed == 1  # until the server has confirmed
            running.cancel()
            await cancelled(running)
            assert pool.stats.borrowed == 1
            (session,) = server.sessions
            if fate == "confirmed":
                finish(session)
            elif fate == "dies":
                session.connection.abort()
            else:
                await asyncio.sleep(1.5)
            await settle()
            server.hooks.clear()
            await pool.wait_ready()
            stats = pool.stats
            assert (stats.idle, stats.borrowed, stats.closing) == (1, 0, 0)
            assert len(server.open) == stats.size == 1
            assert len(server.sessions) == (1 if fate == "confirmed" else 2)
            assert (await pool.synthesize("Next.", VOICE)).audio == b"Next."

    run_virtual(main())


# ------------------------------------------------------------------------------------------ cancelled again and again
async def while_it_starts(pool, server):
    server.hooks[RunTask] = hold
    await pool.synthesize("Hello.", VOICE)


async def while_it_speaks(pool, server):
    server.hooks[FinishTask] = hold
    await pool.synthesize("Hello.", VOICE)


async def while_it_reads(pool, server):
    server.hooks[FinishTask] = hold
    async for _ in pool.stream("Hello.", VOICE):
        pass


async def while_the_sink_waits(pool, server):
    server.hooks[FinishTask] = hold
    async with pool.task(VOICE, sink=lambda _: None) as task:
        await task.send("Hello.")
        await task.finish()


async def while_it_tries_again(pool, server):
    server.hooks[RunTask] = lambda session, _: session.connection.abort() or True
    await pool.synthesize("Hello.", VOICE)


async def while_it_holds_a_lease(pool, server):
    server.hooks[FinishTask] = hold
    async with pool.borrow() as lease:
        await lease.synthesize("Hello.", VOICE)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(
    "scene",
    [
        while_it_starts, while_it_speaks, while_it_reads, while_the_sink_waits, while_it_tries_again,
        while_it_holds_a_lease,
    ],
    ids=lambda scene: scene.__name__,
)  # fmt: skip
def test_t10_cancelled_again_and_again_while_it_cleans_up(scene, times):
    async def main():
        async with pool_and_server(max_size=1, deadlines=LIMITS, open_backoff=0.01) as (pool, server):

            async def caller():
                try:
                    await scene(pool, server)
                finally:
                    for _ in range(times):
                        await asyncio.sleep(60)  # a clean-up of the caller's own, cancelled as well

            running = asyncio.create_task(caller())
            while not server.tasks:
                await asyncio.sleep(0)
            await settle(3)
            for _ in range(times + 1):
                running.cancel()
                running.cancel()  # in the same turn, too
                await settle(2)
            await cancelled(running)
            if scene is while_it_starts:
                server.sessions[0].send(server.sessions[0].protocol.started())
            await asyncio.sleep(0.5)
            server.hooks.clear()
            for session in server.sessions:  # the server was told, one way or the other
                assert session.protocol.state is State.IDLE or session.closed is not None
            await pool.wait_ready()
            assert (pool.stats.idle, pool.stats.borrowed) == (1, 0)
            assert pool.telemetry.lifetime().cancelled == 1
            assert (await pool.synthesize("Next.", VOICE)).audio == b"Next."

    run_virtual(main())


@pytest.mark.parametrize("confirms", [True, False])
def test_t10_a_close_that_is_cancelled_three_times_still_closes_everything(confirms):
    async def main():
        async with pool_and_server(max_size=2, deadlines=LIMITS) as (pool, server):
            server.hooks[FinishTask] = hold
            if not confirms:
                server.hooks[CancelTask] = hold
            speaking = asyncio.create_task(pool.synthesize("Hello.", VOICE))
            await settle()
            for _ in range(3):
                closing = asyncio.create_task(pool.close())
                await asyncio.sleep(0)
                closing.cancel()
                await cancelled(closing)
            with pytest.raises(PoolClosed):
                await speaking
            await asyncio.sleep(5)
            assert not server.open
            assert sum(isinstance(one, CancelTask) for one in server.received) == 1
            assert (pool.stats.size, pool.stats.closing) == (0, 0)

    run_virtual(main())


# ------------------------------------------------------------------------------------------ left and dropped
async def leave_the_block(pool):
    async with pool.stream("Part.", VOICE) as stream:
        async for _ in stream:
            break
    return stream


async def leave_the_block_unread(pool):
    async with pool.stream("Part.", VOICE) as stream:
        await settle()
    return stream


async def drop_the_iterator(pool):
    stream = pool.stream("Part.", VOICE)
    async for _ in stream:
        break
    return stream  # the iterator has gone, the stream has not


async def drop_an_entered_one(pool):
    stream = await pool.stream("Part.", VOICE).__aenter__()
    chunks = aiter(stream)
    await anext(chunks)
    del chunks
    return stream


async def drop_the_program(pool):
    async def program():
        async with pool.stream("Part.", VOICE) as stream:
            async for chunk in stream:
                yield chunk
            kept.append(stream)

    kept = []
    async for _ in program():
        break


@pytest.mark.parametrize(
    "way",
    [leave_the_block, leave_the_block_unread, drop_the_iterator, drop_an_entered_one, drop_the_program],
    ids=lambda way: way.__name__,
)
def test_t11_a_reader_that_stops_midway_frees_its_connection_without_the_collector(way, caplog):
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[FinishTask] = hold
            gc.disable()
            try:
                stream = await way(pool)
                await settle()
                assert isinstance(server.received[-1], CancelTask)
                assert (pool.stats.idle, pool.stats.opened) == (1, 1)
            finally:
                gc.enable()
            assert stream is None or stream.outcome == "cancelled"
            server.hooks.clear()
            assert (await pool.synthesize("Next.", VOICE)).audio == b"Next."

    run(main())
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


def test_t11_streams_and_tasks_that_nobody_enters_cost_nothing(caplog):
    async def main():
        async def tokens():
            yield "Never."

        async with pool_and_server(max_size=1) as (pool, server):
            for text in ("Hello.", ["Hello.", "there."], tokens()):
                pool.stream(text, VOICE)
                pool.task(VOICE)
                pool.borrow()
            gc.collect()
            await settle()
            assert not server.received
            assert pool.stats.idle == 1
            assert pool._host.ticker.watched == []
            assert pool.telemetry.tasks_started == 0

    run(main())
    assert not caplog.records


def test_t11_an_entered_stream_that_nobody_ever_reads_is_reported_once_and_ends_with_its_deadline(caplog):
    async def main():
        async with pool_and_server(max_size=1, deadlines=Deadlines(total=60.0), leak_after=20.0) as (pool, server):
            server.hooks[FinishTask] = hold

            def flood(session, instruction):
                session.begin(instruction.text)
                for _ in range(64):
                    session.audio(b"x" * 16_384)
                return True

            server.hooks[ContinueTask] = flood
            await pool.stream("Part.", VOICE).__aenter__()
            gc.collect()
            await asyncio.sleep(30)
            assert pool.stats.borrowed == 1
            await asyncio.sleep(32)
            assert isinstance(server.received[-1], CancelTask)
            assert (pool.stats.idle, pool.stats.opened) == (1, 1)

    run_virtual(main())
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


# ------------------------------------------------------------------------------------------ an exception is kept
async def in_a_task(pool):
    async with pool.task(VOICE) as task:
        await task.send("Hello.")
        await settle()
        raise KeyError("mine")


async def in_a_stream(pool):
    async with pool.stream("Hello.", VOICE) as stream:
        async for _ in stream:
            raise KeyError("mine")


async def in_a_loop_over_a_stream(pool):
    async for _ in pool.stream("Hello.", VOICE):
        raise KeyError("mine")


async def in_a_lease(pool):
    async with pool.borrow() as lease, lease.task(VOICE) as task:
        await task.send("Hello.")
        await settle()
        raise KeyError("mine")


async def in_the_text(pool):
    async def tokens():
        yield "Hello."
        await settle()
        raise KeyError("mine")

    async for _ in pool.stream(tokens(), VOICE):
        pass


@pytest.mark.parametrize(
    "program",
    [in_a_task, in_a_stream, in_a_loop_over_a_stream, in_a_lease, in_the_text],
    ids=lambda program: program.__name__,
)
def test_t53_an_exception_that_is_kept_with_its_traceback_keeps_no_connection(program):
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[FinishTask] = hold
            kept = []
            gc.disable()
            try:
                try:
                    await program(pool)
                except KeyError as error:
                    kept.append(error)
                await settle()
                assert kept[0].__traceback__.tb_next is not None
                assert isinstance(server.received[-1], CancelTask)
                assert (pool.stats.idle, pool.stats.opened) == (1, 1)
            finally:
                gc.enable()

    run(main())


# ------------------------------------------------------------------------------------------ one after another
def test_t77_twenty_barge_ins_in_two_seconds_dial_nothing_and_each_is_as_quick_as_the_first():
    delay = 0.03

    async def main():
        async with pool_and_server(max_size=2) as (pool, server):

            def speak_later(session, instruction):
                task_id = session.protocol.task_id

                def speak():
                    if session.protocol.task_id == task_id and session.protocol.state is State.RUNNING:
                        session.begin(instruction.text)
                        session.audio(b"x" * 640)

                asyncio.get_running_loop().call_later(delay, speak)
                return True

            server.hooks[ContinueTask] = speak_later
            server.hooks[FinishTask] = hold
            reports = []
            began = asyncio.get_running_loop().time()
            for _ in range(20):
                async with pool.task(VOICE) as task:
                    await task.send("Hello.")
                    async for event in task:
                        if hasattr(event, "data"):
                            break
                    await asyncio.sleep(0.07)
                reports.append(task.report)
            assert asyncio.get_running_loop().time() - began <= 2.05
            await settle()
            assert [report.first_packet_delay for report in reports] == pytest.approx([delay] * 20)
            assert [(report.reused, report.connect, report.queue) for report in reports] == [(True, 0.0, 0.0)] * 20
            assert (pool.stats.opened, pool.stats.idle) == (2, 2)
            assert pool.telemetry.lifetime().cancelled == 20
            assert len(server.sessions) == 2

    run_virtual(main())
