"""Callbacks: in order, on threads that are there only while something is to be told, and never in each other's way."""

import subprocess
import sys
import threading
import time

import pytest
from dropin_kit import LIMIT, PCM, TEXT, Recorder, Service, eventually, speaker, told

from speechpool.dashscope.audio.tts_v2 import SpeechSynthesizerObjectPool
from speechpool.service.engines.marker import check, marker_length
from speechpool.synthesis.delivery import HIGH_WATER

LONG = "A long text. " * 900  # some six megabytes


class Slow(Recorder):
    """Holds on at its first piece of audio until it is let go."""

    def __init__(self):
        super().__init__()
        self.go_on = threading.Event()

    def on_data(self, data):
        super().on_data(data)
        assert self.go_on.wait(LIMIT)


def test_a_slow_callback_holds_its_own_task_only_and_in_bounded_memory(service):
    assert marker_length(LONG) > 16 * HIGH_WATER
    slow = Slow()
    held = speaker(slow)
    held.call(LONG)
    assert slow.heard.wait(LIMIT)
    others = [Recorder() for _ in range(5)]
    for recorder in others:
        speaker(recorder).call(TEXT)
    for recorder in others:
        assert len(recorder.wait().audio) == marker_length(TEXT)
    task = held._task
    steady(lambda: task.audio_bytes)
    assert task._paused
    assert task.audio_bytes < marker_length(LONG) / 4  # the rest waits in the sockets, and at the server
    slow.go_on.set()
    assert slow.wait().order == ["open", "complete", "close"]
    assert check(bytes(slow.audio), held.get_last_request_id()) == marker_length(LONG)


def steady(read):
    """Wait until a number changes no more."""
    before = None
    while (now := read()) != before:
        before = now
        time.sleep(0.1)


def test_all_that_is_ready_is_told_by_one_wake_up(service, fresh_workers):
    class Gate(Recorder):
        def on_event(self, message):
            super().on_event(message)
            assert go.wait(LIMIT)

    go = threading.Event()
    recorder = Gate()
    synthesizer = speaker(recorder)
    started = fresh_workers.started
    synthesizer.call(TEXT)
    assert synthesizer._task is not None
    while synthesizer._task.outcome is None:
        time.sleep(0.01)
    go.set()
    recorder.wait()
    assert fresh_workers.started == started + 1
    assert len(recorder.threads) == 1


def test_workers_are_used_again_and_end_by_themselves(service, fresh_workers, monkeypatch):
    from speechpool.dashscope import callbacks

    monkeypatch.setattr(callbacks, "KEEP", 0.1)
    earlier = set(threading.enumerate())
    started = fresh_workers.started
    for _ in range(20):
        recorder = Recorder()
        speaker(recorder).call(TEXT)
        recorder.wait()
    assert fresh_workers.started - started <= 4  # one, but for those that had not come to rest
    eventually(lambda: not set(threading.enumerate()) - earlier)


# ------------------------------------------------------------------------------------------ what they raise
@pytest.mark.parametrize("method", ["on_data", "on_event"])
def test_what_a_callback_raises_ends_the_task_and_reaches_the_caller(method, caplog):
    class Broken(Recorder):
        calls = 0

    def fail(self, _):
        self.calls += 1
        raise KeyError("of the program")

    setattr(Broken, method, fail)
    # A chunk each 20 ms: else the sockets may hold all of it, and nothing is left to cancel.
    with Service.running(interval=0.02) as service:
        before = service.counts.tasks["cancelled"]
        recorder = Broken()
        synthesizer = speaker(recorder)
        synthesizer.streaming_call(LONG)
        error = told(synthesizer.streaming_complete)
        assert isinstance(error, KeyError)
        assert recorder.order == ["open", "error", "close"]
        assert recorder.calls == 1
        assert recorder.errors[0]["error_code"] == "CallbackError"
        assert "KeyError" in recorder.errors[0]["error_message"]
        assert "A callback of task" in caplog.text
        assert len(speaker().call(TEXT)) == marker_length(TEXT)
        eventually(lambda: service.counts.tasks["cancelled"] == before + 1)


def test_what_on_complete_raises_reaches_the_caller(service):
    class Broken(Recorder):
        def on_complete(self):
            raise ValueError("of the program")

    recorder = Broken()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call(TEXT)
    assert isinstance(told(synthesizer.streaming_complete), ValueError)
    assert recorder.order == ["open", "error", "close"]


def test_what_on_open_raises_reaches_the_caller(service):
    class Broken(Recorder):
        def on_open(self):
            raise ValueError("of the program")

    recorder = Broken()
    assert isinstance(told(speaker(recorder).call, LONG), ValueError)
    assert recorder.wait().order == ["error", "close"]
    assert not recorder.audio


def test_what_the_last_callbacks_raise_is_logged_and_hides_nothing(caplog):
    class Broken(Recorder):
        def on_error(self, message):
            super().on_error(message)
            raise ValueError("of the program")

        def on_close(self):
            super().on_close()
            raise ValueError("of the program")

    with Service.running("drop@mid-audio"):
        recorder = Broken()
        speaker(recorder).call(LONG)
        assert recorder.wait().order == ["open", "error", "close"]
        assert len(speaker(Recorder())._wishes.model)  # the worker lives on
    assert "raised after its end" in caplog.text


