"""What a task asks for: model, voice, format and the way of speaking."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from speechpool.audio import check_format, check_sample_rate, default_sample_rate
from speechpool.errors import SettingsError

from .models import SAMBERT_FORMATS, SAMBERT_SAMPLE_RATE, SAMBERT_SAMPLE_RATES, is_sambert, sambert_voice

__all__ = ["Voice"]

_NOT_SAMBERT: Final = ("bit_rate", "seed", "instruction", "language_hints", "hot_fix")
_RANGES: dict[str, tuple[float, float]] = {
    "volume": (0, 100),
    "rate": (0.5, 2.0),
    "pitch": (0.5, 2.0),
    "seed": (0, 65535),
    "bit_rate": (6, 510),
}


@dataclass(frozen=True)
class Voice:
    """A model, one of its voices, and how it is to speak. Checked when it is made; equal voices are interchangeable.

    Args:
        model: The model, e.g. `cosyvoice-v3-flash`.
        voice: The voice, e.g. `longanyang`; it must fit the model. Sambert's models name it: leave it out with them.
        format: `mp3`, `wav`, `pcm` or `opus`; Sambert has no opus.
        sample_rate: Hertz; None means 22,050 (24,000 for opus, which knows no 22,050 and no 44,100; 16,000 for Sambert,
            which knows no 44,100).
        bit_rate: Kilobits a second, 6 to 510, for mp3 and opus; None leaves it to the server.
        volume: 0 to 100, linear; 50 is the voice as it is, 0 is silent.
        rate: Speaking rate, 0.5 to 2.0.
        pitch: 0.5 to 2.0.
        seed: 0 to 65,535.
        instruction: How to speak, in words, for models that take it.
        language_hints: Languages of the text; the provider uses the first.
        hot_fix: Pronunciations and replacements, in the provider's form.
        word_timestamps: Ask for word times.
        ssml: The text is SSML, and comes in one piece.
        extra: Further wire parameters; they win over all others.

    Sambert takes no `bit_rate`, `seed`, `instruction`, `language_hints` and `hot_fix`.

    Raises:
        SettingsError: A value is missing, of the wrong kind or out of range, or the model does not take it.
    """

    model: str
    voice: str = ""
    format: str = field(default="mp3", kw_only=True)
    sample_rate: int | None = field(default=None, kw_only=True)
    bit_rate: int | None = field(default=None, kw_only=True)
    volume: int = field(default=50, kw_only=True)
    rate: float = field(default=1.0, kw_only=True)
    pitch: float = field(default=1.0, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    instruction: str | None = field(default=None, kw_only=True)
    language_hints: tuple[str, ...] = field(default=(), kw_only=True)
    hot_fix: Mapping[str, Any] | None = field(default=None, kw_only=True)
    word_timestamps: bool = field(default=False, kw_only=True)
    ssml: bool = field(default=False, kw_only=True)
    extra: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen for everybody else
        if not self.voice and isinstance(self.model, str):
            put(self, "voice", sambert_voice(self.model) or "")
        for name in ("model", "voice"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise SettingsError(
                    f"{name} = {value!r} must be a name, e.g. Voice('cosyvoice-v3-flash', 'longanyang')."
                )
        for name, (low, high) in _RANGES.items():
            self._check_range(name, low, high)
        hints: object = self.language_hints
        if isinstance(hints, str):
            raise SettingsError(f"language_hints = {hints!r} must be a sequence, e.g. ({hints!r},).")
        put(self, "format", check_format(self.format))
        if self.sample_rate is not None:
            check_sample_rate(self.sample_rate, self.format)
        put(self, "language_hints", tuple(self.language_hints))
        if is_sambert(self.model):
            self._check_sambert()
        # Copies, so that a change of the caller's dictionary cannot change a voice in use.
        put(self, "hot_fix", copy.deepcopy(self.hot_fix))
        put(self, "extra", copy.deepcopy(dict(self.extra)))
        self._check_encodable()
        put(
            self,
            "_hash",
            hash((self.model, self.voice, self.format, self.sample_rate, self.rate, self.pitch)),
        )

    def _check_sambert(self) -> None:
        if self.voice != sambert_voice(self.model):
            raise SettingsError(
                f"voice = {self.voice!r} is not that of {self.model!r}; leave it out, the model names it."
            )
        for name in _NOT_SAMBERT:
            if getattr(self, name):
                raise SettingsError(f"{self.model!r} takes no {name}; leave it out.")
        if self.format not in SAMBERT_FORMATS:
            raise SettingsError(f"format {self.format!r} is none of Sambert's: {', '.join(SAMBERT_FORMATS)}.")
        if self.sample_rate is not None and self.sample_rate not in SAMBERT_SAMPLE_RATES:
            rates = ", ".join(map(str, SAMBERT_SAMPLE_RATES))
            raise SettingsError(f"sample_rate {self.sample_rate!r} is none of Sambert's: {rates} (Hz).")

    def _check_encodable(self) -> None:
        try:
            msgspec.json.encode(
                [self.model, self.voice, self.instruction, self.language_hints, self.hot_fix, self.extra]
            )
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise SettingsError(f"a value of Voice({self.model!r}, ...) cannot be sent as JSON: {error}") from None

    def __hash__(self) -> int:
        value: int = self.__dict__["_hash"]  # voices are looked up for each task, and never change
        return value

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is None and name == "bit_rate":
            return
        whole = name in {"volume", "seed", "bit_rate"}
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise SettingsError(f"{name} = {value!r} must be {'a whole number' if whole else 'a number'}.")
        if not low <= value <= high:
            raise SettingsError(f"{name} = {value!r} is out of range; it goes from {low:g} to {high:g}.")

    @property
    def effective_sample_rate(self) -> int:
        """The sample rate that the audio will have, in hertz."""
        if self.sample_rate is not None:
            return self.sample_rate
        return SAMBERT_SAMPLE_RATE if is_sambert(self.model) else default_sample_rate(self.format)
