"""Headers of containers, and what a stream's first bytes tell."""

import io
import wave

import pytest

from speechpool.audio import (
    carries_audio,
    check_format,
    check_sample_rate,
    stream_seconds,
    wav_header,
    wav_payload_offset,
)
from speechpool.errors import SettingsError


def test_a_wav_header_is_read_by_the_standard_library():
    samples = b"\1\0" * 800
    with wave.open(io.BytesIO(wav_header(16000, data_length=len(samples)) + samples)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (1, 2, 16000, 800)


def test_where_samples_begin():
    header = wav_header(8000)
    assert wav_payload_offset(header) == 44
    assert wav_payload_offset(header[:30]) is None
    with pytest.raises(ValueError):
        wav_payload_offset(b"OggS")


@pytest.mark.parametrize(
    ("audio_format", "data", "carries"),
    [
        ("pcm", b"\0\0", True),
        ("mp3", b"\xff\xfb\x90\x00", True),
        ("wav", wav_header(8000), False),
        ("wav", wav_header(8000)[:20], False),
        ("wav", wav_header(8000) + b"\0\0", True),
        ("wav", b"\1\2\3\4", True),
        ("opus", b"OggS....OpusHead....", False),
        ("opus", b"OggS....OpusTags....", False),
        ("opus", b"OggS....OpusHead....OggS....OpusTags....", False),
        ("opus", b"OggS....OpusTags....OggS....audio", True),
        ("opus", b"OggS....audio", True),
    ],
)
def test_a_header_is_no_audio(audio_format, data, carries):
    assert carries_audio(audio_format, data) is carries


def test_how_long_a_stream_is():
    assert stream_seconds("pcm", 16000, b"", 32000) == 1.0
    assert stream_seconds("wav", 16000, wav_header(16000)[:64], 32044) == 1.0
    assert stream_seconds("mp3", 22050, b"\xff\xf3\x80\xc0", 8000) == 1.0  # MPEG 2 layer III at 64 kbit/s
    assert stream_seconds("mp3", 44100, b"\xff\xfb\x90\xc0", 16000) == 1.0  # MPEG 1 at 128 kbit/s
    assert stream_seconds("mp3", 44100, b"junk", 16000) is None
    assert stream_seconds("opus", 24000, b"OggS", 16000) is None


def test_names_and_rates_are_checked():
    assert check_format("MP3") == "mp3"
    with pytest.raises(SettingsError, match="flac"):
        check_format("flac")
    with pytest.raises(SettingsError, match="11025"):
        check_sample_rate(11025)
