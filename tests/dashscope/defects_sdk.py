"""Plays the scenes of the 34 defects with one package and writes down what happened: defects_sdk.py PACKAGE SCENES.

PACKAGE is `dashscope` or `speechpool.dashscope`. SCENES is `together`: all that can stand beside each other, at once, each
with services of its own in this process; or `alone` followed by the URLs of a service that takes any key and of one that
takes only the key `new`: what is measured in threads, in CPU time or by the end of the process.

The scenes call public methods only, with two exceptions that keep the official class usable: its singleton is forgotten
between pools, and its renewal, due each 25 to 35 s, is made to come within seconds by its own attribute.
"""

import gc
import inspect
import json
import logging
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from dropin_kit import MODEL, TEXT, VOICE, Service

from speechpool.service.engines.marker import check, marker_length
from speechpool.service.faults import Faults

PACKAGE = sys.argv[1]
dashscope = import_module(PACKAGE)
tts = import_module(f"{PACKAGE}.audio.tts_v2")
SpeechSynthesizer, Pool = tts.SpeechSynthesizer, tts.SpeechSynthesizerObjectPool
PCM = tts.AudioFormat.PCM_24000HZ_MONO_16BIT

LONG = "A long text. " * 100
PATIENCE = 15
SCENES = {}
one_at_a_time = threading.Lock()


def scene(function):
    SCENES[function.__name__] = function
    return function


class Recorder(tts.ResultCallback):
    def __init__(self):
        self.order, self.audio = [], b""
        self.heard, self.over = threading.Event(), threading.Event()

    def on_open(self):
        self.order.append("open")

    def on_complete(self):
        self.order.append("complete")

    def on_error(self, message):
        self.order.append("error")

    def on_close(self):
        self.order.append("close")
        self.over.set()

    def on_data(self, data):
        self.audio += data
        self.heard.set()


def make_pool(size, service, **options):
    with one_at_a_time:
        if hasattr(Pool, "_instance"):
            del Pool._instance
        pool = Pool.__new__(Pool)
    pool.__init__(size, url=service.url, **options)
    return pool


def renew_soon(pool):
    """Official: an interval of -5 to 5 s, looked at each second. Ours knows nothing of it."""
    pool.DEFAULT_RECONNECT_INTERVAL = 0


def borrow(pool, callback=None, **options):
    return pool.borrow_synthesizer(MODEL, VOICE, PCM, callback=callback, **options)


def speaker(service, callback=None, **options):
    return SpeechSynthesizer(MODEL, VOICE, PCM, callback=callback, url=service.url, **options)


def told(function, *arguments, **named):
    """The error that a call raises, as its names and its words."""
    try:
        function(*arguments, **named)
    except Exception as error:
        return [[each.__name__ for each in type(error).__mro__], f"{error} {error.__cause__}"]
    return None


def whole(synthesizer, text=TEXT, **options):
    """Whether a synthesizer speaks a whole text, and nothing else; or what it raises."""
    try:
        audio = synthesizer.call(text, **options)
        return check(audio or b"", synthesizer.get_last_request_id()) == marker_length(text)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def seconds(function):
    begun = time.monotonic()
    return function(), time.monotonic() - begun


def until(condition, limit):
    """Seconds until something is so; None: it is not within `limit`."""
    begun = time.monotonic()
    while time.monotonic() - begun < limit:
        if condition():
            return time.monotonic() - begun
        time.sleep(0.02)
    return None


def once(fault):
    """A fault that strikes at the first moment of its phase, and at none of the next five: by its dice."""
    for share in range(150, 400):
        text = f"{fault}~0.{share}"
        faults = Faults.parse([text])
        phase = faults.faults[0].phase
        if [bool(faults.at(phase)) for _ in range(6)] == [True] + [False] * 5:
            return text
    raise AssertionError(fault)


# ------------------------------------------------------------------------------------------ size and start-up
@scene
def d01():
    return told(make_pool, 101, Service())


