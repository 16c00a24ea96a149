"""Audio of a cancelled task that comes in the midst of the next one: it is not heard, although a frame says not whose it is."""

import logging

import pytest
from harness import VOICE, pool_and_server, run, settle

from speechpool import ProtocolViolation
from speechpool.protocol.cosyvoice import ContinueTask


async def barge_in(pool):
    task = pool.task(VOICE)
    async with task:
        await task.send("Hello.")
        await settle()
        await task.cancel()
    await settle()


def late_audio(server, *, first=False):
    """From now on a foreign frame comes in the midst of the next task, or before its own first audio."""

    def hook(session, _):
        server.hooks.pop(ContinueTask)
        if not first:
            session.begin("Next.")
            session.audio(b"Ne")
        session.send(b"late", binary=True)
        session.audio(b"xt.")
        session.end("Next.")
        return True

    server.hooks[ContinueTask] = hook


def test_audio_that_was_not_announced_is_not_heard_after_a_cancel():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            await pool.synthesize("First.", VOICE)
            await barge_in(pool)
            late_audio(server)
            got = []
            task = pool.task(VOICE, sink=got.append)
            with pytest.raises(ProtocolViolation, match="frames of another task"):
                async with task:
                    await task.send("Next.")
                    await task.finish()
                    await task.wait()
            assert b"".join(piece for piece in got if isinstance(piece, bytes)) == b"Ne"
            await settle()
            assert pool.stats.discarded == {"stray frames": 1}
            assert (await pool.synthesize("Again.", VOICE)).audio == b"Again."

    run(main())


def test_before_the_first_audio_it_is_a_retry():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            await pool.synthesize("First.", VOICE)
            await barge_in(pool)
            late_audio(server, first=True)
            async with pool.stream("Next.", VOICE) as stream:
                audio = b"".join([piece async for piece in stream])
            assert audio == b"Next."
            assert stream.report.retries == 1

    run(main())


def test_a_connection_without_a_cancelled_task_asks_for_no_announcement_once_the_habit_is_known():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            await pool.synthesize("First.", VOICE)
            assert pool._hosted().announcing.kept
            late_audio(server)
            assert (await pool.synthesize("Next.", VOICE)).audio == b"Nelatext."  # nothing could be told apart here

    run(main())


def test_a_server_that_announces_nothing_is_taken_as_it_is(caplog):
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):

            def older(session, _):
                session.send(b"older", binary=True)
                return True

            server.hooks[ContinueTask] = older
            for _ in range(3):
                assert (await pool.synthesize("Text.", VOICE)).audio == b"older"
                await barge_in(pool)
            habit = pool._hosted().announcing
            assert (habit.known, habit.kept) == (True, False)
            assert pool.stats.discarded == {}

    with caplog.at_level(logging.WARNING):
        run(main())
    assert not caplog.text


def test_a_server_that_gives_it_up_is_believed_after_three(caplog):
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            await pool.synthesize("First.", VOICE)
            for _ in range(3):
                await barge_in(pool)
                late_audio(server)
                with pytest.raises(ProtocolViolation):
                    async with pool.task(VOICE) as task:
                        await task.send("Next.")
                        await task.finish()
                        await task.wait()
                await settle()
            await barge_in(pool)
            late_audio(server)
            assert (await pool.synthesize("Next.", VOICE)).audio == b"Nelatext."

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "no longer announces" in caplog.text
