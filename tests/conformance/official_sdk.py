"""Runs cases of the official SDK, whichever version its interpreter has: official_sdk.py FOLDER.

FOLDER/order.json holds the `urls` of the services by name, the `cases` (all, where it names none) and the `refusals`.
The answer is FOLDER/facts.json, and what was heard lies beside it. Cases run at once, each on a thread of its own.

The SDK leaves threads and sockets behind, so the process ends by `os._exit`.
"""

import faulthandler
import inspect
import json
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import dashscope
from dashscope.audio.tts_v2 import AudioFormat, ResultCallback, SpeechSynthesizer, SpeechSynthesizerObjectPool

MODEL, VOICE = "cosyvoice-v3-flash", "longanyang"
PCM = AudioFormat.PCM_24000HZ_MONO_16BIT
TEXT = "Hello there. How are you?"
LONG = "A long text. " * 500
PATIENCE = 15
TOO_LONG = 75
"""Seconds for everything; beyond it the process ends, and shows where it hangs."""

FOLDER = Path(sys.argv[1])
URLS = {}
CASES = {}

HAS_FLUSH = hasattr(SpeechSynthesizer, "streaming_flush")
TELLS_CANCEL = "complete_timeout_millis" in inspect.signature(SpeechSynthesizer.streaming_cancel).parameters
HAS_CLIENT = hasattr(dashscope, "Client")


def case(function):
    """Register a case."""
    CASES[function.__name__] = function
    return function


class Recorder(ResultCallback):
    def __init__(self):
        self.order, self.audio, self.events, self.errors = [], bytearray(), [], []
        self.over = threading.Event()
        self.heard = threading.Event()

    def on_open(self):
        self.order.append("open")

    def on_complete(self):
        self.order.append("complete")

    def on_error(self, message):
        self.order.append("error")
        header = json.loads(message)["header"]
        self.errors.append([header["error_code"], header["error_message"]])

    def on_close(self):
        self.order.append("close")
        self.over.set()

    def on_event(self, message):
        self.events.append(json.loads(message)["payload"])

    def on_data(self, data):
        self.audio += data
        self.heard.set()

    def facts(self):
        """What was called back, once the task is over."""
        over = self.over.wait(PATIENCE)
        return {
            "over": over,
            "order": list(self.order),
            "bytes": len(self.audio),
            "types": [event["output"].get("type") for event in self.events],
            "words": [word["text"] for event in self.events for word in event["output"]["sentence"]["words"]],
            "times": [
                [word["begin_time"], word["end_time"]]
                for event in self.events
                for word in event["output"]["sentence"]["words"]
            ],
            "errors": list(self.errors),
        }


def speaker(service, callback=None, audio_format=PCM, **options):
    settings = {"model": MODEL, "voice": VOICE, "format": audio_format, "callback": callback, "url": URLS[service]}
    return SpeechSynthesizer(**{**settings, **options})


def say(service, text=TEXT, **options):
    """Audio of a blocking call, and what the object tells afterwards."""
    synthesizer = speaker(service, **options)
    audio = synthesizer.call(text, timeout_millis=PATIENCE * 1000)
    response = synthesizer.get_response()
    facts = {
        "bytes": len(audio),
        "last": response["header"]["event"],
        "usage": response["payload"]["usage"]["characters"],
        "delay": synthesizer.get_first_package_delay(),
        "same_id": synthesizer.get_last_request_id() == response["header"]["task_id"],
    }
    return facts, audio


def at_once(function, names, threads=8):
    """What `function` says to each name, by name."""
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(names, pool.map(function, names), strict=True))


def kept(name, audio):
    (FOLDER / name).write_bytes(audio)
    return name


# ------------------------------------------------------------------------------------------ what works
@case
def call_default():
    facts, audio = say("hibari", "Hello there.", audio_format=AudioFormat.DEFAULT)
    return {**facts, "head": audio[:3].hex()}


@case
def call():
    return say("marker")[0]


@case
def call_of_a_real_voice():
    return say("hibari", "Hello there.")[0]


@case
def formats():
    def spoken(name):
        facts, audio = say("tone", audio_format=AudioFormat[name])
        return {**facts, "file": kept(f"{name}.audio", audio), "value": AudioFormat[name].value}

    return at_once(spoken, list(AudioFormat.__members__))


