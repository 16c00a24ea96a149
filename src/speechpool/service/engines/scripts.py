"""Which script a text is written in, so that an engine can refuse what it cannot speak instead of leaving it out."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

__all__ = ["foreign_script"]


def foreign_script(text: str) -> str | None:
    """Return the script of the first letter of `text` that is not Latin ("Han", "Cyrillic", ...), or None."""
    if text.isascii():
        return None
    return next((script for letter in text if not letter.isascii() and (script := _script(letter))), None)


@lru_cache(maxsize=4096)
def _script(letter: str) -> str | None:
    # Marks and modifier letters belong to the letter they stand on; signs such as the micro sign are read as words.
    if unicodedata.category(letter) not in {"Lu", "Ll", "Lt", "Lo"}:
        return None
    name = unicodedata.name(letter, "")
    if name.startswith(
        ("LATIN ", "FULLWIDTH LATIN ", "MICRO ", "OHM ", "KELVIN ", "ANGSTROM ", "FEMININE ", "MASCULINE ")
    ):
        return None
    first = name.split(" ")[0].split("-")[0] if name else "unknown"
    return "Han" if first == "CJK" else first.capitalize()
