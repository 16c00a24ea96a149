"""Pauses double up to the cap, and the jitter comes after the cap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.errors import SettingsError
from speechpool.limits import Backoff


def test_pauses_double_up_to_the_cap():
    backoff = Backoff(0.1, 2.0, random=lambda: 1.0)
    assert [backoff.next() for _ in range(7)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    assert backoff.attempts == 7


def test_t27_jitter_comes_after_the_cap():
    shares = iter([0.0, 0.5, 0.25])
    backoff = Backoff(10.0, 2.0, random=lambda: next(shares))
    assert [backoff.next() for _ in range(3)] == [0.0, 1.0, 0.5]


def test_the_cap_of_one_attempt_may_be_lower_or_higher():
    backoff = Backoff(1.0, 2.0, random=lambda: 1.0)
    backoff.next()
    backoff.next()
    backoff.next()
    assert backoff.next(cap=15.0) == 8.0
    assert backoff.next(cap=0.5) == 0.5
    assert backoff.next() == 2.0


def test_reset_begins_again():
    backoff = Backoff(0.1, 2.0, random=lambda: 1.0)
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next() == 0.1


def test_thousands_of_failures_do_not_overflow():
    backoff = Backoff(0.1, 15.0, random=lambda: 1.0)
    assert [backoff.next() for _ in range(3000)][-1] == 15.0


@given(st.floats(0.001, 100), st.floats(0.001, 100), st.lists(st.floats(0, 1, exclude_max=True), max_size=60))
def test_no_pause_is_negative_or_beyond_the_cap(initial, cap, shares):
    jitter = iter(shares)
    backoff = Backoff(initial, cap, random=lambda: next(jitter))
    assert all(0 <= backoff.next() <= cap for _ in shares)


@pytest.mark.parametrize(("initial", "cap"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_pauses_must_be_above_zero(initial, cap):
    with pytest.raises(SettingsError):
        Backoff(initial, cap)
