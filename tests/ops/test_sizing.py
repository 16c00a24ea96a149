"""How large a pool has to be: Erlang's formula against a simulation, and advice that names what binds."""

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.errors import SettingsError
from speechpool.ops.queueing import chance_of_waiting, wait
from speechpool.ops.simulation import simulate
from speechpool.ops.sizing import advise


@pytest.mark.parametrize(
    ("load", "servers", "known"), [(1.0, 2, 1 / 3), (10.0, 12, 0.4494), (0.5, 1, 0.5), (5.0, 5, 1.0)]
)
def test_erlangs_formula(load, servers, known):
    assert chance_of_waiting(load, servers) == pytest.approx(known, rel=1e-3)


def simulated(load, servers, tasks=60_000):
    """The waits of a queue with so many servers, in units of a mean task."""
    chance = random.Random(5)
    free, now, waits = [0.0] * servers, 0.0, []
    for _ in range(tasks):
        now += chance.expovariate(load)
        first = heapq.heappop(free)
        begin = max(now, first)
        waits.append(begin - now)
        heapq.heappush(free, begin + chance.expovariate(1.0))
    return sorted(waits)


@pytest.mark.parametrize(("load", "servers"), [(8.0, 10), (18.0, 20), (4.0, 8)])
def test_a_simulation_agrees(load, servers):
    waits = simulated(load, servers)
    assert sum(one > 0 for one in waits) / len(waits) == pytest.approx(chance_of_waiting(load, servers), abs=0.04)
    assert waits[int(0.95 * len(waits))] == pytest.approx(wait(load, servers, 1.0, 0.95), rel=0.25, abs=0.02)


@given(load=st.floats(0.1, 500), more=st.integers(1, 100))
def test_more_connections_never_mean_longer_waits(load, more):
    servers = int(load) + 1
    assert chance_of_waiting(load, servers + more) <= chance_of_waiting(load, servers) <= 1
    assert wait(load, servers + more, 2.0, 0.95) <= wait(load, servers, 2.0, 0.95)


def test_the_default_meets_both_rules():
    advice = advise(100, 3.0)
    assert advice.chosen.max_size == 160
    assert 0.6 <= advice.chosen.utilisation <= 0.8
    assert advice.chosen.wait_p99 == 0.0
    assert advice.others[0].wait_p95 is None  # as many as the peak never catch up
    assert advice.binding == ""


def test_the_rate_of_the_account_binds():
    advice = advise(100, 2.0, submission_rate=3.0)
    assert "no more than 6 tasks run at once" in advice.binding
    assert advice.feasible_peak == 6.0
    assert advise(6, 2.0, submission_rate=3.0).binding == ""


def test_machines_share():
    advice = advise(100, 2.0, machines=4, submission_rate=100.0)
    assert (advice.peak, advice.rate, advice.chosen.max_size, advice.feasible_peak) == (25.0, 12.5, 40, 50.0)


@pytest.mark.parametrize(
    "wrong", [{"peak": 0}, {"task_seconds": -1}, {"machines": 0}, {"submission_rate": 0}, {"factor": 0.5}]
)
def test_what_is_out_of_range_is_said(wrong):
    arguments = {"peak": 10, "task_seconds": 1.0} | wrong
    with pytest.raises(SettingsError, match="must be"):
        advise(arguments.pop("peak"), arguments.pop("task_seconds"), **arguments)


def test_a_simulation_is_the_same_each_time_and_knows_the_times_it_was_given():
    queue = simulate(8.0, [1.0], 10, tasks=20_000)
    assert queue == simulate(8.0, [1.0], 10, tasks=20_000)
    assert queue.utilisation == pytest.approx(0.8, abs=0.02)
    # Tasks that are all as long as each other wait about half as long as Erlang's formula says.
    assert queue.wait(0.95) == pytest.approx(wait(8.0, 10, 1.0, 0.95) / 2, rel=0.35)


def test_measured_times_make_the_waits():
    assumed, measured = advise(10, 1.0, factor=1.25), advise(10, 1.0, factor=1.25, service_times=[1.0])
    assert 0 < measured.chosen.wait_p99 < assumed.chosen.wait_p99
    assert measured.chosen.utilisation == assumed.chosen.utilisation
    assert measured.others[0].wait_p95 is None