@scene
def d02():
    return seconds(lambda: make_pool(20, Service()))[1]


@scene
def d03():
    error, took = seconds(lambda: told(make_pool, 2, Service("refuse:401")))
    # The first handshake is let in, the second one is not.
    half = Service(next(f"refuse:401~0.{n}" for n in range(20, 80) if strikes(f"refuse:401~0.{n}", 2) == [False, True]))
    second = told(make_pool, 2, half)
    time.sleep(0.3)
    return {"error": error, "seconds": took, "second": second, "left": half.connected}


def strikes(fault, times):
    faults = Faults.parse([fault])
    return [faults.handshake().status is not None for _ in range(times)]


@scene
def d04():
    service = Service()
    with one_at_a_time:
        if hasattr(Pool, "_instance"):
            del Pool._instance
        first, second = Pool(3, url=service.url), Pool(2, url=service.url)
    synthesizers = [borrow(pool) for pool in (first, first, first, second, second)]
    spoken = [whole(each) for each in synthesizers]
    return {"same": first is second, "spoken": spoken, "connections": service.counts.connections}


@scene
def d05():
    here, there = Service(), Service()
    pool = make_pool(1, here)
    spoken = whole(borrow(pool, url=there.url))
    return {
        "spoken": spoken,
        "there": there.counts.connections,
        "hot fix": told(borrow, pool, hot_fix={"replace": [{"there": "over there"}]}),
    }


# ------------------------------------------------------------------------------------------ keeping connections fresh
@scene
def d06_d07():
    service = Service()
    pool = make_pool(4, service)
    renew_soon(pool)
    time.sleep(3.5)
    return {"open": service.connected, "handshakes": service.counts.connections - 4}


@scene
def d08():
    service = Service()
    pool = make_pool(1, service)
    renew_soon(pool)
    service.close()
    time.sleep(2.5)  # long enough for an attempt to begin
    again = Service(port=port(service))
    return until(lambda: again.connected, 7)  # long enough for it to end, and for two more


@scene
def d09():
    service = Service()
    _pool = make_pool(8, service)
    service.close()
    again = Service("handshake-delay:300ms", port=port(service))
    return until(lambda: again.connected == 8, PATIENCE)


def port(service):
    return int(service.url.split(":")[2].split("/")[0])


# ------------------------------------------------------------------------------------------ borrow and return
@scene
def d10():
    pool = make_pool(1, Service())
    synthesizer = borrow(pool)
    return [whole(synthesizer), pool.return_synthesizer(synthesizer)]


@scene
def d11():
    pool = make_pool(2, Service())
    first, _second = borrow(pool), borrow(pool)
    pool.return_synthesizer(first)
    answer = pool.return_synthesizer(first)
    slow = make_pool(2, Service(interval=0.1))
    running, _other = borrow(slow, Recorder()), borrow(slow)
    running.call(LONG)
    return {
        "doubled": answer,
        "two have one": borrow(pool) is borrow(pool),
        "running": slow.return_synthesizer(running),
    }


@scene
def d12():
    service = Service()
    pool = make_pool(1, service)
    pooled, extra = borrow(pool), borrow(pool)
    spoken = [whole(extra), whole(pooled)]
    pool.return_synthesizer(extra)
    return {"spoken": spoken, "answer": pool.return_synthesizer(pooled)}


@scene
def d13():
    service = Service(interval=0.02)
    pool = make_pool(1, service)
    waiting = {"timeout": PATIENCE} if "timeout" in inspect.signature(pool.borrow_synthesizer).parameters else {}
    barrier = threading.Barrier(3)

    def user(_):
        barrier.wait()
        synthesizer = borrow(pool, **waiting)
        spoken = whole(synthesizer)
        pool.return_synthesizer(synthesizer)
        return spoken

    with ThreadPoolExecutor(3) as users:
        return {"spoken": list(users.map(user, range(3))), "connections": service.counts.connections}


