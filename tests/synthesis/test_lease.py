"""Borrow once, run any number of consecutive tasks."""

import asyncio

import pytest
from harness import VOICE, pool_and_server, run, settle

from speechpool import Audio, LeaseError, PoolTimeout
from speechpool.protocol.cosyvoice import CancelTask, FinishTask, RunTask


def test_consecutive_tasks_run_on_one_connection():
    async def main():
        async with pool_and_server() as (pool, server):
            async with pool.borrow(timeout=5.0) as lease:
                assert (await lease.synthesize("One.", VOICE)).audio == b"One."
                async with lease.task(VOICE) as task:
                    await task.send("Two.")
                    await task.finish()
                    assert [event async for event in task][1] == Audio(b"Two.")
                assert [chunk async for chunk in lease.stream("Three.", VOICE)] == [b"Three."]
                assert pool.stats.borrowed == 1
            assert pool.stats.borrowed == 0
            assert len({id(session) for session in server.used}) == 1

    run(main())


def test_t38_the_next_task_waits_until_a_cancelled_one_has_ended_on_the_wire():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[CancelTask] = lambda session, _: True
            async with pool.borrow() as lease:
                async with lease.task(VOICE) as first:
                    await first.send("One.")
                    await settle()
                following = asyncio.create_task(lease.synthesize("Two.", VOICE))
                await settle()
                assert len(server.tasks) == 1
                server.sessions[0].send(server.sessions[0].protocol.finished(0))
                assert (await following).audio == b"Two."
            assert len(server.sessions) == 1

    run(main())


def test_t51_two_tasks_at_once_on_one_lease_are_refused():
    async def main():
        async with pool_and_server() as (pool, server):
            server.hooks[FinishTask] = lambda session, _: True
            async with pool.borrow() as lease:
                first = asyncio.create_task(lease.synthesize("One.", VOICE))
                await settle()
                with pytest.raises(LeaseError, match="at once"):
                    await lease.synthesize("Two.", VOICE)
                (session,) = server.used
                session.send(session.protocol.finished(4))
                assert (await first).audio == b"One."

    run(main())


def test_t42_a_retry_on_a_lease_gets_a_fresh_connection():
    async def main():
        async with pool_and_server(max_size=3) as (pool, server):
            old = list(server.sessions)
            async with pool.borrow() as lease:
                server.hooks[RunTask] = lambda session, _: (
                    len(server.tasks) == 1 and (session.connection.abort() or True)
                )
                speech = await lease.synthesize("One.", VOICE)
                assert (speech.audio, speech.report.retries) == (b"One.", 1)
                assert server.used[-1] not in old
            await settle()
            assert pool.stats.borrowed == 0

    run(main())


def test_two_that_start_after_a_loss_renew_the_lease_once():
    async def main():
        async with pool_and_server(max_size=2) as (pool, server):
            async with pool.borrow() as lease:
                await lease.synthesize("One.", VOICE)
                server.used[0].connection.abort()
                await settle()
                results = await asyncio.gather(
                    *(lease.synthesize(text, VOICE) for text in ("Two.", "Three.")), return_exceptions=True
                )
                assert [type(one).__name__ for one in results] == ["Speech", "LeaseError"]
            await settle()
            assert pool.stats.borrowed == 0

    run(main())


def test_a_lease_that_lost_its_connection_between_two_tasks_gets_another_one():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            async with pool.borrow() as lease:
                await lease.synthesize("One.", VOICE)
                server.sessions[0].connection.abort()
                await settle()
                assert (await lease.synthesize("Two.", VOICE)).audio == b"Two."
            assert len(server.sessions) == 2
            await settle()
            assert pool.stats.idle == 1

    run(main())


def test_leaving_with_a_running_task_cancels_it_and_returns_the_connection_when_confirmed():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            async with pool.borrow() as lease:
                task = lease.task(VOICE)
                await task.__aenter__()
                await task.send("One.")
                await settle()
            assert task.outcome == "failed"
            with pytest.raises(LeaseError, match="was left"):
                await task.wait()
            await settle()
            assert pool.stats.idle == 1
            assert len(server.sessions) == 1
            with pytest.raises(LeaseError, match="not held"):
                await lease.synthesize("Two.", VOICE)

    run(main())


def test_a_task_that_waits_for_its_turn_learns_that_the_lease_was_left():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[CancelTask] = lambda session, _: True
            async with pool.borrow() as lease:
                async with lease.task(VOICE) as first:
                    await first.send("One.")
                    await settle()
                second = asyncio.create_task(lease.synthesize("Two.", VOICE))
                await settle()
            with pytest.raises(LeaseError, match="was left"):
                await second
            server.sessions[0].send(server.sessions[0].protocol.finished(0))
            await settle()
            assert pool.stats.idle == 1

    run(main())


def test_borrowing_has_its_own_timeout():
    async def main():
        async with pool_and_server(max_size=1) as (pool, _), pool.borrow():
            with pytest.raises(PoolTimeout):
                async with pool.borrow(timeout=0.0):
                    pass

    run(main())
