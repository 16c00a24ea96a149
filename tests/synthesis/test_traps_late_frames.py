"""Frames of a task that was left: nobody hears them, whenever they come."""

import pytest
from harness import VOICE, pool_and_server, run, settle

from speechpool import ProtocolViolation
from speechpool.protocol.cosyvoice import CancelTask, ContinueTask, FinishTask, RunTask


def late_frames(session):
    """Frames of the task that runs now, to be sent when it does no more."""
    announcement = session.protocol.sentence_synthesis(0)
    return [(announcement, False), (b"late", True)] * 50


def send_all(session, frames):
    for data, binary in frames:
        session.send(data, binary)


async def barge_in(pool, server):
    """Run the first task, and leave it."""
    server.hooks[FinishTask] = lambda session, _: len(server.tasks) == 1
    async with pool.task(VOICE) as task:
        await task.send("Hello.")
        await settle()


def test_t38_late_frames_before_the_end_reach_nobody_and_the_connection_stays():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            server.hooks[CancelTask] = lambda session, _: send_all(session, late_frames(session))
            for _ in range(3):
                got = []
                async with pool.task(VOICE, sink=got.append) as task:
                    await task.send("Hello.")
                    await settle()
                    await task.cancel()
                    before = list(got)
                assert (await pool.synthesize("Next.", VOICE)).audio == b"Next."
                assert got == before
            assert len(server.sessions) == pool.stats.opened == 1

    run(main())


def test_t38_late_frames_after_the_end_close_the_connection_before_anybody_gets_it():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):

            def end_then_more(session, _):
                frames = late_frames(session)
                session.send(session.protocol.finished(session.characters))
                send_all(session, frames)
                return True

            server.hooks[CancelTask] = end_then_more
            await barge_in(pool, server)
            await settle()
            speech = await pool.synthesize("Next.", VOICE)
            assert (speech.audio, speech.report.retries) == (b"Next.", 0)
            assert len(server.sessions) == 2
            assert server.sessions[0].closed is not None

    run(main())


# A binary frame has no id: after the start, and without its announcement, it cannot be told from the task's own.
@pytest.mark.parametrize(
    ("when", "announced"), [("before its start", True), ("before its start", False), ("after its start", True)]
)
def test_t38_late_frames_that_meet_the_next_task_cost_it_a_retry_and_never_a_byte(when, announced):
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            late = []
            server.hooks[CancelTask] = lambda session, _: late.extend(
                frame for frame in late_frames(session) if announced or frame[1]
            )

            def start(session, instruction):
                if len(server.tasks) != 2:
                    return False
                if when == "after its start":
                    session.behave(instruction)
                send_all(session, late)
                if when == "before its start":
                    session.behave(instruction)
                return True

            server.hooks[RunTask] = start
            await barge_in(pool, server)
            speech = await pool.synthesize("Next.", VOICE)
            assert (speech.audio, speech.report.retries) == (b"Next.", 1)
            assert pool.stats.discarded["stray frames"] == 1
            assert server.sessions[0].closed is not None
            assert len(server.tasks) == 3

    run(main())


def test_t38_frames_of_another_task_in_the_middle_of_the_audio_end_the_task_and_none_is_heard():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            late = []
            server.hooks[CancelTask] = lambda session, _: late.extend(late_frames(session))

            def speak(session, instruction):
                if len(server.tasks) == 2:
                    session.begin(instruction.text)
                    session.audio(b"mine")
                    send_all(session, late)
                    session.audio(b"more")
                    return True
                return False

            server.hooks[ContinueTask] = speak
            await barge_in(pool, server)
            got = []
            with pytest.raises(ProtocolViolation, match="another task") as caught:
                async for chunk in pool.stream("Next.", VOICE):
                    got.append(chunk)
            assert got == [b"mine"]
            assert caught.value.audio_delivered == 4
            assert len(server.tasks) == 2

    run(main())


def test_t38_the_end_of_an_earlier_task_ends_no_later_one_and_costs_the_connection():
    async def main():
        async with pool_and_server(max_size=1) as (pool, server):
            ends = []

            def finish(session, _):
                ends.append(session.protocol.finished(session.characters))
                session.send(ends[-1])
                return True

            server.hooks[FinishTask] = finish
            await pool.synthesize("One.", VOICE)

            def speak(session, instruction):
                session.begin(instruction.text)
                session.audio(b"mine, ")
                session.send(ends[0])  # once more, in the middle
                session.audio(b"all of it")
                return True

            server.hooks[ContinueTask] = speak
            speech = await pool.synthesize("Two.", VOICE)
            assert (speech.audio, speech.report.retries) == (b"mine, all of it", 0)
            await settle()
            assert pool.stats.discarded["stray frames"] == 1

    run(main())
