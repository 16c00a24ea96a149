"""Names, signatures, values and errors beside those of the official SDK, which is imported in processes of its own."""

import json
import os
import subprocess
import sys

import pytest
from dropin_kit import MODEL, PCM, VOICE, told

from speechpool import dashscope
from speechpool.dashscope import endpoints
from speechpool.dashscope.audio.tts_v2 import AudioFormat, SpeechSynthesizer
from speechpool.dashscope.common import error
from speechpool.protocol.cosyvoice import CosyVoice

FACTS = """
import inspect, json, os, sys
from importlib import import_module, reload
sdk, order = sys.argv[1], json.loads(sys.argv[2])
tts = import_module(sdk + ".audio.tts_v2.speech_synthesizer")
pool = import_module(sdk + ".audio.tts_v2").SpeechSynthesizerObjectPool
module, error = import_module(sdk), import_module(sdk + ".common.error")
module.api_key = "k"

def shape(function):
    return [[each.name, each.kind.name, str(each.default)] for each in inspect.signature(function).parameters.values()]

def run_task(wishes):
    made = tts.SpeechSynthesizer(**wishes | {"format": tts.AudioFormat[wishes["format"]]})
    if sdk == "dashscope":
        return json.loads(made.request.get_start_request(made.additional_params))["payload"]
    from speechpool.protocol.cosyvoice import CosyVoice
    return json.loads(CosyVoice().segment(made._wishes.spoken(ssml=False), "0" * 32).begin())["payload"]

def urls(environment):
    os.environ.update(environment)
    found = reload(import_module("dashscope.common.env")) if sdk == "dashscope" else module
    answer = [found.base_websocket_api_url, found.base_http_api_url, found.base_compatible_api_url]
    for name in environment:
        del os.environ[name]
    return answer

classes = {"SpeechSynthesizer": tts.SpeechSynthesizer, "SpeechSynthesizerObjectPool": pool,
           "ResultCallback": tts.ResultCallback, "HotFix": tts.HotFix}
print(json.dumps({
    "signatures": {f"{name}.{method}": shape(getattr(kind, method)) for name, kind in classes.items()
                   for method in order["methods"][name]},
    "formats": {each.name: each.value for each in tts.AudioFormat},
    "text": [str(each) for each in tts.AudioFormat],
    "wire": [run_task(each) for each in order["wishes"]],
    "urls": [urls(each) for each in order["environments"]],
    "errors": dir(error),
}))
"""
METHODS = {
    "SpeechSynthesizer": [
        "__init__", "call", "streaming_call", "streaming_flush", "streaming_complete", "async_streaming_complete",
        "streaming_cancel", "close", "get_last_request_id", "get_first_package_delay", "get_response",
    ],
    "SpeechSynthesizerObjectPool": ["__init__", "borrow_synthesizer", "return_synthesizer", "shutdown"],
    "ResultCallback": ["on_open", "on_complete", "on_error", "on_close", "on_event", "on_data"],
    "HotFix": ["__init__", "to_dict"],
}  # fmt: skip
BASE = {"model": MODEL, "voice": VOICE, "format": "PCM_24000HZ_MONO_16BIT"}
WISHES = [
    BASE,
    BASE | {"format": "OGG_OPUS_24KHZ_MONO_32KBPS", "seed": 7, "synthesis_type": 1},
    BASE | {"volume": 80, "speech_rate": 1.5, "pitch_rate": 0.8, "instruction": "Calmly.", "language_hints": ["en"]},
    BASE | {"additional_params": {"word_timestamp_enabled": True, "volume": 10}, "hot_fix": {"replace": [{"a": "b"}]}},
]
ENVIRONMENTS = [
    {},
    {"DASHSCOPE_API_REGION": "ap-southeast-1", "DASHSCOPE_WORKSPACE_ID": "ws-1"},
    {"DASHSCOPE_API_REGION": "us-east-1"},
    {"DASHSCOPE_API_REGION": "cn-beijing", "DASHSCOPE_WORKSPACE_ID": "ws-1"},
    {"DASHSCOPE_API_VERSION": "v9"},
    {"DASHSCOPE_WEBSOCKET_BASE_URL": "wss://example.com/x", "DASHSCOPE_HTTP_BASE_URL": "https://example.com"},
]
ADDED = {"SpeechSynthesizerObjectPool.borrow_synthesizer": ["hot_fix", "timeout"]}


