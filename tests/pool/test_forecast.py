"""Who would wait beyond his deadline is turned away at once, and what is predicted comes true."""

import asyncio
import bisect
import math
import random
from dataclasses import dataclass, field
from statistics import median

import pytest
from fake_connector import consistent, open_pool

from speechpool.errors import PoolTimeout, Shed
from speechpool.limits import Backoff
from speechpool.pool import pool as pool_module
from speechpool.pool.core import Core
from speechpool.pool.forecast import Forecast, spread
from speechpool.pool.slot import Fail, Refusal
from speechpool.pool.waiting import BULK, BULK_AGEING, FRONT, INTERACTIVE, Waiter, WaitingLine
from speechpool.settings import PoolSettings
from speechpool.testing.clock import run

CONNECTIONS, HELD, PATIENCE, SECONDS = 16, 2.0, 3.0, 120.0
KNOWN = 20
"""Hand-overs that are enough to know something of a small pool."""


def right(predicted, real):
    """Within a factor of two."""
    return predicted / 2 <= real <= predicted * 2


# ------------------------------------------------------------------------------------ an overload
class Watched(Waiter):
    """A waiter that knows when it was served."""

    served_at, promised, _slot = math.inf, None, None

    @property
    def slot(self):
        return self._slot

    @slot.setter
    def slot(self, slot):
        self._slot = slot
        if slot is not None:
            self.served_at = asyncio.get_running_loop().time()


@dataclass
class Overload:
    """What the borrowers met."""

    waits: list = field(default_factory=list)  # (predicted, real) of those who were served or whose deadline came
    ghosts: list = field(default_factory=list)  # of those who were shed, had they waited
    served: int = 0
    late: int = 0
    shed: int = 0
    slow: int = 0  # shed, but not at once, or with another prediction

    def share_right(self):
        pairs = self.waits + self.ghosts
        return sum(right(*pair) for pair in pairs) / len(pairs)


async def overload(monkeypatch, load, *, seed, held=None, bulk=0.0):
    """Borrowers come at random, `load` times as many as can be served; each holds its connection for a while."""
    chance, loop, seen = random.Random(seed), asyncio.get_running_loop(), Overload()
    held = held or (lambda: chance.expovariate(1 / HELD))
    waiters, hand_overs, ghosts = [], [], []

    def watched(*arguments):
        waiters.append(Watched(*arguments))
        return waiters[-1]

    monkeypatch.setattr(pool_module, "Waiter", watched)
    pool, _ = await open_pool(max_size=CONNECTIONS, max_waiting=10_000, leak_after=None)
    await pool.wait_ready()

    async def task(priority):
        begun, mine = loop.time(), len(waiters)
        expected = pool._core.expected_wait(begun, BULK if priority == "bulk" else INTERACTIVE)
        line = list(pool._core.line)
        try:
            lease = await pool.borrow(timeout=PATIENCE, priority=priority)
        except Shed as error:
            seen.shed += 1
            seen.slow += loop.time() > begun or error.predicted_wait != expected
            ghosts.append((begun, expected, line[-1]))
            return
        except PoolTimeout:
            seen.late += 1
            return
        hand_overs.append(loop.time())
        if expected:
            seen.waits.append((expected, waiters[mine].served_at - begun))
        await asyncio.sleep(held())
        lease.return_()
        seen.served += loop.time() <= end

    async with asyncio.TaskGroup() as group:
        end = loop.time() + SECONDS
        while loop.time() < end:
            group.create_task(task("bulk" if chance.random() < bulk else "interactive"))
            await asyncio.sleep(chance.expovariate(load * CONNECTIONS / HELD))
    for begun, expected, last in ghosts:  # the next one after the last of those who stood before it
        turn = bisect.bisect_right(hand_overs, min(last.served_at, last.deadline))
        if begun + 2 * PATIENCE < end:
            seen.ghosts.append((expected, hand_overs[turn] - begun))
    consistent(pool)
    assert pool.stats.shed == seen.shed
    assert pool.stats.timeouts == seen.late
    await pool.close()
    return seen


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("load", [1.5, 3.0])
def test_in_an_overload_who_would_come_too_late_is_shed_at_once_and_the_connections_stay_busy(monkeypatch, load, seed):
    seen = run(overload(monkeypatch, load, seed=seed))
    asked, capacity = seen.served + seen.late + seen.shed, SECONDS * CONNECTIONS / HELD
    early = [real for _, real in seen.ghosts if real < PATIENCE / 2]
    print(  # noqa: T201  # figures to be quoted, with -s
        f"\nload {load:g}: goodput {seen.served / capacity:.1%} of capacity, {seen.shed} of {asked} shed, {seen.late} late; "
        f"predictions right within a factor of two: {seen.share_right():.1%} of {len(seen.waits)} that waited and "
        f"{len(seen.ghosts)} that were shed; {len(early)} of these would have waited less than half of their time"
    )
    assert seen.share_right() >= 0.9
    assert seen.served >= 0.9 * capacity
    assert seen.slow == 0
    assert seen.late <= 0.04 * asked
    assert seen.shed >= 0.8 * (asked - capacity - seen.late)
    assert len(early) <= 0.1 * seen.shed


