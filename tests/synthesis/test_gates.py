"""A task is cancelled at each of its awaits, and between any two callbacks of the loop; nothing is lost.

A barge-in is a cancellation. Each scenario runs once for each gate (see `gates`): it is stopped there and cancelled, and
then the pool, the quota, the counters and the server are asked whether they have everything back.
"""

import ast
import asyncio
import functools
import inspect
from pathlib import Path

import pytest
from gate_scenarios import SCENARIOS
from gates import MOST_GATES, GateLoop, others, run_on, world

import speechpool

REST = 5.0
"""Seconds after which nothing can be under way any more: a cancel may take 2, and a close as long."""


# ---------------------------------------------------------------------------------------- how it is stopped


class Cancel:
    """A plain cancel, once or before each callback from the gate on."""

    def __init__(self, *, again=False):
        self.again = again
        self.accepted = []

    def begin(self, victim):
        self.victim = asyncio.ensure_future(victim)
        return self.victim

    def stop(self):
        self.accepted.append(self.victim.cancel())

    async def check(self, task):
        """Look at the end of the task, and say whether there was something left to stop."""
        if any(self.accepted):
            assert task.cancelled(), f"the cancellation was swallowed: {task!r}"
            return True
        await task
        return False


class Expire:
    """Scopes of `asyncio.timeout` around it end at the gate: the inner one, all at once, or together with a cancel."""

    again = False

    def __init__(self, *, scopes=1, expiring=1, cancel=False):
        self.number, self.expiring, self.cancel = scopes, expiring, cancel
        self.scopes = []
        self.over = self.stopped = self.cancelled = False

    def begin(self, victim):
        self.task = asyncio.ensure_future(self.bounded(victim, self.number))
        return self.task

    async def bounded(self, victim, depth):
        if depth == 0:
            try:
                return await victim
            finally:
                self.over = True
        try:
            async with asyncio.timeout(None) as scope:
                self.scopes.append(scope)
                await self.bounded(victim, depth - 1)
        except TimeoutError:
            assert scope.expired()
        assert asyncio.current_task().cancelling() == sum(other.expired() for other in self.scopes[:-depth])

    def stop(self):
        if self.over or not self.scopes:
            return
        self.stopped = True
        for scope in self.scopes[-self.expiring :]:
            scope.reschedule(asyncio.get_running_loop().time())
        self.cancelled = self.cancel and self.task.cancel()

    async def check(self, task):
        if self.cancelled:
            assert task.cancelled(), f"the cancellation was swallowed: {task!r}"
        else:
            await task
            assert task.cancelling() == 0
        return self.stopped


class Boom(Exception):
    pass


class Fail:
    """A task of the same group fails at the gate."""

    again = False

    def begin(self, victim):
        self.fuse = asyncio.get_running_loop().create_future()
        self.stopped = False
        return asyncio.ensure_future(self.grouped(victim))

    async def grouped(self, victim):
        async with asyncio.TaskGroup() as group:
            self.victim = group.create_task(victim)
            self.victim.add_done_callback(lambda _: self.fuse.done() or self.fuse.set_result(None))
            group.create_task(self.sibling())

    async def sibling(self):
        await self.fuse

    def stop(self):
        if not self.fuse.done():
            self.stopped = True
            self.fuse.set_exception(Boom())

    async def check(self, task):
        if not self.stopped:
            await task
            return False
        error = task.exception()
        assert [type(each) for each in error.exceptions] == [Boom]
        assert self.victim.cancelled() or self.victim.exception() is None
        return True


async def play(scenario, gate, way):
    """Stop it at one gate, and say whether there was something left to stop."""
    loop = asyncio.get_running_loop()
    async with world(**scenario.options) as one:
        before = asyncio.all_tasks()
        begun = []

        async def victim():
            begun.append(True)
            await scenario.victim(one)

        if inspect.isawaitable(way_there := scenario.around(one)):
            await way_there
        task = way.begin(victim())
        loop.guard(gate, way.stop, again=way.again)
        await asyncio.wait([task])
        loop.unguard()
        stopped = await way.check(task)
        if scenario.closes:
            await rest_closed(one, begun=bool(begun))
        else:
            await rest(one, scenario)
        assert others(before) == []
        return stopped


