"""The official SDK, unmodified, as a client of the local service: it must not be able to tell.

One run of `official_sdk.py` plays all cases against the services of `services.py`; the tests read what it wrote down.
The SDK of this environment runs over ws at once. Slow: three versions, each in an environment of its own, over ws and
wss.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import miniaudio
import numpy as np
import pytest
import soundfile
import trustme
from sdk_environments import NEWEST, VERSIONS, NoEnvironment, interpreter
from services import KEY, PITCH, SECONDS_PER_CHARACTER, play

from speechpool.protocol.cosyvoice import FAILURES
from speechpool.service.engines.marker import check, marker_length

TEXT = "Hello there. How are you?"
SECONDS = SECONDS_PER_CHARACTER * len(TEXT.replace(" ", "", 1))  # the space between sentences is spoken in neither
INVALID = "InvalidParameter"
KEEP_TO_IT = "Please follow the protocol!"


def stream(*texts, **options):
    return {"service": "marker", "texts": texts, "options": options}


def more(**parameters):
    return {"additional_params": parameters}


def ssml(document):
    return {"service": "tone", "texts": [document], "via": "call"}


# protocol.md section 8: what is asked for, the code, and the provider's words or ours where it documents none.
REFUSALS = {
    "an unknown voice": (stream("Hello.", voice="nobody"), INVALID, r"\[tts:\]Engine return error code: 418"),
    "no voice": (stream("Hello.", voice=None), INVALID, rf"Missing required parameter .*voice'! {KEEP_TO_IT}"),
    "no model": (stream("Hello.", model=""), INVALID, rf"Missing required parameter 'payload\.model'! {KEEP_TO_IT}"),
    "a long instruction": (
        stream("Hello.", instruction="calm " * 21),
        INVALID,
        r"\[tts:\]Engine return error code: 428",
    ),
    "a language unheard of": (stream("Hello.", language_hints=["xx"]), INVALID, "xx"),
    "a rate out of range": (stream("Hello.", speech_rate=3.0), INVALID, r"rate 3 .* 0\.5 to 2"),
    "a pitch out of range": (stream("Hello.", pitch_rate=0.1), INVALID, r"pitch 0\.1 .* 0\.5 to 2"),
    "a volume out of range": (stream("Hello.", volume=101), INVALID, "volume 101 .* 0 to 100"),
    "a seed out of range": (stream("Hello.", seed=65536), INVALID, "seed 65536 .* 0 to 65535"),
    "an unknown format": (stream("Hello.", **more(format="flac")), INVALID, "flac"),
    "an unknown sample rate": (stream("Hello.", **more(sample_rate=12345)), INVALID, "12345"),
    "a text of another type": (stream("Hello.", **more(text_type="Prose")), INVALID, "Prose"),
    "a hot_fix that is none": (stream("Hello.", **more(hot_fix={"replace": "a"})), INVALID, "hot_fix"),
    "an empty text": (stream("Hello.", ""), INVALID, r"Please ensure input text is valid\."),
    "a text of spaces": (stream("  "), INVALID, r"Please ensure input text is valid\."),
    "nothing that is spoken": (stream("!?"), INVALID, "spoken"),
    "a text too long": (stream("a" * 20_001), INVALID, "20,000"),
    "a text too long in Han": (stream("\u597d" * 10_001), INVALID, "20,000"),
    "a task too long": (stream(*["a" * 20_000] * 10, "a"), INVALID, "200,000"),
    "a second text of a task with SSML": (
        stream("Hello.", "Goodbye.", **more(enable_ssml=True)),
        INVALID,
        r"Text request limit violated, expected 1\.",
    ),
    "SSML that is not well formed": (ssml("<speak>Hello <break></speak>"), INVALID, "."),
    "SSML of unknown elements": (ssml("<speak>Hello <audio src='a.wav'/></speak>"), INVALID, "audio"),
    "SSML without words": (ssml("<speak>  </speak>"), INVALID, "."),
    "SSML with a DTD": (ssml('<!DOCTYPE speak [<!ENTITY a "b">]><speak>Hello &a;</speak>'), INVALID, "."),
    "SSML that reads files": (
        ssml('<!DOCTYPE speak [<!ENTITY a SYSTEM "file:///etc/hostname">]><speak>&a;</speak>'),
        INVALID,
        ".",
    ),
    "text of another script": (
        {"service": "hibari", "texts": ["\u4f60\u597d\u3002"]},
        INVALID,
        "No loaded engine speaks",
    ),
}


# ------------------------------------------------------------------------------------------ the runs
@dataclass
class Run:
    """What one version over one scheme did."""

    version: str
    facts: dict
    counts: dict
    folder: Path

    def __getitem__(self, case):
        """Facts of a case; what a version does not have skips the test, visibly."""
        facts = self.facts[case]
        if facts is None:
            pytest.skip(f"the SDK {self.version} has no such thing")
        return facts


def every_run():
    yield pytest.param((None, "ws"), id="here-ws")
    for version in VERSIONS:
        for scheme in ("ws", "wss"):
            yield pytest.param(
                (version, scheme), id=f"{version}-{scheme}", marks=[pytest.mark.slow, pytest.mark.timeout(600)]
            )


@pytest.fixture(scope="module", params=every_run())
def sdk(request, tmp_path_factory):
    version, scheme = request.param
    folder = tmp_path_factory.mktemp(f"sdk-{version}-{scheme}")
    python = sys.executable if version is None else python_of(version)
    authority = trustme.CA() if scheme == "wss" else None
    facts, counts = play(python, folder, authority, refusals={name: case for name, (case, *_) in REFUSALS.items()})
    version = version or NEWEST
    assert facts["version"] == version
    return Run(version, facts, counts, folder)


def python_of(version):
    try:
        return interpreter(version)
    except NoEnvironment as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def is_old(run):
    """Whether a task that fails is only logged where there is no callback (upstream issue 167)."""
    return run.version.startswith("1.25.")


# ------------------------------------------------------------------------------------------ reading
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


def assert_failed(run, facts, code, pattern):
    """The user learns code and message: by on_error in every version, and by an exception where the start failed."""
    assert facts["over"]
    (told,) = facts["errors"]
    assert told[0] == code
    assert re.search(pattern, told[1]), told
    # Where the start fails, 1.25.2 calls on_open all the same, sooner or later.
    assert [step for step in facts["order"] if step != "open"] == ["error", "close"]
    assert facts["last"] == "task-failed"
    raised = facts["raised"]
    if raised is not None and raised["error"] == "RequestFailure":
        assert (raised["name"], raised["http_code"]) == (code, 44)
        assert told[1] in raised["message"]
    elif raised is not None:  # it went on sending, and the connection was closed by then
        assert raised["error"] in {"ConnectionError", "InvalidTask", "WebSocketConnectionClosedException"}


def decoded(path, audio_format, sample_rate):
    """Samples from -1 to 1, and their rate."""
    if audio_format == "pcm":
        return np.frombuffer(path.read_bytes(), "<i2") / 32768, sample_rate
    return soundfile.read(path)


def pitch(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


# ------------------------------------------------------------------------------------------ formats
def test_every_audio_format_lasts_as_long_as_pcm(sdk):
    members = sdk["formats"]
    assert len(members) == 30
    for name, facts in members.items():
        audio_format, sample_rate, *_ = facts["value"]
        if audio_format == "Default":
            audio_format, sample_rate = "mp3", 22050
        samples, rate = decoded(sdk.folder / facts["file"], audio_format, sample_rate)
        assert rate == sample_rate, name
        # mp3 has whole frames of 576 samples or more, and the encoder's delay; the others end where the speech does.
        spare = 3 * (1152 if rate >= 32000 else 576) / rate if audio_format == "mp3" else 0.001
        assert -0.001 <= len(samples) / rate - SECONDS <= spare, name
        assert pitch(samples, rate) == pytest.approx(PITCH, abs=2), name
        assert facts["usage"] == len(TEXT)


def test_every_audio_format_has_its_bit_rate(sdk):
    for name, facts in sdk["formats"].items():
        audio_format, sample_rate, _, bit_rate = facts["value"]
        if audio_format == "opus":
            # With the headers and the pages around so short a text.
            assert facts["bytes"] * 8 / 1000 / SECONDS == pytest.approx(bit_rate, abs=7), name
        elif audio_format == "mp3":  # MPEG allows 64 at 8 kHz and 160 below 32 kHz
            most = 64 if sample_rate < 16000 else 160 if sample_rate < 32000 else 320
            assert facts["bytes"] * 8 / 1000 / SECONDS == pytest.approx(min(bit_rate, most), rel=0.15), name


def test_call_with_the_sdks_defaults_gets_mp3(sdk):
    facts = sdk["call_default"]
    assert facts["bytes"] > 1000
    assert facts["head"].startswith("fff") or facts["head"] == "494433"


def test_call_gets_a_real_voice(sdk):
    assert sdk["call_of_a_real_voice"]["bytes"] > 24000


# ------------------------------------------------------------------------------------------ a call
def test_a_call_returns_the_audio_and_tells_of_it(sdk):
    facts = sdk["call"]
    assert facts["bytes"] == marker_length(TEXT)
    assert facts["last"] == "task-finished"
    assert facts["same_id"] is True
    assert facts["usage"] == len(TEXT)
    assert 0 < facts["delay"] < 20_000


def test_call_with_a_callback_returns_at_once(sdk):
    assert_whole(sdk["call_with_callback"], 1)
    assert sdk["call_with_callback"]["returned"] is None


def test_a_pause_of_ssml_is_heard(sdk):
    facts = sdk["call_ssml"]
    assert facts["ssml"] - facts["plain"] == 24000  # half a second of 16-bit samples


def test_every_parameter_is_taken(sdk):
    facts = sdk["every_parameter"]
    assert facts["slow"] == 2 * facts["plain"]
    # hot_fix says "over there" for "there": five characters more.
    assert facts["fixed"] - facts["plain"] == round(5 * SECONDS_PER_CHARACTER * 48000)


# ------------------------------------------------------------------------------------------ a stream
def test_text_may_come_in_pieces(sdk):
    assert_whole(sdk["streaming_call"], 3)
    assert sdk["streaming_call"]["usage"] == len("Hello there. How are you? Goodbye.")


def test_a_stream_may_end_in_the_background(sdk):
    assert_whole(sdk["async_streaming_complete"], 2)


def test_a_stream_needs_a_callback(sdk):
    assert sdk["streaming_without_callback"]["error"] == "InputRequired"


def test_flush_speaks_half_a_sentence(sdk):
    assert sdk["streaming_flush"]["heard_before_the_end"] is True
    assert_whole(sdk["streaming_flush"], 2)


def test_cancel_is_confirmed_at_once(sdk):
    facts = sdk["streaming_cancel"]
    assert facts["seconds"] < 5  # the whole text takes minutes, and the SDK waits for 10
    if facts["tells"]:
        assert facts["order"] == ["open", "complete", "close"]
    else:  # 1.25.2 just closes its socket
        assert facts["order"] == ["open"]


def test_words_are_timed_where_they_are_asked_for(sdk):
    facts = sdk["timestamps"]
    assert facts["words"] == TEXT.split()
    flat = [moment for times in facts["times"] for moment in times]
    assert flat == sorted(flat)
    assert flat[-1] == pytest.approx(SECONDS * 1000, abs=1)
    assert sdk["no_timestamps"]["words"] == []


def test_events_of_the_older_form_are_taken(sdk):
    facts = sdk["older_events"]
    assert facts["order"] == ["open", "complete", "close"]
    assert set(facts["types"]) == {None}
    assert facts["bytes"] == marker_length(TEXT)


def test_the_object_pool_runs_twenty_tasks_and_reuses_a_connection(sdk):
    facts = sdk["object_pool"]
    assert len(facts["tasks"]) == 20
    for each in [*facts["tasks"], facts["again"]]:
        assert_whole(each, 1)
    assert sdk.counts["pooled"].tasks["completed"] == 21
    assert sdk.counts["pooled"].connections == 20


def test_a_doubled_end_is_one_end(sdk):
    assert sdk["duplicate_finish"]["bytes"] == marker_length(TEXT)


# ------------------------------------------------------------------------------------------ errors
@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_served_is_an_error_that_says_why(sdk, name):
    _, code, pattern = REFUSALS[name]
    assert_failed(sdk, sdk["refusals"][name], code, pattern)


@pytest.mark.parametrize("name", FAILURES)
def test_every_documented_error_reaches_the_user_with_code_and_message(sdk, name):
    code, message = FAILURES[name]
    assert_failed(sdk, sdk["failures"][f"fail:{name}"], code, f"^{re.escape(message)}$")


def test_an_error_without_a_callback(sdk):
    facts = sdk["blocking_failure"]
    assert facts["response"]["error_code"] == INVALID
    assert facts["response"]["error_message"].endswith("418")
    if is_old(sdk):  # it returns nothing, or stumbles over the closed connection
        assert facts.get("error", "WebSocketConnectionClosedException") == "WebSocketConnectionClosedException"
        assert facts.get("returned") is None
    else:
        assert (facts["error"], facts["name"]) == ("RequestFailure", INVALID)


def test_a_silence_ends_the_task(sdk):
    assert_failed(sdk, sdk["silence"], "CLIENT_ERROR", r"^request timeout after 0\.5 seconds\.$")


def test_too_many_submissions_a_second_are_throttled(sdk):
    first, second = sdk["too_fast"]
    assert_whole(first, 1)
    assert_failed(sdk, second, "Throttling.RateQuota", r"^Requests rate limit exceeded, please try again later\.$")
    assert sdk.counts["limited"].tasks["shed"] == 1


def test_too_many_tasks_at_once_are_throttled(sdk):
    facts = sdk["too_many_at_once"]
    assert_failed(sdk, facts["second"], "Throttling.Concurrency", r"^Too many concurrent requests\.$")
    assert_whole(facts["first"], 1)
    assert_whole(facts["afterwards"], 1)


@pytest.mark.parametrize("case", ["run_task_during_a_task", "invalid_action"])
def test_a_connection_that_is_in_a_task_takes_no_other(sdk, case):
    (told,) = sdk[case]["errors"]
    assert told == [INVALID, f"Invalid action('run-task')! {KEEP_TO_IT}"]


def test_a_wrong_key_is_refused_at_the_handshake(sdk):
    # The SDK hides the status: all that it says is that there is no connection.
    assert sdk["wrong_key"]["error"] == "TimeoutError"
    assert "could not established" in sdk["wrong_key"]["message"]
    assert sdk.counts["marker"].refused >= 1


@pytest.mark.parametrize("fault", ["refuse:403", "refuse:429,1", "refuse:503"])
def test_a_refused_handshake_is_a_timeout_to_the_sdk(sdk, fault):
    assert sdk["refused_handshakes"][fault]["error"] == "TimeoutError"


# ------------------------------------------------------------------------------------------ the client of 2.0
def test_five_syntheses_run_one_after_another_on_one_socket(sdk):
    facts = sdk["five_on_one_socket"]
    assert len({each["task"] for each in facts}) == 5
    for number, each in enumerate(facts):
        text = "Hello " * (number + 1) + "there."
        audio = (sdk.folder / each["file"]).read_bytes()
        assert check(audio, each["task"]) == marker_length(text)
        assert each["usage"] == len(text)
        assert each["delay"] > 0
    assert sdk.counts["shared"].connections == 1
    assert sdk.counts["shared"].tasks["completed"] == 5


def test_the_client_synthesizes_and_streams(sdk):
    facts = sdk["client_synthesize"]
    assert facts["bytes"] == pytest.approx(SECONDS * 48000, abs=48)
    assert facts["same"] is True
    assert facts["chunks"] > 1
    assert facts["ssml"] == round(len("Hello there.") * SECONDS_PER_CHARACTER * 48000)
    assert miniaudio.mp3_get_file_info(str(sdk.folder / facts["mp3"])).sample_rate == 22050


def test_the_client_flushes_and_cancels_and_goes_on(sdk):
    facts = sdk["client_flush_and_cancel"]
    assert facts["first"] > 0
    assert facts["rest"] < 1_000_000  # of two millions and a half
    assert (sdk.folder / facts["again"]).stat().st_size == marker_length("Again.")


def test_the_client_sees_every_event(sdk):
    facts = sdk["client_events"]
    kinds = facts["kinds"]
    assert kinds[-1] == "task-finished"
    assert Counter(kinds)["audio"] == sum(
        before == "result-generated" and after == "audio" for before, after in pairwise(kinds)
    )
    assert facts["words"] == TEXT.split()


def test_the_client_raises_code_and_message(sdk):
    facts = sdk["client_errors"]
    for name, (code, message) in FAILURES.items():
        told = facts[f"fail:{name}"]
        assert told["code"] == code
        assert message in told["message"]
    assert facts["wrong key"]["error"] == "WebSocketBadStatusException"
    assert "401" in facts["wrong key"]["message"]


def test_the_client_that_leaves_a_task_gets_invalid_action(sdk):
    facts = sdk["client_run_task_during_a_task"]
    assert facts["code"] == INVALID
    assert f"Invalid action('run-task')! {KEEP_TO_IT}" in facts["message"]


def test_the_client_learns_of_an_idle_close(sdk):
    assert sdk["client_idle_close"]["closed"] is True


# ------------------------------------------------------------------------------------------ the certificate
@pytest.mark.slow
def test_a_certificate_that_the_sdk_does_not_trust_is_refused(tmp_path):
    facts, counts = play(sys.executable, tmp_path, trustme.CA(), trusted=False, cases=["call"])
    assert facts["call"]["error"] == "TimeoutError"  # all that the SDK says of it
    assert counts["marker"].connections == 0


# ------------------------------------------------------------------------------------------ the command
def test_the_command_serves_the_sdk(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "speechpool", "service", "--port", "0", "--engine", "marker"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"SPEECHPOOL_SERVICE__API_KEY": KEY},
    ) as service:
        try:
            line = service.stdout.readline()
            assert line.startswith("listening on ws://127.0.0.1:"), line
            order = {"urls": {"marker": line.split()[-1]}, "cases": ["call", "call_with_callback"]}
            (tmp_path / "order.json").write_text(json.dumps(order))
            subprocess.run(
                [sys.executable, str(Path(__file__).with_name("official_sdk.py")), str(tmp_path)],
                timeout=60,
                check=True,
                env=os.environ | {"SPEECH_KEY": KEY, "NO_PROXY": "127.0.0.1"},
            )
        finally:
            service.terminate()
            assert service.wait(15) == 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["call"]["bytes"] == marker_length(TEXT)
    assert_whole(facts["call_with_callback"], 1)
