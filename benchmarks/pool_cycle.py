"""Borrow/return cycles per second of our pool, beside two real pools and a bare semaphore.

Every connection is a stub that opens at once and does nothing, so that only the pools are measured, and each as it is
shipped: with its statistics, a limit of the time that a borrower waits and, in ours, the stack of every borrower. A
cycle is borrow, one `await asyncio.sleep(0)` with the connection, return.

  speechpool        lease = await pool.borrow(); ...; lease.return_(). Waits for 10 s at most, its default
  psycopg           psycopg_pool.AsyncConnectionPool: getconn, putconn. Waits for 30 s at most, its default
  asyncpg           asyncpg.Pool: acquire, release. Told to wait for 30 s at most
  asyncpg_no_limit  the same by its default, which may wait for ever; for information, no other pool here does that
  livekit           livekit.agents.utils.ConnectionPool: get, put. It has no limit, and opens a connection where ours
                    lets wait, so only where nobody waits; left out without the extra [bench]
  semaphore         asyncio.Semaphore and a deque: what waiting for a turn costs without any pool

  contended         32 tasks on 16 connections: half of the borrowers wait
  uncontended       16 tasks on 16 connections: nobody waits

All run on one event loop, in turn, again and again, so that a moment in which the machine is slow meets all of them. A
ratio is the median of the ratios within one repeat. Nothing waits for anything but the CPU here, so a second is one of
CPU time: what else runs on the machine does not count. At the end another 10,000 cycles of ours, with holds of
different lengths, count overtakings: borrowers served before one that had come earlier.

Needs the extra [dev].
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import itertools
import json
import platform
import random
import statistics
import sys
import time
from collections import deque
from importlib.metadata import version

CONNECTIONS, WARM_UP = 16, 500
"""Connections of each pool, and cycles before each measurement."""
TASKS = {"contended": 32, "uncontended": 16}
TIMEOUT = 30.0
"""Seconds that a borrower of asyncpg waits at most: what psycopg does by default."""
REAL_POOLS = ("psycopg", "asyncpg")
GOALS = {"faster_real_pool": 5.0, "semaphore": 0.5}
"""Least ratios of ours to them, contended."""
PACKAGES = ("speechpool", "psycopg", "psycopg-pool", "asyncpg", "uvloop")


# ------------------------------------------------------------------------------------ ours
class Connection:
    """What does nothing."""


class Connector:
    """Opens, judges and closes such connections for our pool."""

    endpoint = "stub"

    async def open(self, lost):
        return Connection()

    def usable(self, connection):
        return True

    def close(self, connection): ...

    def abort(self, connection): ...

    async def wait_closed(self, connection): ...


@contextlib.asynccontextmanager
async def our_pool():
    from speechpool.pool import Pool
    from speechpool.settings import PoolSettings

    pool = Pool(Connector(), PoolSettings(max_size=CONNECTIONS))
    await pool.open()
    await pool.wait_ready()
    try:
        yield pool
    finally:
        await pool.close()


@contextlib.asynccontextmanager
async def speechpool():
    async def task(cycles):
        for _ in cycles:
            lease = await pool.borrow()
            await asyncio.sleep(0)
            lease.return_()

    async with our_pool() as pool:
        yield task
        stats = pool.stats
        assert stats.opened == CONNECTIONS, stats  # and no other
        assert stats.returned == stats.borrows == stats.reused > 0, stats


# ------------------------------------------------------------------------------------ the others
@contextlib.asynccontextmanager
async def psycopg():
    from types import SimpleNamespace

    from psycopg.pq import TransactionStatus
    from psycopg_pool import AsyncConnectionPool

    class Stub:
        """What the pool needs of a psycopg.AsyncConnection that is open and in no transaction."""

        _pool = None

        def __init__(self):
            self.pgconn = SimpleNamespace(transaction_status=TransactionStatus.IDLE)

        @classmethod
        async def connect(cls, _conninfo, **_options):
            return cls()

        async def close(self): ...

    async def task(cycles):
        for _ in cycles:
            connection = await pool.getconn()
            await asyncio.sleep(0)
            await pool.putconn(connection)

    pool = AsyncConnectionPool(connection_class=Stub, min_size=CONNECTIONS, open=False)
    await pool.open(wait=True)
    try:
        yield task
    finally:
        await pool.close()


@contextlib.asynccontextmanager
async def asyncpg(timeout=TIMEOUT):
    import asyncpg

    class Protocol:
        """Between two queries."""

        queries_count = 0

        def is_connected(self):
            return True

        def is_in_transaction(self):
            return False

        def _is_cancelling(self):
            return False

    class Stub(asyncpg.Connection):
        """asyncpg's own connection without a server, its query at every return left out by its own hook."""

        def __init__(self):
            self._protocol, self._aborted, self._proxy = Protocol(), False, None
            self._listeners, self._log_listeners = {}, set()
            self._pool_release_ctr, self._top_xact = 0, None

        def __del__(self): ...

        def get_reset_query(self):
            return ""

        async def close(self, *, timeout=None): ...

    async def connect(*_where, **_options):
        return Stub()

    async def task(cycles):
        for _ in cycles:
            connection = await pool.acquire(timeout=timeout)
            await asyncio.sleep(0)
            await pool.release(connection)

    sizes = {"min_size": CONNECTIONS, "max_size": CONNECTIONS}
    async with asyncpg.create_pool(connect=connect, connection_class=Stub, **sizes) as pool:
        yield task


