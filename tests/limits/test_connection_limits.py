"""The bound of all pools: what it accepts, what the environment says of it, and its books."""

from __future__ import annotations

import math
import os

import pytest

from speechpool.errors import SettingsError
from speechpool.limits import UPKEEP, ConnectionLimits
from speechpool.limits.connections import _forked
from speechpool.limits.ledger import Ledger, Share

POOL_SIZE = "DASHSCOPE_CONNECTION_POOL_SIZE"
REQUESTS = "DASHSCOPE_MAXIMUM_ASYNC_REQUESTS"
PER_HOST = "DASHSCOPE_MAXIMUM_ASYNC_REQUESTS_PER_HOST"


@pytest.mark.parametrize("fields", [{"total": 0}, {"per_host": -1}, {"total": True}, {"total": 2.0}])
def test_a_wrong_limit_is_named(fields):
    with pytest.raises(SettingsError, match=r"ConnectionLimits\.(total|per_host) = .* must be at least 1"):
        ConnectionLimits(**fields)


@pytest.mark.parametrize(
    ("environ", "limits"),
    [
        ({REQUESTS: "2000"}, (2000, None)),
        ({POOL_SIZE: "500"}, (500, None)),
        ({POOL_SIZE: "500", REQUESTS: "2000"}, (500, None)),
        ({POOL_SIZE: "2000", REQUESTS: " 500 "}, (500, None)),
        ({PER_HOST: "32"}, (None, 32)),
        ({POOL_SIZE: "", REQUESTS: "7", PER_HOST: "3"}, (7, 3)),
    ],
)
def test_the_environment_sets_the_limits_and_the_same_ones_are_one_object(environ, limits):
    first = ConnectionLimits.from_environment(environ)
    assert (first.total, first.per_host) == limits
    assert ConnectionLimits.from_environment(dict(environ)) is first


@pytest.mark.parametrize("environ", [{}, {POOL_SIZE: ""}, {"DASHSCOPE_CONNECTION_IDLE_TIME": "7"}])
def test_without_a_variable_there_is_no_limit(environ):
    assert ConnectionLimits.from_environment(environ) is None


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "1000001", "+3", "٣"])
@pytest.mark.parametrize("name", [POOL_SIZE, REQUESTS, PER_HOST])
def test_a_wrong_variable_is_named_with_its_value_and_range(name, value):
    with pytest.raises(SettingsError) as caught:
        ConnectionLimits.from_environment({name: value})
    assert f"{name} = {value!r} must be a whole number from 1 to 1,000,000" in str(caught.value)


def test_a_pool_larger_than_the_limit_is_told_with_the_arithmetic():
    limits = ConnectionLimits(total=200, per_host=50)
    assert limits.too_large(50) is None
    problem = limits.too_large(80)
    assert "max_size = 80" in problem
    assert "per_host = 50: 80 - 50 = 30 borrowers would wait" in problem
    assert ConnectionLimits().too_large(10**6) is None


def test_a_forked_child_begins_with_empty_books():
    limits = ConnectionLimits(total=1)
    places = limits.places("h")
    places.join(lambda _: [], lambda: None)
    assert places.take()
    assert not limits.places("h").take()
    _forked()
    assert limits.state.used == 0
    places.gone(closing=False)  # what the child inherited changes nothing
    places.leave()
    assert limits.state.used == 0
    other = limits.places("h")
    other.join(lambda _: [], lambda: None)
    assert other.take()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_real_fork_resets_the_lock_too():
    limits = ConnectionLimits(total=1)
    with limits._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if limits.state.used == 0 and not limits._lock.locked() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_place_that_a_finaliser_frees_while_the_lock_is_held_is_freed_by_its_holder():
    limits = ConnectionLimits(total=1)
    places = limits.places("h")
    places.join(lambda _: [], lambda: None)
    places.take()

    def collected():
        assert limits._lock.locked()
        places.leave()  # as the collector would, in this very thread
        return limits._ledger.taken

    assert limits._do(collected) == 1
    assert limits._ledger.taken == 0


# The books


def shares(ledger, *settings):
    made = []
    for host, floor, idle in settings:
        share = Share(host, lambda most, idle=idle: idle[:most], floor)
        ledger.join(share)
        for _ in idle:
            assert ledger.take(share)
        made.append(share)
    ledger.changed.clear()
    return made


def test_the_least_useful_idle_connection_of_all_is_asked_for_first():
    ledger = Ledger(total=4)
    one, two, three = shares(ledger, ("h", 0, [7.0, 9.0]), ("h", 0, [8.0, 10.0]), ("h", 0, []))
    ledger.ask(three, (20.0, 21.0, 22.0))
    assert (one.evict, two.evict) == (2, 1)
    assert set(ledger.changed) == {one, two}
    assert ledger.pressure("h") == math.inf


