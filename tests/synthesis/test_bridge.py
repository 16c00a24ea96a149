"""The bridge over the text clock: a caller that thinks for longer than the server allows hears one speech."""

import asyncio
import logging

import pytest
from harness import VOICE, pool_and_server, run_virtual, settle

from speechpool import ConnectionLost, Deadlines, EndpointDown, FirstAudioTimeout, Shed, TextGap
from speechpool.limits import LocalQuota
from speechpool.protocol import Audio, Finished, SentenceBegin, SentenceEnd, Word
from speechpool.protocol.cosyvoice import CancelTask, ContinueTask, FinishTask, FlushTask, RunTask, State

TEXT_GAP, IDLE = 23.0, 60.0


def keep_time(server):
    """Give the server its two clocks: 23 s without text end a task, 60 s without a task a connection."""

    def restart(session, instruction):
        if getattr(session, "alarm", None) is not None:
            session.alarm.cancel()
        loop = asyncio.get_running_loop()
        if isinstance(instruction, RunTask | ContinueTask):
            session.alarm = loop.call_later(TEXT_GAP, session.fail, "CLIENT_ERROR", "request timeout after 23 seconds.")
        elif isinstance(instruction, FinishTask | CancelTask):
            session.alarm = loop.call_later(IDLE, session.connection.close, 1000, "idle")

    for step in (RunTask, ContinueTask, FinishTask, CancelTask):
        server.hooks[step] = restart


def hooked(server, step, hook):
    """Let `hook` act where the server would, with its clocks kept."""
    clock = server.hooks[step]

    def both(session, instruction):
        clock(session, instruction)
        return hook(session, instruction)

    server.hooks[step] = both


async def heard(task):
    return b"".join([event.data async for event in task if isinstance(event, Audio)])


def scenario(body, **options):
    """Run a body with a pool and a server that keeps time."""

    async def main():
        async with asyncio.timeout(2000), pool_and_server(**{"max_size": 1, **options}) as (pool, server):
            keep_time(server)
            await body(pool, server)
            await asyncio.sleep(3)
            stats = pool.stats
            assert (stats.borrowed, stats.waiting) == (0, 0), stats
            assert server.all_idle()
            assert pool._host.ticker.watched == []
            assert pool.telemetry.tasks_running == 0
            assert server.refused == []

    run_virtual(main())


# ---------------------------------------------------------------------------------------- it goes on
def test_promise_8_a_caller_that_thinks_for_a_minute_hears_one_stream():
    async def body(pool, server):
        async with pool.task(VOICE) as task:
            await task.send("One. ")
            await asyncio.sleep(70)
            await task.send("Two.")
            await task.finish()
            assert await heard(task) == b"One. Two."
        assert task.outcome == "completed"
        assert [type(each) for each in server.received].count(RunTask) == 2
        assert len(set(server.used)) == 1, "the lease is kept"
        totals = pool.telemetry.lifetime()
        assert (totals.completed, totals.failed, totals.reused) == (1, 0, 1)
        assert task.report.request_ids == tuple(each.task_id for each in server.tasks)
        assert task.request_id == server.tasks[-1].task_id

    scenario(body)


def test_promise_8_so_does_a_stream_of_tokens():
    async def tokens():
        for token in ("One, ", "two", ". "):
            yield token
            await asyncio.sleep(5)
        await asyncio.sleep(60)
        yield "Three."

    async def body(pool, server):
        async with pool.stream(tokens(), VOICE) as stream:
            assert b"".join([chunk async for chunk in stream]) == b"One, two. Three."
        assert len(server.tasks) == 2

    scenario(body)


def test_promise_8_sentences_words_and_characters_continue():
    async def body(pool, server):
        def speak(session, instruction):
            text = instruction.text
            session.characters += len(text)
            session.begin(text)
            session.audio(bytes(32000))  # a second
            words = (Word(text, 0, len(text), 100, 900),)
            session.send(session.protocol.sentence_end(session.index, text, words, session.characters))
            session.index += 1
            return True

        hooked(server, ContinueTask, speak)
        events = []
        async with pool.task(VOICE) as task:
            for text in ("One.", "Two.", "Three.", "Four."):
                await task.send(text)
                if text != "One.":
                    await asyncio.sleep(30)
            await task.finish()
            async for event in task:
                events.append(event)
        assert [event.index for event in events if isinstance(event, SentenceBegin)] == [0, 1, 2, 3]
        ends = [event for event in events if isinstance(event, SentenceEnd)]
        assert [(each.index, each.characters) for each in ends] == [(0, 4), (1, 8), (2, 14), (3, 19)]
        # The server counts each segment from its start: the second sentence of the first one is the caller's affair.
        assert [word.begin_time for each in ends for word in each.words] == [100, 100, 2100, 3100]
        assert task.words == tuple(word for each in ends for word in each.words)
        assert (task.characters, task.report.characters, task.report.audio_seconds) == (19, 19, 4.0)
        assert [event for event in events if isinstance(event, Finished)] == [Finished(19)]
        assert isinstance(events[-1], Finished)

    scenario(body)


