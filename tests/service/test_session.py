"""One session over a connection without a socket and a backend that says what it is told."""

import asyncio
from types import SimpleNamespace

import pytest
from scripted import FakeConnection, ScriptedBackend, instruction

from speechpool.protocol import Word
from speechpool.service import ServiceSettings
from speechpool.service.counts import Counts
from speechpool.service.outbox import LOOK_EVERY
from speechpool.service.session import SpeechSession
from speechpool.transport import Closed

INVALID = "InvalidParameter"


def run(test, *, linger=None, **settings):
    async def whole():
        with_session = SimpleNamespace(
            backend=ScriptedBackend(), connection=FakeConnection(), counts=Counts(), sessions=set()
        )
        with_session.session = session = SpeechSession(
            with_session.backend, ServiceSettings(linger=linger, **settings), with_session.counts, with_session.sessions
        )
        session.on_connected(with_session.connection)
        try:
            await test(with_session)
        finally:
            session.on_closed(Closed(None, "end of test", clean=False))

    asyncio.run(whole())


async def turn(count=2):
    for _ in range(count):
        await asyncio.sleep(0)


async def started(t, task_id="a", **parameters):
    t.session.on_text(instruction("run-task", task_id, parameters=parameters))
    await turn()
    assert t.connection.names[-1] == "task-started", t.connection.events
    return t.backend.speeches[-1]


async def until(condition):
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happened")


async def failure(connection):
    await until(lambda: connection.closed)
    header = connection.events[-1]["header"]
    assert header["event"] == "task-failed", header
    return header["error_code"], header["error_message"]


# ------------------------------------------------------------------------------------------ a whole task
def test_a_task_from_start_to_end():
    async def test(t):
        speech = await started(t)
        t.session.on_text(instruction("continue-task", text="Hello. "))
        t.session.on_text(instruction("continue-task", flush=True))
        t.session.on_text(instruction("finish-task"))
        assert speech.calls == [("text", "Hello. "), "flush", "finish"]
        speech.say(b"one", b"two")
        speech.listener.on_finished(5)
        await turn()
        kinds = [
            "binary" if binary else event
            for binary, event in zip([binary for binary, _ in t.connection.frames], _types(t.connection), strict=True)
        ]
        assert kinds == [
            "task-started",
            "sentence-begin",
            "sentence-synthesis",
            "binary",
            "sentence-synthesis",
            "binary",
            "sentence-end",
            "task-finished",
        ]
        assert t.connection.audio == b"onetwo"
        last = t.connection.events[-1]
        assert last["payload"] == {"output": {"sentence": {"words": []}}, "usage": {"characters": 5}}
        assert last["header"]["attributes"]["request_uuid"]
        assert all(event["header"]["task_id"] == "a" for event in t.connection.events)
        assert t.counts.tasks["completed"] == 1
        assert t.counts.running == 0
        assert t.connection.closed is None
        assert speech.calls[-1] == "finish"  # a speech that ended by itself is not cancelled

    run(test)


def _types(connection):
    events = iter(connection.events)
    for binary, _ in connection.frames:
        if binary:
            yield "binary"
            continue
        event = next(events)
        output = event["payload"].get("output") or {}
        yield output.get("type") or event["header"]["event"]


def test_tasks_follow_one_another_on_a_connection():
    async def test(t):
        for task_id in "abc":
            speech = await started(t, task_id)
            t.session.on_text(instruction("finish-task", task_id))
            speech.listener.on_finished(0)
            await turn()
        assert t.connection.names == ["task-started", "task-finished"] * 3
        assert t.counts.tasks["completed"] == 3

    run(test)


def test_defaults_are_the_providers():
    async def test(t):
        speech = await started(t, format="Default", sample_rate=0, seed=0, type=0, enable_ssml=True, unknown=1)
        wish = speech.parameters
        assert (wish.voice, wish.format, wish.sample_rate, wish.volume) == ("longanyang", "mp3", 22050, 50)
        assert (wish.rate, wish.pitch) == (1.0, 1.0)

    run(test)


def test_opus_has_a_default_rate_that_it_knows():
    async def test(t):
        speech = await started(t, format="opus", sample_rate=0)
        assert speech.parameters.sample_rate == 24000

    run(test)


@pytest.mark.parametrize("asked", [True, False])
def test_word_times_come_where_they_are_asked_for(asked):
    async def test(t):
        speech = await started(t, word_timestamp_enabled=asked)
        speech.say(b"x", words=(Word("Hello", 0, 5, 0, 100),))
        await turn()
        words = t.connection.events[-1]["payload"]["output"]["sentence"]["words"]
        assert [word["text"] for word in words] == (["Hello"] if asked else [])

    run(test)


