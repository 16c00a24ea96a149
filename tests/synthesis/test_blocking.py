"""The pool for threads, over real sockets: one background loop, however many pools."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from harness import VOICE, speech

from speechpool import Audio, Endpoint, Finished, InvalidText, SpeechPool, TaskFailed, WrongLoop
from speechpool.synthesis import blocking
from speechpool.transport import serve


class Served:
    """The scripted server on real sockets, on the loop of `SpeechPool`."""

    def __enter__(self):
        from harness import Server

        async def start():
            server = Server(None)
            server.listener = await serve(server.accept, "127.0.0.1", 0)
            return server

        self.server = blocking._thread.run(start)
        self.endpoint = Endpoint(f"ws://127.0.0.1:{self.server.listener.port}", api_key="k")
        return self

    def __exit__(self, *_):
        async def stop():
            self.server.listener.close()
            for connection in self.server.listener.connections:
                connection.abort()
            await self.server.listener.wait_closed()

        blocking._thread.run(stop)


@pytest.fixture
def served():
    with Served() as served:
        yield served


@pytest.mark.keeps_descriptors
def test_everything_that_a_thread_may_do(served):
    with SpeechPool(served.endpoint, max_size=2) as pool:
        pool.wait_ready()
        assert pool.synthesize("Hello.", VOICE).audio == speech("Hello.")
        assert list(pool.stream("Hello.", VOICE)) == [b"Hello."]
        with pool.stream(iter(["One. ", "Two."]), VOICE) as stream:
            assert b"".join(stream) == b"One. Two."
        assert stream.outcome == "completed"
        with pool.task(VOICE) as task:
            task.send("Hello.")
            task.finish()
            events = list(task)
        assert events[1] == Audio(b"Hello.")
        assert events[-1] == Finished(6)
        got = []
        with pool.task(VOICE, sink=got.append) as task:
            task.send("Hello.")
            task.finish()
            task.wait()
        assert b"Hello." in got
        with pool.borrow(timeout=5.0) as lease:
            assert lease.synthesize("A.", VOICE).audio == b"A."
            assert list(lease.stream("B.", VOICE)) == [b"B."]
        assert pool.stats.idle == 2
        assert "first packet" in str(pool.report()).lower()
        assert pool.explain()
        with pytest.raises(InvalidText):
            pool.synthesize("", VOICE)


def test_fifty_threads_share_a_pool(served):
    with SpeechPool(served.endpoint, max_size=8) as pool:
        results = {}

        def work(number):
            results[number] = pool.synthesize(f"Text {number}.", VOICE).audio

        threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {number: f"Text {number}.".encode() for number in range(50)}


def test_t72_a_call_from_the_loop_itself_is_an_error_and_no_deadlock(served):
    with SpeechPool(served.endpoint, max_size=1) as pool:
        with pytest.raises(WrongLoop), pool.task(VOICE, sink=lambda _: pool.explain()) as task:
            task.send("Hello.")
            task.finish()


def test_a_failure_is_raised_in_the_thread(served):
    from speechpool.protocol.cosyvoice import RunTask

    served.server.hooks[RunTask] = lambda session, _: session.fail("InvalidParameter", "no") or True
    with SpeechPool(served.endpoint, max_size=1) as pool, pytest.raises(TaskFailed):
        list(pool.stream("Hello.", VOICE))


def script(body):
    return [sys.executable, "-c", textwrap.dedent(body)]


def test_t74_a_process_that_forgets_its_pool_ends_at_once_and_quietly(served):
    port = served.server.listener.port
    done = subprocess.run(
        script(f"""
            from speechpool import SpeechPool, Endpoint, Voice
            pool = SpeechPool(Endpoint("ws://127.0.0.1:{port}", api_key="k"), max_size=2).__enter__()
            print(pool.synthesize("Hello.", Voice("m", "v", format="pcm")).audio.decode())
        """),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "Hello.")
    assert "Traceback" not in done.stderr


ENDS = {
    "a generator that is left over": """
        chunks = iter(pool.stream("Hello.", voice))
        next(chunks)
    """,
    "nothing": "",
    "a text iterator that waits for ever": """
        import queue
        stream = pool.stream(iter(queue.Queue().get, None), voice).__enter__()
    """,
}


@pytest.mark.parametrize("body", ENDS.values(), ids=ENDS)
def test_t74_whatever_is_left_over_the_process_ends(served, body):
    code = textwrap.dedent(f"""
        import atexit
        from speechpool import Endpoint, SpeechPool, Voice

        def attempt(call):
            try:
                return call()
            except Exception as error:
                return type(error).__name__

        voice = Voice("m", "v", format="pcm")
        pool = SpeechPool(Endpoint("ws://127.0.0.1:{served.server.listener.port}", api_key="k"), max_size=2)
        early = lambda: print(attempt(pool.close))
        atexit.register(early)
        pool.__enter__()
    """) + textwrap.dedent(body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "PoolClosed" in done.stdout  # the first handler runs last, when the loop has ended


def test_t71_a_forked_child_gets_a_loop_of_its_own_and_may_not_use_the_parents_pool(served):
    code = f"""
        import os, warnings
        warnings.simplefilter("ignore")
        from speechpool import Endpoint, SpeechPool, Voice, SpeechPoolError
        voice = Voice("m", "v", format="pcm")
        endpoint = Endpoint("ws://127.0.0.1:{served.server.listener.port}", api_key="k")
        with SpeechPool(endpoint, max_size=1) as pool:
            child = os.fork()
            if child == 0:
                try:
                    pool.synthesize("Inherited.", voice)
                except SpeechPoolError as error:
                    print(type(error).__name__, flush=True)
                with SpeechPool(endpoint, max_size=1) as own:
                    print(own.synthesize("Own.", voice).audio.decode(), flush=True)
                os._exit(0)
            print(os.waitpid(child, 0)[1], pool.synthesize("Parent.", voice).audio.decode())
    """
    done = subprocess.run(script(code), capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["WrongLoop", "Own.", "0", "Parent."], done.stderr


def test_many_slow_text_iterators_hold_up_nobody(served):
    gate = threading.Event()

    def slow():
        yield "One. "
        gate.wait()
        yield "Two."

    with SpeechPool(served.endpoint, max_size=40) as pool:
        streams = [pool.stream(slow(), VOICE) for _ in range(40)]
        try:
            assert [next(iter(stream)) for stream in streams] == [b"One. "] * 40
        finally:
            gate.set()


def test_t73_ctrl_c_in_a_wait_cancels_the_task_and_keeps_the_pool(served):
    from speechpool.protocol.cosyvoice import FinishTask

    served.server.hooks[FinishTask] = lambda session, _: os.kill(int(session.server.pid), signal.SIGINT) or True
    child = subprocess.Popen(
        script(f"""
            import sys
            from speechpool import SpeechPool, Endpoint, Voice
            with SpeechPool(Endpoint("ws://127.0.0.1:{served.server.listener.port}", api_key="k"), max_size=1) as pool:
                sys.stdin.readline()
                try:
                    pool.synthesize("Hello.", Voice("m", "v", format="pcm"))
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
        """),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    served.server.pid = child.pid
    out, err = child.communicate("go\n", timeout=60)
    assert (out.strip(), child.returncode) == ("interrupted", 0), err
    assert "Traceback" not in err
