"""Audio formats as the wire names them, the headers of their containers, and how streams are joined. No encoder."""

from .formats import (
    DEFAULT_SAMPLE_RATE,
    FORMATS,
    OPUS_SAMPLE_RATES,
    SAMPLE_RATES,
    carries_audio,
    check_format,
    check_sample_rate,
    default_sample_rate,
    pcm_seconds,
    sample_rates,
    stream_seconds,
    wav_header,
    wav_payload_offset,
)
from .joining import Joiner, new_joiner

__all__ = [
    "DEFAULT_SAMPLE_RATE",
    "FORMATS",
    "OPUS_SAMPLE_RATES",
    "SAMPLE_RATES",
    "Joiner",
    "carries_audio",
    "check_format",
    "check_sample_rate",
    "default_sample_rate",
    "new_joiner",
    "pcm_seconds",
    "sample_rates",
    "stream_seconds",
    "wav_header",
    "wav_payload_offset",
]
