"""The object pool: what it lends, what it takes back, and how it ends."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from dropin_kit import LIMIT, MODEL, PCM, TEXT, VOICE, Recorder, Service, closed_port, eventually, told

from speechpool import dashscope
from speechpool.dashscope import pools
from speechpool.dashscope.audio.tts_v2 import SpeechSynthesizer, SpeechSynthesizerObjectPool
from speechpool.dashscope.common.error import InvalidTask
from speechpool.service.engines.marker import check, marker_length
from speechpool.synthesis.loop_thread import loop_thread

LONG = "A long text. " * 500


@pytest.fixture
def make(service):
    """Make pools that are shut down at the end."""
    made = []

    def pool(max_size=2, **options):
        made.append(SpeechSynthesizerObjectPool(max_size, **options))
        return made[-1]

    yield pool
    for each in made:
        each.shutdown()


def borrow(pool, callback=None, **options):
    return pool.borrow_synthesizer(MODEL, VOICE, PCM, callback=callback, **options)


def stats(pool):
    return loop_thread.call(lambda: pool._pool._pool.stats)


# ------------------------------------------------------------------------------------------ size
def test_it_is_open_when_it_is_made_and_may_be_of_any_size(make, service):
    before = service.counts.connections
    threads = threading.active_count()
    pool = make(150)
    assert stats(pool).idle == 150
    assert service.counts.connections == before + 150
    assert threading.active_count() <= threads + 1
    assert isinstance(told(SpeechSynthesizerObjectPool, 0), ValueError)


def test_there_may_be_several(make):
    first, second = make(2), make(3)
    assert first is not second
    assert (stats(first).idle, stats(second).idle) == (2, 3)


@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_idle_connections_need_no_thread(make, count, fresh_workers):
    pool = make(count)
    recorder = Recorder()
    borrow(pool, recorder).call(TEXT)
    recorder.wait()
    assert stats(pool).size == count
    assert threading.active_count() < 10


def test_no_server_is_told_at_once_and_leaves_nothing():
    begun = time.monotonic()
    with Service.running("refuse:401"):
        error = told(SpeechSynthesizerObjectPool, 5)
    assert isinstance(error, TimeoutError)
    assert "401" in str(error)
    assert time.monotonic() - begun < LIMIT / 4


def test_few_open_connections_are_better_than_none(caplog, monkeypatch):
    monkeypatch.setattr(pools, "DEADLINES", pools.Deadlines(connect=0.3))
    with Service.running(max_connections=2) as service:
        pool = SpeechSynthesizerObjectPool(4)
        assert service.connected == 2
        assert check(speech(pool), last(pool)) == marker_length(TEXT)
        pool.shutdown()


def speech(pool):
    pool.last = borrow(pool)
    audio = pool.last.call(TEXT)
    pool.return_synthesizer(pool.last)
    return audio


def last(pool):
    return pool.last.get_last_request_id()


# ------------------------------------------------------------------------------------------ lending
def test_a_borrowed_object_speaks_several_times_on_its_connection(make):
    pool = make(1)
    synthesizer = borrow(pool)
    for _ in range(3):
        assert check(synthesizer.call(TEXT), synthesizer.get_last_request_id()) == marker_length(TEXT)
    recorder = Recorder()
    synthesizer.callback = recorder
    for _ in range(2):
        synthesizer.streaming_call(TEXT)
        synthesizer.streaming_complete()
    assert recorder.order == ["open", "complete", "close"] * 2
    assert stats(pool).opened == 1
    assert pool.return_synthesizer(synthesizer) is True


def test_it_grows_where_all_are_lent_and_shrinks_on_return(make, service):
    pool = make(2)
    borrowed = [borrow(pool) for _ in range(5)]
    with ThreadPoolExecutor(5) as callers:
        assert [len(audio) for audio in callers.map(lambda one: one.call(TEXT), borrowed)] == [marker_length(TEXT)] * 5
    assert [pool.return_synthesizer(one) for one in borrowed] == [True] * 5
    assert stats(pool).size == 2
    eventually(lambda: pool._pool._extra.sockets() == 0)
    assert len(borrow(pool).call(TEXT)) == marker_length(TEXT)


def test_with_a_timeout_it_waits_instead(make):
    pool = make(1)
    synthesizer = borrow(pool, timeout=LIMIT)
    error = told(borrow, pool, timeout=0.05)
    assert isinstance(error, TimeoutError)
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(borrow, pool, timeout=LIMIT)
        eventually(lambda: stats(pool).waiting == 1)
        assert pool.return_synthesizer(synthesizer) is True
        assert len(waiting.result(LIMIT).call(TEXT)) == marker_length(TEXT)
    assert stats(pool).opened == 1


def test_url_headers_workspace_and_hot_fix_are_honoured_at_borrow(make, service):
    pool = make(1)
    with Service.running() as other:
        dashscope.base_websocket_api_url = service.url
        before = service.counts.connections
        elsewhere = borrow(pool, url=other.url)
        assert len(elsewhere.call(TEXT)) == marker_length(TEXT)
        assert (other.counts.tasks["completed"], service.counts.connections) == (1, before)
        assert pool.return_synthesizer(elsewhere) is True
        own = borrow(pool, headers={"X-Own": "1"})
        own.call(TEXT)
        assert service.counts.connections == before + 1
        assert pool.return_synthesizer(own) is True
        fixed = borrow(pool, hot_fix={"replace": [{"there": "over there"}]})
        assert len(fixed.call(TEXT)) == marker_length(TEXT.replace("there", "over there"))
        assert stats(pool).borrowed == 1
        pool.shutdown()


def test_a_connection_that_died_while_it_was_lent_is_replaced(make, service):
    with Service.running(idle_timeout=0.2):
        pool = SpeechSynthesizerObjectPool(1)
        synthesizer = borrow(pool)
        time.sleep(0.5)
        assert len(synthesizer.call(TEXT)) == marker_length(TEXT)
        assert pool.return_synthesizer(synthesizer) is True
        pool.shutdown()


def test_a_new_key_reaches_new_connections(make):
    with Service.running(api_key="first") as service:
        dashscope.api_key = "first"
        pool = SpeechSynthesizerObjectPool(1)
        dashscope.api_key = "wrong"
        assert len(speech(pool)) == marker_length(TEXT)  # an open connection needs no key
        assert isinstance(told(borrow(pool, headers={"X-Own": "1"}).call, TEXT), TimeoutError)
        assert service.counts.refused == 1
        pool.shutdown()


# ------------------------------------------------------------------------------------------ returning
def test_return_says_whether_it_took_the_object(make):
    pool, other = make(2), make(1)
    synthesizer = borrow(pool)
    assert other.return_synthesizer(synthesizer) is False
    assert pool.return_synthesizer(synthesizer) is True
    assert pool.return_synthesizer(synthesizer) is False
    assert pool.return_synthesizer(SpeechSynthesizer(MODEL, VOICE)) is False
    assert pool.return_synthesizer(None) is False
    assert isinstance(told(synthesizer.call, TEXT), InvalidTask)
    assert (stats(pool).idle, stats(other).idle) == (2, 1)


def test_a_failed_object_is_refused_and_replaced(make, caplog):
    pool = make(1)
    synthesizer = pool.borrow_synthesizer(MODEL, "nobody", PCM)
    told(synthesizer.call, TEXT)
    assert pool.return_synthesizer(synthesizer) is False
    assert "its last task failed" in caplog.text
    eventually(lambda: stats(pool).idle == 1)
    assert len(speech(pool)) == marker_length(TEXT)


def test_a_running_object_is_refused_and_may_be_returned_later(make, caplog):
    pool = make(1)
    recorder = Recorder()
    synthesizer = borrow(pool, recorder)
    synthesizer.call(LONG)
    assert pool.return_synthesizer(synthesizer) is False
    assert "still runs" in caplog.text
    assert len(recorder.wait().audio) == marker_length(LONG)
    assert pool.return_synthesizer(synthesizer) is True
    assert stats(pool).idle == 1


@pytest.mark.parametrize("state", ["idle", "running", "failed"])
def test_close_frees_the_place(make, state):
    pool = make(1)
    recorder = Recorder()
    synthesizer = pool.borrow_synthesizer(MODEL, "nobody" if state == "failed" else VOICE, PCM, callback=recorder)
    if state == "failed":
        told(synthesizer.call, TEXT)
    elif state == "running":
        synthesizer.call(LONG)
    synthesizer.close()
    synthesizer.close()
    if state != "idle":
        assert recorder.wait().order[-2:] == ["error", "close"]
    again = borrow(pool, timeout=LIMIT)
    assert len(again.call(TEXT)) == marker_length(TEXT)
    assert pool.return_synthesizer(synthesizer) is False
    assert pool.return_synthesizer(again) is True


def test_an_object_that_is_dropped_gives_its_connection_back(make):
    pool = make(1)
    recorder = Recorder()
    borrow(pool, recorder).call(TEXT)  # and forgotten while it speaks
    gc.collect()
    assert recorder.wait().order == ["open", "complete", "close"]
    eventually(lambda: gc.collect() is not None and stats(pool).idle == 1)
    assert stats(pool).opened == 1


def test_a_return_within_on_complete(make):
    class Returning(Recorder):
        def on_complete(self):
            super().on_complete()
            self.returned = pool.return_synthesizer(synthesizer)

    pool = make(1)
    for _ in range(20):
        recorder = Returning()
        synthesizer = borrow(pool, recorder, timeout=LIMIT)
        synthesizer.call(TEXT)
        recorder.wait()
        assert recorder.returned is True
    assert stats(pool).opened == 1


@pytest.mark.parametrize("seconds", [0.5, pytest.param(10, marks=pytest.mark.slow)])
def test_callers_back_to_back_who_return_in_on_complete(make, seconds):
    """Of the official pool's tasks 13 to 38 % fail here: its on_complete comes before the object is free."""

    class Returning(Recorder):
        def on_complete(self):
            super().on_complete()
            self.returned = pool.return_synthesizer(self.synthesizer)

    def caller(_):
        done = 0
        while time.monotonic() < end:
            recorder = Returning()
            recorder.synthesizer = borrow(pool, recorder)
            recorder.synthesizer.call(TEXT)
            assert recorder.complete.wait(LIMIT)
            if recorder.wait().order != ["open", "complete", "close"] or recorder.returned is not True:
                raise AssertionError(recorder.order, recorder.errors, recorder.returned)
            assert check(bytes(recorder.audio), recorder.synthesizer.get_last_request_id()) == marker_length(TEXT)
            done += 1
        return done

    pool = make(8)
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(8) as callers:
        done = list(callers.map(caller, range(8)))
    assert all(done)
    assert stats(pool).size == 8
    print(f"{sum(done)} tasks")  # noqa: T201  # a figure to quote


