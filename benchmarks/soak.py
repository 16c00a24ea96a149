"""An hour of steady load with churn, cancels, faults and restarts: does anything grow, leak, mix up or get lost?

Callers speak on one pool through a bad network (`speechpool.testing.proxy`) with a service of the engine `marker`: each
byte says whose it is. Proxy and service are processes of their own. Time passes in rounds:

- calm: nothing goes wrong, but every fifth task is broken off, in every phase, by `cancel()` or as an asyncio task;
- rough: faults of the network come and go, the service misbehaves in every way it can, the pool is resized; in some
  rounds the service is killed and comes back two seconds later;
- rest: all tasks end, the pool is full again, and the process is looked at: memory after a garbage collection,
  descriptors, threads, asyncio tasks.

At the end a verdict, and exit code 1 where it is bad: memory is flat, the others are the same at every rest, the
outcomes add up to the tasks started, no byte of one task was heard in another, and in calm times connections were
used again.
Ctrl-C and SIGTERM end it after the present round. Needs Linux and the extras [all,dev].
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import random
import resource
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from soak_callers import Callers
from soak_parts import Proxy, Service
from speechpool import AsyncSpeechPool, Deadlines, Endpoint
from speechpool.limits import LocalQuota

SIZE = 16
"""Connections, except where the pool is resized."""
CALLERS = 32
ROUND = 60.0
"""Seconds of a round; less where the whole is shorter than ten of them."""
RESTARTS = 4
"""Rounds from one restart to the next."""
AWAY = 2.0
"""Seconds for which the service is away."""
GROWTH, GROWTH_BYTES = 0.10, 2 * 2**20
"""How much memory may grow from the first rests to the last ones."""
REUSE = 0.95
FAULTS = (
    "latency@both:80ms,40ms", "bandwidth:400k", "slicer:100,50", "slow-close:200ms", "half-open@both~20%",
    "no-pong~30%", "reset-peer~20%", "limit-data:20000~20%", "timeout:100ms~10%", "refuse", "drop",
)  # fmt: skip


@dataclass
class Sample:
    """The process at one rest: bytes, and numbers of things; tasks and restarts so far, reuse in the last calm."""

    seconds: float
    memory: int
    descriptors: int
    threads: int
    asyncio_tasks: int
    objects: int
    tasks: int
    restarts: int
    reuse: float


@dataclass
class Found:
    """Everything that a verdict needs."""

    samples: list[Sample] = field(default_factory=list)
    started: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    """Outcomes by the pool's telemetry."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Outcomes as the callers saw them."""
    broken_off: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    reused: int = 0
    borrowed: int = 0
    """Borrows in calm times, and those that got a connection which was open before."""
    broken_off_share: float = 0.0
    """Of the tasks in calm times."""
    faults: int = 0
    restarts: int = 0


