"""Who may start a task now: pure, with the time passed in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechpool.protocol.cosyvoice import Refused
from speechpool.service.submissions import _BUCKETS, _SLACK, Submissions


def takes(submissions, now, client="key", model="model"):
    try:
        submissions.start(client, model, now)
    except Refused:
        return False
    return True


def test_three_a_second_and_three_at_once():
    submissions = Submissions(3.0)
    assert [takes(submissions, 100.0) for _ in range(4)] == [True, True, True, False]
    assert not takes(submissions, 100.2)
    assert takes(submissions, 100.0 + 1 / 3)
    assert [takes(submissions, 102.0) for _ in range(4)] == [True, True, True, False]


def test_the_words_are_the_providers():
    submissions = Submissions(1.0, 1)
    submissions.start("key", "model", 0.0)
    with pytest.raises(Refused) as caught:
        submissions.start("key", "model", 0.0)
    assert (caught.value.code, caught.value.message) == ("Throttling.Concurrency", "Too many concurrent requests.")
    submissions.end("key")
    with pytest.raises(Refused) as caught:
        submissions.start("key", "model", 0.0)
    assert caught.value.code == "Throttling.RateQuota"
    assert caught.value.message == "Requests rate limit exceeded, please try again later."


def test_a_slow_rate_lets_one_in():
    submissions = Submissions(0.1)
    assert [takes(submissions, now) for now in (0.0, 1.0, 9.0, 10.0)] == [True, False, False, True]


def test_keys_and_models_have_buckets_of_their_own():
    submissions = Submissions(1.0)
    for client, model in (("a", "x"), ("a", "y"), ("b", "x")):
        assert takes(submissions, 0.0, client, model)
        assert not takes(submissions, 0.0, client, model)


def test_places_are_of_a_key_and_come_back():
    submissions = Submissions(None, 2)
    assert [takes(submissions, 0.0, "a", model) for model in "xyz"] == [True, True, False]
    assert takes(submissions, 0.0, "b")
    submissions.end("a")
    assert takes(submissions, 0.0, "a")
    for client in "aab":
        submissions.end(client)
    assert submissions._running == {}


def test_who_is_refused_for_its_places_pays_no_token():
    submissions = Submissions(1.0, 1)
    assert takes(submissions, 0.0)
    assert not takes(submissions, 1.0)
    submissions.end("key")
    assert takes(submissions, 1.0)


def test_without_limits_everybody_may():
    submissions = Submissions()
    assert all(takes(submissions, 0.0) for _ in range(1000))


def test_memory_is_bounded_and_what_is_full_is_forgotten():
    submissions = Submissions(0.01)
    for number in range(_BUCKETS + 500):
        assert takes(submissions, number * 0.001, model=str(number))
    assert len(submissions._full_at) == _BUCKETS
    assert not takes(submissions, 11.0, model=str(_BUCKETS))  # the newest ones are remembered
    for number in range(_BUCKETS):
        assert takes(submissions, 200.0 + number * 100.0, model=f"later {number}")
    assert len(submissions._full_at) <= 2


@settings(max_examples=200)
@given(st.floats(0.05, 50), st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_no_window_has_more_than_the_rate_and_one_burst(rate, gaps):
    submissions = Submissions(rate)
    now, taken = 1000.0, []
    for gap in gaps:
        now += gap
        if takes(submissions, now):
            taken.append(now)
    slack = min(_SLACK, 0.5 / rate)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            allowed = max(1.0, rate) + rate * (taken[last] - taken[first] + slack)
            assert last - first + 1 <= allowed + 1e-6


@settings(max_examples=100)
@given(st.floats(0.05, 50), st.lists(st.floats(-1, 1), min_size=1, max_size=100))
def test_who_keeps_to_the_rate_is_never_refused_however_the_way_shakes(rate, shakes):
    submissions = Submissions(rate)
    slack = min(_SLACK, 0.5 / rate) * 0.49
    now = 0.0
    for number, shake in enumerate(shakes):
        now = max(now, 1000.0 + number / rate + shake * slack)
        assert takes(submissions, now)
