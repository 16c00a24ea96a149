import asyncio
import threading

import pytest

from speechpool.service.scheduler import Job, QueueFull, Scheduler, Step

LIMIT = 10.0


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Log:
    """Jobs that write down what happens to them."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.steps = []  # names, in the order in which steps ran
        self.heard = []
        self.ended = asyncio.Queue()
        self.closed = []

    def job(self, name, count=1, *, deadline=0.0, seconds=1.0, first=False, gate=None, error=None):
        def steps():
            try:
                for _ in range(count):
                    if gate is not None:
                        gate.entered.set()
                        assert gate.open.wait(LIMIT)
                    self.steps.append(name)
                    yield Step(name.encode(), seconds)
                if error is not None:
                    raise error
            finally:
                self.closed.append(name)

        return Job(
            steps(),
            deadline=deadline,
            first=first,
            on_step=lambda step: self.heard.append(step.data.decode()),
            on_end=lambda error: self.ended.put_nowait((name, error)),
        )

    def submit(self, name, *args, **kwargs):
        job = self.job(name, *args, **kwargs)
        self.scheduler.submit(job)
        return job

    async def ends(self, count):
        async with asyncio.timeout(LIMIT):
            return [await self.ended.get() for _ in range(count)]


class Gate:
    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()

    async def until_entered(self):
        assert await asyncio.to_thread(self.entered.wait, LIMIT)


def run(scenario, **settings):
    """Run a scenario with one worker and a clock that stands still; the worker is held at a gate until it is opened."""

    async def main():
        scheduler = Scheduler(**{"workers": 1, "clock": Clock(), **settings})
        scheduler.start()
        log, gate = Log(scheduler), Gate()
        holder = log.submit("hold", gate=gate, deadline=-1.0)
        await gate.until_entered()
        try:
            await scenario(scheduler, log, gate, holder)
        finally:
            gate.open.set()
            await scheduler.close()
        assert not any(thread.is_alive() for thread in scheduler._threads)

    asyncio.run(main())


def test_the_earliest_deadline_is_served_first():
    async def scenario(scheduler, log, gate, holder):
        for name, deadline in (("late", 9.0), ("soon", 1.0), ("middle", 5.0)):
            log.submit(name, deadline=deadline)
        gate.open.set()
        await log.ends(4)
        assert log.steps == ["hold", "soon", "middle", "late"]

    run(scenario)


def test_a_deadline_moves_on_with_the_audio_that_was_made():
    async def scenario(scheduler, log, gate, holder):
        log.submit("a", 3, deadline=0.0, seconds=2.0)  # 0, 2, 4
        log.submit("b", 2, deadline=1.0, seconds=2.0)  # 1, 3
        gate.open.set()
        await log.ends(3)
        assert log.steps == ["hold", "a", "b", "a", "b", "a"]

    run(scenario)


def test_a_listener_that_ran_dry_is_not_preferred_for_its_past():
    async def scenario(scheduler, log, gate, holder):
        scheduler._clock.now = 100.0
        job = log.submit("dry", 2, deadline=3.0, seconds=1.0)
        gate.open.set()
        await log.ends(2)
        assert job.deadline == 102.0

    run(scenario)


def test_what_comes_before_it_was_due_ends_the_earlier():
    async def scenario(scheduler, log, gate, holder):
        job = log.job("early", 2, deadline=5.0, seconds=1.0)
        job._silent = True
        scheduler.submit(job)
        gate.open.set()
        await log.ends(2)
        assert job.deadline == 2.0

    run(scenario)


def test_a_step_tells_what_it_cost():
    async def scenario(scheduler, log, gate, holder):
        costs = []

        def steps():
            scheduler._clock.now += 0.25
            yield Step(b"", 1.0)
            yield Step(b"", 1.0)

        ended = asyncio.Event()
        scheduler.submit(
            Job(
                steps(),
                deadline=0.0,
                first=False,
                on_step=lambda step: costs.append(step.cost),
                on_end=lambda error: ended.set(),
            )
        )
        gate.open.set()
        async with asyncio.timeout(LIMIT):
            await ended.wait()
        assert costs == [0.25, 0.0]

    run(scenario)


def test_equal_deadlines_are_served_in_order_of_arrival():
    async def scenario(scheduler, log, gate, holder):
        for name in "abc":
            log.submit(name)
        gate.open.set()
        await log.ends(4)
        assert log.steps == ["hold", "a", "b", "c"]

    run(scenario)


def test_drop_while_a_step_runs():
    async def scenario(scheduler, log, gate, holder):
        scheduler.drop(holder)
        assert log.closed == []  # its worker closes it: a generator cannot be closed while it runs
        gate.open.set()
        log.submit("next")
        assert await log.ends(1) == [("next", None)]
        assert log.heard == ["next"]
        assert log.closed == ["hold", "next"]

    run(scenario)


def test_drop_of_a_waiting_job_closes_it_at_once():
    async def scenario(scheduler, log, gate, holder):
        job = log.submit("never")
        next(job.steps)  # so that there is something to close
        scheduler.drop(job)
        assert log.closed == ["never"]
        gate.open.set()
        assert await log.ends(1) == [("hold", None)]
        assert log.heard == ["hold"]

    run(scenario)


def test_drop_between_the_step_and_its_delivery():
    async def scenario(scheduler, log, gate, holder):
        gate.open.set()
        while not log.closed:  # the worker is through; this loop has had no turn to deliver
            threading.Event().wait(0.001)
        scheduler.drop(holder)
        log.submit("next")
        assert await log.ends(1) == [("next", None)]
        assert log.heard == ["next"]

    run(scenario)


def test_a_paused_job_makes_no_step_until_it_is_resumed():
    async def scenario(scheduler, log, gate, holder):
        job = log.submit("paused", 2, deadline=-5.0)
        scheduler.pause(job)
        log.submit("other", deadline=50.0)
        gate.open.set()
        await log.ends(2)
        assert log.steps == ["hold", "other"]
        scheduler.resume(job)
        assert await log.ends(1) == [("paused", None)]

    run(scenario)


def test_too_many_first_sentences_are_refused_and_others_are_not():
    async def scenario(scheduler, log, gate, holder):
        waiting = [log.submit(name, first=True) for name in "ab"]
        assert (scheduler.waiting, scheduler.full) == (2, True)
        with pytest.raises(QueueFull):
            log.submit("c", first=True)
        log.submit("d")  # a later sentence of a task that was let in
        scheduler.drop(waiting[0])
        assert not scheduler.full
        gate.open.set()
        await log.ends(3)
        assert scheduler.waiting == 0

    run(scenario, max_queue=2)


def test_readers_that_do_not_read_do_not_fill_the_queue():
    async def scenario(scheduler, log, gate, holder):
        deaf = log.submit("deaf", first=True)
        assert scheduler.full
        scheduler.pause(deaf)
        assert not scheduler.full
        log.submit("other", first=True)
        gate.open.set()
        await log.ends(2)
        scheduler.resume(deaf)
        await log.ends(1)
        assert scheduler.waiting == 0

    run(scenario, max_queue=1)


def test_an_error_of_one_engine_ends_its_job_alone():
    async def scenario(scheduler, log, gate, holder):
        boom = RuntimeError("boom")
        log.submit("bad", error=boom)
        log.submit("good", deadline=1.0)
        gate.open.set()
        assert await log.ends(3) == [("hold", None), ("bad", boom), ("good", None)]

    run(scenario)


def test_an_error_of_one_listener_is_its_own(caplog):
    async def scenario(scheduler, log, gate, holder):
        bad = log.job("bad")
        bad.on_step = lambda step: 1 / 0
        scheduler.submit(bad)
        log.submit("good", deadline=1.0)
        gate.open.set()
        await log.ends(3)
        assert log.heard == ["hold", "good"]

    run(scenario)
    assert "A listener of a speech failed." in caplog.text


def test_results_that_are_ready_together_wake_the_loop_once():
    async def scenario(scheduler, log, gate, holder):
        calls = []
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        scheduler._loop = type("Loop", (), {"call_soon_threadsafe": lambda _, call: (calls.append(call), wake(call))})()
        for number in range(20):
            log.submit(str(number))
        gate.open.set()
        while len(log.closed) < 21:  # without giving the loop a turn
            threading.Event().wait(0.001)
        await log.ends(21)
        assert len(calls) == 1

    run(scenario)


def test_a_quick_job_is_not_made_far_ahead_of_the_loop():
    async def scenario(scheduler, log, gate, holder):
        log.submit("quick", 50)
        log.submit("other", deadline=1000.0)
        gate.open.set()
        while "other" not in log.closed:  # the loop has no turn, so the quick one has to wait for it
            threading.Event().wait(0.001)
        assert log.steps == ["hold", "quick", "quick", "other"]
        await log.ends(3)
        assert log.heard.count("quick") == log.steps.count("quick") == 50

    run(scenario)


def test_a_job_that_waits_for_the_loop_may_be_paused_and_dropped():
    async def scenario(scheduler, log, gate, holder):
        dropped, paused = log.submit("dropped", 9), log.submit("paused", 9)
        gate.open.set()
        while len(log.steps) < 5:
            threading.Event().wait(0.001)
        scheduler.drop(dropped)
        scheduler.pause(paused)
        await log.ends(1)  # the holder's
        log.submit("last", deadline=1000.0)
        await log.ends(1)
        assert sorted(log.steps) == ["dropped", "dropped", "hold", "last", "paused", "paused"]
        assert log.heard == ["hold", "paused", "paused", "last"]
        scheduler.resume(paused)
        await log.ends(1)
        assert log.steps.count("paused") == 9

    run(scenario)


def test_nothing_is_called_after_close():
    async def scenario(scheduler, log, gate, holder):
        log.submit("queued")
        gate.open.set()
        await scheduler.close()
        await asyncio.sleep(0)
        assert log.ended.empty()
        assert log.heard == []

    run(scenario)
