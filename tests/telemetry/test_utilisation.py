"""Utilisation is exact in time, whether changes come by the thousand or not at all."""

import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.telemetry import Utilisation


def test_a_mean_is_weighted_by_time_not_by_changes():
    used = Utilisation(0.0)
    used.changed(0, 10, 0.0)
    used.changed(10, 10, 9.0)
    for step in range(100):  # many changes in little time
        used.changed(step % 10, 10, 10.0 + step / 1e6)
    used.changed(0, 10, 10.0001)
    assert used.mean(20.0) == pytest.approx(0.05, abs=1e-4)
    assert used.lifetime_mean(20.0) == pytest.approx(0.05, abs=1e-4)


def test_nothing_changes_for_hours_and_the_mean_stays_exact():
    used = Utilisation(0.0)
    used.changed(5, 10, 0.0)
    assert used.mean(36_000.7) == pytest.approx(0.5)
    assert used.lifetime_mean(36_000.7) == pytest.approx(0.5)
    assert used.peak(36_000.7) == pytest.approx(0.5)
    used.changed(0, 10, 36_000.7)
    assert used.lifetime_mean(72_001.4) == pytest.approx(0.25)
    assert used.mean(72_001.4) == 0.0
    assert used.lifetime_peak(72_001.4) == pytest.approx(0.5)
    assert used.peak(72_001.4) == 0.0


def test_the_window_forgets_and_the_lifetime_does_not():
    used = Utilisation(100.0)
    used.changed(8, 10, 100.0)
    used.changed(1, 10, 130.0)
    assert used.mean(160.0) == pytest.approx((8 * 30 + 30) / 600, abs=0.01)
    assert used.peak(160.0) == pytest.approx(0.8)
    assert used.mean(250.0) == pytest.approx(0.1)
    assert used.peak(250.0) == pytest.approx(0.1)
    assert used.lifetime_peak(250.0) == pytest.approx(0.8)


def test_the_area_never_goes_down():
    random = Random(1)
    for _ in range(50):
        now = started = random.random() * 1e5
        used = Utilisation(started)
        for _ in range(20):
            now += 2 * random.random()
            used.changed(random.randint(0, 7), 7, now)
        used.changed(0, 7, now)
        areas = [used.area(now := now + 1 + random.random() / 100) for _ in range(20)]
        assert len(set(areas)) == 1, "nothing is borrowed, so a counter stands still; one step back is a reset"
        assert areas[0] == pytest.approx(used.lifetime_mean(now) * (now - started))


def test_the_mean_looks_back_a_minute_at_most():
    used = Utilisation(0.0)
    used.changed(10, 10, 0.0)
    used.changed(0, 10, 1.0)
    assert used.mean(59.9) > 0
    assert used.lifetime_mean(60.5) == pytest.approx(1 / 60.5)
    assert used.mean(60.5) == 0.0


def test_a_peak_is_a_ten_second_mean_not_a_moment():
    used = Utilisation(0.0)
    used.changed(0, 10, 0.0)
    used.changed(10, 10, 30.0)
    used.changed(0, 10, 31.0)
    assert used.peak(60.0) == pytest.approx(0.1)


def test_a_peak_across_two_tens_is_found():
    used = Utilisation(0.0)
    used.changed(0, 10, 0.0)
    used.changed(10, 10, 15.0)
    used.changed(0, 10, 25.0)
    assert used.peak(40.0) == pytest.approx(1.0)


def test_there_is_no_peak_in_the_first_ten_seconds():
    used = Utilisation(0.0)
    used.changed(10, 10, 0.0)
    assert used.peak(9.9) is None
    assert used.lifetime_peak(9.9) is None
    assert used.mean(9.9) == pytest.approx(1.0)
    assert used.peak(10.0) == pytest.approx(1.0)
    assert used.lifetime_peak(10.0) == pytest.approx(1.0)


def test_a_pool_that_grows_beyond_its_size_shows_more_than_all():
    used = Utilisation(0.0)
    used.changed(15, 10, 0.0)
    assert used.mean(5.0) == pytest.approx(1.5)


def test_resizing_counts_from_that_moment():
    used = Utilisation(0.0)
    used.changed(5, 10, 0.0)
    used.changed(5, 20, 10.0)
    assert used.lifetime_mean(20.0) == pytest.approx(0.375)
    assert (used.borrowed, used.max_size) == (5, 20)


@given(st.lists(st.tuples(st.floats(0, 25), st.integers(0, 10)), min_size=1, max_size=40))
def test_the_mean_agrees_with_an_integral(steps):
    used, now, area, ratio = Utilisation(0.0), 0.0, 0.0, 0.0
    used.changed(0, 10, 0.0)
    for pause, borrowed in steps:
        area += ratio * pause
        now += pause
        used.changed(borrowed, 10, now)
        ratio = borrowed / 10
    expected = area / now if now else ratio
    assert used.lifetime_mean(now) == pytest.approx(expected, abs=1e-6)
    peak = used.lifetime_peak(now)
    assert peak is None or -1e-9 <= peak <= 1 + 1e-9


@given(st.lists(st.tuples(st.floats(0.01, 4), st.integers(0, 10)), min_size=1, max_size=60))
def test_the_peak_agrees_with_means_of_the_function_at_whole_seconds(steps):
    used, now, curve = Utilisation(0.0), 0.0, [(0.0, 0.0)]
    used.changed(0, 10, 0.0)
    for pause, borrowed in steps:
        now += pause
        used.changed(borrowed, 10, now)
        curve.append((now, borrowed / 10))
    curve.append((now, 0.0))

    def area(low, high):
        return sum(
            value * max(0.0, min(high, until) - max(low, since))
            for (since, value), (until, _) in itertools.pairwise(curve)
        )

    expected = [area(end - 10, end) / 10 for end in range(10, int(now) + 1)]
    found = used.lifetime_peak(now)
    assert found == (pytest.approx(max(expected), abs=1e-9) if expected else None)