async def rest(one, scenario):
    """Its tasks have ended, after a while everything is back, and the pool works on."""
    assert one.pool.telemetry.tasks_running == 0
    await scenario.after(one)
    await asyncio.sleep(REST)
    totals = one.pool.telemetry.lifetime()
    assert (totals.failed, totals.shed) == (0, 0)
    assert set(one.pool.stats.discarded) <= scenario.discards
    await one.check_rest()
    one.server.hooks.clear()
    await one.check_works()


async def rest_closed(one, *, begun):
    """What was begun goes on by itself."""
    await asyncio.sleep(REST)
    if begun:
        one.check_closed()
    await one.pool.close()


def play_all(scenario, make):
    """Stop it at every gate; return the places where something was cancelled."""
    places = set()
    for gate in range(MOST_GATES):
        loop = GateLoop()
        stopped = run_on(loop, play(scenario, gate, make()))
        places |= loop.cancelled_at
        # Scopes and groups are entered in the first callbacks, and nothing can be stopped before.
        if not stopped and gate > 2:
            return places
    pytest.fail(f"still running at gate {gate}")


@functools.cache
def cancelled_once(name):
    return play_all(SCENARIOS[name], Cancel)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_task_that_is_cancelled_at_any_gate_ends_cancelled_and_nothing_is_lost(name):
    cancelled_once(name)


@pytest.mark.parametrize("name", SCENARIOS)
def test_nor_where_it_is_cancelled_again_at_every_gate_that_follows(name):
    play_all(SCENARIOS[name], lambda: Cancel(again=True))


WAYS = {
    "a scope": Expire,
    "the inner one of two scopes": lambda: Expire(scopes=2),
    "two scopes at once": lambda: Expire(scopes=2, expiring=2),
    "a scope and a cancel at once": lambda: Expire(cancel=True),
    "a group": Fail,
}
STOPPED = ("permit wait, then borrow wait", "lease that waits its turn", "replay of a cut start")


@pytest.mark.parametrize("name", STOPPED)
@pytest.mark.parametrize("way", WAYS)
def test_nor_where_it_is_stopped_by(way, name):
    play_all(SCENARIOS[name], WAYS[way])


def awaits(path):
    """The lines of each place in a module where a coroutine may wait."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Await):
            yield range(node.lineno, node.end_lineno + 1)
        elif isinstance(node, ast.AsyncFor):
            yield range(node.lineno, node.iter.end_lineno + 1)
        elif isinstance(node, ast.AsyncWith):
            yield range(node.lineno, node.items[-1].context_expr.end_lineno + 1)


MODULES = (
    "limits/permit.py", "pool/engine.py", "pool/lease.py", "pool/pool.py", "synthesis/core.py", "synthesis/delivery.py",
    "synthesis/host.py", "synthesis/lease.py", "synthesis/pool.py", "synthesis/segments.py", "synthesis/stream.py",
    "synthesis/task.py",
)  # fmt: skip
ELSEWHERE = {
    "await self._opened().resize(max_size, min_size)": "never waits",
    "async with asyncio.timeout_at(deadline):": "waits for nothing itself",
}


def test_every_await_of_a_task_and_its_pool_was_such_a_place():
    places = set().union(*(cancelled_once(name) for name in SCENARIOS))
    package = Path(speechpool.__file__).parent
    missed = [
        f"{module}:{lines.start}: {(package / module).read_text().splitlines()[lines.start - 1].strip()}"
        for module in MODULES
        for lines in awaits(package / module)
        if not any((str(package / module), line) in places for line in lines)
    ]
    missed = [place for place in missed if place.split(": ", 1)[1] not in ELSEWHERE]
    assert not missed, "\n".join(missed)
