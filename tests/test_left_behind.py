"""The fixture that every test has: what a test leaves behind fails it, and says what it is."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
    import asyncio, os, socket, threading
    import pytest, uvloop
    from speechpool.synthesis.loop_thread import loop_thread
    from speechpool.testing.clock import run

    kept = []

    async def forgetful():
        asyncio.create_task(asyncio.sleep(3600), name="a sleeper")
        await asyncio.sleep(0)

    async def tidy():
        await asyncio.create_task(asyncio.sleep(0))

    def test_tidy():
        asyncio.run(tidy())
        with socket.socket(), open(os.devnull):
            pass

    def test_task():
        asyncio.run(forgetful())

    def test_task_on_a_virtual_clock():
        run(forgetful())

    def test_task_on_uvloop():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(forgetful())

    def test_task_on_the_loop_of_all_threads():
        loop_thread.run(forgetful)

    @pytest.mark.leaves_tasks
    def test_task_on_purpose():
        asyncio.run(forgetful())

    def test_socket():
        kept.append(socket.socket())

    def test_file(tmp_path):
        kept.append(open(tmp_path / "a_file", "w"))

    def test_pipe():
        kept.extend(os.pipe())

    def test_eventfd():
        kept.append(os.eventfd(0))

    def test_thread():
        event = threading.Event()
        kept.append(event)
        threading.Thread(target=event.wait, name="a thread", daemon=True).start()

    def test_that_fails_says_why_and_no_more():
        async def main():
            await forgetful()
            raise AssertionError("the real reason")

        asyncio.run(main())

    def test_the_next_one_is_blamed_for_nothing():
        pass
"""

LEFT = {
    "test_task": r"tasks ['a sleeper (sleep)']",
    "test_task_on_a_virtual_clock": r"tasks ['a sleeper (sleep)']",
    "test_task_on_uvloop": r"tasks ['a sleeper (sleep)']",
    "test_task_on_the_loop_of_all_threads": r"tasks ['a sleeper (sleep)']",
    "test_socket": "socket:",
    "test_file": "a_file",
    "test_pipe": "pipe:",
    "test_eventfd": "anon_inode:[eventfd]",
    "test_thread": "threads ['a thread']",
}


@pytest.fixture(scope="module")
def conftest():
    return Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")


def test_whoever_leaves_something_behind_fails_and_nobody_else(pytester, conftest):
    pytester.makeconftest(conftest.replace("range(50)", "range(3)"))
    # The loop of all threads lives on, as its tests say in this project.
    tests = "    from speechpool.synthesis.loop_thread import loop_thread\n    loop_thread.loop\n" + TESTS
    pytester.makepyfile(tests)
    pytester.makeini("[pytest]\nmarkers =\n    leaves_tasks: x\n    keeps_descriptors: x\n")
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-p", "no:randomly")
    result.assert_outcomes(passed=len(LEFT) + 3, failed=1, errors=len(LEFT))
    report = "\n".join(result.outlines)
    for name, words in LEFT.items():
        _, _, rest = report.partition(f"ERROR at teardown of {name} ")
        told = rest.partition("\n____")[0]
        assert "left behind: " in told, name
        assert words in told, name
    assert "the real reason" in report