@contextlib.asynccontextmanager
async def livekit():
    from livekit.agents.utils import ConnectionPool

    opened = 0

    async def connect(_timeout):
        nonlocal opened
        opened += 1
        return Connection()

    async def task(cycles):
        for _ in cycles:
            connection = await pool.get(timeout=TIMEOUT)
            await asyncio.sleep(0)
            pool.put(connection)

    pool = ConnectionPool(connect_cb=connect)
    yield task
    await pool.aclose()
    assert opened == CONNECTIONS, opened


@contextlib.asynccontextmanager
async def semaphore():
    turn = asyncio.Semaphore(CONNECTIONS)
    idle = deque(Connection() for _ in range(CONNECTIONS))

    async def task(cycles):
        for _ in cycles:
            await turn.acquire()
            connection = idle.pop()
            await asyncio.sleep(0)
            idle.append(connection)
            turn.release()

    yield task


POOLS = {
    "speechpool": speechpool,
    "psycopg": psycopg,
    "asyncpg": asyncpg,
    "asyncpg_no_limit": lambda: asyncpg(timeout=None),
    "livekit": livekit,
    "semaphore": semaphore,
}
if importlib.util.find_spec("livekit") is None:
    del POOLS["livekit"]


def rivals(load):
    """Return the other pools that do the same work under a load."""
    return [name for name in POOLS if name != "speechpool" and (name != "livekit" or load == "uncontended")]


# ------------------------------------------------------------------------------------ measuring
async def run(task, tasks, cycles):
    """Let so many tasks share so many cycles; returns the CPU seconds that it took."""
    shared = itertools.repeat(None, cycles)
    gc.collect()
    begun = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(task(shared))
    return time.process_time() - begun


async def measure(repeats, cycles):
    """Cycles per second of each pool in each repeat, by load."""
    rates = {load: {name: [] for name in ("speechpool", *rivals(load))} for load in TASKS}
    async with contextlib.AsyncExitStack() as stack:
        made = {name: await stack.enter_async_context(make()) for name, make in POOLS.items()}
        for repeat in range(repeats):
            for load, tasks in TASKS.items():
                names = ["speechpool", *rivals(load)]
                for name in names if repeat % 2 == 0 else reversed(names):
                    await run(made[name], tasks, WARM_UP)
                    rates[load][name].append(cycles / await run(made[name], tasks, cycles))
    return rates