# ------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"text_type": "Markdown"}, "PlainText, SSML"),
        ({"voice": ""}, "payload.parameters.voice"),
    ],
)
def test_a_parameter_that_is_missing_or_unknown_is_named(parameters, words):
    async def test(t):
        t.session.on_text(instruction("run-task", parameters=parameters))
        code, message = await failure(t.connection)
        assert code == INVALID
        assert words in message
        assert next(iter(parameters)) in message
        assert t.connection.closed.code == 1000
        assert not t.backend.speeches
        assert t.counts.tasks["failed"] == 1

    run(test)


@pytest.mark.parametrize(("code", "outcome"), [("InvalidParameter", "failed"), ("Throttling.Concurrency", "shed")])
def test_what_the_backend_refuses_fails_and_closes(code, outcome):
    async def test(t):
        t.backend.refusal = (code, "no")
        t.session.on_text(instruction("run-task"))
        assert await failure(t.connection) == (code, "no")
        assert t.connection.names == ["task-failed"]
        assert t.connection.closed.code == 1000
        assert t.counts.tasks[outcome] == 1
        assert t.counts.running == 0

    run(test)


@pytest.mark.parametrize(
    ("before", "frame", "message"),
    [
        ([], instruction("continue-task", text="x"), "Invalid task_id for continue-task"),
        ([], instruction("finish-task"), "Invalid task_id for finish-task"),
        ([], instruction("run-task", ""), "header.task_id"),
        ([], instruction("run-task", payload={"model": "m"}), "payload.input"),
        ([], instruction("run-task", payload={"input": {}}), "payload.model"),
        ([instruction("run-task")], instruction("run-task", "b"), "Invalid action('run-task')!"),
        ([instruction("run-task")], instruction("continue-task", "b", text="x"), "Invalid task_id"),
        ([instruction("run-task")], instruction("continue-task", text=" "), "ensure input text is valid"),
        ([instruction("run-task")], instruction("continue-task", payload={}), "payload.input"),
        (
            [instruction("run-task"), instruction("finish-task")],
            instruction("continue-task", text="x"),
            "Invalid action('continue-task')!",
        ),
        (
            [instruction("run-task"), instruction("finish-task")],
            instruction("finish-task"),
            "Invalid action('finish-task')!",
        ),
    ],
)
def test_an_order_error_fails_the_task_and_closes(before, frame, message):
    async def test(t):
        for each in before:
            t.session.on_text(each)
            await turn()
        t.session.on_text(frame)
        code, said = await failure(t.connection)
        assert code == INVALID
        assert message in said
        assert t.connection.closed.code == 1000
        assert all(speech.calls[-1] == "cancel" for speech in t.backend.speeches)
        assert t.counts.running == 0

    run(test)


def test_a_frame_that_is_no_instruction_closes_with_1007():
    async def test(t):
        speech = await started(t)
        t.session.on_text(b'{"header": ')
        assert t.connection.closed.code == 1007
        assert speech.calls == ["cancel"]
        assert t.counts.tasks["failed"] == 1

    run(test)


def test_a_binary_frame_closes_with_1003():
    async def test(t):
        speech = await started(t)
        t.session.on_binary(b"audio?")
        assert t.connection.closed.code == 1003
        assert speech.calls == ["cancel"]

    run(test)


def test_a_backend_that_gives_up_fails_the_task():
    async def test(t):
        speech = await started(t)
        speech.listener.on_failed("InternalError", "the engine died")
        assert await failure(t.connection) == ("InternalError", "the engine died")
        assert t.connection.closed.code == 1000
        assert t.counts.tasks["failed"] == 1

    run(test)


def test_a_failed_connection_lingers_and_takes_nothing():
    async def test(t):
        t.session.on_text(instruction("continue-task", text="x"))
        t.session.on_text(instruction("run-task"))
        t.session.on_text(b"{")
        t.session.on_binary(b"x")
        await turn()
        assert t.connection.names == ["task-failed"]
        assert t.connection.closed is None
        assert not t.backend.speeches
        t.session.drain()
        assert t.connection.closed.code == 1001

    run(test, linger=60.0)


# ------------------------------------------------------------------------------------------ text
def test_a_send_may_have_20000_characters_and_no_more():
    async def test(t):
        speech = await started(t)
        t.session.on_text(instruction("continue-task", text="你" * 10_000))
        assert t.connection.closed is None
        t.session.on_text(instruction("continue-task", text="你" * 10_000 + "a"))
        code, message = await failure(t.connection)
        assert code == INVALID
        assert "20,000" in message
        assert len(speech.calls) == 2  # the first text, and the cancel

    run(test)


