"""Retry: before the first audio only, on a fresh connection, with a new id, within a budget."""

import asyncio

import pytest
from harness import VOICE, pool_and_server, run, run_virtual, settle

from speechpool import ConnectionLost, TaskFailed
from speechpool.protocol.cosyvoice import ContinueTask, FinishTask, RunTask


def once(action):
    """A hook that acts on the first call only."""
    calls = []

    def hook(session, instruction):
        calls.append(instruction)
        if len(calls) == 1:
            action(session)
            return True
        return None

    return hook


@pytest.mark.parametrize("step", [RunTask, ContinueTask, FinishTask])
def test_t42_a_socket_cut_before_the_first_audio_costs_a_retry_on_a_fresh_connection(step):
    async def main():
        async with pool_and_server() as (pool, server):
            if step is FinishTask:
                server.hooks[ContinueTask] = once(lambda session: None)
            server.hooks[step] = once(lambda session: session.connection.abort())
            speech = await pool.synthesize("Hello.", VOICE)
            assert speech.audio == b"Hello."
            assert speech.report.retries == 1
            first, second = server.tasks
            assert first.task_id != second.task_id == speech.request_id
            assert len(server.sessions) >= 3  # two warm ones, and the fresh one
            await pool.wait_ready()
            assert pool.stats.idle == 2

    run(main())


def test_t44_a_socket_cut_in_mid_audio_ends_the_wait_at_once_with_the_bytes_delivered():
    async def main():
        async with pool_and_server() as (pool, server):

            def cut(session, instruction):
                session.begin(instruction.text)
                session.audio(b"half")
                asyncio.get_running_loop().call_later(0.01, session.connection.abort)
                return True

            server.hooks[ContinueTask] = cut
            server.hooks[FinishTask] = lambda session, _: True
            got = []
            with pytest.raises(ConnectionLost) as caught:
                async for chunk in pool.stream("Hello.", VOICE):
                    got.append(chunk)
            assert got == [b"half"]
            assert caught.value.audio_delivered == 4
            assert caught.value.request_id == server.tasks[0].task_id
            assert len(server.tasks) == 1

    run(main())


def test_retry_0_turns_it_off():
    async def main():
        async with pool_and_server(retry=0) as (pool, server):
            server.hooks[RunTask] = once(lambda session: session.connection.abort())
            with pytest.raises(ConnectionLost):
                await pool.synthesize("Hello.", VOICE)
            assert len(server.tasks) == 1

    run(main())


def test_only_what_may_be_retried_is_and_only_so_often():
    async def main():
        async with pool_and_server(retry=2) as (pool, server):
            server.hooks[RunTask] = lambda session, _: session.fail("ServiceUnavailable", "busy") or True
            with pytest.raises(TaskFailed) as caught:
                await pool.synthesize("Hello.", VOICE)
            assert caught.value.code == "ServiceUnavailable"
            assert len(server.tasks) == 3

    run(main())


def test_invalid_action_on_a_warm_connection_is_tried_again():
    async def main():
        async with pool_and_server() as (pool, server):
            message = "Invalid action('run-task')! Please follow the protocol!"
            server.hooks[RunTask] = once(lambda session: session.fail("InvalidParameter", message))
            assert (await pool.synthesize("Hello.", VOICE)).report.retries == 1

    run(main())


def test_t46_pieces_sent_before_and_during_the_break_are_all_replayed():
    async def main():
        async with pool_and_server() as (pool, server):
            server.hooks[ContinueTask] = once(lambda session: session.connection.abort())
            async with pool.task(VOICE) as task:
                await task.send("One. ")
                await settle()
                await task.send("Two. ")
                await task.finish()
                audio = b"".join([event.data async for event in task if hasattr(event, "data")])
            assert audio == b"One. Two. "
            assert task.outcome == "completed"

    run(main())


def test_an_empty_frame_is_no_audio_and_loses_no_text():
    async def main():
        async with pool_and_server() as (pool, server):

            def empty(session):
                session.begin("One. ")
                session.send(b"", binary=True)
                asyncio.get_running_loop().call_later(0.01, session.connection.abort)

            server.hooks[ContinueTask] = once(empty)
            async with pool.task(VOICE) as task:
                await task.send("One. ")
                while not task.report.retries:
                    await asyncio.sleep(0.001)
                await task.send("Two.")
                await task.finish()
                audio = b"".join([event.data async for event in task if hasattr(event, "data")])
            assert audio == b"One. Two."

    run(main())


def test_a_connection_that_ends_while_text_waits_for_its_peer_is_retried():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            async with pool.task(VOICE) as task:
                await settle()
                transport = task._connection.transport

                async def drain():
                    server.sessions[0].connection.abort()
                    await settle()
                    raise ConnectionLost("gone")

                transport.drain = drain
                await task.send("One.")
                await task.finish()
                audio = b"".join([event.data async for event in task if hasattr(event, "data")])
            assert (audio, task.report.retries) == (b"One.", 1)

    run(main())


def test_a_cancel_during_the_retry_ends_it():
    async def main():
        async with pool_and_server() as (pool, server):
            server.hooks[RunTask] = lambda session, _: session.connection.abort() or True
            caller = asyncio.create_task(pool.synthesize("Hello.", VOICE))
            while not server.tasks:
                await asyncio.sleep(0)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            server.hooks.clear()
            await pool.wait_ready()
            assert pool.stats.borrowed == 0

    run(main())


def test_the_budget_stops_a_storm_of_retries():
    async def main():
        async with pool_and_server(retry=100, max_size=1) as (pool, server):
            server.hooks[RunTask] = lambda session, _: session.connection.abort() or True
            with pytest.raises(ConnectionLost):
                await pool.synthesize("Hello.", VOICE)
            assert 2 <= len(server.tasks) <= 20

    run_virtual(main())
