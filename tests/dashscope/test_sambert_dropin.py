"""`speechpool.dashscope.audio.tts`: what tests/service/test_sambert_official.py cannot see from outside."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from dropin_kit import LIMIT, Service

from speechpool import dashscope
from speechpool.dashscope.audio.tts import ResultCallback, SpeechSynthesisResult, SpeechSynthesizer
from speechpool.dashscope.audio.tts.responses import completed, failed
from speechpool.dashscope.common.error import AuthenticationError, InputRequired, ModelRequired
from speechpool.dashscope.pools import shared
from speechpool.errors import (
    ConnectFailed,
    ConnectionLost,
    EndpointDown,
    InvalidText,
    PoolTimeout,
    TaskFailed,
    Unauthorized,
)
from speechpool.service.engines.marker import MarkerEngine, check, marker_length

MODEL, TEXT = "sambert-zhichu-v1", "Hello there. How are you?"
PCM = {"format": "pcm"}


def say(text=TEXT, callback=None, model=MODEL, **options):
    return SpeechSynthesizer.call(model, text, callback, **PCM | options)


class Told(ResultCallback):
    """Does what a test says at each event."""

    def __init__(self, **does):
        self.order, self.error = [], None
        self.does = does

    def _tell(self, what, *arguments):
        self.order.append(what)
        self.does.get(what, lambda *given: None)(*arguments)

    def on_open(self):
        self._tell("open")

    def on_event(self, result):
        self._tell("audio" if result.get_audio_frame() else "sentence", result)

    def on_complete(self):
        self._tell("complete")

    def on_error(self, response):
        self.error = response
        self._tell("error", response)

    def on_close(self):
        self._tell("close")


# ------------------------------------------------------------------------------------------ the face
def test_names_order_and_defaults_are_the_official_ones():
    program = """
import inspect, json
from dashscope.audio import tts
found = {"all": sorted(tts.__all__)}
for kind in (tts.SpeechSynthesizer.call, tts.SpeechSynthesisResult.__init__):
    found[kind.__qualname__] = [[one.name, str(one.kind), repr(one.default)]
                                for one in inspect.signature(kind).parameters.values()]
for kind in (tts.ResultCallback, tts.SpeechSynthesisResult):
    found[kind.__name__] = {name: str(list(inspect.signature(value).parameters)) for name, value in vars(kind).items()
                            if inspect.isfunction(value) and name != "__init__"}
