"""Runs cases of the official SDK in a process of its own: official_sdk.py URL CASE... prints one JSON object.

The SDK leaves threads and sockets behind, so the process ends by `os._exit`.
"""

import json
import logging
import os
import sys
import threading
import time
import traceback

import dashscope
from dashscope.audio.tts_v2 import AudioFormat, ResultCallback, SpeechSynthesizer, SpeechSynthesizerObjectPool

MODEL, VOICE = "cosyvoice-v3-flash", "longanyang"
PCM = AudioFormat.PCM_24000HZ_MONO_16BIT


class Recorder(ResultCallback):
    def __init__(self):
        self.order, self.audio, self.types, self.errors = [], bytearray(), [], []
        self.over = threading.Event()
        self.heard = threading.Event()

    def on_open(self):
        self.order.append("open")

    def on_complete(self):
        self.order.append("complete")

    def on_error(self, message):
        self.order.append("error")
        self.errors.append(json.loads(message)["header"]["error_code"])

    def on_close(self):
        self.order.append("close")
        self.over.set()

    def on_event(self, message):
        self.types.append(json.loads(message)["payload"]["output"]["type"])

    def on_data(self, data):
        self.audio += data
        self.heard.set()

    def facts(self):
        return {"order": self.order, "bytes": len(self.audio), "types": self.types, "errors": self.errors}


def speaker(callback=None, audio_format=PCM, **options):
    return SpeechSynthesizer(
        **{"model": MODEL, "voice": VOICE, "format": audio_format, "callback": callback, **options}
    )


def call_default():
    synthesizer = speaker(audio_format=AudioFormat.DEFAULT)
    audio = synthesizer.call("Hello there.", timeout_millis=30000)
    return {
        "bytes": len(audio),
        "head": audio[:3].hex(),
        "last": synthesizer.get_response()["header"]["event"],
        "delay": synthesizer.get_first_package_delay(),
    }


def call():
    return {"bytes": len(speaker().call("Hello there.", timeout_millis=15000))}


def call_ssml():
    return {"bytes": len(speaker().call("<speak>Hello <break time='1s'/>there.</speak>", timeout_millis=15000))}


def call_with_callback():
    recorder = Recorder()
    returned = speaker(recorder).call("Hello there.", timeout_millis=15000)
    assert recorder.over.wait(15)
    return recorder.facts() | {"returned": returned}


def streaming_call():
    recorder = Recorder()
    synthesizer = speaker(recorder)
    for piece in ("Hel", "lo there. How ", "are you", "? Goodbye."):
        synthesizer.streaming_call(piece)
    synthesizer.streaming_complete(15000)
    return recorder.facts() | {"usage": synthesizer.get_response()["payload"]["usage"]["characters"]}


def streaming_flush():
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call("Half a sentence")
    synthesizer.streaming_flush()
    heard = recorder.heard.wait(10)
    synthesizer.streaming_call(" and the rest.")
    synthesizer.streaming_complete(15000)
    return recorder.facts() | {"heard_before_the_end": heard}


def streaming_cancel():
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call("A long text. " * 500)
    assert recorder.heard.wait(10)
    begun = time.monotonic()
    synthesizer.streaming_cancel()
    return recorder.facts() | {"seconds": time.monotonic() - begun}


def object_pool():
    pool = SpeechSynthesizerObjectPool(max_size=20)
    borrowed, results = [], []
    for _ in range(20):
        recorder = Recorder()
        borrowed.append((pool.borrow_synthesizer(MODEL, VOICE, format=PCM, callback=recorder), recorder))
    for synthesizer, _ in borrowed:
        synthesizer.streaming_call("Hello there.")
    for synthesizer, recorder in borrowed:
        synthesizer.streaming_complete(15000)
        results.append(recorder.facts())
        pool.return_synthesizer(synthesizer)
    recorder = Recorder()  # a second task on a connection that has carried one
    synthesizer = pool.borrow_synthesizer(MODEL, VOICE, format=PCM, callback=recorder)
    synthesizer.streaming_call("Again.")
    synthesizer.streaming_complete(15000)
    pool.shutdown()
    return {"tasks": results, "again": recorder.facts()}


def wrong_key():
    dashscope.api_key = "wrong"
    return {"bytes": len(speaker().call("Hello there.", timeout_millis=5000))}


def unknown_voice():
    return {"bytes": len(speaker(voice="nobody").call("Hello there.", timeout_millis=5000))}


def unknown_voice_with_callback():
    recorder = Recorder()
    synthesizer = speaker(recorder, voice="nobody")
    try:
        synthesizer.streaming_call("Hello there.")
    finally:
        recorder.over.wait(5)
    return recorder.facts()


def too_long():
    return {"bytes": len(speaker().call("a" * 20001, timeout_millis=5000))}


def out_of_range():
    return {"bytes": len(speaker(speech_rate=3.0).call("Hello there.", timeout_millis=5000))}


def attempt(case):
    try:
        return globals()[case]()
    except Exception as error:
        traceback.print_exc()
        facts = {"error": type(error).__name__, "message": str(error)}
        return facts | {name: getattr(error, name) for name in ("name", "http_code") if hasattr(error, name)}


def main():
    url, *cases = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    dashscope.api_key = os.environ["SPEECH_KEY"]
    dashscope.base_websocket_api_url = url
    sys.stdout.write(json.dumps({case: attempt(case) for case in cases}) + "\n")
    sys.stdout.flush()
    os._exit(0)


main()
