"""What a synthesizer is asked for, and the voice that it makes: the same parameters on the wire as the official SDK."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from speechpool.errors import SettingsError
from speechpool.protocol import Voice

__all__ = ["Format", "Wishes"]


class Format(Protocol):
    """An `AudioFormat`, ours or the official one."""

    @property
    def format(self) -> str:
        """`mp3`, `wav`, `pcm` or `opus`; `Default`: mp3."""

    @property
    def sample_rate(self) -> int:
        """Hertz; 0: the default."""

    @property
    def bit_rate(self) -> int:
        """Kilobits a second."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """The parameters of one synthesizer, as its program gave them."""

    model: str
    voice: str
    format: Format
    volume: int
    speech_rate: float
    pitch_rate: float
    seed: int
    synthesis_type: int
    instruction: str | None
    language_hints: Sequence[str] | None
    additional: Mapping[str, Any]

    def spoken(self, *, ssml: bool) -> Voice:
        """Return the voice; `ssml`: the text comes whole, and may be SSML.

        Values are left to the server, which knows its own limits.

        Raises:
            SettingsError: There is no name, the format is unknown, or a value cannot be sent.
        """
        ssml = bool(self.additional.get("enable_ssml", ssml))
        extra: dict[str, Any] = {
            "volume": self.volume,
            "rate": self.speech_rate,
            "pitch": self.pitch_rate,
            "seed": self.seed,
            "type": self.synthesis_type,
        }
        if self.format.format == "opus":
            extra["bit_rate"] = self.format.bit_rate
        if self.instruction is not None:
            extra["instruction"] = self.instruction
        if self.language_hints is not None:
            extra["language_hints"] = list(self.language_hints)
        names = self.model, self.voice, self.format.format, self.format.sample_rate
        try:
            wire = msgspec.json.encode({**extra, **self.additional})
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise SettingsError(f"a parameter of the synthesizer cannot be sent as JSON: {error}") from None
        return _voice(*names, ssml, wire)


@functools.lru_cache(256)
def _voice(  # noqa: PLR0917  # what is kept is found by position
    model: str, voice: str, audio_format: str, sample_rate: int, ssml: bool, wire: bytes
) -> Voice:
    """Make a voice once: checking one costs more than borrowing a connection."""
    audio_format = "mp3" if audio_format == "Default" else audio_format
    return Voice(
        model, voice, format=audio_format, sample_rate=sample_rate or None, ssml=ssml, extra=msgspec.json.decode(wire)
    )
