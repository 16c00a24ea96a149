"""Quantiles are the value of nearest rank, off by less than the width of its bucket."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.telemetry.histogram import (
    CREATE_EDGES,
    DELAY_BOUNDS,
    DURATION_BOUNDS,
    DURATION_EDGES,
    FIRST_PACKET_EDGES,
    WAIT_EDGES,
    Histogram,
    log_bounds,
)

values = st.lists(st.floats(0.0, 70.0), min_size=1, max_size=300)


def filled(numbers, bounds=DELAY_BOUNDS):
    histogram = Histogram(bounds)
    for number in numbers:
        histogram.observe(number)
    return histogram


def nearest_rank(numbers, q):
    return sorted(numbers)[max(1, math.ceil(q * len(numbers) - 1e-9)) - 1]


def test_bounds_ascend_are_fine_and_hold_the_published_edges():
    for bounds, edges in ((DELAY_BOUNDS, FIRST_PACKET_EDGES), (DURATION_BOUNDS, DURATION_EDGES)):
        assert list(bounds) == sorted(set(bounds))
        assert set(edges) <= set(bounds)
        assert max(high / low for low, high in itertools.pairwise(bounds)) < 1.14
    assert (DELAY_BOUNDS[0], DELAY_BOUNDS[-1]) == (0.005, 60.0)
    assert 0.5 in DELAY_BOUNDS
    assert len(DELAY_BOUNDS) < 100


@pytest.mark.parametrize("edges", [WAIT_EDGES, CREATE_EDGES])
def test_other_edges_make_bounds_of_their_own(edges):
    assert set(edges) <= set(log_bounds(edges[0], edges[-1], edges))
    histogram = filled([0.1, 0.11], edges)
    assert histogram.count == 2


@given(values, st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_value_of_nearest_rank(numbers, q):
    truth = nearest_rank(numbers, q)
    found = filled(numbers).quantile(q)
    if truth > DELAY_BOUNDS[-1]:
        assert found == DELAY_BOUNDS[-1]
        return
    upper = next(bound for bound in DELAY_BOUNDS if bound >= truth)
    lower = max((bound for bound in DELAY_BOUNDS if bound < truth), default=0.0)
    assert lower < found < upper
    if truth > DELAY_BOUNDS[0]:
        assert abs(found - truth) / truth < 0.14


@given(st.lists(st.floats(0.4, 0.6), min_size=1, max_size=300))
def test_whether_p99_is_within_500_ms_is_exact(numbers):
    assert (filled(numbers).quantile(0.99) < 0.5) == (nearest_rank(numbers, 0.99) <= 0.5)


@given(values)
def test_quantiles_ascend(numbers):
    histogram = filled(numbers)
    found = [histogram.quantile(q / 20) for q in range(1, 21)]
    assert found == sorted(found)


@given(values, values)
def test_adding_is_exact(before, after):
    whole, earlier, later = filled(before + after), filled(before), filled(after)
    earlier.add(later)
    assert earlier.counts == whole.counts
    assert earlier.sum == pytest.approx(whole.sum)


@given(values)
def test_published_buckets_count_exactly(numbers):
    found = filled(numbers).at_most(FIRST_PACKET_EDGES)
    assert found == [sum(number <= edge for number in numbers) for edge in FIRST_PACKET_EDGES]


def test_an_edge_that_is_no_bound_counts_at_the_bound_below():
    histogram = filled([1, 2, 3], (1.0, 2.0, 3.0))
    assert histogram.at_most([0.5, 1.5, 2.5, 9.0]) == [0, 1, 2, 3]


def test_mean_is_exact_and_empty_is_none():
    assert filled([0.1, 0.2, 0.6]).mean == pytest.approx(0.3)
    empty = Histogram(DELAY_BOUNDS)
    assert (empty.count, empty.mean, empty.quantile(0.5)) == (0, None, None)


def test_histograms_of_different_bounds_do_not_mix():
    with pytest.raises(ValueError):
        Histogram((1.0,)).add(Histogram((1.0, 2.0)))
