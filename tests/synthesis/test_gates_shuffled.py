"""Three hundred interleavings: the loop runs what is ready in an order that a seed decides.

Eight users speak over three connections while some are cancelled, connections are lost and the server fails. Whatever the
order: a cancelled task ends cancelled, each user hears its own text or the beginning of it, and everything is back at
the end.
"""

import asyncio
import random

import pytest
from gates import LATENCY, ShuffledLoop, run_on, slowly, world
from harness import VOICE

from speechpool import SpeechPoolError
from speechpool.protocol.cosyvoice import ContinueTask, FinishTask, RunTask

USERS, CONNECTIONS, TASKS = 8, 3, 3
REST = 6.0
SEEDS = 300
GROUPS = 10
"""Tests that share the seeds: one that fails names 30 of them, and itself names the one."""


class Chaos:
    """What happens to whom, decided by the seed."""

    def __init__(self, seed, one):
        self.random = random.Random(seed)
        self.one = one
        self.cancelled = self.completed = self.failed = 0

    def trouble(self, session, instruction):
        """Break one in ten instructions in one of several ways."""
        fate = self.random.random()
        if fate < 0.03:
            session.connection.abort()
        elif fate < 0.05:
            session.connection.close(1011)
        elif fate < 0.08:
            session.fail("Throttling.RateQuota", "too many")
        elif fate < 0.1:
            session.fail("InternalError", "broken")
        else:
            return slowly(session, instruction)
        return True

    async def user(self, number):
        for turn in range(TASKS):
            await asyncio.sleep(self.random.random() * 3 * LATENCY)
            speak = self.random.choice([whole, streamed, piecewise, by_task, on_a_lease])
            # Several texts, each of which names its task: a byte of another one would be seen.
            texts = [f"User {number}, task {turn}, part {part}." for part in range(self.random.randrange(1, 4))]
            heard = bytearray()
            task = asyncio.create_task(speak(self.one.pool, texts, heard))
            handle = None
            stopped = []
            if self.random.random() < 0.4:
                handle = asyncio.get_running_loop().call_later(
                    self.random.randrange(12) * LATENCY / 2,
                    lambda task=task, stopped=stopped: stopped.append(task.cancel()),
                )
            await asyncio.wait([task])
            if handle is not None:
                handle.cancel()
            self.judge(task, any(stopped), "".join(texts).encode(), bytes(heard))

    def judge(self, task, stopped, wanted, heard):
        assert task.cancelled() == stopped
        assert wanted.startswith(heard)
        if task.cancelled():
            self.cancelled += 1
        elif task.exception() is None:
            self.completed += 1
            assert heard == wanted
        else:
            self.failed += 1
            assert isinstance(task.exception(), SpeechPoolError), task.exception()

    async def losses(self):
        for _ in range(3):
            await asyncio.sleep(self.random.random() * 8 * LATENCY)
            victims = self.one.server.open
            if self.random.random() < 0.2:
                self.one.network.cut()
            elif victims:
                self.random.choice(victims).connection.abort()


async def whole(pool, texts, heard):
    heard += (await pool.synthesize("".join(texts), VOICE)).audio


async def streamed(pool, texts, heard):
    async with pool.stream("".join(texts), VOICE) as stream:
        async for chunk in stream:
            heard += chunk


async def piecewise(pool, texts, heard):
    async for chunk in pool.stream(iter(texts), VOICE):
        heard += chunk


async def by_task(pool, texts, heard):
    async with pool.task(VOICE) as task:
        for text in texts:
            await task.send(text)
            await task.flush()
            await asyncio.sleep(LATENCY / 2)
        await task.finish()
        async for event in task:
            heard += getattr(event, "data", b"")


async def on_a_lease(pool, texts, heard):
    async with pool.borrow() as lease:
        for text in texts:
            heard += (await lease.synthesize(text, VOICE)).audio


async def interleave(seed):
    async with world(max_size=CONNECTIONS, concurrency=CONNECTIONS + 1) as one:
        before = asyncio.all_tasks()
        chaos = Chaos(seed, one)
        for step in (RunTask, ContinueTask, FinishTask):
            one.server.hooks[step] = chaos.trouble
        async with asyncio.TaskGroup() as group:
            for number in range(USERS):
                group.create_task(chaos.user(number))
            group.create_task(chaos.losses())
        await asyncio.sleep(REST)
        assert one.pool.telemetry.tasks_started > 0
        await one.check_rest()
        one.server.hooks.clear()
        await one.check_works()
        assert [task for task in asyncio.all_tasks() if task not in before] == []
        return chaos


@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_the_order_nothing_is_lost(group):
    totals = [0, 0, 0]
    for seed in range(group, SEEDS, GROUPS):
        try:
            chaos = run_on(ShuffledLoop(seed), interleave(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        totals = [a + b for a, b in zip(totals, (chaos.completed, chaos.cancelled, chaos.failed), strict=True)]
    assert min(totals) > 0, totals  # each of the three was there