def test_bulk_borrowers_are_told_that_others_will_pass_them(monkeypatch):
    seen = run(overload(monkeypatch, 2.0, seed=3, bulk=0.3))
    assert seen.share_right() >= 0.8
    assert 0.8 < median(real / predicted for predicted, real in seen.waits) < 1.25
    assert seen.late <= 0.05 * (seen.served + seen.late + seen.shed)


def test_below_capacity_nearly_nobody_is_shed(monkeypatch):
    seen = run(overload(monkeypatch, 0.8, seed=4))
    assert seen.shed + seen.late <= 0.01 * seen.served


# ------------------------------------------------------------------------------------ who is never shed
def busy_core(turn=4.0, waiting=1, **settings):
    """A core of two borrowed connections that has seen one hand-over every `turn / 2` seconds, and its time."""
    now = 100.0
    core = Core(PoolSettings(**{"max_size": 2, "max_waiting": 100, **settings}), Backoff(0.1, 4.0, random=lambda: 0.5))
    slots = [action.slot for action in core.start(now)]
    for slot in slots:
        core.opened(slot, object(), now)
        core.borrow(Waiter(now), now)
    core.borrow(Waiter(now), now)
    for number in range(KNOWN):
        now += turn / 2
        core.borrow(Waiter(now), now)
        slot = slots[number % 2]
        core.returned(slot, slot.use, now)
    for _ in range(waiting - 1):
        core.borrow(Waiter(now), now)
    assert core.line.size == waiting
    return core, now


def refusals(actions):
    return [action.reason for action in actions if isinstance(action, Fail)]


def test_who_would_hardly_be_served_in_time_is_shed_and_told_when_it_would_have_been():
    core, now = busy_core()  # one hand-over in two seconds, and one waits
    late = Waiter(now, now + 4.0)
    assert refusals(core.borrow(late, now)) == [Refusal.SHED]
    assert late.predicted == pytest.approx(4.0, rel=0.1)
    assert (core.counters.shed, core.line.size) == (1, 1)
    assert core.borrow(Waiter(now, now + 9.0), now) == []


@pytest.mark.parametrize(
    "waiter",
    [
        pytest.param({}, id="no deadline"),
        pytest.param({"deadline": 0.1, "rank": FRONT}, id="renewal"),
        pytest.param({"deadline": 0.1, "fresh": True}, id="one who needs a fresh connection"),
    ],
)
def test_nobody_is_shed_who(waiter):
    core, now = busy_core(waiting=20)
    patience = waiter.pop("deadline", math.inf)
    assert core.borrow(Waiter(now, now + patience, **waiter), now) == []
    assert core.counters.shed == 0


@pytest.mark.parametrize("rank", [INTERACTIVE, BULK])
def test_the_first_in_line_is_not_shed_so_that_the_pool_can_learn_that_all_is_well_again(rank):
    core, now = busy_core(turn=100.0)
    (first,) = core.line
    assert core.expected_wait(now) == pytest.approx(100.0, rel=0.1)
    core.cancel(first, now)
    assert core.borrow(Waiter(now, now + 1.0, rank=rank), now) == []
    assert refusals(core.borrow(Waiter(now, now + 1.0, rank=rank), now)) == [Refusal.SHED]


