"""The official SDK, unmodified, as a client of the local service: it must not be able to tell.

Its cases run in a process of their own (official_sdk.py), against `speechpool service` in another one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEY = "conformance"
CASES = [
    "call",
    "call_ssml",
    "call_with_callback",
    "streaming_call",
    "streaming_flush",
    "streaming_cancel",
    "object_pool",
    "unknown_voice",
    "unknown_voice_with_callback",
    "too_long",
    "out_of_range",
    "wrong_key",
]


def serve(engine):
    return subprocess.Popen(
        [sys.executable, "-m", "speechpool", "service", "--port", "0", "--engine", engine],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"SPEECHPOOL_SERVICE__API_KEY": KEY},
    )


def play(engine, cases):
    with serve(engine) as service:
        try:
            line = service.stdout.readline()
            assert line.startswith("listening on ws://127.0.0.1:"), line
            script = Path(__file__).with_name("official_sdk.py")
            done = subprocess.run(
                [sys.executable, str(script), line.split()[-1], *cases],
                stdout=subprocess.PIPE,
                text=True,
                timeout=90,
                check=True,
                env=os.environ | {"SPEECH_KEY": KEY, "NO_PROXY": "127.0.0.1"},
            )
            return json.loads(done.stdout.splitlines()[-1])
        finally:
            service.terminate()
            assert service.wait(15) == 0


@pytest.fixture(scope="module")
def marker():
    return play("marker", CASES)


@pytest.fixture(scope="module")
def hibari():
    return play("hibari", ["call_default", "call"])


def sentences(types):
    """The events of each sentence, by their short names, one string a sentence."""
    short = {"sentence-begin": "b", "sentence-synthesis": "s", "sentence-end": "e"}
    return "".join(short[name] for name in types).replace("eb", "e b").split()


def assert_whole(facts, count=None):
    assert facts["order"] == ["open", "complete", "close"]
    assert facts["bytes"] > 0
    spoken = sentences(facts["types"])
    assert all(each[0] == "b" and each[-1] == "e" and set(each[1:-1]) == {"s"} for each in spoken), spoken
    if count is not None:
        assert len(spoken) == count


def test_call_with_the_sdks_defaults_gets_mp3(hibari):
    facts = hibari["call_default"]
    assert facts["bytes"] > 1000
    assert facts["head"].startswith("fff") or facts["head"] == "494433"
    assert facts["last"] == "task-finished"
    assert 0 < facts["delay"] < 10000


def test_call_gets_a_real_voice(hibari):
    assert hibari["call"]["bytes"] > 24000


def test_call_returns_the_audio(marker):
    assert marker["call"]["bytes"] > 0
    assert marker["call"]["bytes"] % 2 == 0


def test_call_takes_ssml(marker):
    assert marker["call_ssml"]["bytes"] > 0


def test_call_with_a_callback_returns_at_once(marker):
    assert_whole(marker["call_with_callback"], 1)
    assert marker["call_with_callback"]["returned"] is None


def test_text_may_come_in_pieces(marker):
    assert_whole(marker["streaming_call"], 3)
    assert marker["streaming_call"]["usage"] == len("Hello there. How are you? Goodbye.")


def test_flush_speaks_half_a_sentence(marker):
    assert marker["streaming_flush"]["heard_before_the_end"] is True
    assert_whole(marker["streaming_flush"])


def test_cancel_is_confirmed_at_once(marker):
    facts = marker["streaming_cancel"]
    assert facts["order"][-2:] == ["complete", "close"]
    assert facts["seconds"] < 2


def test_the_object_pool_runs_twenty_tasks_and_reuses_a_connection(marker):
    facts = marker["object_pool"]
    assert len(facts["tasks"]) == 20
    for each in [*facts["tasks"], facts["again"]]:
        assert_whole(each, 1)


def test_a_wrong_key_is_refused_at_the_handshake(marker):
    # The SDK hides the status: all that it says is that there is no connection.
    assert marker["wrong_key"]["error"] == "TimeoutError"
    assert "could not established" in marker["wrong_key"]["message"]


@pytest.mark.parametrize("case", ["unknown_voice", "unknown_voice_with_callback", "too_long", "out_of_range"])
def test_what_cannot_be_served_is_an_error_of_the_sdk(marker, case):
    facts = marker[case]
    assert facts["error"] == "RequestFailure"
    assert facts["name"] == "InvalidParameter"


def test_a_text_that_is_too_long_says_the_limit(marker):
    assert "20,000" in marker["too_long"]["message"]