# ------------------------------------------------------------------------------------------ the end
def test_shutdown_closes_every_socket_and_refuses_later_borrows():
    with Service.running() as service:
        pool = SpeechSynthesizerObjectPool(3)
        kept = [borrow(pool) for _ in range(5)]
        for one in kept:
            one.call(TEXT)
        borrow(pool, headers={"X-Own": "1"}).call(TEXT)
        assert service.connected == 4  # of those beyond the size each is closed after its task
        pool.shutdown()
        eventually(lambda: service.connected == 0)
        error = told(borrow, pool)
        assert isinstance(error, InvalidTask)
        assert "shut down" in str(error)
        assert isinstance(told(kept[0].call, TEXT), InvalidTask)
        assert pool.return_synthesizer(kept[0]) is False
        pool.shutdown()


def test_shutdown_lets_running_tasks_end():
    with Service.running(interval=0.005):
        pool = SpeechSynthesizerObjectPool(2)
        recorder = Recorder()
        borrow(pool, recorder).call(TEXT * 10)
        pool.shutdown()
        assert recorder.order == ["open", "complete", "close"]
        assert len(recorder.audio) == marker_length(TEXT * 10)


def test_shutdown_gives_up_what_takes_too_long(monkeypatch):
    from speechpool.dashscope.audio.tts_v2 import pool as module

    monkeypatch.setattr(module, "_DRAIN", 0.1)
    with Service.running(interval=0.05):
        pool = SpeechSynthesizerObjectPool(2)
        recorder = Recorder()
        borrow(pool, recorder).call(LONG)
        pool.shutdown()
        assert recorder.wait().order == ["open", "error", "close"]