def test_a_pool_that_becomes_slow_in_a_line_that_never_ends_notices_it():
    core, now = busy_core(turn=0.02, waiting=3)
    assert core.expected_wait(now) == pytest.approx(0.04, rel=0.1)
    for number in range(30):
        now += 5.0
        core.borrow(Waiter(now), now)
        slot = list(core.slots)[number % 2]
        core.returned(slot, slot.use, now)
    assert core.line.size == 3
    assert refusals(core.borrow(Waiter(now, now + 10.0), now)) == [Refusal.SHED]


def test_nobody_is_shed_while_nothing_is_known():
    core, now = busy_core(waiting=20)
    core.forecast = Forecast()
    core.forecast.begin(now, core.counters.borrowed)
    assert core.expected_wait(now) is None
    assert core.borrow(Waiter(now, now + 0.1), now) == []


def test_nobody_is_shed_where_a_dial_can_serve_it():
    core, now = busy_core(waiting=20)
    core.resize(PoolSettings(max_size=3, max_waiting=100, max_opening=1), now)
    core.slots.popitem()  # as if the dial had ended and nothing had followed
    core._count()
    assert core.borrow(Waiter(now, now + 0.1), now) == []


def test_bulk_is_shed_by_its_own_place():
    core, now = busy_core()
    for _ in range(10):
        core.borrow(Waiter(now, rank=BULK), now)
    assert core.borrow(Waiter(now, now + 8.0), now) == []
    assert refusals(core.borrow(Waiter(now, now + 8.0, rank=BULK), now)) == [Refusal.SHED]


def test_an_idle_connection_is_lent_whatever_is_predicted():
    async def main():
        pool, _ = await open_pool(max_size=2)
        await pool.wait_ready()
        assert pool.stats.predicted_wait == 0
        pool._core.forecast.look(pool._now(), 100, 1000)
        lease = await pool.borrow(timeout=0.01)
        lease.return_()
        await pool.close()

    run(main())


# ------------------------------------------------------------------------------------ what is said
def test_the_error_the_stats_and_the_explanation_say_what_was_predicted():
    async def main():
        pool, _ = await open_pool(max_size=1, max_waiting=100)
        await pool.wait_ready()
        assert pool.stats.predicted_wait == 0

        async def hold():
            lease = await pool.borrow(timeout=None)
            await asyncio.sleep(2)
            lease.return_()

        holders = [asyncio.create_task(hold()) for _ in range(KNOWN)]
        await asyncio.sleep(0)
        assert pool.stats.predicted_wait is None
        await asyncio.sleep(2 * KNOWN - 7)  # three wait, and the connection comes back in a second
        assert pool.stats.predicted_wait == pytest.approx(8, rel=0.15)
        assert "3 borrowers wait" in pool.explain()
        assert f"One more would wait about {pool.stats.predicted_wait:.2g} s." in pool.explain()
        with pytest.raises(Shed, match="3 wait already, for 1 connections") as caught:
            await pool.borrow(timeout=5)
        error = caught.value
        assert error.predicted_wait == pytest.approx(8, rel=0.15)
        assert error.retryable
        assert error.endpoint == pool.endpoint
        assert f"would come in {error.predicted_wait:.3g} s" in str(error)
        assert "the deadline in 5 s" in str(error)
        assert pool.stats.shed == 1
        assert "So far 1 were shed" in pool.explain()
        await asyncio.gather(*holders)
        await pool.close()

    run(main())


# ------------------------------------------------------------------------------------ the forecast itself
def told(gaps, connections=1):
    """A forecast that has seen hand-overs with these gaps while somebody waited, and the time."""
    forecast, now = Forecast(), 0.0
    forecast.begin(now, 0)
    for number, gap in enumerate(gaps, 1):
        now += gap
        forecast.look(now, number, connections)
    return forecast, now


def test_the_wait_grows_with_the_place_and_shrinks_with_the_connections():
    forecast, now = told([0.5] * 20, connections=4)
    assert forecast.wait(1, now, 4) == pytest.approx(0.5)
    assert forecast.wait(6, now, 4) == pytest.approx(3.0)
    assert forecast.wait(6, now, 8) == pytest.approx(1.5)


