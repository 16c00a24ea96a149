"""How the text of `<say-as>` is read.

Source: DashScope's SSML reference for CosyVoice names the kinds. What an engine reads well by itself (dates, times,
money, measures, names) is left to it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["KINDS", "say_as"]

_GROUP: Final = re.compile(r"[^\W_]+")
_LONG_NUMBER: Final = re.compile(r"-?[0-9]{4,}")


def say_as(kind: str, text: str, *, english: bool) -> str:
    """Return what is spoken for `text`.

    Args:
        kind: One of `KINDS`.
        text: What is written, without space around it.
        english: Whether the text around it is English.
    """
    if kind == "cardinal":
        # Four digits alone are a year to an English reader; a comma makes them a number.
        return f"{int(text):,}" if english and _LONG_NUMBER.fullmatch(text) else text
    read = _READ[kind]
    return text if read is None else read(text) or text


def _digits(text: str) -> str:
    return " ".join(letter for letter in text if letter.isalnum())


def _telephone(text: str) -> str:
    return ", ".join(" ".join(group) for group in _GROUP.findall(text))


def _characters(text: str) -> str:
    # Commas, because "A B" is read as an article and a letter.
    return ", ".join(_named(text))


def _named(text: str) -> Iterator[str]:
    for letter in text:
        if letter.isalnum():
            yield letter.upper() if letter.isascii() else letter
        elif not letter.isspace():
            yield _name(letter)


def _punctuation(text: str) -> str:
    named = (letter if letter.isalnum() or letter.isspace() else f" {_name(letter)} " for letter in text)
    return " ".join("".join(named).split())


def _name(sign: str) -> str:
    return unicodedata.name(sign, sign).lower().replace("-", " ")


_READ: Final[dict[str, Callable[[str], str] | None]] = {
    "digits": _digits,
    "telephone": _telephone,
    "id": _characters,
    "characters": _characters,
    "punctuation": _punctuation,
    "name": None,
    "address": None,
    "date": None,
    "time": None,
    "currency": None,
    "measure": None,
}

KINDS: Final = ("cardinal", *_READ)
"""The values of `interpret-as` that are understood."""
