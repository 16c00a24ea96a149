"""From an engine's samples to the bytes of a stream.

One encoder serves one task, so that its sentences join into one stream that decodes without a gap: the container's
header comes once, and neither resampler nor encoder starts anew at a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import lameenc
import numpy as np
import soxr

from speechpool.audio import check_format, check_sample_rate, wav_header

from .ogg import OpusPages
from .opus import OpusPackets, opus_bit_rate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.int16]

__all__ = ["Encoder", "Mp3Encoder", "OpusEncoder", "PcmEncoder", "mp3_bit_rate", "new_encoder"]

_MPEG_1: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG_2: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_2_5: Final = _MPEG_2[:8]  # the LAME encoder keeps these sample rates at 64 kbit/s
_FIRST_PAGE: Final = 2  # packets of 20 ms: an opus stream is heard from 40 ms of sound on
_PAGE: Final = 5  # packets of the other pages: a larger one would save little, and keep more back at a sentence's end
_MP3_QUALITY: Final = 5  # 0 best to 9 fastest: 4 ms of CPU for a second at 22,050 Hz; 2 costs 11 for no audible gain


class Encoder(Protocol):
    """Makes one stream. Not for two threads at once, but for any one at a time."""

    def encode(self, samples: Samples) -> bytes:
        """Take 16-bit mono samples at the engine's rate; return the bytes that are ready, which may be none."""

    def flush(self) -> bytes:
        """End the stream and return its last bytes; none, if nothing was encoded. Nothing may follow."""


def new_encoder(audio_format: str, sample_rate: int, *, source_rate: int, bit_rate: int | None = None) -> Encoder:
    """Return an encoder for one stream.

    Args:
        audio_format: `pcm`, `wav`, `mp3` or `opus`.
        sample_rate: Of the stream, in hertz; for opus 8000, 16000, 24000 or 48000.
        source_rate: Of the samples that come in.
        bit_rate: kbit/s. For mp3 brought into what MPEG allows at the sample rate; None: 128 up to 16,000 Hz, else 256,
            as the official SDK's formats have it. For opus 6 to 510; None: 32, the provider's default.

    Raises:
        SettingsError: The format or the sample rate is not offered.
    """
    audio_format = check_format(audio_format)
    check_sample_rate(sample_rate, audio_format)
    if audio_format == "mp3":
        return Mp3Encoder(sample_rate, source_rate, mp3_bit_rate(sample_rate, bit_rate))
    if audio_format == "opus":
        return OpusEncoder(sample_rate, source_rate, opus_bit_rate(bit_rate))
    return PcmEncoder(sample_rate, source_rate, header=wav_header(sample_rate) if audio_format == "wav" else b"")


def mp3_bit_rate(sample_rate: int, wanted: int | None) -> int:
    """Return the highest bit rate in kbit/s that MPEG allows at `sample_rate` and that is not above `wanted`."""
    allowed = _MPEG_1 if sample_rate >= 32000 else _MPEG_2 if sample_rate >= 16000 else _MPEG_2_5
    if wanted is None:
        wanted = 128 if sample_rate <= 16000 else 256
    return max((rate for rate in allowed if rate <= wanted), default=allowed[0])


class _Resampler:
    """Changes the sample rate of a stream."""

    def __init__(self, source_rate: int, sample_rate: int) -> None:
        self._stream: Any = None
        if source_rate != sample_rate:
            # Not int16: there soxr adds dither, which depends on the size of the pieces. And it is three times slower.
            self._stream = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="MQ")

    def resample(self, samples: Samples, *, last: bool = False) -> Samples:
        if self._stream is None:
            return samples
        resampled = self._stream.resample_chunk(samples.astype(np.float32), last=last)
        rounded: Samples = np.rint(np.clip(resampled, -32768, 32767)).astype(np.int16)
        return rounded


_NOTHING: Final = np.zeros(0, np.int16)


class PcmEncoder:
    """Little-endian 16-bit samples, after a header if one is given."""

    def __init__(self, sample_rate: int, source_rate: int, *, header: bytes = b"") -> None:
        self._resampler = _Resampler(source_rate, sample_rate)
        self._header = header

    def encode(self, samples: Samples) -> bytes:
        """Return the header, once, and the samples."""
        data = self._resampler.resample(samples).astype("<i2", copy=False).tobytes()
        if not data:
            return b""
        return self._with_header(data)

    def flush(self) -> bytes:
        """Return what the resampler held back."""
        data = self._resampler.resample(_NOTHING, last=True).astype("<i2", copy=False).tobytes()
        return self._with_header(data) if data else b""

    def _with_header(self, data: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + data


class Mp3Encoder:
    """MPEG audio layer III at a constant bit rate."""

    def __init__(self, sample_rate: int, source_rate: int, bit_rate: int) -> None:
        self._resampler = _Resampler(source_rate, sample_rate)
        self._encoder = lameenc.Encoder()
        self._encoder.silence()  # it writes to standard error otherwise
        self._encoder.set_channels(1)
        self._encoder.set_in_sample_rate(sample_rate)
        self._encoder.set_bit_rate(bit_rate)
        self._encoder.set_quality(_MP3_QUALITY)
        self._begun = False

    def encode(self, samples: Samples) -> bytes:
        """Return the frames that are complete."""
        return self._encode(self._resampler.resample(samples))

    def flush(self) -> bytes:
        """Return the last frames."""
        data = self._encode(self._resampler.resample(_NOTHING, last=True))
        # The encoder refuses to end a stream that never began.
        return data + bytes(self._encoder.flush()) if self._begun else b""

    def _encode(self, samples: Samples) -> bytes:
        if not len(samples):
            return b""
        self._begun = True
        return bytes(self._encoder.encode(samples.tobytes()))


class OpusEncoder:
    """Ogg Opus, in pages whose borders depend on the position alone: pieces of any size give the same bytes."""

    def __init__(self, sample_rate: int, source_rate: int, bit_rate: int) -> None:
        self._resampler = _Resampler(source_rate, sample_rate)
        self._packets = OpusPackets(sample_rate, bit_rate)
        self._pages = OpusPages(sample_rate=sample_rate, pre_skip=self._packets.pre_skip)
        self._waiting: list[bytes] = []

    def encode(self, samples: Samples) -> bytes:
        """Return the pages that are full, the headers with the first. At most 100 ms of sound are kept back."""
        return self._full_pages(self._resampler.resample(samples))

    def flush(self) -> bytes:
        """Return the last pages: what is decoded is as long as what came in, to the sample."""
        data = self._full_pages(self._resampler.resample(_NOTHING, last=True))
        rest = [*self._waiting, *self._packets.finish()]
        return data + self._pages.last_page(rest, self._packets.samples) if rest else b""

    def _full_pages(self, samples: Samples) -> bytes:
        self._waiting += self._packets.encode(samples)
        pages = []
        while len(self._waiting) >= (size := _PAGE if self._pages.begun else _FIRST_PAGE):
            pages.append(self._pages.page(self._waiting[:size]))
            del self._waiting[:size]
        return b"".join(pages)