def test_places_go_to_the_first_wish_that_its_host_has_room_for():
    ledger = Ledger(total=3, per_host=2)
    one, two, far = shares(ledger, ("h", 0, []), ("h", 0, []), ("elsewhere", 0, []))
    for share in (one, one, far):
        assert ledger.take(share)
    ledger.ask(two, (5.0,))
    ledger.ask(far, (6.0, UPKEEP))
    ledger.ask(one, (4.0,))
    assert ledger.pressure("h") == 4.0
    ledger.gone(far, closing=False)  # of no use to the two that came first
    assert (one.reserved, two.reserved, far.reserved) == (0, 0, 1)
    ledger.gone(one, closing=False)
    assert (one.reserved, two.reserved, far.reserved) == (1, 0, 1)
    ledger.ask(one, ())  # he left
    assert (one.reserved, two.reserved, far.reserved) == (0, 1, 1)


def test_nobody_gets_two_connections_closed_for_one_wish():
    ledger = Ledger(total=2)
    one, two = shares(ledger, ("h", 0, [7.0, 8.0]), ("h", 0, []))
    ledger.ask(two, (20.0,))
    assert one.evict == 1
    ledger.close(one)
    assert (one.evict, one.closing) == (0, 1)
    ledger.looked()
    assert (one.evict, one.closing) == (0, 1)
    ledger.gone(one, closing=True)
    assert two.reserved == 1


def test_a_full_host_is_helped_only_by_a_connection_to_it():
    ledger = Ledger(total=5, per_host=1)
    one, two, far = shares(ledger, ("h", 0, [9.0]), ("h", 0, []), ("elsewhere", 0, [1.0]))
    ledger.ask(two, (20.0,))
    assert (one.evict, far.evict) == (1, 0)


def test_a_floor_takes_nothing_that_another_floor_needs_and_a_waiter_may():
    ledger = Ledger(total=4)
    one, two = shares(ledger, ("h", 4, [7.0, 8.0]), ("h", 4, [9.0, 10.0]))
    assert (one.fair, one.kept) == (2, 1)
    ledger.ask(two, (UPKEEP,))
    assert one.evict == 0
    ledger.ask(two, (20.0, 21.0))
    assert (one.evict, two.evict) == (1, 1)


def test_whoever_leaves_frees_what_was_reserved_for_it_too():
    ledger = Ledger(total=1)
    one, two = shares(ledger, ("h", 0, []), ("h", 0, []))
    assert ledger.take(one)
    ledger.ask(two, (20.0,))
    ledger.gone(one, closing=False)
    assert two.reserved == 1
    ledger.leave(two)
    ledger.leave(two)
    assert ledger.taken == ledger.taken_by_host["h"] == 0
    assert ledger.take(one)


def test_a_wish_that_is_gone_costs_nobody_a_connection():
    ledger = Ledger(total=1)
    one, two = shares(ledger, ("h", 0, [7.0]), ("h", 0, []))
    ledger.ask(two, (20.0,))
    assert one.evict == 1
    ledger.ask(two, ())
    assert one.evict == 0


def test_a_pool_that_cannot_close_what_it_was_asked_for_passes_the_wish_on():
    ledger = Ledger(total=2)
    idle = [[7.0], [8.0]]
    one, two, three = shares(ledger, ("h", 0, idle[0]), ("h", 0, idle[1]), ("h", 0, []))
    ledger.ask(three, (20.0,))
    assert (one.evict, two.evict) == (1, 0)
    idle[0].clear()  # it was lent meanwhile
    ledger.looked()
    assert (one.evict, two.evict) == (0, 1)
    idle[1].clear()
    ledger.looked()
    assert (one.evict, two.evict) == (0, 0)
    assert ledger.pressure("h") == 20.0


@pytest.mark.parametrize(
    ("total", "per_host", "floors", "fair", "kept"),
    [
        (10, math.inf, [("h", 4), ("h", 5)], [4, 5], [4, 5]),
        (10, math.inf, [("h", 4), ("h", 6)], [4, 6], [4, 6]),
        (10, math.inf, [("h", 4), ("h", 6), ("h", 0)], [4, 6, 0], [4, 5, 0]),  # one is left for the third
        (10, math.inf, [("h", 20), ("h", 5)], [8, 2], [4, 1]),
        (math.inf, 6, [("h", 4), ("h", 8), ("elsewhere", 5)], [2, 4, 5], [1, 2, 5]),
        (200, math.inf, [("h", 50)] * 20, [10] * 20, [5] * 20),
        (32, math.inf, [("h", 100)], [32], [16]),
    ],
)
def test_floors_that_do_not_fit_are_cut_in_proportion(total, per_host, floors, fair, kept):
    made = shares(Ledger(total, per_host), *((host, floor, []) for host, floor in floors))
    assert [share.fair for share in made] == fair
    assert [share.kept for share in made] == kept