@pytest.mark.parametrize(
    ("texts", "segments"),
    [(("One. ", 19.5, "Two. ", 19.5, "Three."), 1), (("One. ", 20.3, "Two."), 2), ((30, "One. ", 19, "Two."), 2)],
)
def test_the_clock_runs_from_the_last_text_or_from_the_start(texts, segments):
    async def body(pool, server):
        async with pool.task(VOICE) as task:
            for each in texts:
                if isinstance(each, str):
                    await task.send(each)
                else:
                    await asyncio.sleep(each)
            await task.finish()
            assert await heard(task) == "".join(each for each in texts if isinstance(each, str)).encode()
        assert len(server.tasks) == segments

    scenario(body)


def test_a_flush_is_no_text_and_audio_does_not_stop_the_clock():
    async def body(pool, server):
        async def trickle(session):
            for _ in range(30):
                session.audio(b"more")
                await asyncio.sleep(1)
            session.end("One.")
            session.send(session.protocol.finished(4))

        def speak(session, instruction):
            if len(server.tasks) > 1:
                return False
            session.begin("One.")
            session.trickle = asyncio.create_task(trickle(session))
            return True

        hooked(server, ContinueTask, speak)
        finishes = []
        hooked(server, FinishTask, lambda session, _: finishes.append(session) or len(server.tasks) == 1)
        async with pool.task(VOICE) as task:
            await task.send("One.")
            await asyncio.sleep(10)
            await task.flush()
            await asyncio.sleep(11)
            assert len(finishes) == 1
            await task.send("Two.")
            await asyncio.sleep(5)
            assert len(server.tasks) == 1, "the first segment has not ended on the wire"
            await task.finish()
            assert await heard(task) == 30 * b"more" + b"Two."
        assert len(server.tasks) == 2

    scenario(body)


def test_a_text_in_mid_sentence_is_cut_and_logged_without_its_words(caplog):
    async def body(pool, server):
        hooked(server, ContinueTask, lambda session, instruction: session.parts.append(instruction.text) or True)

        def run(session, _):
            session.parts = []

        hooked(server, RunTask, run)

        def finish(session, _):
            session.speak("".join(session.parts))

        hooked(server, FinishTask, finish)
        with caplog.at_level(logging.DEBUG, "speechpool.synthesis"):
            async with pool.task(VOICE) as task:
                await task.send("The canary is ")
                await asyncio.sleep(40)
                await task.send("yellow.")
                await task.finish()
                assert await heard(task) == b"The canary is yellow."
        (line,) = [each.getMessage() for each in caplog.records if "segment is ended" in each.getMessage()]
        assert "in the middle of a sentence" in line
        assert "canary" not in caplog.text

    scenario(body)


def test_a_segment_without_a_text_is_cancelled_and_none_begins_before_there_is_one():
    async def body(pool, server):
        async with pool.task(VOICE) as task:
            await asyncio.sleep(100)
            assert [type(each) for each in server.received] == [RunTask, CancelTask]
            await task.flush()
            await asyncio.sleep(1)
            assert len(server.tasks) == 1
            await task.send("One.")
            await task.finish()
            assert await heard(task) == b"One."
        assert task.report.first_packet_delay < 1
        assert task.report.text_wait > 100

    scenario(body)


def test_pauses_of_ten_minutes_cost_only_the_deadline_of_the_whole_task():
    async def body(pool, server):
        async with pool.task(VOICE) as task:
            for text in ("One. ", "Two. ", "Three."):
                await task.send(text)
                await asyncio.sleep(150)
            await task.finish()
            assert await heard(task) == b"One. Two. Three."
        with pytest.raises(FirstAudioTimeout) as caught:
            async with pool.task(VOICE) as task:
                await task.send("One.")
                await task.wait()
        assert caught.value.phase == "total"
        assert caught.value.audio_delivered == 4

    scenario(body)


