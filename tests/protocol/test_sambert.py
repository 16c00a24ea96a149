"""Sambert's protocol without I/O: both ends, and the two protocols on one connection."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechpool.errors import ProtocolViolation, SettingsError
from speechpool.protocol import (
    Failed,
    Finished,
    Phoneme,
    PronouncedWord,
    SentenceBegin,
    SentenceEnd,
    Started,
    Voice,
    Word,
)
from speechpool.protocol.cosyvoice import (
    CancelTask,
    ContinueTask,
    CosyVoice,
    Malformed,
    Refused,
    RunTask,
    State,
)
from speechpool.protocol.inference import Inference, InferenceSession
from speechpool.protocol.sambert import RunSambert, Sambert, SambertSession, Span, TimedWord

VOICE = Voice("sambert-zhichu-v1", format="wav")
DUPLEX = Voice("cosyvoice-v3-flash", "longanyang")
ID, OTHER = "f" * 32, "e" * 32


def pair(voice=VOICE):
    return Sambert().segment(voice, ID), SambertSession()


def running(text="Hello."):
    segment, server = pair()
    server.feed(segment.begin(text))
    assert segment.feed(server.started()) == (Started(),)
    return segment, server


def event(name, *, task_id=ID, **more):
    return json.dumps({"header": {"event": name, "task_id": task_id}, **more}).encode()


def generated(**sentence):
    return event("result-generated", payload={"output": {"sentence": sentence}, "usage": None})


# ------------------------------------------------------------------------------------------ a whole task
def test_a_task_is_one_frame_and_its_events():
    segment, server = pair()
    run = server.feed(segment.begin("Hello. 你好。"))
    assert (run.task_id, run.model, run.parameters.format, run.text) == (ID, VOICE.model, "wav", "Hello. 你好。")
    assert not segment.takes_audio
    assert segment.feed(server.started()) == (Started(),)
    assert segment.takes_audio
    assert (segment.flush(), segment.finish(), segment.cancel()) == (None, None, None)
    assert segment.feed(server.sentence(Span(0, 0))) == (SentenceBegin(0),)
    assert segment.feed(server.sentence(Span(0, 900, (TimedWord("Hello.", 0, 800),)))) == ()
    assert segment.feed(server.sentence(Span(900, 900))) == (
        SentenceEnd(0, None, (Word("Hello.", begin_time=0, end_time=800),), None, 0, 900),
        SentenceBegin(1),
    )
    assert segment.feed(server.finished(10, {"request_uuid": "u"})) == (
        SentenceEnd(1, None, (), None, 900, 900),
        Finished(10, server_request_id="u"),
    )
    assert segment.ended
    assert not segment.stray
    assert server.order.state is State.IDLE


def test_the_one_frame_is_the_documented_one():
    frame = json.loads(
        Sambert().segment(Voice("sambert-zhichu-v1", format="pcm", word_timestamps=True), ID).begin("你好")
    )
    assert frame == {
        "header": {"action": "run-task", "task_id": ID, "streaming": "out"},
        "payload": {
            "model": "sambert-zhichu-v1",
            "task_group": "audio",
            "task": "tts",
            "function": "SpeechSynthesizer",
            "parameters": {
                "text_type": "PlainText",
                "format": "pcm",
                "volume": 50,
                "rate": 1.0,
                "pitch": 1.0,
                "word_timestamp_enabled": True,
            },
            "input": {"text": "你好"},
        },
    }


def test_a_sample_rate_is_sent_where_it_was_chosen_and_extras_win():
    voice = Voice(VOICE.model, sample_rate=48000, ssml=True, extra={"phoneme_timestamp_enabled": True, "volume": 7})
    parameters = json.loads(Sambert().segment(voice, ID).begin("a"))["payload"]["parameters"]
    assert parameters["sample_rate"] == 48000
    assert parameters["text_type"] == "SSML"
    assert parameters["phoneme_timestamp_enabled"] is True
    assert parameters["volume"] == 7


# ------------------------------------------------------------------------------------------ the client's end
def test_a_task_begins_with_its_text_and_takes_no_other():
    segment, _ = pair()
    with pytest.raises(ProtocolViolation, match="whole text"):
        segment.begin()
    segment.begin("a")
    with pytest.raises(ProtocolViolation, match="one piece"):
        segment.text("b")
    with pytest.raises(ProtocolViolation):
        segment.begin("a")


def test_the_last_of_a_sentence_counts():
    segment, server = running()
    segment.feed(generated(begin_time=0, end_time=100))
    segment.feed(generated(begin_time=0, end_time=1200, words=[{"text": "今", "begin_time": 0, "end_time": 200}]))
    end, _ = segment.feed(server.finished(2))
    assert (end.index, end.begin_time, end.end_time) == (0, 0, 1200)
    assert end.words == (Word("今", begin_time=0, end_time=200),)


def test_phonemes_are_read():
    segment, server = running()
    phoneme = {"begin_time": 0, "end_time": 90, "text": "j_c", "tone": 1}
    word = {"text": "今", "begin_time": 0, "end_time": 200, "phonemes": [phoneme]}
    segment.feed(generated(begin_time=0, end_time=200, words=[word]))
    end, _ = segment.feed(server.finished(1))
    sound = Phoneme("j_c", 1, 0, 90)
    assert end.words == (PronouncedWord("今", begin_time=0, end_time=200, phonemes=(sound,)),)


@pytest.mark.parametrize(
    "payload",
    [
        {"output": None, "usage": {"characters": 2}},
        {"output": {}, "usage": {"characters": 2}},
        {"usage": {"characters": 2, "new": 1}},
    ],
)
def test_every_form_of_the_end_is_read(payload):
    segment, _ = running()
    assert segment.feed(event("task-finished", payload=payload)) == (Finished(2),)


def test_an_end_without_a_payload_and_events_without_a_sentence_are_read():
    segment, _ = running()
    assert segment.feed(event("result-generated", payload={"output": {}, "usage": {"characters": 3}})) == ()
    assert segment.feed(event("result-generated")) == ()
    assert segment.feed(event("something-new", payload={"x": 1})) == ()
    assert segment.feed(generated(begin_time=5, words=None)) == (SentenceBegin(0),)
    assert segment.feed(event("task-finished", payload={})) == (
        SentenceEnd(0, None, (), None, 5, 0),
        Finished(None),
    )


def test_task_failed_carries_code_message_and_whether_to_retry():
    segment, server = running()
    (failed,) = segment.feed(server.failed("InternalError.Algo", "no"))
    assert failed == Failed("InternalError.Algo", "no", retryable=True)
    assert segment.ended


def test_events_of_another_task_are_dropped_and_make_the_connection_suspect():
    segment, _ = running()
    assert segment.feed(event("task-finished", task_id=OTHER)) == ()
    assert segment.stray
    assert not segment.ended


def test_a_duplicate_event_is_a_violation():
    segment, server = running()
    with pytest.raises(ProtocolViolation):
        segment.feed(event("task-started"))
    segment.feed(server.finished(1))
    with pytest.raises(ProtocolViolation):
        segment.feed(event("task-finished"))


# ------------------------------------------------------------------------------------------ the server's end
def refused(server, frame):
    with pytest.raises(Refused) as caught:
        server.feed(frame)
    return caught.value.code, caught.value.message


def run_task(*, streaming="out", model=VOICE.model, task_id=ID, **given):
    header = {"action": "run-task", "task_id": task_id, "streaming": streaming}
    return json.dumps({"header": header, "payload": {"model": model, "parameters": {}, "input": given}}).encode()


@pytest.mark.parametrize(
    "frame", [run_task(), run_task(text=""), run_task(text=" \n"), run_task(streaming="duplex", text="a")]
)
def test_a_task_without_its_text_is_refused_in_the_words_of_the_provider(frame):
    assert refused(SambertSession(), frame) == ("InvalidParameter", "Request text is invalid!")


@pytest.mark.parametrize("action", ["continue-task", "finish-task"])
def test_there_is_no_instruction_but_run_task(action):
    _, server = running()
    frame = json.dumps({"header": {"action": action, "task_id": ID}, "payload": {"input": {"text": "a"}}}).encode()
    assert refused(server, frame)[1] == f"Invalid action('{action}')! Please follow the protocol!"


def test_a_second_task_at_once_is_refused():
    _, server = running()
    assert refused(server, run_task(task_id=OTHER, text="a"))[1].startswith("Invalid action('run-task')!")
    assert server.order.task_id == OTHER  # the refusal names the task that it is about


def test_the_end_has_a_null_output():
    _, server = running()
    assert json.loads(server.finished(12))["payload"] == {"output": None, "usage": {"characters": 12}}


def test_phonemes_are_told_only_where_they_were_asked_for():
    _, server = running()
    frame = json.loads(server.sentence(Span(0, 5, (TimedWord("a", 0, 2), TimedWord("b", 2, 5, ())))))
    plain, full = frame["payload"]["output"]["sentence"]["words"]
    assert plain == {"text": "a", "begin_time": 0, "end_time": 2}
    assert full["phonemes"] == []


# ------------------------------------------------------------------------------------------ both on one connection
def test_each_voice_speaks_the_dialect_of_its_model():
    both = Inference()
    assert isinstance(both.for_voice(VOICE), Sambert)
    assert type(both.for_voice(DUPLEX)) is CosyVoice
    assert both.sharing(VOICE) == both.sharing(DUPLEX)
    assert both.path(VOICE) == both.path(DUPLEX) == both.for_voice(VOICE).path(VOICE)
    assert both.headers("k", "w") == both.for_voice(VOICE).headers("k", "w")
    assert both.lifetime == both.for_voice(VOICE).lifetime == both.for_voice(DUPLEX).lifetime


def test_tasks_of_both_protocols_follow_one_another():
    server = InferenceSession()
    for turn in range(2):
        segment = Sambert().segment(VOICE, f"sambert-{turn}")
        assert isinstance(server.feed(segment.begin("Hello.")), RunSambert)
        segment.feed(server.started())
        assert segment.feed(server.sambert.finished(6)) == (Finished(6),)
        segment = CosyVoice().segment(DUPLEX, f"cosyvoice-{turn}")
        assert isinstance(server.feed(segment.begin()), RunTask)
        segment.feed(server.started())
        assert server.feed(segment.text("Hello.")) == ContinueTask("Hello.")
        assert server.feed(segment.cancel()) == CancelTask()
        assert segment.feed(server.cosyvoice.finished(6)) == (Finished(6),)


def test_a_task_of_one_protocol_is_no_place_for_the_other():
    server = InferenceSession()
    sambert, cosyvoice = Sambert().segment(VOICE, ID), CosyVoice().segment(DUPLEX, OTHER)
    server.feed(sambert.begin("Hello."))
    server.started()
    assert "Invalid action('run-task')" in refused(server, cosyvoice.begin())[1]
    server = InferenceSession()
    cosyvoice = CosyVoice().segment(DUPLEX, OTHER)
    server.feed(cosyvoice.begin())
    server.started()
    assert "Invalid action('run-task')" in refused(server, Sambert().segment(VOICE, ID).begin("Hello."))[1]


def test_a_sambert_model_in_the_other_protocol_is_refused_in_the_words_of_the_provider():
    assert refused(InferenceSession(), run_task(streaming="duplex"))[1] == "Request text is invalid!"


def test_a_duplex_task_that_says_nothing_of_its_streaming_is_taken():
    frame = json.dumps({
        "header": {"action": "run-task", "task_id": ID},
        "payload": {"model": "cosyvoice-v3-flash", "input": {}},
    }).encode()  # fmt: skip
    assert isinstance(InferenceSession().feed(frame), RunTask)


# ------------------------------------------------------------------------------------------ voices
def test_the_model_names_the_voice():
    assert Voice("sambert-zhichu-v1").voice == "zhichu"
    assert Voice("sambert-zhimiao-emo-v1").voice == "zhimiao-emo"
    assert Voice("sambert-zhichu-v1") == Voice("sambert-zhichu-v1", "zhichu")
    assert Voice("sambert-zhichu-v1").effective_sample_rate == 16000
    assert Voice("sambert-zhichu-v1", sample_rate=48000).effective_sample_rate == 48000


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"voice": "longanyang"}, "longanyang"),
        ({"format": "opus"}, "pcm, wav, mp3"),
        ({"sample_rate": 44100}, "44100"),
        ({"instruction": "calm"}, "instruction"),
        ({"seed": 1}, "seed"),
        ({"bit_rate": 64}, "bit_rate"),
        ({"language_hints": ("en",)}, "language_hints"),
        ({"hot_fix": {"replace": []}}, "hot_fix"),
    ],
)
def test_what_sambert_does_not_take_is_refused_before_it_is_sent(options, match):
    with pytest.raises(SettingsError, match=match):
        Voice("sambert-zhichu-v1", **options)


def test_other_models_need_their_voice():
    with pytest.raises(SettingsError, match="voice"):
        Voice("cosyvoice-v3-flash")


# ------------------------------------------------------------------------------------------ properties
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
HEADER = st.fixed_dictionaries(
    {},
    optional={
        "event": st.sampled_from(["task-started", "result-generated", "task-finished", "task-failed", "x", 3, None]),
        "action": st.sampled_from(["run-task", "continue-task", "finish-task", "x", 3]),
        "task_id": st.sampled_from([ID, "", "other", 5, None]),
        "streaming": st.sampled_from(["out", "duplex", "", 5, None]),
        "attributes": JSON,
    },
)
SENTENCE = st.fixed_dictionaries({}, optional={"begin_time": JSON, "end_time": JSON, "words": JSON})
PAYLOAD = JSON | st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from([VOICE.model, "m", "", None, 1]),
        "output": JSON | st.fixed_dictionaries({}, optional={"sentence": JSON | SENTENCE}),
        "usage": JSON,
        "parameters": JSON,
        "input": JSON | st.fixed_dictionaries({}, optional={"text": JSON, "flush": JSON, "directive": JSON}),
    },
)
FRAMES = st.binary(max_size=40) | st.builds(
    lambda header, payload: json.dumps({"header": header, "payload": payload}).encode(), HEADER, PAYLOAD
)


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAMES, max_size=12), st.integers(0, 3))
def test_a_client_survives_any_frames_in_any_order(frames, begins_at):
    segment = Sambert().segment(VOICE, ID)
    for at, frame in enumerate(frames):
        if at == begins_at:
            with contextlib.suppress(ProtocolViolation):
                segment.begin("a")
        ended = segment.ended
        try:
            events = segment.feed(frame)
        except ProtocolViolation:
            continue
        assert not (ended and events)
        assert segment.takes_audio is (segment.state in {State.RUNNING, State.FINISHING})


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAMES, max_size=12))
def test_a_server_answers_any_frames_with_an_instruction_or_a_typed_error(frames):
    server = InferenceSession()
    for frame in frames:
        with contextlib.suppress(Malformed, Refused):
            instruction = server.feed(frame)
            assert type(instruction).__module__.startswith("speechpool.protocol")
            if isinstance(instruction, RunTask | RunSambert):
                server.started()
