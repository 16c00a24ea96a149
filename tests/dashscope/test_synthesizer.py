"""One synthesizer: what it returns, what it calls back, and what it raises."""

import json
import threading
import time

import pytest
from dropin_kit import (
    LIMIT,
    MODEL,
    PCM,
    TEXT,
    VOICE,
    Recorder,
    Service,
    SilentServer,
    closed_port,
    eventually,
    speaker,
    told,
)

from speechpool import dashscope
from speechpool.dashscope.audio.tts_v2 import HotFix, SpeechSynthesizer
from speechpool.dashscope.common.error import InputRequired, InvalidTask, RequestFailure
from speechpool.dashscope.pools import shared
from speechpool.service.engines.marker import check, marker_length

LONG = "A long text. " * 500


# ------------------------------------------------------------------------------------------ call
def test_call_returns_the_audio_and_tells_of_it(service):
    synthesizer = speaker()
    expected = synthesizer.get_last_request_id()
    audio = synthesizer.call(TEXT)
    assert check(audio, expected) == marker_length(TEXT)
    assert synthesizer.get_last_request_id() == expected
    header = synthesizer.get_response()["header"]
    assert (header["task_id"], header["event"]) == (expected, "task-finished")
    assert 0 < synthesizer.get_first_package_delay() < 1000 * LIMIT


def test_an_object_speaks_again_with_another_id_on_the_same_connection(service):
    before = service.counts.connections
    synthesizer = speaker()
    ids = set()
    for _ in range(3):
        assert check(synthesizer.call(TEXT), synthesizer.get_last_request_id()) == marker_length(TEXT)
        ids.add(synthesizer.get_last_request_id())
    assert len(ids) == 3
    assert service.counts.connections == before + 1


def test_call_with_a_callback_returns_at_once(service):
    recorder = Recorder()
    synthesizer = speaker(recorder)
    assert synthesizer.call(TEXT) is None
    assert recorder.wait().order == ["open", "complete", "close"]
    assert check(bytes(recorder.audio), synthesizer.get_last_request_id()) == marker_length(TEXT)


def test_before_a_task_there_is_nothing_to_tell():
    synthesizer = speaker()
    assert synthesizer.get_first_package_delay() == -1
    assert synthesizer.get_response() is None
    assert len(synthesizer.get_last_request_id()) == 32


def test_the_dictionaries_of_the_caller_stay_as_they_are(service):
    parameters, hot_fix, headers = {"word_timestamp_enabled": True}, {"replace": [{"a": "b"}]}, {"X-Own": "1"}
    speaker(additional_params=parameters, hot_fix=hot_fix, headers=headers).call(TEXT)
    speaker(hot_fix=HotFix(replace=[{"Hello": "Bye"}])).call(TEXT)
    assert parameters == {"word_timestamp_enabled": True}
    assert hot_fix == {"replace": [{"a": "b"}]}
    assert headers == {"X-Own": "1"}


def test_silence_is_no_error():
    with SilentServer().running() as server:
        recorder = Recorder()
        speaker(recorder).call(TEXT)
        assert recorder.wait().order == ["open", "complete", "close"]
        assert speaker().call(TEXT) is None
        assert [frame["header"]["action"] for frame in server.frames] == [
            "run-task",
            "continue-task",
            "finish-task",
        ] * 2


def test_what_call_sends_is_what_it_was_given():
    with SilentServer().running() as server:
        synthesizer = speaker(headers={"X-Own": "1"}, workspace="w1", additional_params={"nobody_knows_it": [1]})
        synthesizer.call("<speak>Hello.</speak>")
        run_task, text, _ = server.frames
        assert run_task["header"]["task_id"] == synthesizer.get_last_request_id()
        assert run_task["payload"]["parameters"]["enable_ssml"] is True
        assert run_task["payload"]["parameters"]["nobody_knows_it"] == [1]
        assert text["payload"]["input"]["text"] == "<speak>Hello.</speak>"
        (request,) = server.requests
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert headers["authorization"] == "Bearer key"
        assert headers["x-dashscope-workspace"] == "w1"
        assert headers["x-own"] == "1"


# ------------------------------------------------------------------------------------------ streams
def test_text_may_come_in_pieces_some_of_them_blank(service):
    recorder = Recorder()
    synthesizer = speaker(recorder)
    for piece in ("", "Hello", " ", "there", ". ", "\n", "How are you?", " "):
        synthesizer.streaming_call(piece)
    synthesizer.streaming_complete()
    assert recorder.order == ["open", "complete", "close"]  # all of it has happened when this returns
    assert check(bytes(recorder.audio), synthesizer.get_last_request_id()) == marker_length("Hello there. How are you?")