# ---------------------------------------------------------------------------------------- the lease
@pytest.mark.parametrize("on_a_lease", [False, True])
def test_promise_8_a_lease_that_lost_its_connection_meanwhile_gets_another_one(on_a_lease):
    async def body(pool, server):
        async def speak(make):
            async with make(VOICE) as task:
                await task.send("One. ")
                await asyncio.sleep(95)  # the server has closed the idle connection
                await task.send("Two.")
                await task.finish()
                assert await heard(task) == b"One. Two."
            assert task.report.retries == 0
            return task

        if on_a_lease:
            async with pool.borrow() as lease:
                await speak(lease.task)
                assert (await lease.synthesize("Three.", VOICE)).audio == b"Three."
        else:
            await speak(pool.task)
        assert server.used[0] is not server.used[1]

    scenario(body)


def test_a_bridged_task_is_not_sent_to_the_end_of_the_line():
    async def body(pool, server):
        order = []

        async def other():
            await pool.synthesize("Other.", VOICE)
            order.append("other")

        async with pool.task(VOICE) as task:
            await task.send("One. ")
            await asyncio.sleep(75)
            waiting = asyncio.create_task(other())
            await asyncio.sleep(10)  # the idle connection has ended
            await task.send("Two.")
            await task.finish()
            assert await heard(task) == b"One. Two."
            order.append("task")
        await waiting
        assert order == ["task", "other"]

    scenario(body, borrow_timeout=60.0)


def test_no_connection_for_the_next_segment_fails_the_task_with_what_was_delivered():
    async def body(pool, server):
        async with pool.task(VOICE) as task:
            await task.send("One.")
            await asyncio.sleep(85)
            server.listener.close()
            await task.send("Two.")
            with pytest.raises(EndpointDown) as caught:
                await task.wait()
        assert (task.outcome, caught.value.audio_delivered) == ("failed", 4)
        server.refused.clear()

    scenario(body)


# ---------------------------------------------------------------------------------------- limits
def test_each_segment_takes_a_permit_and_settles_it():
    async def body(pool, server):
        (quota,) = quotas
        async with pool.task(VOICE) as task:
            await task.send("One. ")
            await settle()
            assert [(each.running, each.waiting) for each in quota.states()] == [(1, 0)]
            await asyncio.sleep(40)
            assert [(each.running, each.waiting) for each in quota.states()] == [(0, 0)]
            other = quota.request(pool._host._account, VOICE.model)
            await task.send("Two.")
            await settle()
            assert len(server.tasks) == 1
            other.settle("completed")
            await task.finish()
            assert await heard(task) == b"One. Two."
        assert [(each.running, each.waiting) for each in quota.states()] == [(0, 0)]

    quotas = []

    async def main():
        quotas.append(LocalQuota(concurrency=1, clock=asyncio.get_running_loop().time))
        async with (
            asyncio.timeout(500),
            pool_and_server(max_size=1, quota=quotas[0], borrow_timeout=60.0) as (
                pool,
                server,
            ),
        ):
            keep_time(server)
            await body(pool, server)

    run_virtual(main())


def test_a_permit_that_does_not_come_fails_the_task_and_gives_everything_back():
    async def main():
        quota = LocalQuota(concurrency=1, clock=asyncio.get_running_loop().time)
        async with asyncio.timeout(500), pool_and_server(max_size=1, quota=quota, borrow_timeout=5.0) as (pool, server):
            keep_time(server)
            async with pool.task(VOICE) as task:
                await task.send("One. ")
                await asyncio.sleep(40)
                other = quota.request(pool._host._account, VOICE.model)
                await task.send("Two.")
                with pytest.raises(Shed, match="permit"):
                    await task.wait()
            assert task.outcome == "failed"
            assert (pool.telemetry.lifetime().failed, pool.telemetry.lifetime().shed) == (1, 0)
            other.settle("completed")
            assert pool.stats.borrowed == 0
            assert [(each.running, each.waiting) for each in quota.states()] == [(0, 0)]

    run_virtual(main())


# ---------------------------------------------------------------------------------------- breaks
def cut_once(server, step, after=1):
    """Cut the connection at one step of a segment, once."""
    left = [True]

    def hook(session, _):
        if len(server.tasks) > after and left:
            left.pop()
            session.connection.abort()
            return True
        return None

    hooked(server, step, hook)


