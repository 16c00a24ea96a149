"""Headers of containers, and what a stream's first bytes tell."""

import io
import wave

import pytest

from speechpool.audio import (
    OPUS_SAMPLE_RATES,
    SAMPLE_RATES,
    carries_audio,
    check_format,
    check_sample_rate,
    default_sample_rate,
    sample_rates,
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


def opus_page(position, payload):
    return b"OggS\0\0" + position.to_bytes(8, "little") + bytes(13) + payload


def test_the_length_of_opus_is_in_its_last_page():
    head = opus_page(0, b"OpusHead\1\1" + (312).to_bytes(2, "little") + bytes(7))
    whole = head + opus_page(0, b"OpusTags") + opus_page(960, b"sound") + opus_page(24312, b"more")
    assert stream_seconds("opus", 24000, whole, len(whole)) == 0.5
    assert stream_seconds("opus", 24000, whole[:64], len(whole)) is None
    assert stream_seconds("opus", 24000, head, len(head)) == 0.0  # nothing is to be heard yet
    for part in (b"", b"sound", head[:30], head + b"OggS\0\0\1", opus_page(960, b"sound")):
        assert stream_seconds("opus", 24000, part, len(part)) is None


def test_opus_knows_fewer_sample_rates_than_the_others():
    assert sample_rates("opus") == OPUS_SAMPLE_RATES == (8000, 16000, 24000, 48000)
    assert sample_rates("mp3") == SAMPLE_RATES
    assert all(default_sample_rate(each) in sample_rates(each) for each in ("pcm", "wav", "mp3", "opus"))
    assert check_sample_rate(22050, "mp3") == 22050
    with pytest.raises(SettingsError, match="22050 is not offered for opus; choose one of 8000, 16000, 24000, 48000"):
        check_sample_rate(22050, "opus")


def test_names_and_rates_are_checked():
    assert check_format("MP3") == "mp3"
    with pytest.raises(SettingsError, match="flac"):
        check_format("flac")
    with pytest.raises(SettingsError, match="11025"):
        check_sample_rate(11025)
