"""What a run-task asks for: from the parameters of the wire to those of the backend, which checks their ranges.

Parameters that are unknown, and `type`, are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from speechpool.audio import default_sample_rate
from speechpool.protocol.cosyvoice import FAILURES, INVALID_PARAMETER, Refused, RunTask
from speechpool.text import count_characters

from .backend import SpeechParameters
from .limits import ServiceSettings

__all__ = ["LANGUAGES", "speech_parameters"]

LANGUAGES: Final = ("zh", "en", "fr", "de", "ja", "ko", "ru", "pt", "th", "id", "vi", "es", "it", "ms", "fil", "ar")
"""What `language_hints` may name. Source: DashScope's CosyVoice API reference."""

_TEXT_TYPES: Final = ("PlainText", "SSML")
_MAX_FIXES: Final = 200  # each sentence is searched for all of them
_MAX_FIX: Final = 100  # characters
_MAX_FIXED: Final = 4_000  # characters of all texts: they are compiled for each task, on the event loop


def speech_parameters(run: RunTask, settings: ServiceSettings) -> SpeechParameters:
    """Return what the backend is asked for; what a client left open gets the provider's default.

    Raises:
        Refused: The voice is missing, or the text type, the instruction, the language or the hot_fix is none.
    """
    wanted = run.parameters
    if not wanted.voice:
        raise Refused(
            INVALID_PARAMETER, "Missing required parameter 'payload.parameters.voice'! Please follow the protocol!"
        )
    if wanted.text_type is not None and wanted.text_type not in _TEXT_TYPES:
        raise _invalid(f"text_type {_short(wanted.text_type)} is unknown; choose one of {', '.join(_TEXT_TYPES)}.")
    if wanted.instruction and count_characters(wanted.instruction) > settings.max_instruction:
        raise Refused(*FAILURES["428"])
    # The official SDK sends the word "Default" and the rate 0 where its user chose nothing.
    audio_format = (wanted.format or "default").lower()
    if audio_format == "default":
        audio_format = "mp3"
    return SpeechParameters(
        model=run.model,
        voice=wanted.voice,
        format=audio_format,
        sample_rate=wanted.sample_rate or default_sample_rate(audio_format),
        bit_rate=wanted.bit_rate,
        volume=_or(wanted.volume, 50),
        rate=_or(wanted.rate, 1.0),
        pitch=_or(wanted.pitch, 1.0),
        seed=wanted.seed or 0,
        word_timestamps=bool(wanted.word_timestamp_enabled),
        language_hints=_language(wanted.language_hints),
        pronunciations=_fixes(wanted.hot_fix, "pronunciation"),
        replacements=_fixes(wanted.hot_fix, "replace"),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _language(hints: list[str] | None) -> tuple[str, ...]:
    """Return the first hint; the provider looks at no other."""
    if not hints:
        return ()
    if hints[0] not in LANGUAGES:
        raise _invalid(f"language_hints {_short(hints[0])} is unknown; choose one of {', '.join(LANGUAGES)}.")
    return (hints[0],)


def _fixes(hot_fix: Mapping[str, Any] | None, name: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of one list of the hot_fix: a list of objects, as the provider has it."""
    entries = hot_fix.get(name) if hot_fix else None
    if entries is None:
        return ()
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise _invalid(f'hot_fix.{name} must be a list of objects like {{"text": "reading"}}.')
    fixes = tuple(pair for each in entries for pair in each.items())
    if len(fixes) > _MAX_FIXES:
        raise _invalid(f"hot_fix.{name} has {len(fixes)} entries; it may have {_MAX_FIXES}.")
    for text, reading in fixes:
        if not text or not isinstance(reading, str) or max(len(text), len(reading)) > _MAX_FIX:
            raise _invalid(
                f"hot_fix.{name}: each text, of 1 to {_MAX_FIX} characters, needs a reading of at most {_MAX_FIX}."
            )
    if sum(len(text) for text, _ in fixes) > _MAX_FIXED:
        raise _invalid(f"hot_fix.{name} is too long; its texts may have {_MAX_FIXED:,} characters in all.")
    return fixes


def _invalid(message: str) -> Refused:
    return Refused(INVALID_PARAMETER, message)


def _short(value: str) -> str:
    return repr(value[:20])