@pytest.mark.parametrize("step", [RunTask, ContinueTask])
def test_promise_4_a_later_segment_that_breaks_before_its_audio_is_replayed_and_nothing_is_heard_twice(step):
    async def body(pool, server):
        cut_once(server, step)
        async with pool.task(VOICE) as task:
            await task.send("One. ")
            await asyncio.sleep(30)
            await task.send("Two. ")
            await task.send("Three.")
            await task.finish()
            assert await heard(task) == b"One. Two. Three."
        assert task.report.retries == 1
        assert len(set(task.report.request_ids)) == 3

    scenario(body)


def test_promise_4_a_later_segment_that_breaks_after_its_audio_fails():
    async def body(pool, server):
        def half(session, instruction):
            if len(server.tasks) == 1:
                return False
            session.begin(instruction.text)
            session.audio(b"Tw")
            asyncio.get_running_loop().call_later(1, session.connection.abort)
            return True

        hooked(server, ContinueTask, half)
        async with pool.task(VOICE) as task:
            await task.send("One. ")
            await asyncio.sleep(30)
            await task.send("Two.")
            with pytest.raises(ConnectionLost) as caught:
                await task.wait()
        assert (caught.value.audio_delivered, task.report.retries) == (7, 0)

    scenario(body)


def test_each_segment_has_the_retries_of_a_task():
    async def body(pool, server):
        for after in range(3):
            cut_once(server, RunTask, after=2 * after + 1)
        async with pool.task(VOICE) as task:
            for text in ("One. ", "Two. ", "Three. ", "Four. "):
                await task.send(text)
                await asyncio.sleep(30)
            await task.finish()
            assert await heard(task) == b"One. Two. Three. Four. "
        assert task.report.retries == 3

    scenario(body, retry=1)


def test_a_break_while_the_segment_is_ended_replays_it_with_what_was_said_since():
    async def body(pool, server):
        left = [True]

        def no_answer(session, _):
            if left:
                left.pop()
                asyncio.get_running_loop().call_later(2, session.connection.abort)
                return True
            return None

        hooked(server, ContinueTask, lambda session, _: len(server.tasks) == 1)
        hooked(server, FinishTask, no_answer)
        async with pool.task(VOICE) as task:
            await task.send("Not yet ")
            await asyncio.sleep(21)
            await task.send("spoken.")
            await asyncio.sleep(5)
            await task.finish()
            assert await heard(task) == b"Not yet spoken."

    scenario(body)


def test_a_server_that_does_not_end_the_segment_is_noticed():
    async def body(pool, server):
        hooked(server, FinishTask, lambda session, _: True)
        async with pool.task(VOICE) as task:
            await task.send("One.")
            began = asyncio.get_running_loop().time()
            with pytest.raises(FirstAudioTimeout) as caught:
                await task.wait()
            assert caught.value.phase == "gap"
            assert asyncio.get_running_loop().time() - began < 20 + 10 + 2

    scenario(body)


# ---------------------------------------------------------------------------------------- finish, cancel, close
MOMENTS = {"running": 10.0, "being ended": 20.5, "between": 40.0}


@pytest.mark.parametrize("moment", MOMENTS)
def test_finish_at_any_moment_of_it_completes_without_another_segment(moment):
    async def body(pool, server):
        slow_finish(server)
        async with pool.task(VOICE) as task:
            await task.send("One.")
            await asyncio.sleep(MOMENTS[moment])
            await task.finish()
            assert await heard(task) == b"One."
        assert task.outcome == "completed"
        assert len(server.tasks) == 1
        assert pool.stats.discarded == {}

    scenario(body)


@pytest.mark.parametrize("spoken", [True, False])
@pytest.mark.parametrize("moment", MOMENTS)
def test_cancel_at_any_moment_of_it_returns_the_connection_warm(moment, spoken):
    async def body(pool, server):
        slow_finish(server)
        async with pool.task(VOICE) as task:
            if spoken:
                await task.send("One.")
            await asyncio.sleep(MOMENTS[moment])
            await task.cancel()
            assert task.outcome == "cancelled"
        await asyncio.sleep(1.5)
        assert (await pool.synthesize("After all.", VOICE)).audio == b"After all."
        assert pool.stats.discarded == {}
        assert len(server.sessions) == 1

    scenario(body)


