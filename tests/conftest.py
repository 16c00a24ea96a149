"""What every test has to obey: it leaves no task, socket, file, pipe, thread or child process behind.

tests/test_left_behind.py shows that it does.
"""

import asyncio
import gc
import os
import sys
import threading
import time
from asyncio import runners
from pathlib import Path

import pytest
import uvloop

FDS = Path("/proc/self/fd")
KEPT_THREADS = ("speechpool", "asyncio_", "pytest_timeout")
"""Threads that live as long as the process: the loop of SpeechPool, executors of loops, and the watchdog of the tests."""


# libuv keeps one pipe for the signals of the whole process; made now, it belongs to no test.
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(asyncio.sleep(0))

_failed = pytest.StashKey[bool]()
_cut_off = []
"""The tasks that were still there when the main coroutine of an event loop had ended."""


def note_and_cancel(loop, cancel=runners._cancel_all_tasks):
    # asyncio.run cancels them without a word, and a test that forgot one would never know.
    _cut_off.extend(map(name_of, asyncio.all_tasks(loop)))
    cancel(loop)


runners._cancel_all_tasks = note_and_cancel


def name_of(task):
    return f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', task.get_coro())})"


def descriptors():
    """Every open descriptor with what it points to; sockets and pipes are told apart by their inode.

    But not the spare one that libuv keeps for each loop, from its first socket on, for a day without descriptors.
    """
    found = {}
    for entry in FDS.iterdir() if FDS.exists() else ():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:
            continue
    return {each for each in found.items() if each[1] != os.devnull}


def threads():
    return {one for one in threading.enumerate() if not one.name.startswith(KEPT_THREADS)}


def tasks():
    """Those on the loop of SpeechPool, which never ends."""
    module = sys.modules.get("speechpool.synthesis.loop_thread")
    loop = module and module.loop_thread._loop
    return set(asyncio.all_tasks(loop)) if loop else set()


def pytest_collection_finish(session):
    # What all these modules hold lives as long as the run: no collection has to look at it again.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request):
    # SpeechPool starts its one loop thread when first used; its descriptors stay.
    before, running, started = descriptors(), threads(), tasks()
    _cut_off.clear()
    yield
    cut_off = sorted(_cut_off)
    if cut_off and not request.node.get_closest_marker("leaves_tasks") and not request.node.stash.get(_failed, False):
        pytest.fail(f"left behind: tasks {cut_off}", pytrace=False)
    if request.node.get_closest_marker("keeps_descriptors"):
        return
    for attempt in range(50):
        if attempt:
            gc.collect()
        left, alive, at_work = descriptors() - before, threads() - running, tasks() - started
        if not left and not alive and not at_work:
            return
        time.sleep(0.02 * (attempt > 0))  # the kernel and ending threads need a moment
    names = sorted(one.name for one in alive), sorted(map(name_of, at_work))
    pytest.fail(f"left behind: descriptors {sorted(left)}, threads {names[0]}, tasks {names[1]}", pytrace=False)