@case
def call_ssml():
    plain = say("tone", "Hello there.")[0]
    return {
        "plain": plain["bytes"],
        "ssml": say("tone", "<speak>Hello there.<break time='500ms'/></speak>")[0]["bytes"],
    }


@case
def call_with_callback():
    recorder = Recorder()
    returned = speaker("marker", recorder).call("Hello there.", timeout_millis=PATIENCE * 1000)
    return {**recorder.facts(), "returned": returned}


@case
def streaming_call():
    recorder = Recorder()
    synthesizer = speaker("marker", recorder)
    for piece in ("Hel", "lo there. How ", "are you", "? Goodbye."):
        synthesizer.streaming_call(piece)
    synthesizer.streaming_complete(PATIENCE * 1000)
    return {**recorder.facts(), "usage": synthesizer.get_response()["payload"]["usage"]["characters"]}


@case
def streaming_without_callback():
    try:
        speaker("marker").streaming_call("Hello there.")
    except Exception as error:
        return {"error": type(error).__name__}


@case
def async_streaming_complete():
    recorder = Recorder()
    synthesizer = speaker("marker", recorder)
    synthesizer.streaming_call(TEXT)
    synthesizer.async_streaming_complete(PATIENCE * 1000)
    return recorder.facts()


@case
def streaming_flush():
    if not HAS_FLUSH:
        return None
    recorder = Recorder()
    synthesizer = speaker("marker", recorder)
    synthesizer.streaming_call("Half a sentence")
    synthesizer.streaming_flush()
    heard = recorder.heard.wait(PATIENCE)
    synthesizer.streaming_call(" and the rest.")
    synthesizer.streaming_complete(PATIENCE * 1000)
    return {**recorder.facts(), "heard_before_the_end": heard}


@case
def streaming_cancel():
    recorder = Recorder()
    synthesizer = speaker("marker", recorder)
    synthesizer.streaming_call(LONG)
    recorder.heard.wait(PATIENCE)
    begun = time.monotonic()
    synthesizer.streaming_cancel()
    facts = {"tells": TELLS_CANCEL, "seconds": time.monotonic() - begun}
    return {**(recorder.facts() if TELLS_CANCEL else {"order": list(recorder.order)}), **facts}


@case
def timestamps():
    recorder = Recorder()
    synthesizer = speaker("tone", recorder, additional_params={"word_timestamp_enabled": True})
    synthesizer.streaming_call(TEXT)
    synthesizer.streaming_complete(PATIENCE * 1000)
    return recorder.facts()


@case
def no_timestamps():
    recorder = Recorder()
    synthesizer = speaker("tone", recorder)
    synthesizer.streaming_call(TEXT)
    synthesizer.streaming_complete(PATIENCE * 1000)
    return recorder.facts()


@case
def every_parameter():
    hot_fix = {"replace": [{"there": "over there"}]}
    wanted = {"hot_fix": hot_fix, "enable_aigc_tag": False, "nobody_knows_it": [1, {"a": None}]}
    slow, _ = say("tone", speech_rate=0.5, seed=7, synthesis_type=1, language_hints=["en"])
    loud, _ = say("tone", volume=80, pitch_rate=1.5, instruction="Speak calmly.", additional_params=wanted)
    return {"plain": say("tone")[0]["bytes"], "slow": slow["bytes"], "fixed": loud["bytes"]}


@case
def older_events():
    recorder = Recorder()
    synthesizer = speaker("older", recorder)
    synthesizer.streaming_call(TEXT)
    synthesizer.streaming_complete(PATIENCE * 1000)
    return recorder.facts()


@case
def object_pool():
    pool = SpeechSynthesizerObjectPool(max_size=20, url=URLS["pooled"])
    try:
        return _pooled(pool)
    finally:
        pool.shutdown()


def _pooled(pool):
    def borrow():
        recorder = Recorder()
        return pool.borrow_synthesizer(MODEL, VOICE, format=PCM, callback=recorder), recorder

    borrowed = [borrow() for _ in range(20)]
    for synthesizer, _ in borrowed:
        synthesizer.streaming_call("Hello there.")
    results = []
    for synthesizer, recorder in borrowed:
        synthesizer.streaming_complete(PATIENCE * 1000)
        results.append(recorder.facts())
        pool.return_synthesizer(synthesizer)
    synthesizer, recorder = borrow()  # a second task on a connection that has carried one
    synthesizer.streaming_call("Again.")
    synthesizer.streaming_complete(PATIENCE * 1000)
    return {"tasks": results, "again": recorder.facts()}