def python(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def both():
    order = json.dumps({"methods": METHODS, "wishes": WISHES, "environments": ENVIRONMENTS})
    return [json.loads(python(FACTS, name, order)) for name in ("dashscope", "speechpool.dashscope")]


def test_the_signatures_are_equal_but_for_options_that_have_names(both):
    official, ours = (facts["signatures"] for facts in both)
    for method, parameters in ours.items():
        added = parameters[len(official[method]) :]
        assert [name for name, _, _ in added] == ADDED.get(method, [])
        assert all(kind == "KEYWORD_ONLY" for _, kind, _ in added)
        # The official class collects `*args` nowhere; what a default looks like tells its value.
        assert parameters[: len(official[method])] == official[method], method


def test_the_formats_are_equal(both):
    official, ours = both
    assert ours["formats"] == official["formats"]
    assert ours["text"] == official["text"]


def test_the_parameters_of_run_task_are_equal(both):
    official, ours = (facts["wire"] for facts in both)
    assert ours == official


def run_task(ssml=False, **wishes):
    synthesizer = SpeechSynthesizer(**{"model": MODEL, "voice": VOICE, "format": PCM} | wishes)
    segment = CosyVoice().segment(synthesizer._wishes.spoken(ssml=ssml), "0" * 32)
    return json.loads(segment.begin())["payload"]


def test_the_default_format_is_named_on_the_wire():
    parameters = run_task(format=AudioFormat.DEFAULT)["parameters"]
    assert (parameters["format"], parameters["sample_rate"]) == ("mp3", 22050)


def test_call_asks_for_ssml_unless_it_is_told_not_to():
    assert run_task(ssml=True)["parameters"]["enable_ssml"] is True
    assert run_task(ssml=True, additional_params={"enable_ssml": False})["parameters"]["enable_ssml"] is False
    assert "enable_ssml" not in run_task()["parameters"]


# ------------------------------------------------------------------------------------------ imports
def test_the_import_is_cheap_and_never_takes_the_official_one():
    code = "import sys; before = set(sys.modules); {}; print(*sorted(set(sys.modules) - before))"
    alone = python(code.format("from speechpool import dashscope; dashscope.api_key = 'k'")).split()
    assert not {"asyncio", "picows", "msgspec"} & set(alone)
    whole = python(code.format("from speechpool.dashscope.audio.tts_v2 import *")).split()
    assert not [name for name in whole if name.partition(".")[0] in {"dashscope", "websocket", "requests", "aiohttp"}]


def test_the_classes_are_found_where_the_official_ones_are():
    names = "SpeechSynthesizer, SpeechSynthesizerObjectPool, ResultCallback, AudioFormat"
    python(f"from speechpool.dashscope.audio.tts_v2 import *; {names}, HotFix")
    python("from speechpool.dashscope.audio.tts_v2.speech_synthesizer import HotFix, SpeechSynthesizer, AudioFormat")
    python("from speechpool import dashscope; dashscope.audio.tts_v2.SpeechSynthesizer")


def test_what_is_not_here_says_so():
    with pytest.raises(AttributeError, match="the official `dashscope`"):
        dashscope.Generation  # noqa: B018


# ------------------------------------------------------------------------------------------ errors
def test_an_error_is_also_the_official_one_where_that_is_loaded():
    code = """
from speechpool.dashscope.common.error import ModelRequired, RequestFailure
from speechpool.dashscope.errors import built
print(type(built(ModelRequired, "x")) is ModelRequired)
import dashscope.common.error as official
both = built(ModelRequired, "x")
print(isinstance(both, official.ModelRequired), isinstance(both, ModelRequired))
failure = built(RequestFailure, request_id="a", name="b", message="c", http_code=44)
print(isinstance(failure, official.RequestFailure), failure.name)
print(str(failure) == str(official.RequestFailure("a", "c", "b", 44)))
"""
    assert python(code).split() == ["True", "True", "True", "True", "b", "True"]


def test_the_errors_have_the_official_names(both):
    assert set(error.__all__) <= set(both[0]["errors"])


def test_what_is_missing_is_told_when_the_object_is_made():
    assert isinstance(told(SpeechSynthesizer, None, VOICE), error.ModelRequired)
    assert isinstance(told(SpeechSynthesizer, MODEL, VOICE, None), error.InputRequired)
    dashscope.api_key = None
    assert isinstance(told(SpeechSynthesizer, MODEL, VOICE), error.InputRequired)


# ------------------------------------------------------------------------------------------ settings
def test_the_key_comes_from_the_program_the_environment_or_a_file(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert endpoints.current_key() == "key"
    del dashscope.api_key
    monkeypatch.setenv("DASHSCOPE_API_KEY", "of the environment")
    assert dashscope.api_key == endpoints.current_key() == "of the environment"
    monkeypatch.delenv("DASHSCOPE_API_KEY")
    (tmp_path / "key").write_text("of a file\n")
    monkeypatch.setenv("DASHSCOPE_API_KEY_FILE_PATH", str(tmp_path / "key"))
    assert endpoints.current_key() == "of a file"
    monkeypatch.delenv("DASHSCOPE_API_KEY_FILE_PATH")
    (tmp_path / ".dashscope").mkdir()
    (tmp_path / ".dashscope" / "api_key").write_text("of the home\n")
    assert endpoints.current_key() == "of the home"


def test_the_urls_of_the_environment_are_equal(both):
    official, ours = (facts["urls"] for facts in both)
    assert ours == official


def test_a_region_is_set_by_its_name():
    dashscope.set_region("eu-central-1", "ws-1")
    assert SpeechSynthesizer(MODEL, VOICE).url == "wss://ws-1.eu-central-1.maas.aliyuncs.com/api-ws/v1/inference"
    assert isinstance(told(dashscope.set_region, "mars", "ws-1"), ValueError)
    assert isinstance(told(dashscope.set_region, "eu-central-1"), ValueError)
    assert isinstance(told(dashscope.set_region, "eu-central-1", "ws/../evil"), ValueError)


def test_a_url_takes_the_workspace_of_the_call_or_the_environment(monkeypatch):
    url = "wss://{workspace_id}.example.com/x"
    assert SpeechSynthesizer(MODEL, VOICE, url=url, workspace="w1").url == "wss://w1.example.com/x"
    assert isinstance(told(SpeechSynthesizer, MODEL, VOICE, url=url), error.InputRequired)
    monkeypatch.setenv("DASHSCOPE_WORKSPACE_ID", "w2")
    assert SpeechSynthesizer(MODEL, VOICE, url=url).url == "wss://w2.example.com/x"


def test_headers_win_whatever_their_case():
    made = endpoints.endpoint_for("wss://example.com", None, {"authorization": "Bearer other", "X-Own": "1"})
    assert dict(made.headers) == {"Authorization": "Bearer other", "X-Own": "1"}
