"""Permits: free at once, or waited for in order; cancellation loses nothing."""

import asyncio
import gc
import random

import pytest
import uvloop

from speechpool.errors import LeaseError, SettingsError, Shed, WrongLoop
from speechpool.limits import LocalQuota, warn_if_oversized


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next timer; a loop with nothing to do is a deadlock."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self._clock_resolution = 1e-9

    def time(self):
        return self.now

    def timers(self):
        return [handle for handle in self._scheduled if not handle.cancelled()]

    def _run_once(self):
        if not self._ready and not self._stopping:
            due = [handle.when() for handle in self.timers()]
            if not due:
                raise RuntimeError("deadlock: nothing is ready and nothing is scheduled")
            self.now = max(self.now, *due) if len(due) == 1 else max(self.now, min(due))
        super()._run_once()


def run(scenario, **limits):
    loop = VirtualLoop()

    async def main():
        quota = LocalQuota(clock=loop.time, **limits)
        await scenario(quota, loop)

    try:
        loop.run_until_complete(main())
        assert loop.timers() == []
    finally:
        loop.close()


def ask(quota, **more):
    return quota.request("account", "model", **more)


def state(quota):
    (only,) = quota.states()
    return only


async def settle_loop():
    for _ in range(5):
        await asyncio.sleep(0)


# ------------------------------------------------------------------------------------------ without limits
def test_without_limits_every_permit_is_free_and_needs_no_loop():
    quota = LocalQuota()
    permits = [ask(quota) for _ in range(1000)]
    assert all(permit.granted for permit in permits)
    assert state(quota).running == 1000
    for permit in permits:
        permit.settle("completed")
        permit.settle("throttled")  # settled already: changes nothing
    assert (state(quota).running, state(quota).rate) == (0, None)


def test_the_first_throttling_answer_sets_a_rate_from_the_last_second():
    async def scenario(quota, loop):
        permits = [ask(quota) for _ in range(40)]
        loop.now += 0.2
        permits[0].settle("throttled")
        assert state(quota).rate == 20.0
        assert state(quota).limit is None
        for permit in permits[1:30]:  # the same overload
            permit.settle("throttled")
        assert state(quota).rate == 20.0
        late = ask(quota)
        assert not late.granted
        await late.wait()
        assert loop.now == pytest.approx(1000.25)
        late.settle("completed")

    run(scenario)


def test_a_burst_in_the_second_before_still_counts_in_part():
    async def scenario(quota, loop):
        permits = [ask(quota) for _ in range(40)]
        loop.now += 1.5
        permits[0].settle("throttled")
        assert state(quota).rate == pytest.approx(10.0)

    run(scenario)


def test_accounts_and_models_do_not_share_a_limit():
    quota = LocalQuota(1.0)
    assert quota.request("a", "m").granted
    assert quota.request("b", "m").granted
    assert quota.request("a", "n").granted
    assert not quota.request("a", "m").granted


# ------------------------------------------------------------------------------------------ waiting
def test_t78_task_starts_keep_to_the_rate_in_order_of_arrival():
    async def scenario(quota, loop):
        served = []

        async def task(number):
            permit = ask(quota)
            await permit.wait()
            served.append((number, round(loop.now - 1000, 3)))
            permit.settle("completed")

        await asyncio.gather(*(task(number) for number in range(8)))
        assert [number for number, _ in served] == list(range(8))
        assert [when for _, when in served] == pytest.approx([0, 0, 0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3], abs=0.002)

    run(scenario, rate=3.0)


def test_no_timer_exists_while_nobody_waits():
    async def scenario(quota, loop):
        ask(quota)
        queued = ask(quota)
        assert loop.timers() == []
        waiting = asyncio.ensure_future(queued.wait())
        await asyncio.sleep(0)
        assert len(loop.timers()) == 1
        waiting.cancel()
        await settle_loop()
        assert loop.timers() == []

    run(scenario, rate=1.0)


def test_a_newcomer_does_not_overtake_a_waiter_whose_token_has_come():
    async def scenario(quota, loop):
        ask(quota)
        first = ask(quota)
        loop.now += 1.0  # the timer has not run yet
        second = ask(quota)
        assert first.granted
        assert not second.granted

    run(scenario, rate=1.0)