# ------------------------------------------------------------------------------------------ what fails
def provoke(service, texts=("Hello there.",), *, wait=False, options=None, via="streaming_call"):
    """Speak with a callback, whatever happens, and tell what the SDK's user learns."""
    recorder = Recorder()
    raised = None
    synthesizer = speaker(service, recorder, **(options or {}))
    try:
        if via == "call":
            synthesizer.call(texts[0], timeout_millis=PATIENCE * 1000)
        else:
            for text in texts:
                synthesizer.streaming_call(text)
            if wait:
                recorder.over.wait(PATIENCE)
            synthesizer.streaming_complete(PATIENCE * 1000)
    except Exception as error:
        raised = told(error)
    facts = recorder.facts()
    last = (synthesizer.get_response() or {"header": {"event": None}})["header"]["event"]
    return {**facts, "raised": raised, "last": last}


def told(error):
    facts = {"error": type(error).__name__, "message": str(error)}
    return {**facts, **{name: getattr(error, name) for name in ("name", "http_code", "code") if hasattr(error, name)}}


@case
def refusals():
    """Requests that the service does not take; the texts and options come with the order."""
    wrong = ORDER.get("refusals", {})
    return at_once(lambda name: provoke(**wrong[name]), list(wrong))


@case
def failures():
    """Every code that a task can fail with."""
    return at_once(provoke, [name for name in URLS if name.startswith("fail:")])


@case
def blocking_failure():
    """What a user without a callback learns."""
    synthesizer = speaker("marker", voice="nobody")
    facts = {}
    try:
        facts["returned"] = synthesizer.call("Hello there.", timeout_millis=PATIENCE * 1000)
    except Exception as error:
        facts |= told(error)
    return {**facts, "response": synthesizer.get_response()["header"]}


@case
def too_fast():
    return [provoke("limited") for _ in range(2)]


@case
def too_many_at_once():
    recorder = Recorder()
    first = speaker("single", recorder)
    first.streaming_call("Half a sentence")
    second = provoke("single")
    first.streaming_call(" is enough.")
    first.streaming_complete(PATIENCE * 1000)
    return {"first": recorder.facts(), "second": second, "afterwards": provoke("single")}


@case
def silence():
    return provoke("hurried", ["Half a sentence"], wait=True)


@case
def invalid_action():
    return provoke("invalid-action")


@case
def run_task_during_a_task():
    """What a pool's user does who gives an object back that still speaks (protocol.md 3.7)."""
    recorder = Recorder()
    synthesizer = speaker("marker", recorder)
    synthesizer.streaming_call("Half a sentence")
    synthesizer._SpeechSynthesizer__reset()
    synthesizer.request.task_id = "b" * 32
    try:
        synthesizer.streaming_call("Hello there.")
    except Exception as error:
        return {**recorder.facts(), "raised": told(error)}
    return recorder.facts()


def _refused(service, **options):
    try:
        return {"bytes": len(say(service, **options)[1])}
    except Exception as error:
        return told(error)


@case
def wrong_key():
    return _refused("marker", headers={"Authorization": "Bearer wrong"})


@case
def refused_handshakes():
    return at_once(_refused, [name for name in URLS if name.startswith("refuse:")])


@case
def duplicate_finish():
    return say("duplicate-finish")[0]


# ------------------------------------------------------------------------------------------ the client of 2.0
def client():
    return dashscope.Client(api_key=os.environ["SPEECH_KEY"], timeout=PATIENCE)


WISH = {"model": MODEL, "voice": VOICE, "format": "pcm", "sample_rate": 24000}


@case
def five_on_one_socket():
    if not HAS_CLIENT:
        return None
    with client() as made:
        connection = made.ws_connection(url=URLS["shared"])
        facts = []
        try:
            for number in range(5):
                with made.audio.tts.connect(connection=connection, **WISH) as session:
                    session.send_text("Hello " * (number + 1))
                    session.send_text("there.")
                    session.stop()
                    audio = b"".join(session.audio_chunks())
                    facts.append({
                        "file": kept(f"shared-{number}.audio", audio),
                        "task": session.session.task_id,
                        "usage": session.usage["characters"],
                        "delay": session.first_package_delay,
                    })  # fmt: skip
        finally:
            connection.close()
    return facts