async def count_overtakings(cycles):
    """How often somebody was served before one who had come earlier, in cycles of different lengths.

    Who waited resumes in the order of the hand-overs, so it must come in the order of arrival. Who got a connection in
    the turn of the loop in which it came must have found nobody in line.
    """
    arrivals, holds = itertools.count(1), random.Random(1)
    turn = latest = overtakings = 0

    async def count_turns():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def task(shared):
        nonlocal latest, overtakings
        for _ in shared:
            arrival, came = next(arrivals), turn
            lease = await pool.borrow()
            if turn == came:
                overtakings += pool.stats.waiting > 0
            else:
                overtakings += arrival < latest
                latest = max(latest, arrival)
            for _ in range(holds.randrange(4)):
                await asyncio.sleep(0)
            lease.return_()

    async with our_pool() as pool:
        counting = asyncio.create_task(count_turns())
        await run(task, TASKS["contended"], cycles)
        counting.cancel()
    return overtakings


async def benchmark(repeats, cycles):
    rates = await measure(repeats, cycles)
    return report(rates, await count_overtakings(cycles))


# ------------------------------------------------------------------------------------ results
def ratio_to(rates, name):
    """Return the median of the same-repeat ratios of ours to another one, the lowest and the highest."""
    ratios = [ours / other for ours, other in zip(rates["speechpool"], rates[name], strict=True)]
    return [round(value, 2) for value in (statistics.median(ratios), min(ratios), max(ratios))]


def report(rates, overtakings):
    ratios = {load: {name: ratio_to(rates[load], name) for name in rivals(load)} for load in TASKS}
    contended = ratios["contended"]
    reached = {
        "faster_real_pool": min(contended[name][0] for name in REAL_POOLS),
        "semaphore": contended["semaphore"][0],
    }
    return {
        "cycles_per_second": {
            load: {name: round(statistics.median(values)) for name, values in rows.items()}
            for load, rows in rates.items()
        },
        "ratios": ratios,
        "reached": reached,
        "goals": GOALS,
        "met": {name: reached[name] >= goal for name, goal in GOALS.items()} | {"no_overtaking": overtakings == 0},
        "overtakings": overtakings,
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES + ("livekit-agents",) * ("livekit" in POOLS)},
    }


def show(result, repeats, cycles, loop):
    print(f"{'cycles per second':22}" + "".join(f"{f'{load}, ours over it':>32}" for load in TASKS))
    for name in POOLS:
        row = f"{name:22}"
        for load, rates in result["cycles_per_second"].items():
            if name not in rates:
                row += f"{'-':>12}{'':20}"
                continue
            median, low, high = result["ratios"][load].get(name, (None, None, None))
            ratio = "" if median is None else f"{median:.2f} ({low:.2f} - {high:.2f})"
            row += f"{rates[name]:12,}{ratio:>20}"
        print(row)
    print()
    for name, goal in GOALS.items():
        verdict = "met" if result["met"][name] else "missed"
        title = f"ours over the {name.replace('_', ' ')}"
        print(f"{title:34}{result['reached'][name]:6.2f}  goal >= {goal:g}  {verdict}")
    verdict = "met" if result["met"]["no_overtaking"] else "missed"
    print(f"{f'overtakings in {cycles:,} cycles':34}{result['overtakings']:6}  goal == 0  {verdict}")
    found = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    print(f"\n{repeats} repeats of {cycles:,} cycles on {loop}; {found}")


# ------------------------------------------------------------------------------------ the command
def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit status: 0 measured (a missed goal is no error), 1 not measured, 2 wrong usage",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    parser.add_argument("--repeats", type=int, default=7, help="how often everything is measured (7)")
    parser.add_argument("--cycles", type=int, default=10_000, help="cycles of each measurement (10000)")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop in place of asyncio's own loop")
    arguments = parser.parse_args()
    for name in ("repeats", "cycles"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: at least 1")
    return arguments


def main():
    arguments = parse()
    missing = [name for name in ("psycopg_pool", "asyncpg") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"pool_cycle: {' and '.join(missing)} must be there: pip install -e '.[dev]'", file=sys.stderr)
        return 1
    factory = None
    if arguments.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(benchmark(arguments.repeats, arguments.cycles))
    loop = "uvloop" if arguments.uvloop else "asyncio"
    print(json.dumps(result)) if arguments.json else show(result, arguments.repeats, arguments.cycles, loop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
