"""Encoded speech that can be cut and goes round and round: what the replaying engine sends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from speechpool.service.encoding import mp3_bit_rate, new_encoder
from speechpool.service.ogg import CLOCK, PACKET
from speechpool.service.opus import OpusPackets, opus_bit_rate

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SOURCE_RATE", "Recording", "kilobits", "record"]

SOURCE_RATE: Final = 24000
"""Of the samples that are recorded, in hertz."""

_OPUS: Final = (6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 510)


@dataclass(frozen=True, slots=True)
class Recording:
    """Encoded speech without a container.

    Attributes:
        data: Its bytes.
        borders: Where it can be cut, in bytes.
        unit: Seconds between two borders.
        pre_skip: For opus, how far its sound lags behind (see `ogg`).
    """

    data: bytes
    borders: Sequence[int]
    unit: float
    pre_skip: int = 0

    def cut(self, begin: int, count: int) -> bytes:
        """Return `count` units from `begin` on."""
        length = len(self.borders) - 1
        begin %= length
        end = begin + count
        parts = []
        while end > length:
            parts.append(self.data[self.borders[begin] :])
            begin, end = 0, end - length
        parts.append(self.data[self.borders[begin] : self.borders[end]])
        return b"".join(parts)

    def packets(self, begin: int, count: int) -> list[bytes]:
        """Return the same in pieces of one unit."""
        return [self.cut(at, 1) for at in range(begin, begin + count)]


def kilobits(audio_format: str, sample_rate: int, wanted: int | None) -> int:
    """Return the bit rate in kbit/s of the recording for those who want `wanted`; 0 for pcm.

    Each one is kept for good, so that there must be few: opus, which knows all bit rates, has a ladder of them here.
    """
    if audio_format == "mp3":
        return mp3_bit_rate(sample_rate, wanted)
    return max(rate for rate in _OPUS if rate <= opus_bit_rate(wanted)) if audio_format == "opus" else 0


def record(speech: NDArray[np.int16], audio_format: str, sample_rate: int, kbits: int) -> Recording:
    """Encode `speech` as pcm, mp3 or opus; `kbits` as `kilobits` has it."""
    if audio_format == "opus":
        return _opus(_encoded(speech, "pcm", sample_rate, 0), sample_rate, kbits)
    data = _encoded(speech, audio_format, sample_rate, kbits)
    if audio_format == "mp3":
        return _mp3(data, sample_rate, kbits)
    return Recording(data, range(0, len(data) + 1, 2), 1 / sample_rate)


def _encoded(speech: NDArray[np.int16], audio_format: str, sample_rate: int, kbits: int) -> bytes:
    encoder = new_encoder(audio_format, sample_rate, source_rate=SOURCE_RATE, bit_rate=kbits or None)
    return encoder.encode(speech) + encoder.flush()


def _mp3(data: bytes, sample_rate: int, kbits: int) -> Recording:
    """Find the frames: at a constant bit rate only a padding bit makes some of them a byte longer."""
    samples = 1152 if sample_rate >= 32000 else 576
    size = samples // 8 * kbits * 1000 // sample_rate
    borders = [0]
    while borders[-1] + 4 <= len(data):
        end = borders[-1] + size + (data[borders[-1] + 2] >> 1 & 1)
        if end > len(data):
            break
        borders.append(end)
    return Recording(data, borders, samples / sample_rate)


def _opus(pcm: bytes, sample_rate: int, kbits: int) -> Recording:
    encoder = OpusPackets(sample_rate, kbits)
    packets = encoder.encode(np.frombuffer(pcm, "<i2"))
    borders = list(itertools.accumulate(map(len, packets), initial=0))
    return Recording(b"".join(packets), borders, PACKET / CLOCK, encoder.pre_skip)
