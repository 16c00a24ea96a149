"""Audio formats as the wire names them, and the headers of their containers. No encoder lives here.

Source: DashScope's CosyVoice API reference and the official SDK's `AudioFormat`.
"""

from __future__ import annotations

import struct

from speechpool.errors import SettingsError

from . import mp3

__all__ = [
    "DEFAULT_SAMPLE_RATE",
    "FORMATS",
    "OPUS_SAMPLE_RATES",
    "SAMPLE_RATES",
    "carries_audio",
    "check_format",
    "check_sample_rate",
    "default_sample_rate",
    "pcm_seconds",
    "sample_rates",
    "stream_seconds",
    "wav_header",
    "wav_payload_offset",
]

FORMATS = ("pcm", "wav", "mp3", "opus")
"""Formats of the wire; `opus` is Ogg Opus."""
SAMPLE_RATES = (8000, 16000, 22050, 24000, 44100, 48000)
"""Sample rates of the official `AudioFormat`, in hertz."""
OPUS_SAMPLE_RATES = (8000, 16000, 24000, 48000)
"""Those of them that opus knows."""
DEFAULT_SAMPLE_RATE = 22050
"""What the server uses where a client leaves the choice to it; for opus 24,000."""

STREAM_LENGTH = 0xFFFFFFFF
"""Length field of a WAV header whose data has no end yet."""


def check_format(value: object) -> str:
    """Return `value` in lower case.

    Raises:
        SettingsError: It is no known format.
    """
    name = str(value).lower()
    if name not in FORMATS:
        raise SettingsError(f"format {value!r} is unknown; choose one of {', '.join(FORMATS)}.")
    return name


def sample_rates(audio_format: str) -> tuple[int, ...]:
    """Return the sample rates of a format, in hertz."""
    return OPUS_SAMPLE_RATES if audio_format == "opus" else SAMPLE_RATES


def default_sample_rate(audio_format: str) -> int:
    """Return what the server uses for a format, in hertz, where a client leaves the choice to it."""
    return 24000 if audio_format == "opus" else DEFAULT_SAMPLE_RATE


def check_sample_rate(value: object, audio_format: str = "pcm") -> int:
    """Return `value`.

    Raises:
        SettingsError: It is no sample rate that the provider knows, or not in this format.
    """
    allowed = sample_rates(audio_format)
    if value not in allowed or not isinstance(value, int):
        rates = ", ".join(map(str, allowed))
        where = " for opus" if audio_format == "opus" else ""
        raise SettingsError(f"sample_rate {value!r} is not offered{where}; choose one of {rates} (Hz).")
    return value


def wav_header(sample_rate: int, *, data_length: int | None = None) -> bytes:
    """Return the 44 bytes before 16-bit mono PCM; `data_length` None means a stream whose end is unknown."""
    data = STREAM_LENGTH if data_length is None else data_length
    riff = STREAM_LENGTH if data_length is None else data_length + 36
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, sample_rate, sample_rate * 2, 2, 16, b"data", data,
    )  # fmt: skip


def wav_payload_offset(data: bytes) -> int | None:
    """Return where the samples begin in a WAV file or stream, or None while its header is not complete.

    Raises:
        ValueError: `data` does not begin like a WAV file.
    """
    if data[:4] != b"RIFF"[: len(data)]:
        raise ValueError("no RIFF header")
    at = 12
    while len(data) >= at + 8:
        name, length = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"data":
            return at
        at += length + (length & 1)
    return None


def pcm_seconds(length: int, sample_rate: int) -> float:
    """Return the duration of `length` bytes of 16-bit mono PCM."""
    return length / (2 * sample_rate)


# ------------------------------------------------------------------------------------------ streams
def carries_audio(audio_format: str, data: bytes) -> bool:
    """Whether the first bytes of a stream hold more than the header of their container."""
    if audio_format == "wav" and data[:4] == b"RIFF":
        offset = wav_payload_offset(data)
        return offset is not None and len(data) > offset
    if audio_format == "opus" and data[:4] == b"OggS":
        tags = data.find(b"OpusTags")
        return b"OpusHead" not in data if tags < 0 else data.rfind(b"OggS") > tags
    return True


def stream_seconds(audio_format: str, sample_rate: int, head: bytes, length: int) -> float | None:
    """Return the duration of a stream of `length` bytes that begins with `head`; None where only decoding would tell.

    Exact for pcm and wav; for mp3 from the bit rate of its first frame, which is right at a constant bit rate; for opus
    exact where `head` is the whole stream, since only its last page tells, and None elsewhere.
    """
    if audio_format == "pcm":
        return pcm_seconds(length, sample_rate)
    if audio_format == "wav":
        offset = wav_payload_offset(head) if head[:4] == b"RIFF" else 0
        return pcm_seconds(max(0, length - (offset or 44)), sample_rate)
    if audio_format == "mp3":
        return _mp3_seconds(head, length)
    return _opus_seconds(head) if len(head) == length else None


def _opus_seconds(data: bytes) -> float | None:
    """The position behind the last page, less what a decoder drops at the front (RFC 7845, sections 4 and 5.1)."""
    head, last = data.find(b"OpusHead"), data.rfind(b"OggS")
    if head < 0 or len(data) < max(head + 12, last + 14):
        return None
    pre_skip = int.from_bytes(data[head + 10 : head + 12], "little")
    position = int.from_bytes(data[last + 6 : last + 14], "little", signed=True)
    return max(0, position - pre_skip) / 48000


def _mp3_seconds(head: bytes, length: int) -> float | None:
    frame = mp3.read_header(head)
    return None if frame is None else length * 8 / (frame.bit_rate * 1000)
