"""A load test on a service that stalls: what the open loop shows and the closed one hides, and whether tasks begin in time."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from speechpool.load.callers import Behaviour, calls
from speechpool.load.plan import Stage, plan
from speechpool.load.runner import Job, Load
from speechpool.load.summary import LATE, summary
from speechpool.load.targets import Setup, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
CALLERS = Behaviour(("Yes, of course.",))
SECONDS, STALL = 8.0, 2.0
STAGES = (Stage("all", SECONDS, 40.0),)


class Service:
    """A process that can be held, as a machine that swaps or a collector that takes its time."""

    def __enter__(self):
        command = [sys.executable, "-m", "speechpool", "service", "--engine", "marker", "--port", "0", "--json"]
        self.child = subprocess.Popen(
            [*command, "--submission-rate", "none", "--max-first-audio", "none"], stdout=subprocess.PIPE, text=True
        )
        self.url = json.loads(self.child.stdout.readline())["url"]
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.communicate()

    async def stall(self, after, seconds):
        await asyncio.sleep(after)
        os.kill(self.child.pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(self.child.pid, signal.SIGCONT)


def setup_for(url, size):
    return Setup(url=url, api_key="k", model="cosyvoice-v3-flash", voice="longanyang", size=size)


def stalled(**job):
    """The report of the one target of a run with a stall in its midst."""

    async def main():
        with Service() as service:
            async with opened(("pool",), setup_for(service.url, 100)) as targets:
                stalling = asyncio.create_task(service.stall(3.0, STALL))
                result = await Load(targets, Job(start=time.monotonic(), **job)).run()
                await stalling
        return summary(result, STAGES, {})["targets"]["pool"]["total"]

    return asyncio.run(main())


def test_a_stall_shows_in_the_open_loop_and_hides_in_the_closed_one():
    open_loop = stalled(calls=calls(plan(STAGES, 1), CALLERS, 1))
    closed = stalled(concurrency=2, seconds=SECONDS, behaviour=CALLERS)
    assert open_loop["outcomes"].keys() == closed["outcomes"].keys() == {"completed"}
    # A quarter of the time nothing is answered: whoever came then waited for what was left of it.
    assert open_loop["first_packet"]["p90"] > STALL / 2
    assert open_loop["first_packet"]["max"] > 0.8 * STALL
    assert closed["first_packet"]["p95"] < STALL / 10
    assert closed["first_packet"]["max"] > 0.8 * STALL  # it met the stall, too, but only as often as there are callers


def test_tasks_begin_in_time_or_the_run_says_that_it_is_invalid():
    stages = (Stage("all", 5.0, 200.0),)

    async def main():
        with Service() as service:
            async with opened(("pool",), setup_for(service.url, 200)) as targets:
                job = Job(start=time.monotonic() + 0.1, calls=calls(plan(stages, 1), CALLERS, 1))
                return summary(await Load(targets, job).run(), stages, {})

    tester = asyncio.run(main())["tester"]
    sys.stdout.write(f"one in a hundred tasks began {1000 * tester['late_p99']:.2f} ms late or more\n")
    assert (tester["late_p99"] > LATE) == ("began" in (tester["invalid"] or ""))
