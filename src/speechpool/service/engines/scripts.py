"""From letters to scripts, and from scripts to languages: who can read which part of a text.

A script decides the language unless a hint names another language of that script: Han is Chinese, Cyrillic Russian,
Latin English. An engine can so refuse what it cannot speak instead of leaving it out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from types import MappingProxyType
from typing import Final

__all__ = ["LANGUAGES", "Run", "foreign_script", "language_runs", "unread_script"]

LANGUAGES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({
    "Han": ("zh", "yue"),
    "Kana": ("ja",),
    "Hangul": ("ko",),
    "Cyrillic": ("ru", "uk", "bg", "mk", "sr", "kk", "ky", "tt", "ba", "cv"),
    "Arabic": ("ar", "fa", "ur"),
    "Hebrew": ("he",),
    "Greek": ("el",),
    "Thai": ("th",),
    "Devanagari": ("hi", "mr", "ne"),
    "Bengali": ("bn",),
    "Gurmukhi": ("pa",),
    "Gujarati": ("gu",),
    "Oriya": ("or",),
    "Tamil": ("ta",),
    "Telugu": ("te",),
    "Kannada": ("kn",),
    "Malayalam": ("ml",),
    "Sinhala": ("si",),
    "Ethiopic": ("am",),
    "Georgian": ("ka",),
    "Armenian": ("hy",),
})  # fmt: skip
"""The languages (ISO 639) of every script but Latin; the first is meant where nothing else is said. Only those that
espeak-ng really reads: others it spells, or leaves letters out."""

_LATIN: Final = "Latin"
_KANJI: Final = "Kanji"  # Han among kana: it has Japanese readings, which take a dictionary that no engine has
_ENGLISH: Final = "en"
_SPELLERS: Final = frozenset({"ja", "ky", "ba", "cv"})  # read Latin words letter by letter
_SCRIPTS: Final = MappingProxyType({language: script for script, many in LANGUAGES.items() for language in many})
_WIDTHS: Final = ("FULLWIDTH ", "HALFWIDTH ")
_READ_AS_WORDS: Final = ("MICRO ", "OHM ", "KELVIN ", "ANGSTROM ", "FEMININE ", "MASCULINE ")


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a text in one language.

    Attributes:
        begin: Of its first character.
        end: Behind its last one.
        language: ISO 639 code; None: no engine reads its script.
    """

    begin: int
    end: int
    language: str | None


def foreign_script(text: str) -> str | None:
    """Return the script of the first letter of `text` that is not Latin ("Han", "Cyrillic", ...), or None."""
    if text.isascii():
        return None
    return next((script for letter in text if (script := _script(letter)) not in {None, _LATIN}), None)


def unread_script(text: str) -> str | None:
    """Return the first script of `text` that no engine reads whatever is installed, or None.

    "Kanji" is Han in a text with kana.
    """
    return next((script for _, script in _letters(text) if script != _LATIN and script not in LANGUAGES), None)


def language_runs(text: str, hint: str | None = None) -> list[Run]:
    """Cut `text` where its language changes. Nothing is left out: what is no letter belongs to the letters before it.

    Latin words among others are left with them, to be read as English there ("我用 Python"), unless the hint names
    their language, or the others' language would spell them.

    Args:
        text: Any text.
        hint: ISO 639 code of its language, perhaps with a region; for letters of a script that it is not written in
            it says nothing.
    """
    hint = hint and hint.lower().replace("_", "-").split("-")[0]
    languages = [(at, _language(script, hint)) for at, script in _letters(text)]
    if all(language == _ENGLISH for _, language in languages):
        return [Run(0, len(text), _ENGLISH if languages else hint or _ENGLISH)]
    apart = any(language in _SPELLERS for _, language in languages)
    foreign = [each for each in languages if apart or each[1] != _ENGLISH]
    starts = [(next(group)[0], language) for language, group in groupby(foreign, key=lambda each: each[1])]
    borders = [0, *(at for at, _ in starts[1:]), len(text)]
    return [Run(borders[index], borders[index + 1], language) for index, (_, language) in enumerate(starts)]


def _language(script: str, hint: str | None) -> str | None:
    if script == _LATIN:
        return hint if hint and hint not in _SCRIPTS else _ENGLISH
    if hint and _SCRIPTS.get(hint) == script:
        return hint
    return LANGUAGES.get(script, (None,))[0]


def _letters(text: str) -> Iterator[tuple[int, str]]:
    """Yield where each letter stands and its script."""
    found = [(at, script) for at, letter in enumerate(text) if (script := _script(letter))]
    japanese = any(script in {"Hiragana", "Katakana"} for _, script in found)
    for at, script in found:
        match script:
            case "Hiragana" | "Katakana":
                yield at, "Kana"
            case "Han" if japanese:
                yield at, _KANJI
            case _:
                yield at, script


@lru_cache(maxsize=4096)
def _script(letter: str) -> str | None:
    # Marks and modifier letters belong to the letter they stand on; signs such as the micro sign are read as words.
    if unicodedata.category(letter) not in {"Lu", "Ll", "Lt", "Lo"}:
        return None
    name = unicodedata.name(letter, "unknown")
    for width in _WIDTHS:
        name = name.removeprefix(width)
    if name.startswith(_READ_AS_WORDS):
        return None
    first = name.split(" ")[0].split("-")[0]
    return "Han" if first == "CJK" else first.capitalize()
