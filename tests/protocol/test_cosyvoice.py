"""Both ends of the CosyVoice protocol, without a socket."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechpool.errors import ProtocolViolation
from speechpool.protocol import Failed, Finished, SentenceBegin, SentenceEnd, Started, Voice, Word
from speechpool.protocol.cosyvoice import (
    CancelTask,
    ContinueTask,
    CosyVoice,
    FinishTask,
    FlushTask,
    LateCancel,
    Malformed,
    Refused,
    RunTask,
    ServerSession,
    State,
)
from speechpool.protocol.cosyvoice.failures import is_retryable
from speechpool.protocol.cosyvoice.states import TABLE, Step

VOICE = Voice("cosyvoice-v3-flash", "longanyang")
ID = "0123456789abcdef0123456789abcdef"


def pair(voice=VOICE):
    return CosyVoice().segment(voice, ID), ServerSession()


def running():
    segment, server = pair()
    server.feed(segment.begin())
    segment.feed(server.started())
    return segment, server


def event(name, task_id=ID, payload=None, **header):
    return json.dumps({"header": {"event": name, "task_id": task_id, **header}, "payload": payload}).encode()


def test_a_whole_task_walks_both_ends():
    segment, server = pair()
    run = server.feed(segment.begin())
    assert isinstance(run, RunTask)
    assert (run.task_id, run.model, run.parameters.voice) == (ID, "cosyvoice-v3-flash", "longanyang")
    assert segment.feed(server.started()) == (Started(),)
    assert segment.takes_audio
    assert server.feed(segment.text('Say "hi"\n你好')) == ContinueTask('Say "hi"\n你好')
    assert server.feed(segment.flush()) == FlushTask()
    assert segment.feed(server.sentence_begin(0, "Hi.")) == (SentenceBegin(0, "Hi."),)
    assert segment.feed(server.sentence_synthesis(0)) == ()
    word = Word("Hi", 0, 2, 0, 120)
    assert segment.feed(server.sentence_end(0, "Hi.", (word,), 3)) == (SentenceEnd(0, "Hi.", (word,), 3),)
    assert server.feed(segment.finish()) == FinishTask()
    assert segment.feed(server.finished(3, {"request_uuid": "u"})) == (Finished(3, (), "u"),)
    assert segment.ended
    assert not segment.takes_audio
    assert server.state is State.IDLE


def test_the_next_task_follows_on_the_same_connection():
    segment, server = running()
    server.feed(segment.text("a"))
    server.feed(segment.finish())
    segment.feed(server.finished(1))
    following = CosyVoice().segment(VOICE, "f" * 32)
    assert server.feed(following.begin()).task_id == "f" * 32


def test_run_task_is_what_the_reference_shows():
    voice = Voice(
        "m", "v", format="opus", bit_rate=32, seed=7, instruction="calm", language_hints=["en"],
        hot_fix={"replace": [{"a": "b"}]}, word_timestamps=True, ssml=True, extra={"enable_aigc_tag": True, "volume": 1},
    )  # fmt: skip
    frame = json.loads(CosyVoice().segment(voice, ID).begin())
    assert frame["header"] == {"action": "run-task", "task_id": ID, "streaming": "duplex"}
    payload = frame["payload"]
    assert payload["input"] == {}
    assert (payload["task_group"], payload["task"], payload["function"]) == ("audio", "tts", "SpeechSynthesizer")
    assert payload["parameters"] == {
        "text_type": "PlainText", "voice": "v", "format": "opus", "sample_rate": 24000, "volume": 1, "rate": 1.0,
        "pitch": 1.0, "bit_rate": 32, "seed": 7, "enable_ssml": True, "word_timestamp_enabled": True,
        "instruction": "calm", "language_hints": ["en"], "hot_fix": {"replace": [{"a": "b"}]}, "enable_aigc_tag": True,
    }  # fmt: skip


def test_cancel_ends_audio_at_once_and_the_connection_is_idle_after_the_answer():
    segment, server = running()
    assert server.feed(segment.cancel()) == CancelTask()
    assert not segment.takes_audio
    assert segment.feed(event("result-generated", payload={"output": {"type": "sentence-begin"}})) == ()
    assert not segment.stray
    assert segment.feed(server.finished(0)) == (Finished(0),)
    assert server.state is State.IDLE


def test_a_cancel_that_crosses_the_end_is_no_error():
    segment, server = running()
    server.feed(segment.text("a"))
    server.feed(segment.finish())
    end, cancel = server.finished(1), segment.cancel()
    assert server.feed(cancel) == LateCancel()
    assert segment.feed(end) == (Finished(1),)
    assert server.state is State.IDLE


def test_events_of_another_task_are_dropped_and_make_the_connection_suspect():
    segment, _ = running()
    assert segment.feed(event("task-finished", task_id="e" * 32)) == ()
    assert segment.stray
    assert segment.state is State.RUNNING


@pytest.mark.parametrize("name", ["task-started", "task-finished"])
def test_a_duplicate_or_early_event_is_a_violation(name):
    segment, _ = running()
    with pytest.raises(ProtocolViolation):
        segment.feed(event(name))


def test_nothing_follows_the_end_under_the_same_id():
    segment, server = running()
    segment.text("a")
    segment.finish()
    server.order.state = State.FINISHING
    segment.feed(server.finished(1))
    with pytest.raises(ProtocolViolation):
        segment.begin()
    with pytest.raises(ProtocolViolation):
        segment.feed(event("task-finished"))


def test_the_older_form_and_unknown_fields_are_read():
    segment, _ = running()
    assert segment.feed(event("result-generated", payload={"output": {"sentence": {"words": []}}, "usage": None})) == ()
    assert segment.feed(event("something-new", payload={"x": 1})) == ()
    assert segment.feed(event("result-generated", payload=None)) == ()
    (end,) = segment.feed(
        event("result-generated", payload={"output": {"type": "sentence-end", "sentence": {"index": 3, "new": 1}}})
    )
    assert end == SentenceEnd(3)
    segment.finish()
    assert segment.feed(event("task-finished", payload={"output": None, "usage": {"characters": 2}})) == (Finished(2),)


def test_task_failed_carries_code_message_and_whether_to_retry():
    segment, server = running()
    frame = server.failed("Throttling.RateQuota", "Requests rate limit exceeded, please try again later.")
    (failed,) = segment.feed(frame)
    assert failed == Failed(
        "Throttling.RateQuota", "Requests rate limit exceeded, please try again later.", retryable=True
    )
    assert segment.ended


# ------------------------------------------------------------------------------------------ the server's end
def refused(server, frame):
    with pytest.raises(Refused) as caught:
        server.feed(frame)
    return caught.value.code, caught.value.message


def test_order_errors_of_a_client_get_the_documented_answer():
    segment, server = pair()
    server.feed(segment.begin())
    text = b'{"header":{"action":"continue-task","task_id":"%b"},"payload":{"input":{"text":"a"}}}' % ID.encode()
    code, message = refused(server, text)
    assert code == "InvalidParameter"
    assert message == "Invalid action('continue-task')! Please follow the protocol!"
    _, server = running()
    again = CosyVoice().segment(VOICE, "e" * 32).begin()
    assert refused(server, again)[1] == "Invalid action('run-task')! Please follow the protocol!"


def test_a_wrong_id_and_missing_members_are_refused():
    segment, server = running()
    wrong = b'{"header":{"action":"continue-task","task_id":"x"},"payload":{"input":{"text":"a"}}}'
    assert "task_id" in refused(server, wrong)[1]
    _, server = pair()
    no_input = b'{"header":{"action":"run-task","task_id":"x"},"payload":{"model":"m"}}'
    assert refused(server, no_input)[1].startswith("Missing required parameter 'payload.input'!")
    _, server = pair()
    no_model = b'{"header":{"action":"run-task","task_id":"x"},"payload":{"input":{}}}'
    assert refused(server, no_model)[1].startswith("Missing required parameter 'payload.model'!")
    segment, server = running()
    assert refused(server, segment.text("\n"))[1] == "Please ensure input text is valid."


def test_the_official_sdk_repeats_the_model_in_every_frame():
    _, server = running()
    frame = {
        "header": {"action": "continue-task", "task_id": ID, "streaming": "duplex"},
        "payload": {"model": "m", "task_group": "audio", "task": "tts", "function": "f", "input": {"text": "hi"}},
    }
    assert server.feed(json.dumps(frame).encode()) == ContinueTask("hi")


@pytest.mark.parametrize(
    "frame", [b"", b"[]", b"{", b"\xff\xfe", b'{"header":{}}', b'{"header":{"action":"x","task_id":"y"},"payload":{}}']
)
def test_garbage_is_malformed(frame):
    with pytest.raises(Malformed):
        ServerSession().feed(frame)


# ------------------------------------------------------------------------------------------ errors of the provider
@pytest.mark.parametrize(
    ("code", "message", "retryable"),
    [
        ("InvalidParameter", "[tts:]Engine return error code: 418", False),
        ("InvalidParameter", "Invalid action('run-task')! Please follow the protocol!", True),
        ("CLIENT_ERROR", "request timeout after 23 seconds.", False),
        ("Arrearage", "", False),
        ("InvalidApiKey", "", False),
        ("AllocationQuota.FreeTierOnly", "", False),
        ("DataInspectionFailed", "", False),
        ("Throttling", "", True),
        ("Throttling.AllocationQuota", "", True),
        ("InternalError.Algo", "", True),
        ("ServiceUnavailable", "", True),
        ("GatewayTimeout", "", True),
        ("Unheard.Of", "", False),
    ],
)
def test_which_errors_may_be_tried_again(code, message, retryable):
    assert is_retryable(code, message) is retryable


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
        "error_code": JSON,
        "attributes": JSON,
    },
)
PAYLOAD = JSON | st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["m", "", None, 1]),
        "output": JSON | st.fixed_dictionaries({}, optional={
            "type": st.sampled_from(["sentence-begin", "sentence-end", "sentence-synthesis", "", 1, None]),
            "sentence": JSON | st.fixed_dictionaries({}, optional={"index": JSON, "words": JSON}),
        }),
        "usage": JSON,
        "parameters": JSON,
        "input": JSON | st.fixed_dictionaries({}, optional={"text": JSON, "flush": JSON, "directive": JSON}),
    },
)  # fmt: skip
FRAMES = st.binary(max_size=40) | st.builds(
    lambda header, payload: json.dumps({"header": header, "payload": payload}).encode(), HEADER, PAYLOAD
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(FRAMES, max_size=12), st.lists(st.sampled_from(["begin", "text", "flush", "finish", "cancel"]), max_size=6)
)
def test_a_client_survives_any_frames_in_any_order(frames, calls):
    segment = CosyVoice().segment(VOICE, ID)
    for at, frame in enumerate(frames):
        if at < len(calls):
            with contextlib.suppress(ProtocolViolation):
                getattr(segment, calls[at])(*(["a"] if calls[at] == "text" else []))
        ended = segment.ended
        try:
            events = segment.feed(frame)
        except ProtocolViolation:
            continue
        assert not (ended and events)  # one end, and nothing after it
        assert segment.takes_audio is (segment.state in {State.RUNNING, State.FINISHING})


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAMES, max_size=12))
def test_a_server_answers_any_frames_with_an_instruction_or_a_typed_error(frames):
    server = ServerSession()
    for frame in frames:
        try:
            instruction = server.feed(frame)
        except (Malformed, Refused):
            continue
        assert isinstance(instruction, RunTask | ContinueTask | FlushTask | FinishTask | CancelTask | LateCancel)


class Mirror:
    """Every step that the table allows on one end must be allowed on the other."""

    def __init__(self):
        self.client, self.server = pair()

    def step(self, step):
        if step in {Step.RUN, Step.TEXT, Step.FLUSH, Step.FINISH, Step.CANCEL}:
            make = {
                Step.RUN: self.client.begin, Step.TEXT: lambda: self.client.text("a"), Step.FLUSH: self.client.flush,
                Step.FINISH: self.client.finish, Step.CANCEL: self.client.cancel,
            }[step]  # fmt: skip
            self.server.feed(make())
        else:
            make = {
                Step.STARTED: self.server.started, Step.GENERATED: lambda: self.server.sentence_synthesis(0),
                Step.FINISHED: lambda: self.server.finished(0), Step.FAILED: lambda: self.server.failed("c", "m"),
            }[step]  # fmt: skip
            self.client.feed(make())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_both_ends_walk_the_same_table(data):
    mirror = Mirror()
    for _ in range(data.draw(st.integers(1, 15))):
        steps = list(TABLE[mirror.server.state])
        if not steps or mirror.client.ended:
            break
        mirror.step(data.draw(st.sampled_from(steps)))
        assert mirror.client.state is mirror.server.state