def test_concurrency_is_a_number_of_places():
    async def scenario(quota, _loop):
        running = [ask(quota) for _ in range(2)]
        queued = [ask(quota) for _ in range(2)]
        assert [permit.granted for permit in running + queued] == [True, True, False, False]
        waiting = asyncio.ensure_future(queued[0].wait())
        await asyncio.sleep(0)
        running[0].settle("completed")
        await waiting
        assert not queued[1].granted
        running[1].settle("failed")
        assert queued[1].granted
        assert state(quota).running == 2

    run(scenario, concurrency=2)


def test_both_limits_hold_together():
    async def scenario(quota, loop):
        first = ask(quota)
        second = ask(quota)
        waiting = asyncio.ensure_future(second.wait())
        await asyncio.sleep(0)
        assert loop.timers() == []  # a place is missing, not a token
        loop.now += 0.1
        first.settle("completed")
        await waiting
        third = ask(quota)
        second.settle("completed")  # the burst of 2 is used up: now a token is missing
        assert not third.granted
        await third.wait()
        assert loop.now == pytest.approx(1000.5)

    run(scenario, rate=2.0, concurrency=1)


def test_interactive_goes_before_bulk_and_bulk_does_not_starve():
    async def scenario(quota, loop):
        ask(quota)
        served = []

        async def task(name, priority):
            await ask(quota, priority=priority).wait()
            served.append(name)

        tasks = [asyncio.ensure_future(task("bulk", "bulk"))]
        await asyncio.sleep(0)
        for number in range(20):
            tasks.append(asyncio.ensure_future(task(number, "interactive")))
            await asyncio.sleep(0.9)
        await asyncio.gather(*tasks)
        assert served[0] == 0
        assert 5 < served.index("bulk") < 15

    run(scenario, rate=1.0)