def slow_finish(server):
    """The end of a segment takes a second."""

    def late(session, instruction):
        def answer():
            if session.protocol.state in {State.FINISHING, State.CANCELLING}:
                session.behave(instruction)

        asyncio.get_running_loop().call_later(1.0, answer)
        return True

    hooked(server, FinishTask, late)
    hooked(server, CancelTask, late)


@pytest.mark.parametrize("moment", MOMENTS)
def test_close_at_any_moment_of_it_ends_the_task(moment):
    async def main():
        async with asyncio.timeout(100), pool_and_server(max_size=1) as (pool, server):
            keep_time(server)
            async with pool.task(VOICE) as task:
                await task.send("One.")
                await asyncio.sleep(MOMENTS[moment])
                await pool.close()
                assert task.outcome == "failed"
            assert (pool.stats.size, pool.stats.borrowed) == (0, 0)

    run_virtual(main())


def test_a_lease_that_is_left_while_its_task_is_bridged_goes_back():
    async def body(pool, server):
        lease = await pool.borrow().__aenter__()
        task = await lease.task(VOICE).__aenter__()
        await task.send("One.")
        await asyncio.sleep(40)
        lease.leave()
        assert task.outcome == "failed"
        assert pool.stats.idle == 1

    scenario(body)


def test_text_while_the_segment_is_ended_waits_for_its_end():
    async def body(pool, server):
        slow_finish(server)
        async with pool.task(VOICE) as task:
            await task.send("One. ")
            await asyncio.sleep(20.5)
            await task.send("Two. ")
            await task.flush()
            await task.send("Three.")
            await settle()
            assert server.texts == ["One. "]
            await task.finish()
            assert await heard(task) == b"One. Two. Three."
        assert [type(each) for each in server.received] == [
            RunTask, ContinueTask, FinishTask, RunTask, ContinueTask, FlushTask, ContinueTask, FinishTask,
        ]  # fmt: skip

    scenario(body)


def test_a_sink_hears_one_stream_too():
    async def body(pool, server):
        got = []
        async with pool.task(VOICE, sink=got.append) as task:
            await task.send("One. ")
            await asyncio.sleep(40)
            await task.send("Two.")
            await task.finish()
        assert b"".join(each for each in got if isinstance(each, bytes)) == b"One. Two."
        assert sum(isinstance(each, Finished) for each in got) == 1

    scenario(body)


def test_a_consumer_that_does_not_read_holds_the_socket_across_the_bridge():
    async def body(pool, server):
        async with pool.task(VOICE) as task:
            for _ in range(4):
                for _ in range(10):
                    await task.send("a" * 19_999 + ".") if task._script.characters < 180_000 else None
                await asyncio.sleep(30)
            assert sum(len(each.data) for each in task._queue if isinstance(each, Audio)) < 400_000
            await task.finish()
            assert len(await heard(task)) == task._script.characters

    scenario(body)


# ---------------------------------------------------------------------------------------- without it
@pytest.mark.parametrize("face", ["task", "stream", "lease"])
def test_promise_8_without_a_bridge_it_fails_before_the_server_does(face):
    async def body(pool, server):
        async def tokens():
            yield "One. "
            await asyncio.sleep(50)
            yield "Two."

        async def fail(make):
            began = asyncio.get_running_loop().time()
            with pytest.raises(TextGap, match=r"no text came for 20 s.*gives a task up after 23 s.*`bridge`") as caught:
                if face == "stream":
                    async for _ in make(tokens(), VOICE, bridge=False):
                        pass
                else:
                    async with make(VOICE, bridge=False) as task:
                        await task.send("One. ")
                        await task.wait()
            assert 20 <= asyncio.get_running_loop().time() - began < 22
            assert (caught.value.limit, caught.value.audio_delivered, caught.value.retryable) == (20.0, 5, False)

        if face == "lease":
            async with pool.borrow() as lease:
                await fail(lease.task)
        else:
            await fail(getattr(pool, face))
        await asyncio.sleep(1)
        assert pool.stats.discarded == {}, "the server is told, and the connection stays warm"

    scenario(body)


def test_a_task_that_is_finished_in_time_needs_no_bridge():
    async def body(pool, server):
        def late(session, instruction):
            asyncio.get_running_loop().call_later(28, session.behave, instruction)
            return True

        hooked(server, FinishTask, late)
        async with pool.task(VOICE, bridge=False) as task:
            await task.send("One.")
            await task.finish()
            assert await heard(task) == b"One."

    scenario(body, deadlines=Deadlines(gap=30.0))