def test_a_task_may_have_200000_characters_and_no_more():
    async def test(t):
        await started(t)
        for _ in range(10):
            t.session.on_text(instruction("continue-task", text="a" * 20_000))
        assert t.connection.closed is None
        t.session.on_text(instruction("continue-task", text="a"))
        assert "200,000" in (await failure(t.connection))[1]

    run(test)


@pytest.mark.parametrize("parameters", [{"enable_ssml": True}, {"text_type": "SSML"}])
def test_ssml_comes_in_one_piece(parameters):
    async def test(t):
        speech = await started(t, **parameters)
        t.session.on_text(instruction("continue-task", text="Plain & simple, <really>."))
        assert speech.calls == [("text", "Plain & simple, <really>.")]
        t.session.on_text(instruction("continue-task", text="More."))
        assert await failure(t.connection) == (INVALID, "Text request limit violated, expected 1.")

    run(test)


@pytest.mark.parametrize(
    ("markup", "spoken"),
    [
        ("<speak>Tom &amp; Jerry</speak>", ("Tom & Jerry",)),
        ('<?xml version="1.0"?>\n<speak rate="2">One<break time="1s"/>two</speak>', ("One", "two")),
        ("<speak>abc<!-- not this --></speak>", ("abc",)),
        ("<speak><![CDATA[1 < 2 &amp; 3]]></speak>", ("1 < 2 &amp; 3",)),
    ],
)
def test_tags_are_never_read_aloud(markup, spoken):
    async def test(t):
        speech = await started(t, enable_ssml=True)
        t.session.on_text(instruction("continue-task", text=markup))
        assert speech.calls == [("passages", spoken)]

    run(test)


def test_tags_alone_are_no_text():
    async def test(t):
        await started(t, enable_ssml=True)
        t.session.on_text(instruction("continue-task", text="<speak><break/></speak>"))
        assert await failure(t.connection) == (INVALID, "Please ensure input text is valid.")

    run(test)


# ------------------------------------------------------------------------------------------ cancel, drop
@pytest.mark.parametrize("finish_first", [True, False])
def test_cancel_ends_at_once_without_more_audio(finish_first):
    async def test(t):
        speech = await started(t)
        speech.say(b"one")
        if finish_first:
            t.session.on_text(instruction("finish-task"))
        t.session.on_text(instruction("finish-task", directive="cancel"))
        assert speech.calls[-1] == "cancel"
        speech.say(b"late", index=1)
        speech.listener.on_finished(99)
        speech.listener.on_failed("InternalError", "late")
        await turn()
        assert t.connection.names[-1] == "task-finished"
        assert t.connection.names.count("task-finished") == 1
        assert t.connection.audio == b"one"
        assert t.connection.events[-1]["payload"]["usage"] == {"characters": 5}
        assert t.counts.tasks["cancelled"] == 1
        await started(t, "b")  # and the connection goes on

    run(test)


def test_a_cancelled_speech_cannot_speak_into_the_next_task():
    async def test(t):
        old = await started(t)
        t.session.on_text(instruction("finish-task", directive="cancel"))
        await started(t, "b")
        old.say(b"of another task")
        await turn()
        assert t.connection.audio == b""

    run(test)


def test_a_client_that_drops_frees_its_speech_at_once():
    async def test(t):
        speech = await started(t)
        t.session.on_closed(Closed(None, "reset", clean=False))
        assert speech.calls == ["cancel"]
        assert not t.sessions
        assert t.counts.tasks["cancelled"] == 1
        speech.say(b"to nobody")

    run(test)


# ------------------------------------------------------------------------------------------ writing
def test_frames_that_are_ready_together_leave_in_one_write():
    async def test(t):
        speech = await started(t)
        before = len(t.connection.writes)
        speech.say(*[b"x" * 100] * 10)
        await turn(1)
        assert len(t.connection.writes) == before + 1
        assert len(t.connection.writes[-1]) == 22

    run(test)


def test_a_slow_peer_pauses_its_speech():
    async def test(t):
        speech = await started(t)
        t.connection.full = True
        speech.say(b"x" * LOOK_EVERY)
        await turn(3)
        assert speech.calls == ["pause"]
        speech.say(b"x" * LOOK_EVERY)
        await turn(3)
        assert t.connection.drains == 1  # one at a time
        assert t.connection.reads == ["pause"]  # its instructions would add answers that it does not read
        t.connection.take()
        await turn(3)
        assert speech.calls == ["pause", "resume"]
        assert t.connection.reads == ["pause", "resume"]

    run(test)


def test_a_quick_peer_is_never_paused():
    async def test(t):
        speech = await started(t)
        for _ in range(10):
            speech.say(b"x" * LOOK_EVERY)
            await turn(3)
        assert t.connection.drains == 10
        assert speech.calls == []

    run(test)


