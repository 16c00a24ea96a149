"""What a program does right after it has given a task up, before the loop has heard of it; and threads that cannot be had."""

import copy
import pickle
import sys
import threading
import time
import types

import pytest
from dropin_kit import LIMIT, MODEL, PCM, TEXT, VOICE, Recorder, eventually, speaker, told

from speechpool.dashscope import callbacks, pools
from speechpool.dashscope.audio.tts_v2 import SpeechSynthesizerObjectPool
from speechpool.dashscope.callbacks import Workers
from speechpool.dashscope.endpoints import endpoint_for
from speechpool.dashscope.errors import InputRequired, InvalidTask, ModelRequired, built
from speechpool.dashscope.pools import WarmPools
from speechpool.synthesis.loop_thread import loop_thread


@pytest.fixture
def held_loop():
    """The loop takes no call until the context is left."""

    class Held:
        def __enter__(self):
            self.go, busy = threading.Event(), threading.Event()
            loop_thread.loop.call_soon_threadsafe(lambda: (busy.set(), self.go.wait(LIMIT)))
            assert busy.wait(LIMIT)

        def __exit__(self, *_):
            self.go.set()

    return Held()


# ------------------------------------------------------------------------------------------ given up a moment ago
def test_a_task_that_was_just_cancelled_does_not_run_any_more(service, held_loop):
    recorder = Recorder()
    synthesizer = speaker(recorder)
    synthesizer.streaming_call("Half a")
    with held_loop:
        synthesizer.streaming_cancel(complete_timeout_millis=1)
        assert not synthesizer.running
        assert isinstance(told(synthesizer.streaming_complete, 1), InvalidTask)
    recorder.wait()
    synthesizer.call(TEXT)
    eventually(lambda: recorder.order.count("close") == 2)


def test_an_object_whose_task_took_too_long_is_not_lent_again(service, held_loop):
    pool = SpeechSynthesizerObjectPool(1)
    try:
        recorder = Recorder()
        synthesizer = pool.borrow_synthesizer(MODEL, VOICE, PCM, callback=recorder)
        synthesizer.streaming_call("Half a")
        with held_loop:
            assert isinstance(told(synthesizer.streaming_complete, 1), TimeoutError)
            assert not synthesizer.running  # so that it can be returned at once
            returning = threading.Thread(target=pool.return_synthesizer, args=(synthesizer,))
            returning.start()
        returning.join(LIMIT)
        assert recorder.wait().order[-2:] == ["error", "close"]
        again = pool.borrow_synthesizer(MODEL, VOICE, PCM, callback=Recorder())
        again.call(TEXT)
        again.callback.wait()
    finally:
        pool.shutdown()


def test_a_callback_may_return_its_object_while_the_next_call_waits_for_it(service):
    """The wait must not hold what returning takes: both would wait until patience ends."""

    class Returns(Recorder):
        def on_close(self):
            assert begun.wait(LIMIT)
            time.sleep(0.05)  # the other thread waits by now
            synthesizer.close()
            super().on_close()

    begun = threading.Event()
    recorder = Returns()
    synthesizer = speaker(recorder)
    synthesizer.call(TEXT)
    assert recorder.complete.wait(LIMIT)
    begun.set()
    before = time.monotonic()
    synthesizer.call(TEXT)
    assert time.monotonic() - before < LIMIT / 4
    eventually(lambda: recorder.order.count("close") == 2)


# ------------------------------------------------------------------------------------------ threads
def test_a_job_for_which_no_thread_can_be_had_is_done_late(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    workers, done = Workers(), []
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        workers.run(lambda: done.append("late"))
    assert (done, workers.started, workers.news.is_set()) == ([], 0, True)
    monkeypatch.setattr(callbacks, "KEEP", 0.02)
    workers.run(lambda: done.append("in time"))  # the worker that is through with its own job takes the late one
    eventually(lambda: done == ["in time", "late"])
    eventually(lambda: not workers._idle)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        workers.run(lambda: done.append("by whoever waits"))
    workers.help()
    assert done[-1] == "by whoever waits"


# ------------------------------------------------------------------------------------------ pools
def test_a_pool_that_is_forgotten_is_closed_only_after_a_grace(service, monkeypatch):
    """A thread may have been given it a moment ago."""
    monkeypatch.setattr(pools, "_ENDPOINTS_KEPT", 1)
    warm = WarmPools("test", keep=1)
    try:
        warm.host(service.url, None, None, "one")
        (first,) = warm._pools.values()
        warm.host(service.url, None, None, "two")
        assert (list(warm._leaving), first.stats.phase) == ([first], "running")
        monkeypatch.setattr(pools, "_GRACE", -1.0)
        warm.host(service.url, None, None, "three")
        assert (first in warm._leaving, first.stats.phase) == (False, "closed")
    finally:
        loop_thread.run(warm.close)


# ------------------------------------------------------------------------------------------ what is handed on
def test_a_header_without_a_value_is_not_sent():
    endpoint = endpoint_for("ws://127.0.0.1:1", None, {"X-None": None, "X-Kept": "1"}, "key")
    assert {name.lower() for name in endpoint.headers} >= {"x-kept"}
    assert "x-none" not in {name.lower() for name in endpoint.headers}


@pytest.mark.parametrize("kind", [InputRequired, InvalidTask, ModelRequired])
def test_errors_of_both_kinds_can_be_copied_and_sent_to_another_process(kind, monkeypatch):
    official = types.ModuleType("dashscope.common.error")
    setattr(official, kind.__name__, type(kind.__name__, (Exception,), {}))
    monkeypatch.setitem(sys.modules, official.__name__, official)
    error = built(kind, "what is wrong")
    error.request_id = "r1"
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # our own bytes
        assert type(twin) is type(error)
        assert isinstance(twin, getattr(official, kind.__name__))
        assert str(twin) == "what is wrong"
        assert twin.request_id == "r1"
