"""How the text of an SSML document is said: what its attributes make of rate, pitch, volume and language; and pauses.

Sources: DashScope's SSML reference for CosyVoice (attributes of `<speak>`, the pauses), W3C SSML 1.1 (`<prosody>`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from speechpool.errors import InvalidText

__all__ = ["LONGEST_PAUSE", "Manner", "check_attributes", "pause_seconds", "shortened"]

Attribute = Literal["rate", "pitch", "volume"]

LONGEST_PAUSE: Final = 10.0
"""Seconds, also of pauses one after another; the provider's value."""

_SHORTEST_PAUSE: Final = 0.05
_DEFAULT_PAUSE: Final = 1.0
_RANGES: Final = {"rate": (0.5, 2.0), "pitch": (0.5, 2.0), "volume": (0.0, 100.0)}
_NUMBER: Final = re.compile(r"([+-]?)([0-9]{1,5}(?:\.[0-9]{1,6})?)(%|st|db|ms|s|)")
_LANGUAGE: Final = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{1,8}){0,4}")

# Factors for rate and pitch, the volume itself: W3C counts names from what the voice does by itself.
_NAMES: Final[dict[str, dict[str, float]]] = {
    "rate": {"x-slow": 0.5, "slow": 0.8, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.6},
    "pitch": {"x-low": 0.75, "low": 0.87, "medium": 1.0, "default": 1.0, "high": 1.15, "x-high": 1.33},
    "volume": {"silent": 0, "x-soft": 15, "soft": 30, "medium": 50, "default": 50, "loud": 70, "x-loud": 90},
}
_EXAMPLES: Final = {"rate": "'fast', '120%', '+20%' or '1.2'", "pitch": "'high', '+2st' or '1.2'"} | {
    "volume": "'loud', '+6dB' or '80'"
}
_STRENGTHS: Final = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 1.0, "x-strong": 1.5}


@dataclass(frozen=True, slots=True)
class Manner:
    """How something is said: values of the task's scale, not factors."""

    rate: float
    pitch: float
    volume: float
    language: str | None = None

    def of_document(self, attributes: Mapping[str, str], voice: str) -> Manner:
        """Return the manner inside `<speak>`: what it says stands in for what the task says.

        Raises:
            InvalidText: An attribute is not supported, no number or out of range, or the voice is not the task's.
        """
        known = {
            name: value for name, value in attributes.items() if name != "version" and not name.startswith("xmlns")
        }
        check_attributes("speak", known, "voice", *_RANGES, "xml:lang")
        if known.get("voice", voice) != voice:
            raise InvalidText("voice of <speak> is not the task's; ask for the voice in run-task.")
        return Manner(
            _absolute("rate", known, self.rate),
            _absolute("pitch", known, self.pitch),
            _absolute("volume", known, self.volume),
            self.language,
        ).in_language(known)

    def with_prosody(self, attributes: Mapping[str, str]) -> Manner:
        """Return the manner inside `<prosody>`: on top of the one around it, within what the service can do.

        Raises:
            InvalidText: A value is neither a name nor a number with a unit of its attribute.
        """
        check_attributes("prosody", attributes, *_RANGES)
        return Manner(
            _changed("rate", attributes, self.rate),
            _changed("pitch", attributes, self.pitch),
            _changed("volume", attributes, self.volume),
            self.language,
        )

    def in_language(self, attributes: Mapping[str, str]) -> Manner:
        """Return the manner with the language of `xml:lang`, if there is one.

        Raises:
            InvalidText: It is no language.
        """
        given = attributes.get("xml:lang")
        return self if given is None else replace(self, language=_language_code(given))


def _absolute(attribute: Attribute, attributes: Mapping[str, str], otherwise: float) -> float:
    if attribute not in attributes:
        return otherwise
    value = attributes[attribute]
    low, high = _RANGES[attribute]
    match = _NUMBER.fullmatch(value.strip())
    if match is None or match[3] or not low <= float(match[1] + match[2]) <= high:
        raise InvalidText(
            f"{attribute}={shortened(value)!r} of <speak> is no number of its range; it goes from {low:g} to {high:g}."
        )
    return float(match[2])


def _changed(attribute: Attribute, attributes: Mapping[str, str], now: float) -> float:
    if attribute not in attributes:
        return now
    low, high = _RANGES[attribute]
    return min(high, max(low, _prosody(attribute, attributes[attribute].strip(), now)))


def _prosody(attribute: Attribute, value: str, now: float) -> float:
    named = _NAMES[attribute].get(value.lower())
    if named is not None:
        return named if attribute == "volume" else now * named
    match = _NUMBER.fullmatch(value.lower())
    if match is not None:
        sign, amount, unit = match[1], float(match[1] + match[2]), match[3]
        if unit == "%":
            return now * (1 + amount / 100 if sign else amount / 100)
        if unit == "st" and attribute == "pitch":
            return now * math.pow(2, min(amount, 120) / 12)
        if unit == "db" and attribute == "volume":
            return now * math.pow(10, min(amount, 120) / 20)
        if not unit and not sign:
            return amount if attribute == "volume" else now * amount
    raise InvalidText(
        f"{attribute}={shortened(value)!r} of <prosody> is not understood; write it like {_EXAMPLES[attribute]}."
    )


def pause_seconds(attributes: Mapping[str, str]) -> float:
    """Return the pause that `<break>` asks for; without attributes one second.

    Raises:
        InvalidText: It is not understood, or out of range.
    """
    if "time" not in attributes:
        strength = attributes.get("strength")
        if strength is None:
            return _DEFAULT_PAUSE
        if strength not in _STRENGTHS:
            raise InvalidText(
                f"strength={shortened(strength)!r} of <break> is unknown; choose one of {', '.join(_STRENGTHS)}."
            )
        return _STRENGTHS[strength]
    time = attributes["time"].strip().lower()
    match = _NUMBER.fullmatch(time)
    if match is not None and match[3] in {"s", "ms"} and match[1] != "-":
        seconds = float(match[2]) / (1000 if match[3] == "ms" else 1)
        if _SHORTEST_PAUSE <= seconds <= LONGEST_PAUSE:
            return seconds
    raise InvalidText(
        f"time={shortened(time)!r} of <break> is no time of its range; it goes from {_SHORTEST_PAUSE * 1000:g}ms to "
        f"{LONGEST_PAUSE:g}s."
    )


def check_attributes(name: str, attributes: Mapping[str, str], *known: str, required: bool = False) -> None:
    """Check which attributes an element has.

    Raises:
        InvalidText: It has one that is not known, or lacks one where they are required.
    """
    unknown = next((each for each in attributes if each not in known), None)
    if unknown is not None:
        raise InvalidText(f"{shortened(unknown)} of <{name}> is not supported here; supported are {', '.join(known)}.")
    missing = next((each for each in known if required and not attributes.get(each, "").strip()), None)
    if missing is not None:
        raise InvalidText(f"<{name}> lacks {missing}; add it.")


def shortened(text: str) -> str:
    """Return the beginning of what a document says, for an error."""
    return text if len(text) <= 20 else f"{text[:20]}..."


def _language_code(value: str) -> str:
    """Return the ISO 639 code in `xml:lang`: "en" of "en-US"."""
    match = _LANGUAGE.fullmatch(value.strip().lower())
    if match is None:
        raise InvalidText(f"xml:lang={shortened(value)!r} is no language; write it like 'en' or 'en-US'.")
    return match[1]
