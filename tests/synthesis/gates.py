"""Gates: places of the event loop at which a test stops everything, and cancels a task there.

A gate stands before each callback of the loop. So a task meets its cancellation at each of its awaits, and also in the
same turn as the event that would have ended the wait, just before it and just after it: a scenario is run once for each
gate, from the first one to its end. The clock is virtual and the network in memory, so each run takes the same way up
to its gate.
"""

import asyncio
import collections
import contextlib
import random
import traceback

from harness import VOICE, Server

from speechpool import AsyncSpeechPool, Endpoint
from speechpool.limits import ConnectionLimits, LocalQuota
from speechpool.pool.invariants import check
from speechpool.protocol.cosyvoice import CancelTask, ContinueTask, FinishTask, RunTask, State
from speechpool.testing.clock import VirtualClockLoop
from speechpool.testing.memory import MemoryNetwork

LATENCY = 0.01
"""Seconds that the slow server and the slow dial take for each step."""
MOST_GATES = 400
"""No scenario is longer; one that is does not end."""


class _Gated(collections.deque):
    """The ready queue of a loop: asks for permission before each callback."""

    gate = None

    def popleft(self):
        if self.gate is not None:
            self.gate()
        return super().popleft()


class GateLoop(VirtualClockLoop):
    """A virtual loop with one gate, which notes the places where its tasks are cancelled.

    Attributes:
        cancelled_at: (file, line) of everything that waited, from the coroutine of the task to the innermost.
    """

    def __init__(self):
        super().__init__()
        self._ready = _Gated()
        self.cancelled_at = set()

    def guard(self, number, action, *, again=False):
        """Call `action` before callback number `number` from now on; with `again` before each one from there."""
        passed = -1

        def look():
            nonlocal passed
            passed += 1
            if passed == number or (again and passed > number):
                action()

        self._ready.gate = look

    def unguard(self):
        self._ready.gate = None

    def create_task(self, *arguments, **options):
        task = super().create_task(*arguments, **options)
        task.add_done_callback(self._note)
        return task

    def _note(self, task):
        if task.cancelled():
            try:
                task.result()
            except asyncio.CancelledError as error:
                for frame, line in traceback.walk_tb(error.__traceback__):
                    self.cancelled_at.add((frame.f_code.co_filename, line))


class ShuffledLoop(VirtualClockLoop):
    """A virtual loop that runs what is ready in one turn in a random order, which the seed decides."""

    def __init__(self, seed):
        super().__init__()
        self._random = random.Random(seed)

    def _run_once(self):
        self._random.shuffle(self._ready)
        super()._run_once()


def run_on(loop, main):
    """Run to the end, and fail where a callback or a forgotten task of the loop has failed."""
    reported = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    random.seed(0)  # each run has the same jitter
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main)
    assert reported == []
    return result


# ---------------------------------------------------------------------------------------- the world of a scenario


class World:
    """A pool, its scripted server, its quota, and a clean bill for all three at the end."""

    def __init__(self, network, server, quota):
        self.network, self.server, self.quota = network, server, quota
        self.pool = self.sibling = None
        self.paces = iter(())  # how slow the dials are, in turn

    def make_pool(self, server, **options):
        async def dial(*arguments, **more):
            await asyncio.sleep(LATENCY * next(self.paces, 1))
            return await self.network.connect(*arguments, **more)

        options = {"max_size": 1, "retry": 2, "heartbeat": None, "quota": self.quota, "dial": dial, **options}
        return AsyncSpeechPool(Endpoint(server.listener.url, api_key="canary-key"), **options)

    async def check_rest(self):
        """Everything is back, nobody waits, nothing runs."""
        pool = self.pool
        check(pool._pool._core)
        stats = pool.stats
        assert (stats.borrowed, stats.waiting, stats.closing) == (0, 0, 0), stats
        assert stats.size == len(self.server.open), "a connection is lost, on this side or on that one"
        assert self.server.all_idle(), "a task is left on the server"
        assert pool._host.ticker.watched == []
        assert pool._pool._watchers == []
        assert pool.telemetry.tasks_running == 0
        assert pool.telemetry.tasks_started == pool.telemetry.lifetime().tasks
        for state in self.quota.states() if self.quota else ():
            assert (state.running, state.waiting) == (0, 0), state

    def check_closed(self):
        """The pool has gone, and has left nothing."""
        stats = self.pool.stats
        assert (stats.size, stats.waiting, stats.opened) == (0, 0, stats.closed), stats
        assert self.pool.telemetry.tasks_running == 0

    async def check_works(self):
        """The next task completes, on a pool that has all of its connections again."""
        await self.pool.wait_ready()
        for text in ("After all.", "And again."):
            assert (await self.pool.synthesize(text, VOICE)).audio == text.encode()
        await self.check_rest()


@contextlib.asynccontextmanager
async def world(*, entered=True, concurrency=None, total=None, **options):
    """A pool of one connection and a slow server, unless said otherwise.

    Args:
        entered: The pool is open, and has its floor.
        concurrency: Tasks at once that the quota allows; None: there is no quota.
        total: Connections that the pool and an idle sibling may have together; None: there is no sibling.
        options: Of the pool.
    """
    network = MemoryNetwork()
    server = await Server(network).start()
    for step in (RunTask, ContinueTask, FinishTask, CancelTask):
        server.hooks[step] = slowly
    quota = LocalQuota(concurrency=concurrency, clock=asyncio.get_running_loop().time) if concurrency else None
    one = World(network, server, quota)
    async with contextlib.AsyncExitStack() as stack:
        if total is not None:
            options = {"min_size": 0, "limits": ConnectionLimits(total=total), **options}
            one.sibling = await stack.enter_async_context(one.make_pool(await Server(network).start(), **options))
        one.pool = one.make_pool(server, **options)
        if entered:
            await stack.enter_async_context(one.pool)
            await one.pool.wait_ready()
        yield one
    assert one.server.open == []


def slowly(session, instruction):
    """Answer in a moment, in order. What is answered when its task has ended is dropped."""
    loop, task_id = asyncio.get_running_loop(), session.protocol.task_id
    session.due = max(loop.time(), getattr(session, "due", 0.0)) + LATENCY

    def answer():
        if session.protocol.task_id == task_id and session.protocol.state not in {State.IDLE, State.DEAD}:
            session.behave(instruction)

    loop.call_at(session.due, answer)
    return True


def later(function, *arguments, steps=2):
    """Let something happen in a moment; not at the same time as what the server does."""
    asyncio.get_running_loop().call_later(LATENCY * steps + LATENCY / 3, function, *arguments)


def others(before):
    """The tasks of the loop that were not there before."""
    return [task for task in asyncio.all_tasks() if task not in before]
