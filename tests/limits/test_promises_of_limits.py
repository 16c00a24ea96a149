"""Promises of the limits, where a plausible mistake would pass by every other test; `make mutants` makes those mistakes."""

import pytest

from speechpool.limits import LocalQuota


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled", "shed"])
def test_only_the_first_settlement_of_a_permit_counts(outcome):
    quota = LocalQuota(concurrency=2, clock=lambda: 0.0)
    first, second, third = (quota.request("account", "model") for _ in range(3))
    assert (first.granted, second.granted, third.granted) == (True, True, False)
    for again in (outcome, "failed", "throttled"):
        first.settle(again)
    assert first.outcome == outcome
    assert third.granted
    fourth = quota.request("account", "model")
    assert not fourth.granted
    (state,) = quota.states()
    assert (state.running, state.waiting, state.throttled) == (2, 1, 0)
