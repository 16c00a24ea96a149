"""The parts of the first packet delay always sum to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.synthesis.timing import Timing

SECONDS = st.floats(0, 100, allow_nan=False)


@given(st.lists(SECONDS, min_size=5, max_size=5).map(sorted), SECONDS, st.sampled_from(range(4)))
def test_the_four_parts_sum_to_the_delay_wherever_the_first_text_comes(moments, connect_time, text_position):
    entered, connected, started, first_audio, _ = moments
    timing = Timing(entered)
    timing.connected, timing.started, timing.first_audio = connected, started, first_audio
    timing.connect_time = min(connect_time, connected - entered)
    timing.first_text = moments[min(text_position, 3)]
    parts = timing.parts()
    assert parts is not None
    assert sum(parts) == pytest.approx(timing.first_packet_delay, abs=1e-9)
    assert all(part >= 0 for part in parts)
    assert timing.text_wait == timing.first_text - entered


def test_without_audio_there_are_no_parts():
    timing = Timing(0.0)
    timing.first_text = timing.connected = 1.0
    assert timing.parts() is None
    assert timing.first_packet_delay is None


def test_each_part_is_what_its_name_says():
    timing = Timing(10.0)
    timing.first_text = 10.0
    timing.connected, timing.connect_time = 13.0, 2.0
    timing.started, timing.first_audio = 13.5, 14.25
    assert timing.parts() == (1.0, 2.0, 0.5, 0.75)
