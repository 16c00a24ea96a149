"""Samples to Opus packets, by the libopus that `opuslib-next-bundled` brings along."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import opuslib_next
from opuslib_next.api import encoder as libopus

from .ogg import CLOCK, PACKET

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OpusPackets", "opus_bit_rate"]

_COMPLEXITY: Final = 5  # 0 to 10. A second of speech costs 3 ms of CPU, 10 at 16 kbit/s and less; at 10, up to 12
_LONGEST: Final = 1275  # bytes of a packet, by RFC 6716
_DEFAULT_BIT_RATE: Final = 32
_BIT_RATES: Final = (6, 510)


def opus_bit_rate(wanted: int | None) -> int:
    """Return `wanted` in kbit/s, brought into 6 to 510; None is 32, the provider's default.

    libopus itself goes no higher than a sound has use for: about 470 kbit/s for a busy one, less for silence.
    """
    low, high = _BIT_RATES
    return _DEFAULT_BIT_RATE if wanted is None else min(high, max(low, wanted))


class OpusPackets:
    """The packets of one mono stream, 20 ms each.

    Args:
        sample_rate: 8000, 16000, 24000 or 48000 Hz.
        bit_rate: kbit/s, the mean over a second or so of speech.
    """

    def __init__(self, sample_rate: int, bit_rate: int) -> None:
        # "audio" and not "voip": the voice is clean, and from 24 kbit/s on this is three times cheaper.
        self._encoder: Any = opuslib_next.Encoder(sample_rate, 1, "audio")
        self._encoder.complexity = _COMPLEXITY
        self._encoder.bitrate = bit_rate * 1000
        self._delay: int = self._encoder.lookahead
        self._frame = sample_rate * PACKET // CLOCK
        self._scale = CLOCK // sample_rate
        self._rest = b""
        self._taken = 0  # samples that came in
        self._given = 0  # samples that are in packets

    @property
    def pre_skip(self) -> int:
        """By how many samples of the 48,000 Hz clock the packets lag behind the sound."""
        return self._delay * self._scale

    @property
    def samples(self) -> int:
        """How many came in, by the 48,000 Hz clock."""
        return self._taken * self._scale

    def encode(self, samples: NDArray[np.int16]) -> list[bytes]:
        """Return the packets that are complete."""
        self._taken += len(samples)
        data = self._rest + samples.tobytes()
        size = 2 * self._frame
        whole = len(data) - len(data) % size
        self._rest = data[whole:]
        return [self._packet(data[at : at + size]) for at in range(0, whole, size)]

    def finish(self) -> list[bytes]:
        """Return the packets that bring out the rest: one or two, or none if nothing came in."""
        if not self._taken:
            return []
        missing = math.ceil((self._taken + self._delay - self._given) / self._frame)
        size = 2 * self._frame
        data = self._rest.ljust(missing * size, b"\0")
        return [self._packet(data[at : at + size]) for at in range(0, len(data), size)]

    def _packet(self, data: bytes) -> bytes:
        self._given += self._frame
        # Not the method of the object: there a packet may only be as long as its samples, 128 kbit/s at 8,000 Hz.
        packet: bytes = libopus.encode(self._encoder.encoder_state, data, self._frame, _LONGEST)
        return packet
