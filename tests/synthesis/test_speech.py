"""The result of `synthesize`."""

import dataclasses

import numpy as np
import pytest

from speechpool import Voice
from speechpool.errors import SettingsError
from speechpool.service.encoding import new_encoder
from speechpool.synthesis.speech import Speech
from speechpool.synthesis.timing import TaskReport


def speech(audio_format, sample_rate, audio):
    report = TaskReport(**{field.name: None for field in dataclasses.fields(TaskReport)})
    return Speech(audio, audio_format, sample_rate, "task", None, (), 5, report)


@pytest.mark.parametrize("audio_format", ["pcm", "wav", "opus"])
def test_the_duration_of_a_whole_audio_is_known_to_the_sample(audio_format):
    encoder = new_encoder(audio_format, 16000, source_rate=24000)
    audio = encoder.encode(np.zeros(24000 + 123, np.int16)) + encoder.flush()
    assert speech(audio_format, 16000, audio).duration == (16000 + 82) / 16000


def test_the_duration_of_what_is_no_whole_stream_is_not_known():
    assert speech("opus", 16000, b"OggS").duration is None
    assert speech("mp3", 16000, b"none").duration is None


def test_a_voice_has_no_sample_rate_that_opus_does_not_know():
    with pytest.raises(SettingsError, match="22050 is not offered for opus; choose one of 8000, 16000, 24000, 48000"):
        Voice("m", "v", format="opus", sample_rate=22050)
    assert Voice("m", "v", format="opus", sample_rate=48000).effective_sample_rate == 48000
