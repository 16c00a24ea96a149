import miniaudio
import numpy as np
import pytest

from speechpool.audio import SAMPLE_RATES, pcm_seconds, wav_header, wav_payload_offset
from speechpool.errors import SettingsError
from speechpool.service.encoding import mp3_bit_rate, new_encoder

SOURCE = 24000


def tone(seconds=2.0, frequency=440):
    time = np.arange(int(seconds * SOURCE)) / SOURCE
    return np.rint(12000 * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def stream(audio_format, sample_rate, samples, *, pieces=7, bit_rate=None):
    encoder = new_encoder(audio_format, sample_rate, source_rate=SOURCE, bit_rate=bit_rate)
    parts = [encoder.encode(part) for part in np.array_split(samples, pieces)]
    return [*parts, encoder.flush()]


def frequency_of(samples, sample_rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * sample_rate / len(samples)


@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
def test_pcm_has_its_duration_and_its_tone_at_every_sample_rate(sample_rate):
    data = b"".join(stream("pcm", sample_rate, tone()))
    assert pcm_seconds(len(data), sample_rate) == pytest.approx(2.0, rel=0.001)
    assert frequency_of(np.frombuffer(data, "<i2"), sample_rate) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
@pytest.mark.parametrize("count", [1, 999, 24000, 50001])
def test_resampling_keeps_the_length_to_the_sample(sample_rate, count):
    data = b"".join(stream("pcm", sample_rate, tone(3)[:count]))
    assert abs(len(data) // 2 - count * sample_rate / SOURCE) <= 0.5


@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
def test_mp3_is_longer_by_the_delay_of_its_encoder_and_less_than_two_frames(sample_rate):
    decoded = miniaudio.mp3_read_s16(b"".join(stream("mp3", sample_rate, tone(1))))
    frame = 1152 if sample_rate >= 32000 else 576
    assert 0 <= decoded.num_frames - sample_rate <= 2 * frame + 1105  # 1105: LAME's delay and the decoder's


@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
def test_mp3_decodes_in_one_go_at_every_sample_rate(sample_rate):
    data = b"".join(stream("mp3", sample_rate, tone(5)))
    decoded = miniaudio.mp3_read_s16(data)
    assert decoded.sample_rate == sample_rate
    assert decoded.num_frames / sample_rate == pytest.approx(5.0, rel=0.05)
    middle = np.asarray(decoded.samples, np.int16)[sample_rate // 2 : sample_rate * 2]
    assert frequency_of(middle, sample_rate) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
def test_wav_has_its_header_once_and_in_front_of_audio(sample_rate):
    parts = stream("wav", sample_rate, tone())
    data = b"".join(parts)
    assert data.count(b"RIFF") == 1
    first = next(part for part in parts if part)
    assert first.startswith(wav_header(sample_rate))
    assert len(first) > 44
    assert wav_payload_offset(data) == 44


def test_pieces_make_no_difference():
    for audio_format in ("pcm", "wav", "mp3"):
        whole = b"".join(stream(audio_format, 22050, tone(), pieces=1))
        assert b"".join(stream(audio_format, 22050, tone(), pieces=40)) == whole


def test_a_stream_that_never_began_has_no_end():
    for audio_format in ("pcm", "wav", "mp3"):
        for sample_rate in (22050, SOURCE):
            assert new_encoder(audio_format, sample_rate, source_rate=SOURCE).flush() == b""


def test_bit_rates_are_brought_into_what_mpeg_allows():
    assert [mp3_bit_rate(rate, None) for rate in SAMPLE_RATES] == [64, 128, 160, 160, 256, 256]
    assert mp3_bit_rate(22050, 256) == 160
    assert mp3_bit_rate(48000, 510) == 320
    assert mp3_bit_rate(44100, 6) == 32
    assert mp3_bit_rate(8000, 6) == 8
    assert mp3_bit_rate(24000, 100) == 96


def test_the_bit_rate_is_kept():
    assert len(b"".join(stream("mp3", 44100, tone(4), bit_rate=64))) * 8 / 4000 == pytest.approx(64, rel=0.05)


def test_unknown_formats_and_rates_are_refused():
    with pytest.raises(SettingsError, match="pcm, wav, mp3, opus"):
        new_encoder("flac", 24000, source_rate=SOURCE)
    for sample_rate in (22050, 44100):
        with pytest.raises(SettingsError, match=f"{sample_rate} is not offered for opus; .* 8000, 16000, 24000, 48000"):
            new_encoder("opus", sample_rate, source_rate=SOURCE)
    with pytest.raises(SettingsError, match="12345"):
        new_encoder("pcm", 12345, source_rate=SOURCE)


def test_the_mp3_encoder_writes_nothing_to_the_terminal(capfd):
    stream("mp3", 22050, tone())
    assert capfd.readouterr() == ("", "")
