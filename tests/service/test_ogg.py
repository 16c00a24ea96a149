"""Ogg Opus: pages that any decoder takes, and positions that are right to the sample."""

import io
import struct

import numpy as np
import pytest
import soundfile
from ogg_kit import checksum, pages

from speechpool.audio import OPUS_SAMPLE_RATES, carries_audio, stream_seconds
from speechpool.service.encoding import new_encoder
from speechpool.service.ogg import PACKET, OpusPages
from speechpool.service.opus import OpusPackets, opus_bit_rate


def tone(count, sample_rate=24000):
    time = np.arange(count) / sample_rate
    return np.rint(9000 * np.sin(2 * np.pi * 300 * time) * (1 + np.sin(2 * np.pi * 3 * time)) / 2).astype(np.int16)


def parts(samples, *, sample_rate=24000, source_rate=24000, pieces=9, bit_rate=None):
    encoder = new_encoder("opus", sample_rate, source_rate=source_rate, bit_rate=bit_rate)
    return [*(encoder.encode(piece) for piece in np.array_split(samples, pieces)), encoder.flush()]


def test_pages_of_another_encoder_are_read_the_same_way():
    # It guards the reader of these tests, not the writer: its checksum is the one of the standard.
    assert checksum(b"\x01") == 0x04C11DB7
    file = io.BytesIO()
    soundfile.write(file, tone(24000), 24000, format="OGG", subtype="OPUS")
    theirs = list(pages(file.getvalue()))
    assert theirs[0].packets[0].startswith(b"OpusHead")
    assert theirs[-1].flags == 4


@pytest.mark.parametrize("sample_rate", OPUS_SAMPLE_RATES)
def test_headers_say_what_follows(sample_rate):
    head, tags, *_ = pages(b"".join(parts(tone(24000), sample_rate=sample_rate)))
    assert (head.flags, head.position, tags.flags, tags.position) == (2, 0, 0, 0)
    fields = struct.unpack("<8sBBHIhB", head.packets[0])
    # One channel; the encoder's delay of 6.5 ms; no gain, no mapping.
    assert fields == (b"OpusHead", 1, 1, 312, sample_rate, 0, 0)
    assert tags.packets == (b"OpusTags" + struct.pack("<I", 10) + b"speechpool" + bytes(4),)


def test_pages_are_a_row_without_a_gap():
    found = list(pages(b"".join(parts(tone(24000 * 3)))))
    assert [page.number for page in found] == list(range(len(found)))
    assert len({page.serial for page in found}) == 1
    assert [page.flags for page in found] == [2, *[0] * (len(found) - 2), 4]
    position = 0
    for page in found[2:-1]:
        position += PACKET * len(page.packets)
        assert page.position == position
    assert [len(page.packets) for page in found[2:5]] == [2, 5, 5]  # heard early, then cheap
    left = found[-1].position - position
    assert (
        PACKET * (len(found[-1].packets) - 1) < left <= PACKET * len(found[-1].packets)
    )  # less than a packet is cut off
    assert found[-1].position == 312 + 48000 * 3


@pytest.mark.parametrize("sample_rate", OPUS_SAMPLE_RATES)
@pytest.mark.parametrize("count", [1, 100, 480, 959, 960, 961, 7200, 30001])
def test_what_is_decoded_is_as_long_as_what_came_in(sample_rate, count):
    data = b"".join(parts(tone(count, sample_rate), sample_rate=sample_rate, source_rate=sample_rate))
    decoded, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert (len(decoded), rate) == (count, sample_rate)
    assert stream_seconds("opus", sample_rate, data, len(data)) == pytest.approx(count / sample_rate, abs=1e-9)


@pytest.mark.parametrize("sample_rate", OPUS_SAMPLE_RATES)
def test_what_is_decoded_is_in_its_place(sample_rate):
    samples = tone(sample_rate, sample_rate)
    data = b"".join(parts(samples, sample_rate=sample_rate, source_rate=sample_rate, bit_rate=64))
    decoded, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    middle = slice(200, -200)
    alike = [np.corrcoef(samples[middle], np.roll(decoded, lag)[middle])[0, 1] for lag in range(-20, 21)]
    assert np.argmax(alike) == 20
    assert max(alike) > 0.98


@pytest.mark.parametrize("sample_rate", OPUS_SAMPLE_RATES)
def test_pieces_make_no_difference(sample_rate):
    whole = b"".join(parts(tone(24000), sample_rate=sample_rate, pieces=1))
    for pieces in (2, 31, 500):
        assert b"".join(parts(tone(24000), sample_rate=sample_rate, pieces=pieces)) == whole


def test_headers_are_never_alone_and_the_first_page_leaves_early():
    encoder = new_encoder("opus", 24000, source_rate=24000)
    given = [encoder.encode(piece) for piece in np.array_split(tone(24000), 100)]  # 10 ms each
    first = next(at for at, data in enumerate(given) if data)
    assert first == 3
    assert carries_audio("opus", given[first])
    assert len(list(pages(given[first]))) == 3
    behind = 0
    for data in given[first + 1 :]:
        behind = 0 if data else behind + 10
        assert behind <= 90
        assert not data or carries_audio("opus", data)


def test_a_stream_that_never_began_has_no_end():
    assert new_encoder("opus", 48000, source_rate=24000).flush() == b""
    assert OpusPackets(24000, 32).finish() == []


def test_two_sounds_have_two_serials():
    first, second = (next(pages(b"".join(parts(samples)))).serial for samples in (tone(4800), -tone(4800)))
    assert first != second


@pytest.mark.parametrize("wanted", [6, 16, None, 64, 128, 256])
@pytest.mark.parametrize("sample_rate", OPUS_SAMPLE_RATES)
def test_the_bit_rate_is_kept(sample_rate, wanted):
    swelling = 1500 * (1 + np.sin(2 * np.pi * 4 * np.arange(24000 * 4) / 24000))
    noise = (np.random.default_rng(1).standard_normal(24000 * 4) * swelling).astype(np.int16)
    data = b"".join(parts(noise, sample_rate=sample_rate, bit_rate=wanted))
    kbits = len(data) * 8 / 4000
    assert 0.97 * (wanted or 32) < kbits < 1.04 * (wanted or 32) + 3  # the pages cost 2.5


def test_bit_rates_are_brought_into_what_opus_allows():
    assert [opus_bit_rate(wanted) for wanted in (None, 1, 6, 64, 510, 1000)] == [32, 6, 6, 64, 510, 510]


def test_packets_longer_than_a_segment_are_whole():
    noise = np.random.default_rng(1).integers(-20000, 20000, 48000).astype(np.int16)
    data = b"".join(parts(noise, sample_rate=48000, source_rate=48000, bit_rate=510))
    assert max(len(packet) for page in pages(data) for packet in page.packets) > 900
    assert len(soundfile.read(io.BytesIO(data))[0]) == 48000


def test_a_packet_of_whole_segments_ends_with_an_empty_one():
    stream = OpusPages(sample_rate=24000, pre_skip=312)
    packets = (bytes(255), bytes(510), b"", bytes(254), bytes(1275))
    *_, page = pages(stream.page(packets))
    assert page.packets == packets
    assert page.position == 5 * PACKET
    [last] = pages(stream.last_page([b"end"], 4000))
    assert (last.flags, last.position, last.packets) == (4, 4312, (b"end",))