# ------------------------------------------------------------------------------------------ cancellation
def test_a_cancelled_waiter_loses_nothing():
    async def scenario(quota, loop):
        ask(quota)
        waits = [asyncio.ensure_future(ask(quota).wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waits[0].cancel()
        waits[1].cancel()
        await waits[2]
        assert loop.now == pytest.approx(1001.0)
        assert (state(quota).waiting, state(quota).running) == (0, 2)

    run(scenario, rate=1.0)


def test_a_cancelled_waiter_that_was_granted_passes_it_on():
    async def scenario(quota, loop):
        running = ask(quota)
        first, second = ask(quota), ask(quota)
        waits = [asyncio.ensure_future(permit.wait()) for permit in (first, second)]
        await asyncio.sleep(0)
        running.settle("completed")
        assert first.granted
        waits[0].cancel()  # before it could run
        await waits[1]
        with pytest.raises(asyncio.CancelledError):
            await waits[0]
        assert first.outcome == "cancelled"
        assert second.granted
        assert state(quota).running == 1
        assert loop.now == 1000.0

    run(scenario, concurrency=1)


def test_a_grant_that_was_cancelled_gives_its_token_back():
    async def scenario(quota, loop):
        ask(quota)
        permit = ask(quota)
        waiting = asyncio.ensure_future(permit.wait())
        await asyncio.sleep(0)
        loop.now += 1.0
        quota._lanes["account", "model"]._tick()
        assert permit.granted
        waiting.cancel()
        await settle_loop()
        assert ask(quota).granted

    run(scenario, rate=1.0)


def test_a_queued_permit_that_is_settled_leaves_the_queue():
    async def scenario(quota, _loop):
        running, queued, after = ask(quota), ask(quota), ask(quota)
        queued.settle("cancelled")
        running.settle("completed")
        assert not queued.granted
        assert after.granted
        with pytest.raises(LeaseError):
            await queued.wait()

    run(scenario, concurrency=1)


def test_settling_a_permit_wakes_whoever_waits_for_it():
    async def scenario(quota, _loop):
        ask(quota)
        queued = ask(quota)
        waiting = asyncio.ensure_future(queued.wait())
        await asyncio.sleep(0)
        queued.settle("cancelled")
        with pytest.raises(LeaseError):
            await waiting

    run(scenario, concurrency=1)


@pytest.mark.parametrize("seed", range(20))
def test_random_cancellations_leave_no_permit_behind(seed):
    chance = random.Random(seed)

    async def scenario(quota, loop):
        peak = 0

        async def task():
            nonlocal peak
            await asyncio.sleep(chance.random() * 3)
            deadline = loop.now + chance.random() * 4 if chance.random() < 0.3 else None
            permit = ask(quota, priority=chance.choice(["interactive", "bulk"]), deadline=deadline)
            try:
                await permit.wait()
                peak = max(peak, state(quota).running)
                await asyncio.sleep(chance.random())
            except asyncio.CancelledError:
                permit.settle("cancelled")
                raise
            permit.settle(chance.choice(["completed", "failed", "shed", "completed", "completed"]))

        tasks = [asyncio.ensure_future(task()) for _ in range(60)]
        for each in tasks:
            if chance.random() < 0.4:
                loop.call_later(chance.random() * 5, each.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, (asyncio.CancelledError, Shed)) for result in results)
        assert (state(quota).running, state(quota).waiting) == (0, 0)
        assert 0 < peak <= 4
        await asyncio.sleep(6)

    run(scenario, rate=10.0, concurrency=4)


# ------------------------------------------------------------------------------------------ deadlines
def test_a_wait_beyond_the_deadline_is_shed_at_once():
    async def scenario(quota, loop):
        for _ in range(2):
            ask(quota)
        fits = ask(quota, deadline=loop.now + 0.6)
        with pytest.raises(Shed) as caught:
            ask(quota, deadline=loop.now + 0.6)
        assert caught.value.predicted_wait == pytest.approx(1.0)
        assert "model" in str(caught.value)
        assert (state(quota).shed, state(quota).waiting) == (1, 1)
        await fits.wait()

    run(scenario, rate=2.0)


def test_a_free_permit_is_granted_whatever_the_deadline():
    quota = LocalQuota(1.0, clock=lambda: 50.0)
    assert ask(quota, deadline=0.0).granted


def test_interactive_waits_are_predicted_without_bulk():
    async def scenario(quota, loop):
        ask(quota)
        for _ in range(10):
            ask(quota, priority="bulk")
        assert not ask(quota, deadline=loop.now + 1.1).granted
        with pytest.raises(Shed):
            ask(quota, priority="bulk", deadline=loop.now + 5)

    run(scenario, rate=1.0)


def test_a_deadline_that_comes_while_waiting_sheds():
    async def scenario(quota, loop):
        running = ask(quota)
        permit = ask(quota, deadline=loop.now + 2)  # nothing is known of the duration of tasks yet
        with pytest.raises(Shed):
            await permit.wait()
        assert loop.now == 1002.0
        assert permit.outcome == "shed"
        assert state(quota).waiting == 0
        running.settle("completed")
        assert state(quota).running == 0

    run(scenario, concurrency=1)


def test_the_duration_of_tasks_predicts_the_wait_for_a_place():
    async def scenario(quota, loop):
        known = ask(quota)
        loop.now += 4.0
        known.settle("completed")
        ask(quota)
        ask(quota)
        with pytest.raises(Shed) as caught:
            ask(quota, deadline=loop.now + 1)
        assert caught.value.predicted_wait == pytest.approx(2.0)

    run(scenario, concurrency=2)


# ------------------------------------------------------------------------------------------ outcomes
def test_shed_gives_the_token_back_and_cancelled_does_not():
    quota = LocalQuota(1.0, clock=lambda: 50.0)
    ask(quota).settle("shed")
    ask(quota).settle("cancelled")
    assert not ask(quota).granted


def test_retry_after_holds_everybody_for_that_long():
    async def scenario(quota, loop):
        ask(quota).settle("throttled", retry_after=3.0)
        permit = ask(quota)
        await permit.wait()
        assert loop.now == pytest.approx(1003.0)
        assert state(quota).throttled == 1

    run(scenario, rate=10.0)


def test_throttling_lowers_and_completion_raises_up_to_the_limit():
    async def scenario(quota, loop):
        ask(quota).settle("throttled")
        assert state(quota).rate == 5.0
        loop.now += 10
        for _ in range(300):
            permit = ask(quota)
            await permit.wait()
            permit.settle("completed")
        assert state(quota).rate == 10.0

    run(scenario, rate=10.0)


def test_a_waiter_profits_from_a_rate_that_rises_meanwhile():
    async def scenario(quota, loop):
        permits = [ask(quota) for _ in range(40)]
        permits.pop().settle("throttled")
        assert state(quota).rate == 0.5
        waiting = asyncio.ensure_future(ask(quota).wait())
        await asyncio.sleep(0)
        for permit in permits:
            permit.settle("completed")
        await waiting
        assert loop.now == pytest.approx(1001.0)

    run(scenario, rate=1.0, burst=40)


def test_a_learned_rate_grows_only_by_tasks_that_waited_for_it():
    async def scenario(quota, loop):
        ask(quota).settle("throttled")
        for _ in range(100):
            loop.now += 60
            permit = ask(quota)
            assert permit.granted
            permit.settle("completed")
        assert state(quota).rate == pytest.approx(1.0, rel=0.1)
        for _ in range(10):
            permit = ask(quota)
            await permit.wait()
            permit.settle("completed")
        assert state(quota).rate > 1.2

    run(scenario)


# ------------------------------------------------------------------------------------------ loops
def test_a_second_loop_is_refused_only_while_the_first_one_waits():
    quota = LocalQuota(concurrency=1)
    running = ask(quota)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        queued = ask(quota)
        waiting = first.create_task(queued.wait())
        first.run_until_complete(asyncio.sleep(0))
        other = ask(quota)
        with pytest.raises(WrongLoop):
            second.run_until_complete(other.wait())
        other.settle("cancelled")
        running.settle("completed")
        first.run_until_complete(waiting)
        late = ask(quota)
        second.call_soon(second.call_soon, queued.settle, "completed")  # one turn later, when `late` waits
        second.run_until_complete(late.wait())
        assert late.granted
    finally:
        first.close()
        second.close()
    gc.collect()


# ------------------------------------------------------------------------------------------ settings
@pytest.mark.parametrize(
    "wrong",
    [{"rate": 0}, {"rate": -1}, {"rate": float("inf")}, {"rate": 1, "burst": 0.5}, {"burst": 2}, {"concurrency": 0}],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError):
        LocalQuota(**wrong)


def test_a_pool_that_its_rate_cannot_fill_is_told_so_with_the_arithmetic():
    text = warn_if_oversized(100, 3.0, 5.0)
    assert text is not None
    for part in ("100", "3 task starts a second x 5 s", "15 tasks", "max_size to 15", "20 task starts a second"):
        assert part in text


@pytest.mark.parametrize(
    ("size", "rate", "duration"), [(15, 3.0, 5.0), (1, 0.01, 1.0), (1000, None, 5.0), (2, 0.5, 3.0)]
)
def test_a_pool_that_its_rate_can_fill_is_not_warned(size, rate, duration):
    assert warn_if_oversized(size, rate, duration) is None


def test_a_quick_rate_is_waited_for_on_uvloop_too():
    async def main():
        quota = LocalQuota(rate=2000)  # the next one is due in less than a millisecond: uvloop makes no timer of that

        async def one():
            permit = quota.request("account", "model")
            if not permit.granted:
                await permit.wait()
            permit.settle("completed")

        await asyncio.gather(*(one() for _ in range(2100)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# ------------------------------------------------------------------------------------------ a learned rate, and retries
def test_at_a_learned_rate_nobody_waits_who_one_step_back_would_make_too_late():
    async def scenario(quota, loop):
        first = [ask(quota) for _ in range(4)]
        first[0].settle("throttled")  # two a second from now on
        for _ in range(3):
            ask(quota)
        assert state(quota).predicted_wait == pytest.approx(2.0)
        with pytest.raises(Shed, match=r"in 2 s, give or take 0\.5 s, the deadline in 2\.4 s") as caught:
            ask(quota, deadline=loop.now + 2.4)
        assert caught.value.predicted_wait == pytest.approx(2.0)
        assert not ask(quota, deadline=loop.now + 2.6).granted

    run(scenario)


def test_the_predicted_wait_is_nothing_where_nothing_limits():
    quota = LocalQuota()
    ask(quota)
    assert state(quota).predicted_wait == 0.0


def test_an_account_and_model_has_one_budget_of_retries():
    quota = LocalQuota()
    budget = quota.retry_budget("account", "model")
    assert quota.retry_budget("account", "model") is budget
    assert quota.retry_budget("account", "other") is not budget
    assert quota.retry_budget("other", "model") is not budget
    assert LocalQuota().retry_budget("account", "model") is not budget
    ask(quota)
    assert quota.retry_budget("account", "model") is budget