def test_events_come_as_the_server_sent_them_and_in_order_with_the_audio(service):
    class Order(Recorder):
        def on_event(self, message):
            super().on_event(message)
            self.order.append(self.events[-1]["payload"]["output"]["type"])

        def on_data(self, data):
            super().on_data(data)
            self.order.append("data")

    recorder = Order()
    speaker(recorder).call("Hello there.")
    order = recorder.wait().order
    assert order[:2] == ["open", "sentence-begin"]
    assert order[-3:] == ["sentence-end", "complete", "close"]
    middle = order[2:-3]
    assert middle
    assert middle == ["sentence-synthesis", "data"] * (len(middle) // 2)


def test_a_stream_may_end_in_the_background(service):
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call(TEXT)
    synthesizer.async_streaming_complete()
    assert recorder.wait().order == ["open", "complete", "close"]
    assert len(recorder.audio) == marker_length(TEXT)


def test_flush_speaks_half_a_sentence(service):
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call("Half a sentence")
    synthesizer.streaming_flush()
    assert recorder.heard.wait(LIMIT)
    synthesizer.streaming_call(" and the rest.")
    synthesizer.streaming_complete()
    assert len(recorder.audio) == marker_length("Half a sentence and the rest.")


def test_cancel_ends_at_once_and_the_connection_speaks_on(service):
    before = service.counts.connections
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call(LONG)
    assert recorder.heard.wait(LIMIT)
    synthesizer.streaming_cancel()
    assert recorder.order == ["open", "complete", "close"]
    assert len(recorder.audio) < marker_length(LONG)
    heard = len(recorder.audio)
    synthesizer.streaming_call(TEXT)
    synthesizer.streaming_complete()
    assert recorder.order[3:] == ["open", "complete", "close"]
    assert check(bytes(recorder.audio[heard:]), synthesizer.get_last_request_id()) == marker_length(TEXT)
    assert service.counts.connections <= before + 2


def test_an_object_streams_again_after_each_end(service):
    recorder = Recorder()
    synthesizer = speaker(recorder)
    for _ in range(3):
        synthesizer.streaming_call(TEXT)
        synthesizer.streaming_complete()
    assert recorder.order == ["open", "complete", "close"] * 3
    assert len(recorder.audio) == 3 * marker_length(TEXT)


def test_calls_in_the_wrong_order_are_refused(service):
    synthesizer = speaker(Recorder())
    for method in ("streaming_flush", "streaming_complete", "async_streaming_complete", "streaming_cancel"):
        assert isinstance(told(getattr(synthesizer, method)), InvalidTask)
    assert isinstance(told(speaker().streaming_call, TEXT), InputRequired)
    synthesizer.streaming_call(TEXT)
    assert isinstance(told(synthesizer.call, TEXT), InvalidTask)
    synthesizer.streaming_complete()
    assert isinstance(told(synthesizer.streaming_complete), InvalidTask)


# ------------------------------------------------------------------------------------------ what fails
def test_a_refused_task_is_raised_and_called_back(service):
    recorder = Recorder()
    synthesizer = speaker(recorder, voice="nobody")
    error = told(synthesizer.streaming_call, TEXT)
    assert isinstance(error, RequestFailure)
    assert (error.name, error.http_code) == ("InvalidParameter", 44)
    assert error.request_id == synthesizer.get_last_request_id()
    assert recorder.order == ["error", "close"]
    assert recorder.errors == [synthesizer.get_response()["header"]]
    assert isinstance(told(synthesizer.streaming_call, TEXT), RequestFailure)  # tried again, not out of order
    assert isinstance(told(speaker(voice="nobody").call, TEXT), RequestFailure)


def test_values_that_cannot_be_sent_are_told_as_the_server_would():
    recorder = Recorder()
    error = told(speaker(recorder, additional_params={"a": object()}).call, TEXT)
    assert (isinstance(error, RequestFailure), error.name) == (True, "InvalidParameter")
    assert recorder.order == ["error", "close"]
    assert recorder.errors[0]["error_code"] == "InvalidParameter"


@pytest.mark.parametrize("text", ["", "  ", None, "x" * 20_001])
def test_a_text_that_breaks_a_rule_fails_like_one_that_the_server_refuses(service, text):
    error = told(speaker().call, text)
    assert (isinstance(error, RequestFailure), error.name) == (True, "InvalidParameter")
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call("Hello.")
    synthesizer.streaming_call(text)
    synthesizer.streaming_complete()
    assert recorder.order == (
        ["open", "complete", "close"] if text is not None and len(text) < 3 else ["open", "error", "close"]
    )


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("drop@mid-audio", "ConnectionLost"),
        ("close@mid-audio", "ConnectionLost"),
        ("broken-json@mid-audio", "ProtocolViolation"),
        ("fail@mid-audio:InternalError", "InternalError"),
    ],
)
def test_a_break_in_the_middle_is_called_back_once_and_wakes_the_waiter(fault, code):
    with Service.running(fault):
        recorder = Recorder()
        synthesizer = speaker(recorder)
        synthesizer.streaming_call(LONG)
        synthesizer.streaming_complete()  # with a callback nothing is raised
        assert recorder.order == ["open", "error", "close"]
        assert recorder.errors[0]["error_code"] == code
        assert recorder.errors[0]["task_id"] == synthesizer.get_last_request_id()
        assert recorder.audio
        error = told(speaker().call, LONG)
        assert isinstance(error, RequestFailure if code == "InternalError" else Exception)
        assert isinstance(error, ConnectionError) is (code == "ConnectionLost")


