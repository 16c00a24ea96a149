"""Sambert's official class, unmodified, as a client of the service; and ours in its place, which must do the same.

Each plays all cases of `sambert_sdk.py` in a process of its own; the tests read what it wrote down.
"""

import asyncio
import base64
import contextlib
import functools
import io
import json
import os
import socket
import sys
import wave
from pathlib import Path

import miniaudio
import numpy as np
import pytest
import trustme

from speechpool.audio import wav_header
from speechpool.protocol import Word
from speechpool.protocol.cosyvoice import FAILURES
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.engines import Chunk
from speechpool.service.engines.marker import check, marker_length
from speechpool.service.faults import Faults
from speechpool.service.sentences import is_speakable
from speechpool.service.voices import VOICES

OFFICIAL, OURS = "dashscope", "speechpool.dashscope"
KEY = "key"
TEXT = "Hello there. How are you?"
LIMIT = 90.0
CODES = ("InternalError.Timeout", "Throttling.RateQuota", "DataInspectionFailed")
REFUSED = {"refuse:403": 403, "refuse:429": 429, "refuse:503": 503}
HEADER = len(wav_header(16000))


class Tone:
    """An engine that says each character for 50 ms, so that lengths and times are known in advance."""

    name, profile, sample_rate = "tone", None, 24000

    def load(self):
        """Do nothing."""

    def voices(self):
        return VOICES

    def speaks(self, text):
        return is_speakable(text)

    def synthesize(self, sentence):
        seconds = 0.05 * len(sentence.text) / sentence.rate
        time = np.arange(round(seconds * self.sample_rate)) / self.sample_rate
        samples = np.rint(8000 * np.sin(2 * np.pi * 440 * sentence.pitch * time)).astype(np.int16)
        words = (Word(sentence.text, 0, len(sentence.text), 0, round(1000 * seconds)),)
        yield Chunk(samples[: len(samples) // 2])
        yield Chunk(samples[len(samples) // 2 :], words)


@contextlib.asynccontextmanager
async def serving(ssl, *, patient):
    plans = {"marker": ("marker", ()), "tone": (Tone(), ()), "drop": ("marker", ("drop@mid-audio",))}
    plans |= {f"fail:{code}": ("marker", (f"fail@started:{code}",)) for code in CODES}
    if patient:
        plans |= {name: ("marker", (name,)) for name in REFUSED}
    async with contextlib.AsyncExitStack() as stack:
        urls = {}
        for name, (engine, faults) in plans.items():
            service = SpeechService(
                LocalBackend(engine, workers=1 if name == "tone" else None, max_first_audio=None),
                port=0,
                api_key=KEY,
                settings=ServiceSettings(submission_rate=None),
                faults=Faults.parse(faults) if faults else None,
                ssl=ssl,
            )
            urls[name] = (await stack.enter_async_context(service)).url
        yield urls


async def play(package, authority=None, *, patient):
    """Return the facts of all cases; `patient`: those, too, in which our pool dials again for ten seconds."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"SPEECH_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    with contextlib.ExitStack() as stack:
        ssl = None
        if authority is not None:
            import ssl as tls

            ssl = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(ssl)
            environment["SSL_CERT_FILE"] = stack.enter_context(authority.cert_pem.tempfile())
        async with asyncio.timeout(LIMIT), serving(ssl, patient=patient) as urls:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))  # bound, but nobody listens
                if patient:
                    urls["nobody"] = f"ws://127.0.0.1:{free.getsockname()[1]}"
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    str(Path(__file__).with_name("sambert_sdk.py")),
                    package,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env=environment,
                )
                out, _ = await process.communicate(json.dumps(urls).encode())
    assert process.returncode == 0
    return json.loads(out)


@functools.cache
def played(package, *, patient):
    return asyncio.run(play(package, patient=patient))


@pytest.fixture(params=[OFFICIAL, OURS])
def facts(request):
    return played(request.param, patient=request.param == OFFICIAL)


@pytest.fixture(params=[OFFICIAL, pytest.param(OURS, marks=pytest.mark.slow)])
def patient_facts(request):
    return played(request.param, patient=True)


def audio(fact):
    return base64.b64decode(fact["audio"])


def good(fact, characters):
    """Check that a call went well, and that its audio is its own and all of it."""
    response = fact["response"]
    assert (response["status_code"], response["code"], response["output"]) == (200, "", None)
    assert response["usage"] == {"characters": characters}
    return audio(fact)


# ------------------------------------------------------------------------------------------ what is heard
def test_a_call(facts):
    fact = facts["plain_call"]
    data = good(fact, 25)
    assert check(data, fact["id"]) == marker_length(TEXT)
    assert [each["begin_time"] for each in fact["sentences"]] == [0, fact["sentences"][0]["end_time"]]
    assert [each["words"] for each in fact["sentences"]] == [[], []]


def test_what_is_left_open_gets_the_providers_default(facts):
    data = good(facts["what_is_left_open"], 25)
    assert data[:HEADER] == wav_header(16000)
    assert len(data) == HEADER + 1.2 * 2 * 16000


def test_a_callback_is_told_all_of_it(facts):
    fact = facts["a_callback"]
    good(fact, 25)
    order = fact["order"]
    assert order[0] == "open"
    assert order[-2:] == ["complete", "close"]
    assert order.count("sentence") == 4
    assert order.index("sentence") < order.index("audio")
    # Each sentence came twice, first as it began, then with its end.
    spans = fact["spans"]
    assert spans[1::2] == fact["sentences"]
    assert [each["end_time"] for each in spans[::2]] == [each["begin_time"] for each in spans[1::2]]


def test_times_of_sentences_and_words(facts):
    fact = facts["times"]
    spans = [(each["begin_time"], each["end_time"]) for each in fact["sentences"]]
    assert spans == [(0, 600), (600, 1200)]
    (first,), (second,) = (each["words"] for each in fact["sentences"])
    assert first == {"text": "Hello there.", "begin_time": 0, "end_time": 600, "phonemes": []}
    assert second == {"text": "How are you?", "begin_time": 600, "end_time": 1200, "phonemes": []}


def test_every_format(facts):
    for name, fact in facts["formats"].items():
        kind, rate = name.split()
        data = good(fact, 25)
        if kind == "wav":
            with wave.open(io.BytesIO(data)) as header:
                assert header.getframerate() == int(rate)
            samples = (len(data) - HEADER) / 2
        elif kind == "pcm":
            samples = len(data) / 2
        else:
            decoded = miniaudio.decode(data, nchannels=1, sample_rate=int(rate))
            samples = decoded.num_frames
        # An mp3 has silence at both ends: two frames of the encoder's, the longer the lower the rate.
        assert 1.19 < samples / int(rate) < (1.4 if kind == "mp3" else 1.21), name


def test_rate_and_pitch_reach_the_voice(facts):
    samples = np.frombuffer(good(facts["manners"], 25)[HEADER:], np.int16)
    assert len(samples) / 16000 == pytest.approx(0.6, abs=0.01)
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * 16000 / len(samples) == pytest.approx(660, abs=5)


def test_one_after_another_and_many_at_once_keep_their_audio(facts):
    for number, fact in enumerate(facts["one_after_another"]):
        assert check(good(fact, 14), fact["id"]) == marker_length(f"Text number {number}.")
    for number, fact in enumerate(facts["at_once"]):
        text = f"Text number {number}."
        assert check(good(fact, len(text)), fact["id"]) == marker_length(text)
    ids = [fact["id"] for fact in facts["at_once"]]
    assert len(set(ids)) == len(ids)


def test_a_han_character_counts_one(facts):
    good(facts["han_counts_one"], 6)


# ------------------------------------------------------------------------------------------ what goes wrong
def went_wrong(fact, status, code):
    for response in (fact["response"], *fact["errors"]):
        assert (response["status_code"], response["code"]) == (status, code)
    assert fact["order"] == ["open", "error", "close"]
    assert fact["audio"] is None
    assert fact["sentences"] == []


def test_what_the_server_refuses_is_a_response(facts):
    for name, fact in facts["refusals"].items():
        went_wrong(fact, 44, "ModelNotFound" if name == "model" else "InvalidParameter")
        assert fact["response"]["message"]


def test_the_errors_of_the_provider_are_responses(facts):
    for code in CODES:
        fact = facts["failures"][f"fail:{code}"]
        went_wrong(fact, 44, FAILURES[code][0])
        assert fact["response"]["message"] == FAILURES[code][1]


def test_refused_handshakes_are_responses(patient_facts):
    for name, status in REFUSED.items():
        went_wrong(patient_facts["handshakes"][name], status, status)


def test_a_wrong_key_is_a_response(facts):
    went_wrong(facts["a_wrong_key"], 401, 401)
    assert facts["a_wrong_key"]["response"]["message"] == "Unauthorized, your api-key is invalid!"


def test_no_route_is_a_response(patient_facts):
    went_wrong(patient_facts["nobody_listens"], -1, "ClientConnectorError")


def test_a_dropped_socket_is_a_response(facts):
    fact = facts["a_dropped_socket"]
    assert fact["order"] == ["open", "error", "close"]
    assert (fact["response"]["status_code"], fact["response"]["code"]) == (-1, "Unknown")


def test_what_a_callback_raises_reaches_the_caller(facts):
    assert facts["callbacks_that_break"] == {at: [at, at] for at in ("open", "audio", "complete")}


def test_a_model_is_required(facts):
    assert facts["no_model"] == [["ModelRequired", "Model is required!"]] * 2


# ------------------------------------------------------------------------------------------ the two, side by side
def test_ours_gives_what_the_official_class_gives():
    official, ours = played(OFFICIAL, patient=True), played(OURS, patient=False)
    for name, facts in official.items():
        if name not in {"threads", "handshakes", "nobody_listens"}:
            assert _comparable(ours[name]) == _comparable(facts), name


def _comparable(fact):
    """Audio is compared by its length, as every task has other marks; ids not at all."""
    if isinstance(fact, dict):
        return {name: _comparable(value) for name, value in fact.items() if name not in {"id", "audio"}} | (
            {"length": len(fact["audio"] or "")} if "audio" in fact else {}
        )
    return [_comparable(each) for each in fact] if isinstance(fact, list) else fact


@pytest.mark.slow
@pytest.mark.parametrize("package", [OFFICIAL, OURS])
def test_all_of_it_over_tls(package):
    facts = asyncio.run(play(package, trustme.CA(), patient=False))
    good(facts["plain_call"], 25)
    for fact in facts["at_once"]:
        assert fact["response"]["status_code"] == 200
