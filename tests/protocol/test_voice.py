"""A voice is checked when it is made, and never changes."""

import pytest

from speechpool.errors import SettingsError
from speechpool.protocol import Voice


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"format": "flac"}, "pcm, wav, mp3, opus"),
        ({"sample_rate": 11025}, "8000"),
        ({"volume": 101}, "0 to 100"),
        ({"volume": 1.5}, "whole number"),
        ({"rate": 0.4}, "0.5 to 2"),
        ({"pitch": "high"}, "a number"),
        ({"seed": 70000}, "65535"),
        ({"bit_rate": 5}, "6 to 510"),
        ({"language_hints": "en"}, "sequence"),
    ],
)
def test_each_wrong_value_is_named_with_its_limit(fields, named):
    with pytest.raises(SettingsError) as caught:
        Voice("cosyvoice-v3-flash", "longanyang", **fields)
    assert named in str(caught.value)
    assert next(iter(fields)) in str(caught.value)


@pytest.mark.parametrize("fields", [{"instruction": "\ud800"}, {"extra": {"x": object()}}, {"hot_fix": {"a": {1j}}}])
def test_what_no_frame_can_carry_is_refused(fields):
    with pytest.raises(SettingsError, match="JSON"):
        Voice("m", "v", **fields)


@pytest.mark.parametrize(("model", "voice"), [("", "v"), ("m", " "), (None, "v")])
def test_model_and_voice_are_needed(model, voice):
    with pytest.raises(SettingsError):
        Voice(model, voice)


def test_equal_voices_are_one_and_a_later_change_of_a_dictionary_changes_nothing():
    extra = {"a": [1]}
    voice = Voice("m", "v", extra=extra)
    extra["a"].append(2)
    assert voice.extra == {"a": [1]}
    assert voice == Voice("m", "v", extra={"a": [1]})
    assert hash(voice) == hash(Voice("m", "v", extra={"a": [1]}))
    assert voice != Voice("m", "v")


def test_the_sample_rate_is_known_even_where_it_was_left_open():
    assert Voice("m", "v").effective_sample_rate == 22050
    assert Voice("m", "v", format="OPUS").effective_sample_rate == 24000
    assert Voice("m", "v", sample_rate=8000).effective_sample_rate == 8000
