"""Segments join into one stream that decodes as a whole, however their bytes were cut."""

import functools
import io
import itertools
import struct

import miniaudio
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from ogg_kit import pages

from speechpool.audio import carries_audio, mp3, new_joiner, wav_header
from speechpool.service.encoding import new_encoder

RATES = {"wav": 16000, "mp3": 22050, "opus": 24000}
SECONDS = 0.5
LOUD = 8000


@functools.cache
def segment(audio_format, sample_rate, pitch=440, seconds=SECONDS, bit_rate=None):
    """A tone in a stream of its own."""
    times = np.arange(int(sample_rate * seconds)) / sample_rate
    samples = (LOUD * np.sin(2 * np.pi * pitch * times)).astype(np.int16)
    encoder = new_encoder(audio_format, sample_rate, source_rate=sample_rate, bit_rate=bit_rate)
    return encoder.encode(samples) + encoder.flush()


def joined(audio_format, segments, cuts=()):
    """What comes out of a joiner where each segment is cut at the given places."""
    joiner, out = new_joiner(audio_format), b""
    for data in segments:
        joiner.begin(first=not out)
        places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
        for begin, end in itertools.pairwise(places):
            out += joiner.feed(data[begin:end])
    return out, joiner.seconds


def closed(wav):
    """A WAV stream as a file, whose header has to tell the lengths."""
    return wav[:4] + struct.pack("<I", len(wav) - 8) + wav[8:40] + struct.pack("<I", len(wav) - 44) + wav[44:]


def decoded(data):
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    return samples.astype(int), rate