@scene
def d14():
    service = Service()
    pool = make_pool(2, service)
    borrow(pool).close()
    time.sleep(0.3)
    until(lambda: service.connected == 2, 2.5)
    return service.connected


@scene
def d15():
    service = Service()
    pool = make_pool(1, service)
    _pooled, extra = borrow(pool), borrow(pool)
    spoken = whole(extra)
    del extra
    gc.collect()
    until(lambda: service.connected == 1, 1.5)
    return {"spoken": spoken, "open": service.connected}


@scene
def d16():
    service = Service(idle_timeout=0.3)
    pool = make_pool(1, service)
    synthesizer = borrow(pool)
    time.sleep(1)
    return whole(synthesizer)


# ------------------------------------------------------------------------------------------ running a task
def streamed(synthesizer, limit, text=TEXT):
    """What the caller of a stream gets, and after how long."""

    def stream():
        synthesizer.streaming_call(text)
        synthesizer.streaming_complete(limit)

    return seconds(lambda: told(stream))


@scene
def d17():
    recorder = Recorder()
    error, took = streamed(speaker(Service("drop@mid-audio"), recorder), 2000)
    waiting = threading.Event()
    plain = speaker(Service("drop@mid-audio"))
    threading.Thread(target=lambda: (told(plain.call, TEXT), waiting.set()), daemon=True).start()
    return {"error": error, "seconds": took, "order": recorder.order, "woken": waiting.wait(2)}


@scene
def d18():
    pool = make_pool(1, Service("duplicate-finish:200ms"))
    first = borrow(pool)
    spoken = whole(first)
    pool.return_synthesizer(first)
    recorder = Recorder()
    second = borrow(pool, recorder)
    second.streaming_call(TEXT)
    time.sleep(0.6)
    early = list(recorder.order)
    error = told(second.streaming_complete, 3000)
    return {"spoken": spoken, "early": early, "error": error, "heard": len(recorder.audio) == marker_length(TEXT)}


@scene
def d19():
    service = Service(interval=0.1)
    pool = make_pool(1, service)
    first = borrow(pool, Recorder())
    error, _ = streamed(first, 300, LONG)
    pool.return_synthesizer(first)
    return {"error": error, "next": whole(borrow(pool), timeout_millis=5000)}


@scene
def d20():
    pool = make_pool(4, Service())
    end = time.monotonic() + 3

    def user(_):
        tasks = failures = 0
        while time.monotonic() < end:
            tasks += 1
            failures += not returned_in_on_complete(pool)
        return tasks, failures

    with ThreadPoolExecutor(4) as users:
        return list(map(sum, zip(*users.map(user, range(4)), strict=True)))


def returned_in_on_complete(pool):
    done = threading.Event()

    class Returning(tts.ResultCallback):
        def on_complete(self):
            pool.return_synthesizer(synthesizer)
            done.set()

    synthesizer = borrow(pool, Returning())
    try:
        synthesizer.call("Hi.")
    except Exception:
        return False
    return done.wait(5)


@scene
def d21():
    slow = {"interval": 0.2}  # an answer that had the time to come would hide that nobody waits for it
    pool = make_pool(1, Service(**slow))
    synthesizer, plain = borrow(pool), speaker(Service(**slow))
    streaming = borrow(pool, Recorder())
    return {
        "pooled": [whole(synthesizer), whole(synthesizer)],
        "plain": [whole(plain), whole(plain)],
        "streams": [streamed(streaming, 5000)[0] for _ in range(2)],
    }


@scene
def d22():
    pool = make_pool(1, Service(once("fail@starting:InvalidParameter")))
    synthesizer = borrow(pool, Recorder())
    return [told(synthesizer.streaming_call, TEXT), streamed(synthesizer, 5000)[0]]


@scene
def d23():
    return seconds(lambda: told(speaker(Service("stall@starting"), Recorder()).streaming_call, TEXT))