# ------------------------------------------------------------------------------------ the verdict
def verdict(found):
    """Return (what must hold, whether it does, the figures) for each promise."""
    samples = found.samples
    first, last = samples[: max(1, len(samples) // 4)], samples[-max(1, len(samples) // 4) :]
    began, ended = median(one.memory for one in first), median(one.memory for one in last)
    yield "memory is flat", ended <= began * (1 + GROWTH) + GROWTH_BYTES, f"{_mb(began)} at first, {_mb(ended)} at last"
    for name in ("descriptors", "threads", "asyncio_tasks"):
        seen = sorted({getattr(one, name) for one in samples})
        yield f"{name.replace('_', ' ')} stay", len(seen) == 1, ", ".join(map(str, seen))
    total = sum(found.outcomes.values())
    told = f"{found.started} started, {total} ended, {found.outcomes}"
    yield "outcomes add up", found.started == total and found.counted == found.outcomes, told
    yield "nothing is mixed up", not found.problems, "; ".join(found.problems[:3]) or f"0 of {total}"
    reuse = found.reused / max(1, found.borrowed)
    told = f"{reuse:.1%} of {found.borrowed}, {found.broken_off_share:.0%} of the tasks broken off"
    yield "connections are used again", reuse >= REUSE and found.broken_off_share >= 0.15, told
    told = f"{found.faults} faults, {found.restarts} restarts, {found.outcomes.get('failed', 0)} tasks failed"
    yield "something went wrong", found.faults > 0 and found.restarts > 0 and found.outcomes.get("failed", 0) > 0, told


def _mb(size):
    return f"{size / 2**20:.1f} MB"


# ------------------------------------------------------------------------------------ the run
class Soak:
    """One run. `found` is whole at any time between two rounds."""

    def __init__(self, seconds, *, seed=0, round_seconds=None, tell=lambda _: None):
        self.seconds, self.tell = seconds, tell
        self.round = round_seconds or min(ROUND, seconds / 10)
        self.found = Found()
        self.stopping = False
        self._choice = random.Random(seed)
        self._calm = Counter()
        self._reuse = 0.0

    async def run(self):
        """Run to the end, or until `stopping` is set and the round is over; return what was found."""
        _threads_at_once(2)
        async with AsyncExitStack() as stack:
            self.service = await stack.enter_async_context(Service())
            self.proxy = await stack.enter_async_context(Proxy(self.service.port))
            self.pool = await stack.enter_async_context(_pool(self.proxy.port))
            self.callers = Callers(self.pool, CALLERS, seed=self._choice.random())
            await self.pool.wait_ready()
            self._began = time.monotonic()
            number = 0
            try:
                while time.monotonic() - self._began < self.seconds and not self.stopping:
                    await self._one_round(number)
                    number += 1
            finally:
                self.callers.go()
                await self.callers.stop()
        return self.found

    async def _one_round(self, number):
        self.callers.go()
        await self._calm_part(0.45 * self.round)
        await self.service.say("rough")
        if number % RESTARTS == 1:
            await self._restart()
        await self._rough_part(0.45 * self.round)
        await self.service.say("calm")
        await self.proxy.clear()
        await self._rest()

    async def _calm_part(self, seconds):
        before, outcomes, broken_off = self.pool.stats, self.callers.outcomes.total(), self.callers.broken_off.total()
        await asyncio.sleep(seconds)
        after = self.pool.stats
        here = Counter(
            reused=after.reused - before.reused,
            borrowed=after.borrows - before.borrows,
            tasks=self.callers.outcomes.total() - outcomes,
            broken_off=self.callers.broken_off.total() - broken_off,
        )
        self._calm += here
        self._reuse = here["reused"] / max(1, here["borrowed"])

    async def _rough_part(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await self.proxy.add(self._choice.choice(FAULTS))
            await self.pool.resize(self._choice.randint(SIZE // 2, 2 * SIZE), SIZE // 2)
            self.found.faults += 1
            await asyncio.sleep(min(left, self._choice.uniform(0.2, 1.5)))
            await self.proxy.clear()

    async def _restart(self):
        await self.service.kill()
        await asyncio.sleep(min(AWAY, self.round / 4))
        await self.service.start()
        await self.service.say("rough")
        self.found.restarts += 1

    async def _rest(self):
        await self.callers.rest()
        await self.pool.resize(SIZE, SIZE)
        stats = self.pool.stats
        while (stats.idle, stats.size, stats.closing) != (SIZE, SIZE, 0):
            await asyncio.sleep(0.02)
            stats = self.pool.stats
        self._sum_up()
        sample = self._sample()
        self.found.samples.append(sample)
        self.tell(sample)

    def _sum_up(self):
        found, totals = self.found, self.pool.telemetry.lifetime()
        found.started = self.pool.telemetry.tasks_started
        names = ("completed", "failed", "cancelled", "shed")
        found.counted = {name: getattr(totals, name) for name in names if getattr(totals, name)}
        found.outcomes = {str(name): count for name, count in sorted(self.callers.outcomes.items(), key=str)}
        found.counted = dict(sorted(found.counted.items()))
        found.broken_off = {" by ".join(how): count for how, count in sorted(self.callers.broken_off.items())}
        found.problems = self.callers.problems
        found.reused, found.borrowed = self._calm["reused"], self._calm["borrowed"]
        found.broken_off_share = self._calm["broken_off"] / max(1, self._calm["tasks"])

    def _sample(self):
        gc.collect()
        return Sample(
            seconds=time.monotonic() - self._began,
            memory=int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
            descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            threads=threading.active_count(),
            asyncio_tasks=len(asyncio.all_tasks()),
            objects=len(gc.get_objects()),
            tasks=self.found.started,
            restarts=self.found.restarts,
            reuse=self._reuse,
        )


def _threads_at_once(number):
    """Have the threads of the event loop from the beginning: else they would come one by one, and look like a leak."""
    executor, together = ThreadPoolExecutor(number), threading.Barrier(number)
    for _ in range(number):
        executor.submit(together.wait)
    asyncio.get_running_loop().set_default_executor(executor)


def _pool(port):
    return AsyncSpeechPool(
        Endpoint.local(port),
        max_size=SIZE, min_size=SIZE, max_waiting=10 * CALLERS, heartbeat=1.0, max_lifetime=30.0, borrow_timeout=5.0,
        outage_after=1.0, quota=LocalQuota(),
        deadlines=Deadlines(connect=2.0, start=2.0, first_audio=2.0, gap=2.0, total=30.0, cancel=1.0),
    )  # fmt: skip


# ------------------------------------------------------------------------------------ the program
HEAD = "minute    memory descriptors threads asyncio  objects    tasks restarts   reuse"


def show(one):
    """Print a line of the table."""
    line = f"{one.seconds / 60:6.1f} {_mb(one.memory):>9} {one.descriptors:11} {one.threads:7} {one.asyncio_tasks:7} "
    print(line + f"{one.objects:8} {one.tasks:8} {one.restarts:8} {one.reuse:7.1%}", file=sys.stderr, flush=True)


def main():
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, metavar="S", help="at least 20; default: an hour")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all chances (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found")
    options = parser.parse_args()
    if options.seconds < 20:
        parser.error(f"--seconds {options.seconds:g} is too short for ten rounds; take 20 or more.")
    logging.getLogger("speechpool").setLevel(logging.ERROR)  # warnings are what this is made of
    print(HEAD, file=sys.stderr)
    soak = Soak(options.seconds, seed=options.seed, tell=show)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(soak, "stopping", True))
    found = asyncio.run(soak.run())
    verdicts = [(what, bool(holds), told) for what, holds, told in verdict(found)]
    if options.json:
        options.json.write_text(json.dumps({**asdict(found), "verdict": verdicts}, indent=1))
    for what, holds, told in verdicts:
        print(f"{'ok ' if holds else 'BAD'} {what}: {told}")
    return 0 if all(holds for _, holds, _ in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