# ---------------------------------------------------------------------------------------- where the bytes are cut
@settings(max_examples=60, deadline=None)
@given(
    audio_format=st.sampled_from(sorted(RATES)),
    cuts=st.lists(st.integers(1, 9000), max_size=40),
    dense=st.integers(1, 200),
)
def test_the_places_of_the_cuts_change_nothing(audio_format, cuts, dense):
    segments = [segment(audio_format, RATES[audio_format], pitch) for pitch in (440, 440, 300)]
    whole, seconds = joined(audio_format, segments)
    assert joined(audio_format, segments, [*range(1, dense), *cuts]) == (whole, seconds and pytest.approx(seconds))


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=3000), audio_format=st.sampled_from(sorted(RATES)), size=st.integers(1, 500))
def test_what_is_no_such_stream_is_neither_an_error_nor_kept_for_ever(data, audio_format, size):
    good = segment(audio_format, RATES[audio_format])
    joiner = new_joiner(audio_format)
    joiner.begin(first=True)
    assert joiner.feed(good) == good
    joiner.begin(first=False)
    out = b"".join(joiner.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert len(out) <= len(data)
    joiner.begin(first=False)
    again = joiner.feed(good)
    assert 0 <= len(good) - len(again) <= 44


@pytest.mark.parametrize("audio_format", RATES)
def test_a_first_segment_passes_as_it_is(audio_format):
    data = segment(audio_format, RATES[audio_format])
    assert joined(audio_format, [data], range(0, len(data), 7))[0] == data


def test_text_that_pretends_to_be_audio_passes_at_once():
    for audio_format in ("mp3", "opus"):
        joiner = new_joiner(audio_format)
        joiner.begin(first=True)
        assert joiner.feed(b"spoken") == b"spoken"
        assert joiner.plain
        assert joiner.seconds is None
    assert new_joiner("pcm") is None


# ---------------------------------------------------------------------------------------- wav
@pytest.mark.parametrize(
    "header",
    [
        wav_header(16000),
        wav_header(16000, data_length=16000),
        b"RIFF\xff\xff\xff\xffWAVELIST\x05\0\0\0INFO!\0" + wav_header(16000)[12:],
        b"RIFF\0\0\0\0WAVE" + wav_header(16000)[12:36] + b"fact\x04\0\0\0\0\0\0\0" + wav_header(16000)[36:],
        b"",
    ],
    ids=["stream", "file", "list", "fact", "none"],
)
def test_the_headers_of_later_wav_segments_are_dropped(header):
    samples = bytes(range(256)) * 60
    first = wav_header(16000) + samples
    for cuts in ((), range(1, 90)):
        assert joined("wav", [first, header + samples, header + samples], cuts)[0] == first + samples + samples


def test_a_wav_header_without_an_end_is_no_header():
    joiner = new_joiner("wav")
    joiner.begin(first=False)
    data = b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\x7f" + bytes(70000)
    assert joiner.feed(data) == data


# ---------------------------------------------------------------------------------------- mp3
@pytest.mark.parametrize(
    ("sample_rate", "bit_rate"), [(8000, 64), (16000, 32), (22050, None), (24000, 160), (44100, 64), (48000, 320)]
)
def test_joined_mp3_decodes_as_one_stream_of_the_right_length(sample_rate, bit_rate):
    segments = [segment("mp3", sample_rate, 440, 1.0, bit_rate) for _ in range(3)]
    data, seconds = joined("mp3", segments, range(0, 60000, 417))
    assert data == b"".join(segments)
    alone = sum(len(decoded(each)[0]) for each in segments)
    samples, rate = decoded(data)
    assert (len(samples), rate) == (alone, sample_rate)
    assert len(samples) / rate == pytest.approx(seconds)
    assert np.abs(samples).max() <= 1.1 * LOUD, "a click"
    other = miniaudio.decode(data, output_format=miniaudio.SampleFormat.SIGNED16, sample_rate=sample_rate, nchannels=1)
    assert abs(len(other.samples) - alone) <= 1152
    assert np.abs(np.array(other.samples, int)).max() <= 1.1 * LOUD


def information(tag, frame):
    """A frame that tells the length of its stream, as encoders put it before the first one."""
    header = mp3.read_header(frame)
    return (frame[: header.side] + bytes(header.main - header.side) + tag + bytes(80)).ljust(header.length, b"\0")


@pytest.mark.parametrize("tag", [b"Xing", b"Info"])
def test_frames_that_tell_the_length_of_one_segment_are_dropped(tag):
    plain = segment("mp3", 22050, 440, 0.5, 64)
    data, _ = joined("mp3", [information(tag, plain) + plain] * 2, range(1, 3000, 3))
    assert data == plain + plain
    assert joined("mp3", [plain[:36] + b"VBRI" + plain[40:]])[0] == plain[mp3.read_header(plain).length :]


def test_tags_between_segments_are_dropped():
    plain = segment("mp3", 22050)
    before = b"ID3\x04\0\0\0\0\x02\x01" + bytes(257)
    after = b"TAG" + b"\xff" * 125
    data, _ = joined("mp3", [before + plain + after] * 3, range(1, 20000, 11))
    assert data == before + plain * 3


def test_mp3_joins_at_the_border_of_a_frame_though_a_segment_ends_within_one():
    plain = segment("mp3", 22050)
    data, _ = joined("mp3", [plain[:-100], plain])
    at = data.index(plain[:200], 200)
    assert data[at:] == plain
    assert len(plain) - 1000 < at < len(plain) - 100


def test_a_frame_that_points_before_its_segment_is_muted():
    """A decoder would take the bytes of the segment before for it."""
    # A bit rate that the encoder saves from: its frames point far back.
    plain = segment("mp3", 44100, 440, 1.0, 128)
    at, borrowed = 0, 0
    while borrowed < 3 or mp3.read_header(plain, at).reservoir(plain, at) == 0:
        at += mp3.read_header(plain, at).length
        borrowed += 1
    frame = mp3.read_header(plain, at)
    cut = plain[at:]
    data, _ = joined("mp3", [plain, cut], range(1, 20000, 13))
    second = data[len(plain) :]
    assert second[: frame.side] == cut[: frame.side]
    assert second[frame.side : frame.main] == bytes(frame.main - frame.side)
    assert mp3.read_header(second).reservoir(second, 0) == 0
    assert second[frame.main :][: frame.length - frame.main] == cut[frame.main : frame.length], "others point to it"
    assert len(second) == len(cut)
    samples = decoded(data)[0]
    assert len(samples) == pytest.approx(len(decoded(plain)[0]) + seconds_of(cut) * 44100)
    assert np.abs(samples).max() <= 1.1 * LOUD


def seconds_of(data):
    return joined("mp3", [data])[1]


# ---------------------------------------------------------------------------------------- opus
@pytest.mark.parametrize("sample_rate", [8000, 24000, 48000])
def test_joined_opus_is_a_chain_of_streams_with_serial_numbers_of_their_own(sample_rate):
    same, other = segment("opus", sample_rate), segment("opus", sample_rate, 300)
    data, seconds = joined("opus", [same, same, other, same], range(1, 20000, 97))
    assert seconds == pytest.approx(4 * SECONDS)
    found = list(pages(data))  # with their checksums
    links = [[]]
    for page in found:
        if page.flags & 2 and links[-1]:
            links.append([])
        links[-1].append(page)
    assert len(links) == 4
    assert len({page.serial for link in links for page in link}) == 4
    for link, alone in zip(links, (same, same, other, same), strict=True):
        assert len({page.serial for page in link}) == 1
        assert [page.number for page in link] == list(range(len(link)))
        assert link[-1].flags & 4
        assert [page.packets for page in link] == [page.packets for page in pages(alone)]
    assert data.startswith(same), "nothing is changed that need not be"


def test_each_link_of_the_chain_decodes():
    """libsndfile reads the first link of a chain only; opusfile, on which players stand, reads them all."""
    same = segment("opus", 24000)
    data, _ = joined("opus", [same, same])
    first, second = data[: len(same)], data[len(same) :]
    assert second != same
    assert np.array_equal(decoded(first)[0], decoded(second)[0])
    assert len(decoded(data)[0]) == len(decoded(first)[0])


def test_an_incomplete_page_at_the_end_of_a_segment_is_dropped():
    same = segment("opus", 24000)
    data, _ = joined("opus", [same[:-10], same])
    assert list(pages(data))[-1].flags & 4
    assert carries_audio("opus", data)


# ---------------------------------------------------------------------------------------- what is heard
@pytest.mark.parametrize("audio_format", ["wav", "mp3"])
def test_the_whole_is_as_loud_as_its_parts_and_has_their_pitches_in_order(audio_format):
    rate = RATES[audio_format]
    segments = [segment(audio_format, rate, pitch, 1.0) for pitch in (300, 600, 900)]
    data, _ = joined(audio_format, segments, range(1, 60000, 333))
    samples, _ = decoded(closed(data) if audio_format == "wav" else data)
    part = len(samples) // 3
    for number, pitch in enumerate((300, 600, 900)):
        middle = samples[number * part + part // 4 : number * part + 3 * part // 4]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
        assert np.argmax(spectrum) * rate / len(middle) == pytest.approx(pitch, abs=5)
    assert np.abs(samples).max() <= 1.1 * LOUD