@scene
def d24():
    mine = {"word_timestamp_enabled": True}
    synthesizer = speaker(Service(), additional_params=mine, hot_fix={"replace": [{"Hello": "Hi"}]})
    synthesizer.call(TEXT)
    return mine


@scene
def d26():
    class Breaking(Recorder):
        def on_data(self, data):
            if not self.heard.is_set():
                self.heard.set()
                raise LookupError("no disk")
            super().on_data(data)

    recorder = Breaking()
    error, _ = streamed(speaker(Service(), recorder), 5000, LONG)
    recorder.over.wait(PATIENCE)
    return {"error": error, "order": recorder.order}


@scene
def d27():
    recorder = Recorder()
    error, _ = streamed(speaker(Service("broken-json@finishing"), recorder), 2000)
    return {"error": error, "order": recorder.order}


@scene
def d28():
    synthesizer = speaker(Service("fail@started:DataInspectionFailed"))
    return [told(synthesizer.call, TEXT), synthesizer.get_first_package_delay()]


@scene
def d29():
    pool = make_pool(1, Service(interval=0.01))

    def cancelled_in_the_background():
        synthesizer = borrow(pool, Recorder())
        synthesizer.streaming_call(LONG)
        synthesizer.async_streaming_complete()
        synthesizer.streaming_cancel()
        pool.return_synthesizer(synthesizer)

    for turn in range(40):
        cancelled_in_the_background()
        following = borrow(pool, Recorder())
        if error := streamed(following, 5000)[0]:
            return [turn, error]
        pool.return_synthesizer(following)
    return None


# ------------------------------------------------------------------------------------------ ending and observing
@scene
def d30():
    service = Service()
    pool = make_pool(3, service)
    pool.shutdown()
    until(lambda: not service.connected, 1)
    return {"open": service.connected, "borrowed": told(borrow, pool)}


@scene
def d33():
    return whole(speaker(Service(once("drop@first-audio"))), timeout_millis=3000)


# ------------------------------------------------------------------------------------------ alone
def d25(any_key):
    """CPU seconds for a long audio: collected, and called back."""
    text = "A" * 5_999 + "."

    def spent(callback):
        synthesizer = SpeechSynthesizer(MODEL, VOICE, PCM, url=any_key, callback=callback)
        begun = time.process_time()
        audio = synthesizer.call(text)
        if callback is not None:
            assert callback.over.wait(PATIENCE)
            audio = b"".join(callback.parts)
        assert len(audio) == marker_length(text)
        return time.process_time() - begun

    class Keeping(Recorder):
        def __init__(self):
            super().__init__()
            self.parts = []

        def on_data(self, data):
            self.parts.append(data)

    return [spent(None), spent(Keeping())]


def d32(any_key):
    before = threading.active_count()
    pool = Pool(20, url=any_key)
    return threading.active_count() - before, pool


def d34(only_new):
    dashscope.api_key = "old"
    synthesizer = SpeechSynthesizer(MODEL, VOICE, PCM, url=only_new)
    dashscope.api_key = "new"
    return whole(synthesizer)


def alone(any_key, only_new):
    dashscope.api_key = "any"
    facts = {"d25": d25(any_key), "d34": d34(only_new)}
    facts["d32"], pool = d32(any_key)
    tell(facts)
    return pool  # the process may end now, without shutdown()


def tell(facts):
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------ together
def attempt(name):
    try:
        return SCENES[name]()
    except Exception as error:
        traceback.print_exc()
        return {"broken": f"{type(error).__name__}: {error}"}


def together():
    dashscope.api_key = "any"
    chosen = sys.argv[3:] or [name for name in SCENES if name != "d23"]  # which takes ten seconds
    with ThreadPoolExecutor(len(chosen)) as players:
        facts = dict(zip(chosen, players.map(attempt, chosen), strict=True))
    tell(facts)
    os._exit(0)


logging.disable(logging.CRITICAL)
if sys.argv[2] == "alone":
    kept = alone(*sys.argv[3:])
else:
    together()
