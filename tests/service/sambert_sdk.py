"""Plays every case of Sambert's official class: sambert_sdk.py PACKAGE, with the URLs of the services as JSON on stdin.

PACKAGE is `dashscope`, or a package that claims to be like it. Cases without their service are left out. Facts go to
stdout as JSON. Cases run at once, each on a
thread of its own.
"""

import json
import logging
import os
import sys
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

PACKAGE = sys.argv[1]
dashscope = import_module(PACKAGE)
tts = import_module(f"{PACKAGE}.audio.tts")

MODEL, TEXT = "sambert-zhichu-v1", "Hello there. How are you?"
CASES = {}
URLS = {}


def case(function):
    CASES[function.__name__] = function
    return function


class Recorder(tts.ResultCallback):
    def __init__(self, breaks_at=None):
        self.order, self.audio, self.spans, self.errors, self.threads = [], b"", [], [], set()
        self.breaks_at = breaks_at

    def note(self, what):
        self.threads.add(threading.get_ident())
        self.order.append(what)
        if what == self.breaks_at:
            raise LookupError(what)

    def on_open(self):
        self.note("open")

    def on_complete(self):
        self.note("complete")

    def on_error(self, response):
        self.errors.append(plain(response))
        self.note("error")

    def on_close(self):
        self.note("close")

    def on_event(self, result):
        if (frame := result.get_audio_frame()) is not None:
            assert type(frame) is bytes
            assert result.get_timestamp() is None
            self.audio += frame
            self.note("audio")
        else:
            self.spans.append(result.get_timestamp())
            self.note("sentence")
        assert result.get_audio_data() is result.get_timestamps() is result.get_response() is None


def plain(response):
    """What a response says, its words and its id left out where each run has others."""
    assert response.status_code == response["status_code"]
    assert json.loads(str(response))["code"] == response.code
    given = dict(response)
    given["request_id"] = type(given["request_id"]).__name__ + str(len(given["request_id"] or ""))
    if given["status_code"] == -1:
        given["message"] = ""
    return given


def say(service="marker", text=TEXT, callback=None, model=MODEL, **options):
    if service != "tone":
        options = {"format": "pcm", **options}  # the only format in which every byte can say whose it is
    result = tts.SpeechSynthesizer.call(model, text, callback, base_address=URLS[service], **options)
    audio = result.get_audio_data()
    facts = {
        "audio": None if audio is None else b64encode(audio).decode(),
        "id": result.get_response().request_id,
        "sentences": result.get_timestamps(),
        "response": plain(result.get_response()),
    }
    assert result.get_audio_frame() is None
    assert result.get_timestamp() is None
    if callback is not None:
        assert callback.audio == (audio or b"")
        assert callback.threads == {threading.get_ident()}
        facts |= {"order": callback.order, "spans": callback.spans, "errors": callback.errors}
    return facts


@case
def plain_call():
    return say()


@case
def what_is_left_open():
    return say("tone")


@case
def a_callback():
    return say(callback=Recorder())


@case
def times():
    return say("tone", callback=Recorder(), word_timestamp_enabled=True, phoneme_timestamp_enabled=True)


@case
def formats():
    return {
        f"{name} {rate}": say("tone", format=name, sample_rate=rate)
        for name in (tts.SpeechSynthesizer.AudioFormat.format_wav, "pcm", "mp3")
        for rate in (8000, 16000, 22050, 24000, 48000)
    }


@case
def manners():
    return say("tone", rate=2.0, pitch=1.5, volume=100)


@case
def one_after_another():
    return [say(text=f"Text number {n}.") for n in range(5)]


@case
def at_once():
    with ThreadPoolExecutor(20) as pool:
        return list(pool.map(lambda n: say(text=f"Text number {n}."), range(40)))


@case
def han_counts_one():
    return say(text="你好，世界。")


@case
def refusals():
    wrong = {
        "model": {"model": "sambert-nobody-v1"},
        "empty": {"text": ""},
        "long": {"text": "好" * 10_001},
        "format": {"format": "opus"},
        "sample rate": {"sample_rate": 44100},
        "volume": {"volume": 101},
        "rate": {"rate": 3.0},
    }
    facts = {name: say(callback=Recorder(), **options) for name, options in wrong.items()}
    for each in facts.values():
        for response in (each["response"], *each["errors"]):
            response["message"] = bool(response["message"])  # ours and the server's words differ
            # What is refused on this side never had an id.
            response["request_id"] = ""
    return facts


@case
def failures():
    return {name: say(name, callback=Recorder()) for name in URLS if name.startswith("fail:")}


@case
def handshakes():
    return {name: say(name, callback=Recorder()) for name in URLS if name.startswith("refuse:")}


@case
def a_wrong_key():
    return say(callback=Recorder(), api_key="wrong")


@case
def nobody_listens():
    return say("nobody", callback=Recorder()) if "nobody" in URLS else None


@case
def a_dropped_socket():
    facts = say("drop", callback=Recorder())
    facts.pop("audio")
    facts["order"] = [each for each in facts["order"] if each not in {"audio", "sentence"}]
    return {"order": facts["order"], "response": facts["response"]}


@case
def callbacks_that_break():
    facts = {}
    for at in ("open", "audio", "complete"):
        recorder = Recorder(breaks_at=at)
        try:
            say(callback=recorder)
        except LookupError as error:
            facts[at] = [str(error), recorder.order[-1]]
    return facts


@case
def no_model():
    facts = []
    for model in (None, ""):
        try:
            say(model=model)
        except Exception as error:
            facts.append([type(error).__name__, str(error)])
    return facts


def attempt(name):
    try:
        return CASES[name]()
    except Exception as error:
        import traceback

        traceback.print_exc()
        return f"{type(error).__name__}: {error}"


def main():
    logging.disable(logging.CRITICAL)
    URLS.update(json.load(sys.stdin))
    dashscope.api_key = os.environ["SPEECH_KEY"]
    with ThreadPoolExecutor(len(CASES)) as pool:
        facts = dict(zip(CASES, pool.map(attempt, CASES), strict=True))
    facts["threads"] = threading.active_count()
    json.dump(facts, sys.stdout)
    sys.stdout.flush()
    os._exit(0)


main()