def test_too_little_says_nothing():
    assert told([0.5] * 7)[0].wait(1, 3.5, 1) is None
    assert told([0.5] * 8)[0].wait(1, 4.0, 1) == pytest.approx(0.5)
    assert told([0.5] * 60, connections=100)[0].wait(1, 30.0, 100) is None
    assert Forecast().wait(1, 0.0, 0) is None


def test_one_borrower_that_takes_for_ever_does_not_make_the_others_look_slow():
    forecast, now = told([2.0] * 30 + [3600.0])
    assert forecast.wait(1, now, 1) <= 3.0
    forecast, now = told([0.125] * 50 + [10.0], connections=16)
    assert forecast.wait(1, now, 16) < 0.5


def test_a_server_that_becomes_slow_is_noticed_within_two_turns_of_all_connections():
    forecast, now = told([0.1] * 60 + [1.0] * 32, connections=16)
    assert forecast.wait(1, now, 16) > 0.6


def test_a_pause_is_noticed_before_it_ends():
    forecast, now = told([1.0] * 30)
    assert forecast.wait(1, now + 0.5, 1) == pytest.approx(1.0)
    assert forecast.wait(1, now + 60.0, 1) > 2.0
    assert forecast.wait(1, now + 60.0, 1, waiting=False) == pytest.approx(1.0)


def test_what_is_old_is_forgotten():
    forecast, now = told([1.0] * 30)
    assert forecast.wait(1, now + 61.0, 1, waiting=False) is None
    forecast, now = told([100.0] * 30)
    assert forecast.wait(1, now + 300.0, 1, waiting=False) == pytest.approx(100.0)
    assert forecast.wait(1, now + 500.0, 1, waiting=False) is None
    forecast.begin(now + 500.0, 30)
    for number in range(1, 9):
        forecast.look(now + 500.0 + number, 30 + number, 1)
    assert forecast.wait(1, now + 508.0, 1) == pytest.approx(1.0)


def test_those_that_open_serve_the_first_in_line():
    forecast, now = told([1.0] * 30, connections=4)
    assert forecast.wait(3, now, 4, opening=3) == 0.0  # no dial has told yet how long one takes
    forecast.dialled(0.2)
    assert forecast.wait(3, now, 4, opening=3) == pytest.approx(0.2)
    assert forecast.wait(5, now, 4, opening=3) == pytest.approx(2.0)
    forecast.dialled(100.0)
    assert forecast.wait(3, now, 4, opening=3) == pytest.approx(3.0)  # a return may come sooner


def test_the_spread_is_as_long_as_the_wait_for_the_first_and_small_for_the_hundredth():
    assert spread(1.0, 1) == 1.0
    assert spread(10.0, 100) == 1.0


def test_the_alarm_is_never_below_a_prediction_with_its_spread():
    forecast, now = told([0.5] * 30, connections=4)
    for waiting in range(1, 200):
        wait = forecast.wait(waiting + 1, now, 4)
        assert waiting * forecast.alarm >= wait + spread(wait, waiting + 1)


# ------------------------------------------------------------------------------------ places
def line_of(*waiters):
    line = WaitingLine()
    for serial, (since, rank) in enumerate(waiters):
        waiter = Waiter(since, rank=rank)
        waiter.serial = serial
        line.join(waiter)
    return line


def test_an_interactive_borrower_stands_before_young_bulk_and_behind_old():
    line = line_of((0.0, BULK), (1.0, BULK), (3.0, BULK), (4.0, BULK), (3.5, INTERACTIVE), (4.0, FRONT))
    assert line.bulk == 4
    assert line.ahead(BULK, 4.0) == 6
    assert line.ahead(INTERACTIVE, 4.0) == 4
    assert line.ahead(INTERACTIVE, 4.0 + BULK_AGEING) == 6
    assert line_of((9.0, BULK)).ahead(INTERACTIVE, 10.0) == 0
    assert line_of((9.0, INTERACTIVE)).ahead(INTERACTIVE, 10.0) == 1
