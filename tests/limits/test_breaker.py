"""What is an outage, and what is only a failure."""

from __future__ import annotations

import math

import pytest

from speechpool.errors import SettingsError
from speechpool.limits import Breaker


def test_one_failure_is_no_outage_however_long_it_took():
    breaker = Breaker(2.0)
    breaker.failed(100.0, 110.0)
    assert not breaker.open
    assert breaker.since == 100.0


def test_many_quick_failures_are_no_outage_before_its_time_has_passed():
    breaker = Breaker(2.0)
    for tenth in range(20):
        breaker.failed(100.0 + tenth / 10, 100.0 + tenth / 10)
        assert not breaker.open
    breaker.failed(102.0, 102.0)
    assert breaker.open
    assert breaker.since == 100.0


def test_one_long_failure_is_enough_where_nothing_else_works():
    breaker = Breaker(2.0)
    breaker.failed(100.0, 101.9, last_hope=True)
    assert not breaker.open
    breaker.failed(100.5, 110.0, last_hope=True)
    assert breaker.open


def test_what_failed_before_a_success_does_not_count():
    breaker = Breaker(2.0)
    breaker.failed(100.0, 101.0)
    breaker.succeeded(109.0)
    breaker.failed(100.0, 110.0)
    breaker.failed(100.0, 110.0)
    assert not breaker.open
    assert breaker.since == 109.0
    breaker.failed(111.0, 111.0)
    assert breaker.open
    breaker.succeeded(112.0)
    assert not breaker.open
    assert breaker.since == math.inf


def test_without_patience_it_never_opens():
    breaker = Breaker(None)
    for second in range(1000):
        breaker.failed(second, second, last_hope=True)
    assert not breaker.open


@pytest.mark.parametrize("patience", [0, -1.0, math.nan])
def test_a_patience_that_means_nothing_is_refused(patience):
    with pytest.raises(SettingsError, match="above 0"):
        Breaker(patience)