def test_shutdown_from_a_callback():
    class Last(Recorder):
        def on_complete(self):
            super().on_complete()
            pool.shutdown()

    with Service.running() as service:
        pool = SpeechSynthesizerObjectPool(2)
        recorder = Last()
        borrow(pool, recorder).call(TEXT)
        recorder.wait()
        eventually(lambda: service.connected == 0)


def test_the_server_comes_back_and_so_does_the_pool(monkeypatch):
    service = Service()
    dashscope.base_websocket_api_url = service.url
    pool = SpeechSynthesizerObjectPool(2)
    port = int(service.url.split(":")[2].split("/")[0])
    service.close()
    eventually(lambda: stats(pool).idle == 0)
    service = Service(port=port)
    try:
        eventually(lambda: stats(pool).idle == 2)
        assert len(speech(pool)) == marker_length(TEXT)
    finally:
        pool.shutdown()
        service.close()


def test_nothing_limits_the_rate_before_a_server_throttles(monkeypatch):
    with Service.running("throttle@starting~0.3") as service:
        pool = SpeechSynthesizerObjectPool(4)
        assert pools._quotas.get().states() == [] or all(each.rate is None for each in own_states(service))
        recorder = Recorder()
        try:
            for _ in range(6):
                recorder = Recorder()
                told_or_none(borrow(pool, recorder).call, TEXT)
            assert any(each.rate is not None for each in own_states(service)) is bool(service.counts.tasks["shed"])
        finally:
            pool.shutdown()
            monkeypatch.setattr(pools._quotas, "_loop", None)  # what it learnt is of no use to other tests


def own_states(service):
    return [each for each in pools._quotas.get().states() if each.account.startswith("127.0.0.1")]


def told_or_none(function, *arguments):
    try:
        function(*arguments)
    except Exception:
        return


def test_no_port_to_connect_to(monkeypatch):
    monkeypatch.setattr(pools, "DEADLINES", pools.Deadlines(connect=0.2))
    assert isinstance(told(SpeechSynthesizerObjectPool, 2, closed_port()), TimeoutError)
