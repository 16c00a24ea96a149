"""What a run-task asks for: from the parameters of the wire to those of the backend, which checks their values."""

from __future__ import annotations

from speechpool.audio import DEFAULT_SAMPLE_RATE
from speechpool.protocol.cosyvoice import Refused, RunTask

from .backend import SpeechParameters
from .speaking import INVALID_PARAMETER

__all__ = ["speech_parameters"]

_TEXT_TYPES = ("PlainText", "SSML")
_OPUS_SAMPLE_RATE = 24000  # opus knows no 22,050 Hz


def speech_parameters(run: RunTask) -> SpeechParameters:
    """Return what the backend is asked for; what a client left open gets the provider's default.

    Raises:
        Refused: The voice is missing, or the text is of an unknown type.
    """
    wanted = run.parameters
    if not wanted.voice:
        raise Refused(
            INVALID_PARAMETER, "Missing required parameter 'payload.parameters.voice'! Please follow the protocol!"
        )
    if wanted.text_type is not None and wanted.text_type not in _TEXT_TYPES:
        raise Refused(
            INVALID_PARAMETER, f"text_type {wanted.text_type!r} is unknown; choose one of {', '.join(_TEXT_TYPES)}."
        )
    # The official SDK sends the word "Default" and the rate 0 where its user chose nothing.
    audio_format = (wanted.format or "default").lower()
    if audio_format == "default":
        audio_format = "mp3"
    default_rate = _OPUS_SAMPLE_RATE if audio_format == "opus" else DEFAULT_SAMPLE_RATE
    return SpeechParameters(
        model=run.model,
        voice=wanted.voice,
        format=audio_format,
        sample_rate=wanted.sample_rate or default_rate,
        bit_rate=wanted.bit_rate,
        volume=_or(wanted.volume, 50),
        rate=_or(wanted.rate, 1.0),
        pitch=_or(wanted.pitch, 1.0),
        seed=wanted.seed or 0,
        word_timestamps=bool(wanted.word_timestamp_enabled),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
