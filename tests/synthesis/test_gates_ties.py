"""A cancellation in the very turn of the loop in which what the task waits for comes, just before it or just after it."""

import asyncio

import pytest
from gates import LATENCY, GateLoop, run_on, world
from harness import VOICE

from speechpool.protocol import Finished, Started
from speechpool.synthesis.core import TaskCore

TEXT = "Hello there."


def tie(monkeypatch, method, moment, victim, happens=lambda *_: True):
    """Cancel the victim just before or just after a method of a task does what it does."""
    usual = getattr(TaskCore, method)
    cancelled = []

    def at_once(self, *arguments):
        meets = not cancelled and happens(*arguments)
        if meets and moment == "before":
            cancelled.append(victim().cancel())
        usual(self, *arguments)
        if meets and moment == "after":
            cancelled.append(victim().cancel())

    monkeypatch.setattr(TaskCore, method, at_once)
    return cancelled


async def synthesize(one):
    return (await one.pool.synthesize(TEXT, VOICE)).audio


async def stream(one):
    async with one.pool.stream(TEXT, VOICE) as stream:
        return b"".join([chunk async for chunk in stream])


async def sink(one):
    heard = []
    async with one.pool.task(VOICE, sink=heard.append) as task:
        await task.send(TEXT)
        await task.finish()


EVENTS = {
    "task-started": ("_on_event", lambda event: type(event) is Started),
    "audio": ("_first_audio", lambda data: True),
    "task-finished": ("_on_event", lambda event: type(event) is Finished),
}


@pytest.mark.parametrize("user", [synthesize, stream, sink])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("event", EVENTS)
def test_a_cancel_in_the_turn_of_an_event_is_a_cancel(monkeypatch, event, moment, user):
    async def main():
        async with world(concurrency=1) as one:
            method, happens = EVENTS[event]
            task = asyncio.create_task(user(one))
            cancelled = tie(monkeypatch, method, moment, lambda: task, happens)
            await asyncio.wait([task])
            assert cancelled == [True]
            assert task.cancelled()
            await asyncio.sleep(LATENCY * 10)
            assert one.pool.stats.discarded == {}, "the connection was healthy"
            await one.check_rest()
            await one.check_works()

    run_on(GateLoop(), main())


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("waiters", [1, 2])
def test_a_cancel_in_the_turn_of_a_hand_over_is_a_cancel(moment, waiters):
    async def main():
        async with world() as one:
            lease = one.pool.try_borrow()
            tasks = [asyncio.create_task(synthesize(one)) for _ in range(waiters)]
            await asyncio.sleep(LATENCY)
            assert one.pool.stats.waiting == waiters
            if moment == "before":
                assert tasks[0].cancel()
                lease.leave()
            else:
                lease.leave()
                assert tasks[0].cancel()
            await asyncio.wait(tasks)
            assert [task.cancelled() for task in tasks] == [True, False][:waiters]
            assert (one.pool.stats.opened, one.pool.stats.discarded) == (1, {})
            await one.check_rest()
            await one.check_works()

    run_on(GateLoop(), main())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_cancel_in_the_turn_of_a_permit_is_a_cancel(moment):
    async def main():
        async with world(concurrency=1) as one:
            permit = one.quota.request(one.pool._host._account, VOICE.model)
            first, second = asyncio.create_task(synthesize(one)), asyncio.create_task(synthesize(one))
            await asyncio.sleep(LATENCY)
            if moment == "before":
                assert first.cancel()
                permit.settle("completed")
            else:
                permit.settle("completed")
                assert first.cancel()
            await asyncio.wait([first, second])
            assert (first.cancelled(), second.cancelled()) == (True, False)
            await one.check_rest()
            await one.check_works()

    run_on(GateLoop(), main())
