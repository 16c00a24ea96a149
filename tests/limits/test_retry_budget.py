"""Retries are a share of the tasks, and no quiet or healthy time saves up a storm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.errors import SettingsError
from speechpool.limits import RetryBudget


def drain(budget):
    taken = 0
    while budget.withdraw():
        taken += 1
    return taken


def test_a_small_pool_may_retry_before_it_has_earned_anything():
    assert drain(RetryBudget()) == 10


def test_five_tasks_pay_for_one_retry():
    budget = RetryBudget(0.2, 0)
    for _ in range(4):
        budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()
    assert not budget.withdraw()
    assert (budget.withdrawn, budget.refused) == (1, 2)


def test_a_long_healthy_time_does_not_pay_for_a_storm():
    budget = RetryBudget(0.2, 10)
    for _ in range(1_000_000):
        budget.deposit()
    assert drain(budget) == 100


def test_zero_turns_retries_off():
    budget = RetryBudget(0, 0)
    for _ in range(100):
        budget.deposit()
    assert not budget.withdraw()


@given(st.lists(st.booleans(), max_size=400))
def test_retries_never_exceed_what_was_earned(steps):
    budget = RetryBudget(0.2, 3)
    deposits = 0
    for deposit in steps:
        if deposit:
            budget.deposit()
            deposits += 1
        else:
            budget.withdraw()
        assert 0 <= budget.balance <= 30
    assert budget.withdrawn <= 3 + 0.2 * deposits + 1e-6


@pytest.mark.parametrize("wrong", [{"ratio": -0.1}, {"ratio": 1.1}, {"minimum": -1}, {"minimum": 10, "maximum": 5}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError):
        RetryBudget(**wrong)
