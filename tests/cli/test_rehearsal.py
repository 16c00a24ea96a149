"""The stream that the demo plans from what it measured."""

import pytest

from speechpool.cli.rehearsal import Pace, plan


def test_the_stream_asks_for_half_and_the_pool_fits_it():
    stream = plan(Pace(rate=4.0, duration=1.5), 1000, seed=1)
    assert (stream.sentences, stream.rate) == (1, 2.0)
    assert stream.expected == 3.0  # Little's law
    assert stream.max_size == 5  # 1.6 x
    assert stream.arrivals[-1] == pytest.approx(1000 / 2.0, rel=0.1)
    assert list(stream.arrivals) == sorted(stream.arrivals)


def test_one_seed_gives_one_stream_in_units_of_the_rate():
    slow, fast = plan(Pace(0.5, 1.0), 30, seed=7), plan(Pace(1.0, 1.0), 30, seed=7)
    assert fast.arrivals == pytest.approx([at / 2 for at in slow.arrivals])
    assert plan(Pace(1.0, 1.0), 30, seed=8).arrivals != fast.arrivals


def test_a_stream_that_would_be_over_too_soon_gets_longer_texts():
    stream = plan(Pace(rate=10.0, duration=0.2), 30)
    assert (stream.sentences, stream.rate, stream.expected) == (2, 2.5, 1.0)
    assert plan(Pace(rate=1000.0, duration=0.2), 30).sentences == 3


def test_there_are_always_two_connections():
    assert plan(Pace(rate=1.0, duration=0.1), 30).max_size == 2