found["formats"] = {name: value for name, value in vars(tts.SpeechSynthesizer.AudioFormat).items() if name[0] != "_"}
print(json.dumps(found))
"""
    official, ours = (
        json.loads(subprocess.run([sys.executable, "-c", text], capture_output=True, check=True).stdout)
        for text in (program, program.replace("from dashscope", "from speechpool.dashscope"))
    )
    assert ours == official


def test_the_official_sdk_is_not_imported():
    program = (
        "import sys; from speechpool import dashscope; from speechpool.dashscope.audio.tts import SpeechSynthesizer; "
        "assert dashscope.SpeechSynthesizer is SpeechSynthesizer; assert 'dashscope' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_response_is_a_dictionary_and_an_object(service):
    response = say().get_response()
    assert isinstance(response, dict)
    assert response.status_code == response["status_code"] == 200
    assert response.usage.characters == response["usage"]["characters"] == len(TEXT)
    assert list(response) == ["status_code", "request_id", "code", "message", "output", "usage", "headers"]
    assert "headers" not in json.loads(str(response))
    with pytest.raises(AttributeError, match="nothing"):
        _ = response.nothing
    response.code = "mine"
    assert response["code"] == "mine"


def test_results_hold_what_they_were_given():
    result = SpeechSynthesisResult(b"f", b"d", {"a": 1}, [{"a": 1}], completed("id", 3))
    assert result.get_audio_frame() == b"f"
    assert result.get_audio_data() == b"d"
    assert result.get_timestamp() == {"a": 1}
    assert result.get_timestamps() == [{"a": 1}]
    assert result.get_response().request_id == "id"


# ------------------------------------------------------------------------------------------ warm connections
def test_calls_share_warm_connections(service):
    before = service.counts.connections
    for n in range(10):
        result = say(f"Text {n}.")
        assert check(result.get_audio_data(), result.get_response().request_id) == marker_length(f"Text {n}.")
    assert service.counts.connections == before + 1
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: say(f"Text {n}."), range(80)))
    assert all(result.get_response().status_code == 200 for result in results)
    assert service.counts.connections <= before + 8


def test_a_key_of_its_own_goes_its_own_way():
    with Service.running(api_key="other"):
        assert say().get_response().status_code == 401
        assert say(api_key="other").get_response().status_code == 200


def test_there_is_no_thread_for_a_call_but_its_own(service):
    say()
    seen = []
    say(callback=Told(sentence=lambda result: seen.append((threading.get_ident(), threading.active_count()))))
    assert {who for who, _ in seen} == {threading.get_ident()}
    assert {count for _, count in seen} == {threading.active_count()}


# ------------------------------------------------------------------------------------------ callbacks
def test_a_slow_callback_slows_its_own_call_only(service):
    held, go = threading.Event(), threading.Event()

    def hold(result):
        held.set()
        assert go.wait(LIMIT)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(say, callback=Told(audio=hold))
        assert held.wait(LIMIT)
        assert say().get_response().status_code == 200
        go.set()
        assert slow.result().get_response().status_code == 200


def test_what_a_callback_raises_ends_the_task_on_the_server_too():
    def fail(result):
        raise LookupError("mine")

    with Service.running(engine=MarkerEngine(interval=0.05)) as service:
        with pytest.raises(LookupError, match="mine"):
            say("A long text. " * 50, callback=Told(audio=fail))
        until(lambda: service.counts.running == 0)
        assert service.counts.tasks["cancelled"] == 1
        until(lambda: shared.sockets() == 0)  # Sambert knows no cancel: the connection is closed


def test_a_callback_may_call_the_sdk(service):
    results = []
    say(callback=Told(audio=lambda result: results or results.append(say("From within."))))
    assert results[0].get_response().status_code == 200


# ------------------------------------------------------------------------------------------ what is missing, what is late
def test_what_is_missing_is_raised_before_anything_begins(service, tmp_path, monkeypatch):
    told = Told()
    for model in (None, ""):
        with pytest.raises(ModelRequired):
            say(callback=told, model=model)
    with pytest.raises(InputRequired):
        say(callback=told, base_address="wss://{workspace_id}.example.com")
    monkeypatch.setenv("HOME", str(tmp_path))
    dashscope.api_key = None
    with pytest.raises(AuthenticationError):
        say(callback=told)
    assert told.order == []


def test_a_model_of_another_family_is_refused(service):
    told = Told()
    response = say(model="cosyvoice-v3-flash", callback=told).get_response()
    assert (response.status_code, response.code) == (44, "InvalidParameter")
    assert told.order == ["open", "error", "close"]


def test_a_call_has_the_time_that_it_is_given():
    with Service.running("stall@started"):
        began = time.monotonic()
        told = Told()
        response = say(callback=told, request_timeout=0.2).get_response()
        assert time.monotonic() - began < LIMIT / 4
    assert (response.status_code, response.code) == (-1, "Unknown")
    assert "0.2 s" in response.message
    assert told.order == ["open", "error", "close"]


def test_silence_is_success_as_in_the_official_class(monkeypatch):
    with Service.running() as service:
        # A service that says nothing, and that all went well.
        monkeypatch.setattr("speechpool.service.sambert.SambertTask.on_audio", lambda task, data: None)
        result = say()
        assert result.get_audio_data() is None
        assert result.get_response().status_code == 200
        assert service.counts.tasks["completed"] == 1


def test_failures_in_the_words_of_the_official_class():
    refused = ConnectFailed("429 for you", status=429)
    for error, status, code, request_id in (
        (TaskFailed("Arrearage", "pay"), 44, "Arrearage", "id"),
        (InvalidText("too long"), 44, "InvalidParameter", "id"),
        (Unauthorized("no", status=403), 403, 403, None),
        (refused, 429, 429, None),
        (EndpointDown("down", cause=refused, age=1.0), 429, 429, None),
        (PoolTimeout("late", last_error=refused), 429, 429, None),
        (ConnectFailed("no route"), -1, "ClientConnectorError", ""),
        (EndpointDown("down", cause=ConnectFailed("no route"), age=1.0), -1, "ClientConnectorError", ""),
        (PoolTimeout("all are busy"), -1, "Unknown", ""),
        (ConnectionLost("gone"), -1, "Unknown", ""),
        (RuntimeError("odd"), -1, "Unknown", ""),
    ):
        response = failed(error, "id")
        assert (response.status_code, response.code, response.request_id) == (status, code, request_id), error
        assert response.message


def until(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