def test_the_next_task_of_a_slow_peer_begins_paused():
    async def test(t):
        speech = await started(t)
        t.connection.full = True
        speech.say(b"x" * LOOK_EVERY)
        await turn(3)
        t.session.on_text(instruction("finish-task", directive="cancel"))
        t.session.on_text(instruction("run-task", "b"))
        await turn()
        second = t.backend.speeches[-1]
        assert second.calls == ["pause"]
        t.connection.take()
        await turn(3)
        assert second.calls == ["pause", "resume"]
        assert t.backend.speeches[0].calls == ["pause", "cancel"]

    run(test)


# ------------------------------------------------------------------------------------------ silences
def test_a_gap_between_texts_fails_the_task():
    async def test(t):
        speech = await started(t)
        t.session.on_text(instruction("continue-task", text="Half a sent"))
        await until(lambda: t.connection.closed)
        assert await failure(t.connection) == ("CLIENT_ERROR", "request timeout after 0.05 seconds.")
        assert speech.calls[-1] == "cancel"

    run(test, text_gap=0.05)


@pytest.mark.parametrize("owing", ["a sentence", "a flush", "audio", "a finish"])
def test_the_gap_does_not_run_while_audio_is_owed(owing):
    async def test(t):
        speech = await started(t)
        if owing == "a sentence":
            t.session.on_text(instruction("continue-task", text="A sentence."))
        elif owing == "a flush":
            t.session.on_text(instruction("continue-task", text="Half a"))
            t.session.on_text(instruction("continue-task", flush=True))
        elif owing == "audio":
            speech.listener.on_sentence_begin(0, "A sentence.")
        else:
            t.session.on_text(instruction("finish-task"))
        await asyncio.sleep(0.15)
        assert t.connection.closed is None
        if owing != "a finish":
            speech.say(b"x", characters=11)
            await until(lambda: t.connection.closed)
            assert (await failure(t.connection))[0] == "CLIENT_ERROR"

    run(test, text_gap=0.05)


def test_an_idle_connection_is_closed():
    async def test(t):
        await until(lambda: t.connection.closed)
        assert (t.connection.closed.code, t.connection.closed.reason) == (1000, "idle for 0.05 seconds")
        assert t.connection.writes == []

    run(test, idle_timeout=0.05)


def test_a_connection_with_a_task_is_not_idle():
    async def test(t):
        speech = await started(t)
        await asyncio.sleep(0.5)
        assert t.connection.closed is None
        t.session.on_text(instruction("finish-task"))
        speech.listener.on_finished(0)
        await turn()
        assert t.connection.closed is None  # the idle clock starts at the end of the task
        await until(lambda: t.connection.closed)

    run(test, idle_timeout=0.3, text_gap=None)


def test_a_peer_that_takes_nothing_is_dropped():
    async def test(t):
        speech = await started(t)
        t.connection.full = True
        speech.say(b"x" * LOOK_EVERY)
        await until(lambda: t.connection.aborted)
        assert not [name for name in t.connection.names if name == "task-failed"]

    run(test, stall_timeout=0.05, text_gap=0.05)


def test_a_speech_that_makes_no_progress_is_given_up():
    async def test(t):
        speech = await started(t)
        t.session.on_text(instruction("continue-task", text="A sentence."))
        t.session.on_text(instruction("finish-task"))
        await until(lambda: t.connection.closed)
        assert await failure(t.connection) == ("InternalError.Timeout", "no audio for 0.05 seconds.")
        assert speech.calls[-1] == "cancel"

    run(test, stall_timeout=0.05)


def test_without_limits_there_is_no_timer():
    async def test(t):
        assert t.session._timer is None

    run(test, idle_timeout=None, text_gap=None, stall_timeout=None)


# ------------------------------------------------------------------------------------------ draining
def test_draining_closes_an_idle_connection_at_once():
    async def test(t):
        t.session.drain()
        assert t.connection.closed.code == 1001

    run(test)


def test_draining_lets_a_task_end():
    async def test(t):
        speech = await started(t)
        t.session.drain()
        assert t.connection.closed is None
        t.session.on_text(instruction("finish-task"))
        speech.say(b"x")
        speech.listener.on_finished(5)
        assert t.connection.names[-1] == "task-finished"  # sent before the close, not a turn later
        assert t.connection.closed.code == 1001

    run(test)


def test_stopping_says_so_to_a_task():
    async def test(t):
        speech = await started(t)
        t.session.stop()
        assert (await failure(t.connection))[0] == "InternalError"
        assert t.connection.closed.code == 1001
        assert speech.calls == ["cancel"]

    run(test)