@case
def client_synthesize():
    if not HAS_CLIENT:
        return None
    with client() as made:
        tts, url = made.audio.tts, URLS["tone"]
        whole = tts.synthesize(TEXT, ws_url=url, **WISH)
        chunks = list(tts.stream(TEXT, ws_url=url, **WISH))
        ssml = tts.synthesize("<speak>Hello there.</speak>", ws_url=url, enable_ssml=True, **WISH)
        mp3 = tts.synthesize(TEXT, ws_url=url, model=MODEL, voice=VOICE)
    return {
        "bytes": len(whole),
        "chunks": len(chunks),
        "same": b"".join(chunks) == whole,
        "ssml": len(ssml),
        "mp3": kept("client.mp3", mp3),
    }


@case
def client_flush_and_cancel():
    if not HAS_CLIENT:
        return None
    with client() as made:
        connection = made.ws_connection(url=URLS["marker"])
        try:
            with made.audio.tts.connect(connection=connection, **WISH) as session:
                session.send_text("Half a sentence")
                session.flush()
                chunks = session.audio_chunks()
                first = len(next(chunks))
                session.send_text(LONG)
                session.cancel()
                rest = sum(len(chunk) for chunk in chunks)
            with made.audio.tts.connect(connection=connection, **WISH) as session:  # the same socket
                session.send_text("Again.")
                session.stop()
                again = b"".join(session.audio_chunks())
        finally:
            connection.close()
    return {"first": first, "rest": rest, "again": kept("again.audio", again)}


@case
def client_events():
    if not HAS_CLIENT:
        return None
    with client() as made:
        wish = {**WISH, "parameters": {"word_timestamp_enabled": True}}
        with made.audio.tts.connect(ws_url=URLS["tone"], **wish) as session:
            session.send_text(TEXT)
            session.stop()
            events = [event if isinstance(event, dict) else "audio" for event in session.events()]
    outputs = [event["payload"]["output"] for event in events if event != "audio"]
    return {
        "kinds": [event if event == "audio" else event["header"]["event"] for event in events],
        "words": [word["text"] for output in outputs for word in output["sentence"]["words"]],
    }


@case
def client_errors():
    if not HAS_CLIENT:
        return None
    facts = {}
    with client() as made:
        for name in [name for name in URLS if name.startswith("fail:")]:
            try:
                made.audio.tts.synthesize("Hello there.", ws_url=URLS[name], **WISH)
            except Exception as error:
                facts[name] = told(error)
        try:
            made.audio.tts.synthesize("Hello there.", ws_url=URLS["marker"], api_key="wrong", **WISH)
        except Exception as error:
            facts["wrong key"] = told(error)
    return facts


@case
def client_run_task_during_a_task():
    if not HAS_CLIENT:
        return None
    with client() as made:
        connection = made.ws_connection(url=URLS["marker"])
        left = made.audio.tts.connect(connection=connection, **WISH).start()
        left.send_text("Half a sentence")
        left.close()  # this only detaches
        try:
            made.audio.tts.connect(connection=connection, **WISH).start()
        except Exception as error:
            return told(error)
        finally:
            connection.close()


@case
def client_idle_close():
    if not HAS_CLIENT:
        return None
    with client() as made:
        connection = made.ws_connection(url=URLS["hurried"])
        deadline = time.monotonic() + PATIENCE
        while not connection.closed and time.monotonic() < deadline:
            time.sleep(0.05)
        closed = connection.closed
        connection.close()
    return {"closed": closed}


def attempt(name):
    try:
        return CASES[name]()
    except Exception as error:
        traceback.print_exc()
        return told(error)


def main():
    faulthandler.dump_traceback_later(TOO_LONG, exit=True)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")  # that its audio is a preview, and of a workspace that this service has not
    dashscope.api_key = os.environ["SPEECH_KEY"]
    URLS.update(ORDER["urls"])
    facts = at_once(attempt, ORDER.get("cases") or list(CASES), threads=len(CASES))
    (FOLDER / "facts.json").write_text(json.dumps({"version": version("dashscope"), **facts}))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


ORDER = json.loads((FOLDER / "order.json").read_text())
main()