# ------------------------------------------------------------------------------------------ calls from callbacks
def test_a_callback_may_call_the_sdk(service):
    class Chain(Recorder):
        """Speaks on, with the same object and with others, with and without callbacks."""

        left = 3

        def on_complete(self):
            super().on_complete()
            self.spoken = speaker().call(TEXT)
            self.other = Recorder()
            speaker(self.other).call(TEXT)
            self.other.wait()
            if self.left:
                self.left -= 1
                synthesizer.call(TEXT)

    recorder = Chain()
    synthesizer = speaker(recorder)
    synthesizer.call(TEXT)
    eventually(lambda: recorder.order.count("close") == 4)
    assert len(recorder.audio) == 4 * marker_length(TEXT)
    assert len(recorder.spoken) == marker_length(TEXT)
    assert recorder.order.count("open") == recorder.order.count("complete") == 4


def test_a_callback_may_end_or_cancel_its_own_task(service):
    class Ends(Recorder):
        def on_data(self, data):
            super().on_data(data)
            if not self.ended:
                self.ended = True
                getattr(synthesizer, method)()

        ended = False

    for method in ("streaming_complete", "async_streaming_complete", "streaming_cancel", "close"):
        recorder = Ends()
        synthesizer = speaker(recorder)
        synthesizer.streaming_call(TEXT + " ")
        assert recorder.wait().order == ["open", "error" if method == "close" else "complete", "close"]


def test_the_next_task_of_an_object_waits_for_the_last_callback(service):
    class Late(Recorder):
        def on_close(self):
            time.sleep(0.1)
            super().on_close()

    recorder = Late()
    synthesizer = speaker(recorder)
    for _ in range(3):
        synthesizer.call(TEXT)
        recorder.complete.wait(LIMIT)
        recorder.complete.clear()
    recorder.wait()
    eventually(lambda: recorder.order.count("close") == 3)
    assert recorder.order == ["open", "complete", "close"] * 3


def test_a_late_callback_never_reaches_the_next_borrower(service):
    class Late(Recorder):
        def on_close(self):
            assert released.wait(LIMIT)
            super().on_close()

    released = threading.Event()
    pool = SpeechSynthesizerObjectPool(1)
    try:
        first, second = Late(), Recorder()
        synthesizer = pool.borrow_synthesizer("cosyvoice-v3-flash", "longanyang", PCM, callback=first)
        synthesizer.call(TEXT)
        assert first.complete.wait(LIMIT)
        assert pool.return_synthesizer(synthesizer) is True
        synthesizer = pool.borrow_synthesizer("cosyvoice-v3-flash", "longanyang", PCM, callback=second)
        synthesizer.call(TEXT)
        assert second.wait().order == ["open", "complete", "close"]
        assert "complete" in first.order
        released.set()
        first.wait()
        assert second.order == ["open", "complete", "close"]
        assert len(second.audio) == marker_length(TEXT)
    finally:
        released.set()
        pool.shutdown()


# ------------------------------------------------------------------------------------------ the end of the process
PROGRAM = """
import sys, time
from speechpool import dashscope
from speechpool.dashscope.audio.tts_v2 import *
dashscope.api_key, dashscope.base_websocket_api_url = "k", sys.argv[1]
class Callback(ResultCallback):
    size = 0
    def on_data(self, data):
        time.sleep(0.01)
        self.size += len(data)
    def on_close(self):
        print("heard", self.size, flush=True)
pool = SpeechSynthesizerObjectPool(3)
{}
"""


def leave(service, code):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(code), service.url],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_the_process_exits_without_shutdown(service):
    assert leave(service, "pool.borrow_synthesizer('cosyvoice-v3-flash', 'longanyang')") == ""
    # A text that was begun and never ended holds nobody up.
    speak = "'cosyvoice-v3-flash', 'longanyang', AudioFormat.PCM_24000HZ_MONO_16BIT, callback=ResultCallback()"
    assert leave(service, f"SpeechSynthesizer({speak}).streaming_call('Half a')") == ""


def test_the_process_stays_for_what_was_left_to_speak(service):
    text = TEXT * 5
    speak = "cosyvoice-v3-flash', 'longanyang', AudioFormat.PCM_24000HZ_MONO_16BIT, callback=Callback()"
    said = f"heard {marker_length(text)}\n"
    assert leave(service, f"SpeechSynthesizer('{speak}).call({text!r})") == said
    assert leave(service, f"pool.borrow_synthesizer('{speak}).call({text!r})") == said
    streamed = f"one = SpeechSynthesizer('{speak})\none.streaming_call({text!r})\none.async_streaming_complete()"
    assert leave(service, streamed) == said


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
def test_a_forked_child_speaks_with_connections_of_its_own(service):
    code = """
import os
one = SpeechSynthesizer('cosyvoice-v3-flash', 'longanyang', AudioFormat.PCM_24000HZ_MONO_16BIT)
size = len(one.call('Hello.'))
child = os.fork()
if not child:
    try:
        assert len(one.call('Hello.')) == size
        try: pool.borrow_synthesizer('cosyvoice-v3-flash', 'longanyang')
        except Exception as error: print(type(error).__name__, flush=True)
        os._exit(0)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert len(one.call('Hello.')) == size
"""
    assert leave(service, code) == "InvalidTask\n"
