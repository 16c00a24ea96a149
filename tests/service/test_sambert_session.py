"""Sambert's tasks on the service: one session over a connection without a socket, and the frames that it sends."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from scripted import FakeConnection, ScriptedBackend, instruction

from speechpool.protocol import Word
from speechpool.protocol.cosyvoice import FAILURES
from speechpool.service import ServiceSettings
from speechpool.service.counts import Counts
from speechpool.service.faults import Faults
from speechpool.service.faulty import with_faults
from speechpool.service.sambert_voices import SAMBERT_VOICES
from speechpool.service.session import SpeechSession
from speechpool.service.submissions import Submissions
from speechpool.service.voices import VOICES
from speechpool.testing.clock import run as run_on_virtual_clock
from speechpool.transport import Closed

MODEL = "sambert-zhichu-v1"
INVALID = "InvalidParameter"
SECOND = bytes(32_000)
"""One second of silence as PCM of 16,000 Hz."""


def sambert(text="Hello.", task_id="s", *, model=MODEL, streaming="out", **parameters):
    header = {"action": "run-task", "task_id": task_id, "streaming": streaming}
    payload = {"model": model, "task_group": "audio", "task": "tts", "function": "SpeechSynthesizer"}
    return json.dumps({"header": header, "payload": {**payload, "parameters": parameters, "input": {"text": text}}})


def run(test, *faults, **settings):
    async def whole():
        t = SimpleNamespace(backend=ScriptedBackend(), connection=FakeConnection(), counts=Counts())
        limits = ServiceSettings(linger=0.2, **settings)
        t.submissions = Submissions(limits.submission_rate, limits.max_tasks_per_key)
        session = SpeechSession(t.backend, limits, t.counts, set(), submissions=t.submissions)
        t.owner = with_faults(session, Faults.parse(faults) if faults else None)
        t.owner.on_connected(t.connection)
        t.say = lambda text: t.owner.on_text(text if isinstance(text, bytes) else text.encode())
        try:
            await test(t)
        finally:
            t.owner.on_closed(Closed(None, "end of test", clean=False))
        assert t.counts.running == 0
        assert t.submissions._running == {}

    run_on_virtual_clock(whole())


async def turn():
    for _ in range(3):
        await asyncio.sleep(0)


async def started(t, *arguments, **parameters):
    t.say(sambert(*arguments, **parameters))
    await turn()
    assert t.connection.names[-1] == "task-started", t.connection.events[-1]
    return t.backend.speeches[-1]


async def refusal(t, frame):
    t.say(frame)
    await asyncio.sleep(1)
    header = t.connection.events[-1]["header"]
    assert header["event"] == "task-failed"
    assert t.connection.closed.code == 1000
    return header["error_code"], header["error_message"]


def sentences(connection):
    return [
        event["payload"]["output"]["sentence"]
        for event in connection.events
        if event["header"]["event"] == "result-generated"
    ]


def wish(**parameters):
    seen = []

    async def test(t):
        seen.append((await started(t, **parameters)).parameters)

    run(test)
    return seen[0]


# ------------------------------------------------------------------------------------------ a whole task
def test_a_task_from_start_to_end():
    async def test(t):
        speech = await started(t, "Hello. 你好。", format="pcm")
        assert speech.calls == [("text", "Hello. 你好。"), "finish"]
        speech.listener.on_sentence_begin(0, "Hello.")
        speech.listener.on_audio(SECOND)
        speech.listener.on_audio(SECOND[:16_000])
        speech.listener.on_sentence_end(0, "Hello.", (), 6)
        speech.listener.on_sentence_begin(1, "你好。")
        speech.listener.on_audio(SECOND)
        speech.listener.on_sentence_end(1, "你好。", (), 11)
        speech.listener.on_finished(11)
        await turn()
        kinds = ["B" if binary else json.loads(data)["header"]["event"] for binary, data in t.connection.frames]
        told = "result-generated"
        assert kinds == ["task-started", told, "B", "B", told, told, "B", told, "task-finished"]
        assert t.connection.events[0]["payload"] == {}
        assert sentences(t.connection) == [
            {"begin_time": 0, "end_time": 0, "words": []},
            {"begin_time": 0, "end_time": 1500, "words": []},
            {"begin_time": 1500, "end_time": 1500, "words": []},
            {"begin_time": 1500, "end_time": 2500, "words": []},
        ]
        assert [event["payload"].get("usage") for event in t.connection.events[1:-1]] == [None] * 4
        last = t.connection.events[-1]
        assert last["payload"] == {"output": None, "usage": {"characters": 10}}  # a Han character counts 1 here
        assert last["header"]["attributes"]["request_uuid"]
        assert {event["header"]["task_id"] for event in t.connection.events} == {"s"}
        assert t.counts.tasks["completed"] == 1
        assert t.connection.closed is None

    run(test)


def test_words_and_empty_phonemes_come_where_they_are_asked_for():
    async def test(t):
        speech = await started(t, word_timestamp_enabled=True, phoneme_timestamp_enabled=True)
        speech.say(SECOND, words=(Word("Hello", 0, 5, 10, 2100),))
        speech.listener.on_finished(5)
        await turn()
        word = {"text": "Hello", "begin_time": 10, "end_time": 2100, "phonemes": []}
        # The audio of an encoder lags behind: a sentence does not end before its last word.
        assert sentences(t.connection)[-1] == {"begin_time": 0, "end_time": 2100, "words": [word]}

    run(test)


def test_tasks_of_both_protocols_follow_one_another_on_a_connection():
    async def test(t):
        for n in range(2):
            speech = await started(t, "One.", f"s{n}")
            speech.listener.on_finished(4)
            await turn()
            assert t.connection.names[-1] == "task-finished"
            t.say(instruction("run-task", f"c{n}"))
            await turn()
            t.say(instruction("continue-task", f"c{n}", text="Two."))
            t.say(instruction("finish-task", f"c{n}"))
            t.backend.speeches[-1].listener.on_finished(4)
            await turn()
        assert t.connection.names == ["task-started", "task-finished"] * 4
        assert t.counts.tasks["completed"] == 4

    run(test)


def test_ssml_comes_as_passages_and_counts_without_its_tags():
    async def test(t):
        speech = await started(t, "<speak>Hello.<break time='1s'/>Bye.</speak>", text_type="SSML")
        assert speech.calls == [("passages", ("Hello.", "Bye.")), "finish"]
        speech.listener.on_finished(0)
        await turn()
        assert t.connection.events[-1]["payload"]["usage"] == {"characters": 10}

    run(test)


# ------------------------------------------------------------------------------------------ what is asked for
def test_what_a_client_leaves_open_gets_the_providers_default():
    asked = wish()
    assert (asked.format, asked.sample_rate, asked.volume, asked.rate, asked.pitch) == ("wav", 16000, 50, 1.0, 1.0)
    assert not asked.word_timestamps
    assert asked.language_hints == ()


def test_what_a_client_asks_for():
    asked = wish(format="mp3", sample_rate=48000, volume=0, rate=2.0, pitch=0.5, word_timestamp_enabled=True, unknown=1)
    assert (asked.format, asked.sample_rate, asked.volume, asked.rate, asked.pitch) == ("mp3", 48000, 0, 2.0, 0.5)
    assert asked.word_timestamps


def test_every_model_has_a_voice():
    assert len(SAMBERT_VOICES) > 40
    assert {each.voice for each in SAMBERT_VOICES.values()} <= set(VOICES)
    assert wish(model="sambert-zhiying-v1").voice == "longtong"
    asked = wish(model="sambert-hanna-v1")
    assert (asked.voice, asked.language_hints) == ("longxiaochun", ("de",))


# ------------------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("frame", "code", "message"),
    [
        (sambert(""), INVALID, "Request text is invalid!"),
        (sambert(" \n"), INVALID, "Request text is invalid!"),
        (sambert(streaming="duplex"), INVALID, "Request text is invalid!"),
        (sambert(streaming="in"), INVALID, "Request text is invalid!"),
        (sambert(model="sambert-nobody-v1"), *FAILURES["ModelNotFound"]),
        (sambert(model="cosyvoice-v3-flash"), *FAILURES["ModelNotFound"]),
        (sambert("好" * 10_001), INVALID, "10,000"),
        (sambert(format="opus"), INVALID, "pcm, wav, mp3"),
        (sambert(sample_rate=44100), INVALID, "8000, 16000, 22050, 24000, 48000"),
        (sambert(text_type="Prose"), INVALID, "Prose"),
        (sambert("<speak>Hello", text_type="SSML"), INVALID, ""),
        (sambert(task_id=""), INVALID, "header.task_id"),
        (sambert(model=""), INVALID, "payload.model"),
    ],
)
def test_what_is_refused(frame, code, message):
    async def test(t):
        got = await refusal(t, frame)
        assert got[0] == code
        assert message in got[1]
        assert not t.backend.speeches

    run(test)


def test_ten_thousand_characters_are_taken():
    async def test(t):
        speech = await started(t, "好" * 10_000)
        speech.listener.on_finished(20_000)
        await turn()
        assert t.connection.events[-1]["payload"]["usage"] == {"characters": 10_000}

    run(test)


@pytest.mark.parametrize(
    "frame",
    [instruction("continue-task", "s", text="more"), instruction("finish-task", "s"), sambert("Hello.", "t")],
    ids=["continue-task", "finish-task", "run-task"],
)
def test_nothing_may_be_said_while_it_speaks(frame):
    async def test(t):
        speech = await started(t)
        code, message = await refusal(t, frame)
        assert code == INVALID
        assert message.startswith("Invalid action(")
        assert speech.calls[-1] == "cancel"

    run(test)


def test_what_the_backend_refuses_is_told():
    async def test(t):
        t.backend.refusal = FAILURES["Throttling.RateQuota"]
        assert await refusal(t, sambert()) == FAILURES["Throttling.RateQuota"]
        assert t.counts.tasks["shed"] == 1

    run(test)


def test_a_speech_that_fails_is_told():
    async def test(t):
        speech = await started(t)
        speech.listener.on_failed("InternalError", "The engine failed; try again.")
        await asyncio.sleep(1)
        assert t.connection.events[-1]["header"]["error_code"] == "InternalError"
        assert t.connection.closed.code == 1000

    run(test)


# ------------------------------------------------------------------------------------------ limits
def test_the_rate_is_that_of_all_tasks_of_a_model():
    async def test(t):
        for n in range(3):
            (await started(t, "One.", f"{n}")).listener.on_finished(4)
            await turn()
        assert (await refusal(t, sambert()))[0] == "Throttling.RateQuota"

    run(test)


def test_there_is_no_clock_for_text_while_it_speaks():
    async def test(t):
        speech = await started(t)
        await asyncio.sleep(30)  # the clock of a task that takes text stops at 23 s
        assert t.connection.closed is None
        speech.listener.on_finished(6)
        await turn()
        assert t.connection.names[-1] == "task-finished"
        await asyncio.sleep(61)
        assert t.connection.closed.code == 1000  # idle

    run(test)


def test_a_speech_that_makes_nothing_is_given_up():
    async def test(t):
        await started(t)
        await asyncio.sleep(11)
        assert t.connection.events[-1]["header"]["error_code"] == "InternalError.Timeout"

    run(test, stall_timeout=10.0)


def test_a_slow_peer_pauses_its_speech():
    async def test(t):
        t.connection.full = True
        speech = await started(t)
        for _ in range(4):
            speech.listener.on_audio(SECOND)
        await turn()
        assert speech.calls[-1] == "pause"
        t.connection.take()
        await turn()
        assert speech.calls[-1] == "resume"
        speech.listener.on_finished(6)

    run(test)


def test_a_peer_that_leaves_cancels_its_speech():
    async def test(t):
        speech = await started(t)
        t.owner.on_closed(Closed(None, "gone", clean=False))
        assert speech.calls[-1] == "cancel"
        speech.say(SECOND)  # late, and heard by nobody
        assert t.counts.tasks["cancelled"] == 1

    run(test)


def test_text_in_the_same_breath_waits_for_the_start():
    async def test(t):
        t.say(sambert())
        assert t.backend.speeches[-1].calls == []  # nothing is said before task-started
        await turn()
        assert t.backend.speeches[-1].calls == [("text", "Hello."), "finish"]

    run(test)


def test_with_early_text_it_starts_at_once():
    async def test(t):
        t.say(sambert())
        assert t.connection.names == ["task-started"]
        assert t.backend.speeches[-1].calls == [("text", "Hello."), "finish"]

    run(test, early_text=True)


# ------------------------------------------------------------------------------------------ faults
@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("fail@started:InternalError", ["task-started", "task-failed"]),
        ("fail@first-audio:InternalError", ["task-started", "task-failed"]),
        ("throttle@mid-audio", ["task-started", "result-generated", "B", "task-failed"]),
        ("drop@mid-audio", ["task-started", "result-generated", "B"]),
        ("stall@first-audio", ["task-started"]),
        ("early-audio", ["B", "task-started"]),
        (
            "duplicate-finish",
            ["task-started", "result-generated", "B", "result-generated", "task-finished", "task-finished"],
        ),
    ],
)
def test_faults_strike_it_as_they_strike_any_task(fault, seen):
    async def test(t):
        t.say(sambert())
        await turn()
        for speech in t.backend.speeches:
            speech.say(SECOND)
            speech.listener.on_finished(6)
        await asyncio.sleep(1)
        kinds = ["B" if binary else json.loads(data)["header"]["event"] for binary, data in t.connection.frames]
        assert kinds[: len(seen)] == seen
        assert len(kinds) == len(seen) or fault == "early-audio"

    run(test, fault)
