"""Additive increase, multiplicative decrease, and never above the configured limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.limits.rate import AdaptiveRate


def configured(rate, burst=None):
    return AdaptiveRate(limit=rate, start=rate, burst=burst, now=0.0)


def learned(rate):
    return AdaptiveRate(limit=None, start=rate, burst=None, now=0.0)


def takes(rate, now):
    count = 0
    while rate.take(now):
        count += 1
    return count


def test_the_burst_is_one_second_of_the_rate_and_at_least_one():
    assert takes(configured(3.0), 0.0) == 3
    assert takes(configured(0.2), 0.0) == 1
    assert takes(configured(3.0, burst=10), 0.0) == 10


def test_tokens_come_back_at_the_rate_and_not_beyond_the_burst():
    rate = configured(3.0)
    takes(rate, 0.0)
    assert not rate.take(0.3)
    assert rate.take(1 / 3)
    assert takes(rate, 100.0) == 3


def test_delay_says_when_tokens_come():
    rate = configured(2.0)
    assert rate.delay(2, 0.0) == 0.0
    takes(rate, 0.0)
    assert rate.delay(1, 0.0) == pytest.approx(0.5)
    assert rate.delay(4, 0.25) == pytest.approx(1.75)


def test_throttling_halves_and_completed_tasks_heal_it_up_to_the_limit():
    rate = configured(4.0)
    rate.throttled(1.0, submitted=0.5, retry_after=None)
    assert rate.rate == 2.0
    before = rate.rate
    rate.completed(waited=False)
    assert before < rate.rate < 4.0
    for _ in range(200):
        rate.completed(waited=True)
    assert rate.rate == 4.0


def test_a_halving_heals_in_about_ten_seconds_of_full_use():
    for limit in (3.0, 100.0):
        rate = configured(limit)
        rate.throttled(0.0, submitted=0.0, retry_after=None)
        seconds = 0.0
        while rate.rate < limit:
            seconds += 1 / rate.rate
            rate.completed(waited=True)
        assert 8 < seconds < 12


def test_one_overload_decreases_once():
    rate = configured(8.0)
    for _ in range(8):  # all were submitted before the first answer came
        rate.throttled(1.0, submitted=0.9, retry_after=None)
    assert rate.rate == 4.0
    rate.throttled(2.0, submitted=1.5, retry_after=None)
    assert rate.rate == 2.0


def test_the_rate_never_stops():
    rate = configured(3.0)
    for second in range(100):
        rate.throttled(second + 1.0, submitted=second + 0.5, retry_after=None)
    assert rate.rate == pytest.approx(0.3)
    assert rate.delay(1, 100.0) < 4


def test_retry_after_pauses_and_then_lets_one_probe():
    rate = configured(4.0)
    rate.throttled(1.0, submitted=0.5, retry_after=5.0)
    assert not rate.take(5.9)
    assert rate.delay(1, 2.0) == pytest.approx(4.0)
    assert rate.take(6.0)
    assert not rate.take(6.0)
    assert rate.take(6.6)


def test_a_later_answer_of_the_same_overload_still_extends_the_pause():
    rate = configured(4.0)
    rate.throttled(1.0, submitted=0.5, retry_after=1.0)
    rate.throttled(1.5, submitted=0.5, retry_after=4.0)
    assert not rate.take(5.4)
    assert rate.take(5.5)


def test_a_shorter_answer_does_not_end_a_longer_pause():
    rate = configured(4.0)
    rate.throttled(1.0, submitted=0.5, retry_after=5.0)
    rate.throttled(1.5, submitted=0.5, retry_after=1.0)
    assert not rate.take(5.9)
    assert rate.take(6.0)


def test_without_throttling_pressure_a_learned_rate_does_not_outgrow_what_is_known():
    rate = learned(4.0)
    for _ in range(1000):
        rate.completed(waited=False)
    assert rate.rate == 4.0
    rate.completed(waited=True)
    assert rate.rate > 4.0


def test_a_token_of_a_task_that_was_never_submitted_comes_back():
    rate = configured(1.0)
    assert rate.take(0.0)
    rate.give_back()
    assert rate.take(0.0)
    rate.give_back()
    rate.give_back()
    assert takes(rate, 0.0) == 1


@given(
    st.floats(0.05, 500),
    st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from(["take", "completed", "throttled", "retry_after"])), max_size=120
    ),
)
def test_starts_never_exceed_rate_times_time_plus_burst(limit, steps):
    rate = configured(limit)
    now, taken = 0.0, 0
    for pause, step in steps:
        now += pause
        if step == "take":
            taken += takes(rate, now)
        elif step == "completed":
            rate.completed(waited=True)
        else:
            rate.throttled(now, submitted=now, retry_after=1.0 if step == "retry_after" else None)
        assert limit * 0.1 - 1e-9 <= rate.rate <= limit
        # One token is what a probe after a pause may take.
        assert taken <= limit * now + max(1.0, limit) + 1 + 1e-6


# ------------------------------------------------------------------------------------ a learned rate looks for the limit
def in_use(rate, seconds):
    """Use a rate to the full for so long; returns how high it was at each completion."""
    heights, left = [], seconds
    while left > 0:
        left -= 1 / rate.rate
        rate.completed(waited=True)
        heights.append(rate.rate)
    return heights


def test_the_first_throttling_of_a_learned_rate_halves_it_and_later_ones_take_a_fifth():
    rate = learned(40.0)
    rate.throttled(1.0, submitted=0.5, retry_after=None)
    assert rate.rate == 20.0
    rate.throttled(2.0, submitted=1.5, retry_after=None)
    assert rate.rate == pytest.approx(16.0)
    rate.throttled(2.1, submitted=1.5, retry_after=None)  # the same overload
    assert rate.rate == pytest.approx(16.0)


def test_a_learned_rate_returns_in_five_seconds_to_where_it_was_throttled_and_passes_there_slowly():
    rate = learned(20.0)
    rate.throttled(1.0, submitted=0.5, retry_after=None)
    rate.throttled(2.0, submitted=1.5, retry_after=None)
    ceiling = 10.0
    in_use(rate, 3.0)
    assert 0.98 * ceiling < rate.rate < ceiling
    in_use(rate, 4.0)
    assert ceiling < rate.rate < 1.03 * ceiling


def test_a_learned_rate_grows_ever_faster_where_nothing_stops_it():
    rate = learned(2.0)
    rate.throttled(1.0, submitted=0.5, retry_after=None)
    heights = in_use(rate, 30.0)
    assert heights == sorted(heights)
    assert rate.rate > 30.0


def test_a_learned_rate_comes_down_as_far_as_it_has_to_and_never_stops():
    rate = learned(100.0)
    for second in range(100):
        rate.throttled(second + 1.0, submitted=second + 0.5, retry_after=None)
    assert 0.05 < rate.rate <= 0.1
    assert rate.delay(1, 101.0) < 20
    in_use(rate, 60.0)
    assert rate.rate > 1.0


def test_a_wait_at_a_learned_rate_is_in_doubt_by_one_step_back():
    assert configured(4.0).doubt == 0.0
    assert learned(4.0).doubt == pytest.approx(0.25)