def test_a_stream_that_has_failed_does_not_begin_anew_in_the_middle_of_its_text():
    with Service.running("drop@mid-audio"):
        recorder = Recorder()
        synthesizer = speaker(recorder)
        synthesizer.streaming_call("First sentence. ")
        recorder.wait()
        assert isinstance(told(synthesizer.streaming_call, "Second sentence."), ConnectionError)
        assert isinstance(told(synthesizer.streaming_flush), ConnectionError)
        synthesizer.streaming_complete()
        assert recorder.order == ["open", "error", "close"]
        assert isinstance(told(synthesizer.streaming_complete), InvalidTask)


def test_a_break_before_the_first_audio_is_mended_unseen():
    with Service.running("drop@started~0.5") as broken:
        for _ in range(5):
            recorder = Recorder()
            synthesizer = speaker(recorder)
            synthesizer.call(TEXT)
            recorder.wait()
            if recorder.order == ["open", "complete", "close"]:
                assert len(recorder.audio) == marker_length(TEXT)
                assert check(bytes(recorder.audio), synthesizer.get_last_request_id())
        assert broken.counts.tasks["completed"]


def test_no_connection_is_the_official_timeout_and_says_why():
    with Service.running("refuse:403"):
        recorder = Recorder()
        error = told(speaker(recorder).call, TEXT)
        assert isinstance(error, TimeoutError)
        assert isinstance(error, ConnectionError)
        assert "403" in str(error)
        assert recorder.order == []


def test_too_long_a_speech_is_given_up(service):
    with Service.running(interval=0.05) as slow:
        recorder = Recorder()
        synthesizer = speaker(recorder)
        synthesizer.streaming_call(LONG)
        begun = time.monotonic()
        error = told(synthesizer.streaming_complete, 200)
        assert isinstance(error, TimeoutError)
        assert "200ms" in str(error)
        assert time.monotonic() - begun < LIMIT / 4
        assert recorder.wait().order == ["open", "error", "close"]
        assert isinstance(told(speaker().call, LONG, 600), TimeoutError)
        background = Recorder()
        speaker(background).call(LONG, timeout_millis=600)
        assert background.wait().order == ["open", "error", "close"]
        # The next one is not in the way of what was given up.
        assert len(speaker().call("Hi.")) == marker_length("Hi.")
        eventually(lambda: slow.counts.tasks["cancelled"] == 3)


def test_close_ends_a_running_task_and_the_object_speaks_again(service):
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call(LONG)
    synthesizer.close()
    assert recorder.wait().order == ["open", "error", "close"]
    synthesizer.close()
    synthesizer.call(TEXT)
    synthesizer.close()


def test_a_waiter_in_another_thread_learns_of_a_cancel(service):
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call(LONG)
    waiter = threading.Thread(target=synthesizer.streaming_complete)
    waiter.start()
    assert recorder.heard.wait(LIMIT)
    synthesizer.streaming_cancel()
    waiter.join(LIMIT)
    assert not waiter.is_alive()
    assert recorder.order == ["open", "complete", "close"]


def test_nobody_listens_at_the_port(monkeypatch):
    from speechpool.dashscope import pools

    monkeypatch.setattr(pools, "PATIENCE", 0.2)
    assert isinstance(told(speaker(url=closed_port()).call, TEXT), TimeoutError)


# ------------------------------------------------------------------------------------------ connections
def test_synthesizers_share_warm_connections_by_endpoint_and_key(service):
    def opened(**options):
        before = service.counts.connections
        speaker(**options).call(TEXT)
        return service.counts.connections - before

    assert [opened() for _ in range(3)] == [1, 0, 0]
    assert opened(headers={"X-Own": "1"}) == 1
    assert opened(workspace="w1") == 1
    dashscope.api_key = "another"
    assert opened() == 1
    dashscope.api_key = "key"
    assert opened() == 0
    assert shared.sockets() == 4


def test_a_rotating_key_leaves_no_pools_behind(service, monkeypatch):
    from speechpool.dashscope import pools

    monkeypatch.setattr(pools, "_ENDPOINTS_KEPT", 2)
    for number in range(6):
        dashscope.api_key = f"key {number}"
        shared.host(closed_port(), None, None)
    assert len(shared._pools) <= 3


def test_positional_arguments_mean_the_same(service):
    audio = SpeechSynthesizer(
        MODEL, VOICE, PCM, 50, 1.0, 1.0, 0, 0, None, ["en"], None, None, None, service.url, None, None
    ).call(TEXT)
    assert len(audio) == marker_length(TEXT)


def test_response_is_a_dictionary_of_the_last_event(service):
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call(TEXT)
    assert synthesizer.get_response()["header"]["event"] in {"task-started", "result-generated"}
    synthesizer.streaming_complete()
    assert json.loads(json.dumps(synthesizer.get_response()))["payload"]["usage"]["characters"] == len(TEXT)
