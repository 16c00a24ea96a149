"""Programs that end while their tasks run: in time, without noise, whatever ends them (T70, T74)."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest
from threaded_server import never_ends, serving, started

PRELUDE = """
    import asyncio, contextlib, gc, signal, sys, threading
    from speechpool import AsyncSpeechPool, Endpoint, PoolClosed, SpeechPoolError, Voice
    voice = Voice("m", "v", format="pcm")

    def make(**settings):
        return AsyncSpeechPool(Endpoint(sys.argv[1], api_key="k"), max_size=4, **settings)

    async def speak(pool):
        with contextlib.suppress(PoolClosed):  # nobody asks how these tasks ended
            async with pool.stream("For ever.", voice) as stream:
                async for chunk in stream:
                    pass

    async def busy(pool):
        tasks = [asyncio.create_task(speak(pool)) for _ in range(6)]  # four speak, two wait
        await pool.wait_ready()
        while pool.stats.borrowed < 4:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return tasks
"""
LIMIT = 15.0
"""Seconds for a program; most of that is the interpreter's start on a busy machine."""


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield never_ends(server)


def command(server, body):
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(body)
    return [sys.executable, "-c", code, server.endpoint.url]


def ended(server, body):
    return subprocess.run(command(server, body), capture_output=True, text=True, timeout=LIMIT, check=False)


ENDS = {
    "main returns inside the pool's block": """
        async def main():
            async with make() as pool:
                await busy(pool)

        asyncio.run(main())
    """,
    "main returns and the pool is never closed": """
        async def main():
            pool = await make().__aenter__()
            await busy(pool)

        asyncio.run(main())
    """,
    "the pool lives in a global and is never closed": """
        async def main():
            global pool
            pool = await make().__aenter__()
            await busy(pool)

        asyncio.run(main())
    """,
    "sys.exit in the main coroutine": """
        async def main():
            async with make() as pool:
                await busy(pool)
                sys.exit(0)

        asyncio.run(main())
    """,
    "sys.exit in a task": """
        async def leave(pool):
            await busy(pool)
            sys.exit(0)

        async def main():
            async with make() as pool:
                await asyncio.create_task(leave(pool))

        asyncio.run(main())
    """,
    "sys.exit in a sink": """
        async def main():
            async with make() as pool:
                await busy(pool)
                asyncio.get_running_loop().call_soon(sys.exit, 0)
                await asyncio.sleep(60)

        asyncio.run(main())
    """,
    "the loop of a thread": """
        async def main():
            async with make() as pool:
                await busy(pool)

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()
    """,
    "the loop of a daemon thread that goes on": """
        ready = threading.Event()

        async def main():
            async with make() as pool:
                tasks = await busy(pool)
                ready.set()
                await asyncio.wait(tasks)

        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        ready.wait()
    """,
    "a loop that is closed by hand after its tasks": """
        async def main():
            global pool, tasks
            pool = await make().__aenter__()
            tasks = await busy(pool)

        async def cancel():
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await pool.close()

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.run_until_complete(cancel())
        loop.close()
    """,
}


RARE = (
    "sys.exit in a task",
    "sys.exit in a sink",
    "the loop of a thread",
    "a loop that is closed by hand after its tasks",
)


@pytest.mark.parametrize("end", [pytest.param(each, marks=pytest.mark.slow if each in RARE else ()) for each in ENDS])
def test_t74_a_program_whose_tasks_still_run_ends_quietly(server, end):
    done = ended(server, ENDS[end])
    assert (done.returncode, done.stdout) == (0, "")
    # A pool that was forgotten may say so, in this one line.
    warned = "pool 'default' was dropped with 4 connections and never closed; close it\n"
    assert done.stderr == "" or ("never closed" in end and done.stderr == warned)


def test_t70_a_program_that_fails_shows_its_own_error_and_no_other(server):
    done = ended(server, """
        async def main():
            async with make() as pool:
                await busy(pool)
                raise ValueError("the program's own")

        asyncio.run(main())
    """)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.rstrip().endswith("ValueError: the program's own")


def test_t70_a_loop_thrown_away_with_its_pool_leaves_no_word_of_the_pool(server):
    done = ended(server, """
        async def main():
            global pool
            pool = await make().__aenter__()
            await pool.wait_ready()

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        try:
            pool.try_borrow()
        except SpeechPoolError as error:
            print(type(error).__name__)
        del pool
        gc.collect()
    """)  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, ["WrongLoop"])
    assert done.stderr == ""


SIGNALS = {
    "nothing done about it": (signal.SIGINT, 130, """
        async def main():
            async with make() as pool:
                await busy(pool)
                print("busy", flush=True)
                await asyncio.sleep(60)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            sys.exit(130)
    """),
    "the pool never closed": (signal.SIGINT, 130, """
        async def main():
            pool = await make().__aenter__()
            await busy(pool)
            print("busy", flush=True)
            await asyncio.sleep(60)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            sys.exit(130)
    """),
    "gathered": (signal.SIGINT, 130, """
        async def main():
            async with make() as pool, asyncio.TaskGroup() as group:
                await busy(pool)
                for _ in range(10):
                    group.create_task(speak(pool))
                print("busy", flush=True)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            sys.exit(130)
    """),
    "a handler that cancels": (signal.SIGTERM, 143, """
        async def main():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
            async with make() as pool:
                await busy(pool)
                print("busy", flush=True)
                await asyncio.sleep(60)

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            sys.exit(143)
    """),
    "a handler that exits": (signal.SIGTERM, 143, """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

        async def main():
            async with make() as pool:
                await busy(pool)
                print("busy", flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
    """),
    "no handler at all": (signal.SIGTERM, -signal.SIGTERM, """
        async def main():
            async with make() as pool:
                await busy(pool)
                print("busy", flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
    """),
}  # fmt: skip


@pytest.fixture
def interruptible():
    """A shell starts its background jobs deaf to SIGINT, and what they start inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("sent", "code", "body"), SIGNALS.values(), ids=SIGNALS)
def test_t74_a_signal_in_the_middle_ends_the_program_quietly_and_soon(server, sent, code, body):
    child = subprocess.Popen(command(server, body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "busy\n", child.communicate(timeout=5)
        start = time.monotonic()
        child.send_signal(sent)
        out, err = child.communicate(timeout=LIMIT)
        assert (child.returncode, out, err) == (code, "", "")
        assert time.monotonic() - start < 6  # close_timeout, and room for a busy machine
    finally:
        child.kill()
        child.communicate()


@pytest.mark.usefixtures("interruptible")
def test_t74_ctrl_c_twice_ends_a_program_whose_close_would_take_longer(server):
    body = """
        async def main():
            async with make(close_timeout=60) as pool:
                await busy(pool)
                print("busy", flush=True)
                await asyncio.sleep(60)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            sys.exit(130)
    """
    child = subprocess.Popen(command(server, body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "busy\n"
        child.send_signal(signal.SIGINT)
        time.sleep(0.3)
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=LIMIT)
        assert child.returncode == 130, err
    finally:
        child.kill()
        child.communicate()


def test_the_server_saw_those_programs_speak(server):
    assert started(server) >= 4 * len(SIGNALS)
