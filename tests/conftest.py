"""What every test has to obey: it leaves no socket, pipe, thread or child process behind."""

import asyncio
import gc
import threading
import time
from pathlib import Path

import pytest
import uvloop

FDS = Path("/proc/self/fd")
KEPT_THREADS = ("speechpool", "asyncio_", "pytest_timeout")
"""Threads that live as long as the process: the loop of SpeechPool, executors of loops, and the watchdog of the tests."""


# libuv keeps one pipe for the signals of the whole process; made now, it belongs to no test.
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(asyncio.sleep(0))


def descriptors():
    """Every open descriptor with what it points to; sockets and pipes are told apart by their inode."""
    found = {}
    for entry in FDS.iterdir() if FDS.exists() else ():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:", "anon_inode:[eventpoll]")):
            found[entry.name] = target
    return set(found.items())


def threads():
    return {one for one in threading.enumerate() if not one.name.startswith(KEPT_THREADS)}


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request):
    # SpeechPool starts its one loop thread when first used; its descriptors stay.
    before, running = descriptors(), threads()
    yield
    if request.node.get_closest_marker("keeps_descriptors"):
        return
    for attempt in range(50):
        if attempt:
            gc.collect()
        left, alive = descriptors() - before, threads() - running
        if not left and not alive:
            return
        time.sleep(0.02 * (attempt > 0))  # the kernel and ending threads need a moment
    pytest.fail(f"left behind: descriptors {sorted(left)}, threads {sorted(one.name for one in alive)}", pytrace=False)
