"""The clients that paced.py compares, each in a process of its own; the floor of them is floor_client.c.

    python paced_clients.py NAME --port P --server-pid PID --streams N --warm S --seconds S

They are those of clients.py, but the server paces the audio and writes the planned time into each frame: what is
counted is how late a frame is handed over. Their first tasks begin spread over four seconds, as long as a task lasts,
so that as many frames come in one moment as in another. A second before the window garbage is collected: growing from
nothing to thousands of streams makes Python look through all objects once, and that must not meet one client and miss
another. Prints one line of JSON: CPU seconds of this process in the window, tasks, frames, and lateness; with --profile
in which functions the window was spent.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import ctypes
import gc
import json
import os
import resource
import signal
import sys
import time
from struct import Struct

import clients
from clients import PR_SET_PDEATHSIG

SPREAD = 4.0
"""Seconds over which the first tasks begin."""
SETTLING = 1.0
"""Seconds from the collection of garbage to the window."""
MAX_OPENING = 100
SAMBERT = "sambert-zhichu-v1"
PROFILE_LINES = 25

lateness = array.array("q")
_planned = Struct("=q").unpack_from
_now = time.monotonic_ns


def take(st, data):
    st.frames += 1
    lateness.append(_now() - _planned(data)[0])


class Picows(clients.Picows):
    take = staticmethod(take)

    def start(self):
        loop, step = asyncio.get_running_loop(), SPREAD / len(self.tasks)
        for number, tasks in enumerate(self.tasks):
            loop.call_later(number * step, tasks.next)


class Spread:
    """Makes the callers of the library begin one after another."""

    take = staticmethod(take)

    def __init__(self, port, callers):
        super().__init__(port, callers, max_opening=MAX_OPENING)

    def start(self):
        step = SPREAD / len(self.counts)
        self.callers = [
            asyncio.ensure_future(self.speak_later(count, number * step)) for number, count in enumerate(self.counts)
        ]

    async def speak_later(self, count, delay):
        await asyncio.sleep(delay)
        await self.speak(count)


class Stream(Spread, clients.Stream):
    pass


class Sink(Spread, clients.Sink):
    pass


class Sambert(Stream):
    """`async for chunk in pool.stream(text, voice)` with a voice of Sambert's."""

    def __init__(self, port, callers):
        import speechpool

        super().__init__(port, callers)
        self.voice = speechpool.Voice(SAMBERT, format="pcm", sample_rate=clients.SAMPLE_RATE)


CLIENTS = {"picows": Picows, "sink": Sink, "stream": Stream, "sambert": Sambert}


def percentile(values, percent):
    return round(values[min(len(values) - 1, len(values) * percent // 100)] / 1000)


async def measure(asked, profile=None):
    client = CLIENTS[asked.client](asked.port, asked.streams)
    await client.open()
    client.start()
    await asyncio.sleep(asked.warm - SETTLING)
    gc.collect()
    await asyncio.sleep(SETTLING)
    failed = [caller.exception() for caller in getattr(client, "callers", ()) if caller.done()]
    if failed:
        raise failed[0]
    lateness[:] = array.array("q")
    os.kill(asked.server_pid, signal.SIGUSR1)
    tasks, begun = sum(c.tasks for c in client.counts), time.monotonic()
    if profile:
        profile.enable()
    cpu = time.process_time()
    await asyncio.sleep(asked.seconds)
    cpu = time.process_time() - cpu
    late, seconds = sorted(lateness), time.monotonic() - begun
    os.kill(asked.server_pid, signal.SIGUSR1)
    return {
        "cpu": cpu,
        "seconds": seconds,
        "tasks": sum(c.tasks for c in client.counts) - tasks,
        "frames": len(late),
        "p50_us": percentile(late, 50),
        "p99_us": percentile(late, 99),
    }


def run(asked, profile=None):
    import uvloop

    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)  # never closed: thousands of streams run on it
    return runner.run(measure(asked, profile))


def profiled(asked):
    """Measure under the profiler, and tell which functions took the time; the figures themselves are then none."""
    import cProfile
    import io
    import pstats

    profile = cProfile.Profile()
    run(asked, profile)
    profile.disable()
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
    return {"profile": text.getvalue().strip()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--warm", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    if asked.warm < SETTLING:
        parser.error(f"--warm {asked.warm:g}: at least {SETTLING:g}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act on
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive it
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        found = profiled(asked) if asked.profile else run(asked)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # nobody waits for the streams


if __name__ == "__main__":
    main()
