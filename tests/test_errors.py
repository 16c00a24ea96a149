"""Errors carry their data as attributes."""

import pytest

import speechpool
from speechpool import errors


def test_every_error_is_public_and_in_one_tree():
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.SpeechPoolError)
        assert getattr(speechpool, name) is kind
        assert kind.__doc__


def test_what_may_be_tried_again():
    assert errors.ConnectFailed("x").retryable
    assert not errors.Unauthorized("x").retryable
    assert not errors.ConnectFailed("x", permanent=True).retryable
    assert errors.RateLimited("x", status=429, retry_after=2.0).retry_after == 2.0
    assert errors.ConnectionLost("x", close_code=1006).retryable
    assert not errors.ConnectionLost("x", close_code=1007).retryable
    assert not errors.InvalidText("x").retryable


@pytest.mark.parametrize(
    ("code", "throttled"), [("Throttling.RateQuota", True), ("limit_requests", True), ("InvalidParameter", False)]
)
def test_throttling_is_recognised(code, throttled):
    assert errors.TaskFailed(code, "m").throttled is throttled


def test_timeouts_are_timeouts_for_those_who_know_only_python():
    assert issubclass(errors.PoolTimeout, TimeoutError)
    assert issubclass(errors.ConnectFailed, ConnectionError)
    assert issubclass(errors.SettingsError, ValueError)
