"""Frames of MPEG audio, layer III, without decoding them (ISO 11172-3 and 13818-3).

    header (4) | CRC (2, where the header says so) | side information | main data

`main_data_begin`, the first field of the side information, says how many bytes before its own main data those of a
frame begin: in the main data of earlier frames, the bit reservoir.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

__all__ = ["FARTHEST", "Frame", "find_header", "is_information", "muted", "read_header"]

FARTHEST: Final = 511
"""The greatest `main_data_begin` there can be."""

_BIT_RATES: Final = {  # kbit/s by the header's index, for MPEG 1, then for MPEG 2 and 2.5
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_SAMPLE_RATES: Final = {3: (44100, 48000, 32000, 0), 2: (22050, 24000, 16000, 0), 0: (11025, 12000, 8000, 0)}


class Frame(NamedTuple):
    """What the header of a frame says.

    Attributes:
        length: Bytes of the whole frame.
        samples: Samples of each channel that it decodes to.
        sample_rate: Hertz.
        bit_rate: kbit/s.
        side: Where the side information begins.
        main: Where the main data begin.
        mpeg1: MPEG 1 and not 2 or 2.5, whose `main_data_begin` is shorter.
    """

    length: int
    samples: int
    sample_rate: int
    bit_rate: int
    side: int
    main: int
    mpeg1: bool

    def reservoir(self, data: bytes, at: int) -> int:
        """Return `main_data_begin` of the frame at `at`, in bytes."""
        first = data[at + self.side]
        return first << 1 | data[at + self.side + 1] >> 7 if self.mpeg1 else first


def read_header(data: bytes, at: int = 0) -> Frame | None:
    """Return what the four bytes at `at` say, or None where they are no header of a frame of known length."""
    return _frame(data[at : at + 4])


@functools.lru_cache(64)  # a stream has two: with and without padding
def _frame(header: bytes) -> Frame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version = header[1] >> 3 & 3
    mpeg1 = version == 3
    bit_rate = _BIT_RATES[mpeg1][header[2] >> 4]
    sample_rate = _SAMPLE_RATES.get(version, (0, 0, 0, 0))[header[2] >> 2 & 3]
    if not bit_rate or not sample_rate:
        return None
    mono = header[3] >> 6 == 3
    side = 4 if header[1] & 1 else 6
    main = side + ((17 if mono else 32) if mpeg1 else (9 if mono else 17))
    samples = 1152 if mpeg1 else 576
    length = samples // 8 * bit_rate * 1000 // sample_rate + (header[2] >> 1 & 1)
    return Frame(length, samples, sample_rate, bit_rate, side, main, mpeg1)


def find_header(data: bytes, at: int) -> int:
    """Return where the next header begins, or may begin with the bytes that are there; the end, if nowhere."""
    while (at := data.find(b"\xff", at)) >= 0:
        if len(data) < at + 4 or read_header(data, at) is not None:
            return at
        at += 1
    return len(data)


def is_information(frame: Frame, data: bytes, at: int) -> bool:
    """Whether the frame at `at` holds no sound, but the length of its stream: Xing, Info or VBRI."""
    tag = at + 4 + frame.main - frame.side  # they are found as if there were no CRC
    return data[tag : tag + 4] in {b"Xing", b"Info"} or data[at + 36 : at + 40] == b"VBRI"


def muted(frame: Frame, data: bytes) -> bytes:
    """Return the same frame with nothing to hear in it. Its main data stay, for the frames that point into them."""
    return data[: frame.side] + bytes(frame.main - frame.side) + data[frame.main :]
