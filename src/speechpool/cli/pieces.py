"""A long text in pieces that one send can carry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from speechpool.errors import InvalidText
from speechpool.text import MAX_SEND, MAX_TASK, count_characters

__all__ = ["pieces"]

_CLOSING: Final = "[\"'\u2019\u201d)\\]\u300d\u300f\uff09]*"
_SENTENCE_END: Final = re.compile(f"[.!?\u2026]{_CLOSING}\\s+|[\u3002\uff01\uff1f]{_CLOSING}\\s*|\\n\\s*")
_WORD_END: Final = re.compile(r"\s+")


def pieces(text: str, limit: int = MAX_SEND) -> Iterator[str]:
    """Yield `text` in pieces of at most `limit` characters, by the provider's counting.

    A piece ends after a sentence; where none ends in its second half, after a word; where none does either, anywhere.
    Blank pieces are left out: there is nothing to speak.

    Raises:
        InvalidText: The text is blank, or longer than one task may be.
    """
    characters = count_characters(text)
    if not text or text.isspace():
        raise InvalidText("the text is empty; give some words to speak.")
    if characters > MAX_TASK:
        raise InvalidText(
            f"the text has {characters:,} characters (a Han character counts 2), the limit of one task is "
            f"{MAX_TASK:,}; cut it into several."
        )
    while count_characters(text) > limit:
        cut = _cut(text, limit)
        piece, text = text[:cut], text[cut:]
        if not piece.isspace():
            yield piece
    if text and not text.isspace():
        yield text


def _cut(text: str, limit: int) -> int:
    longest = _longest(text, limit)
    for border in (_SENTENCE_END, _WORD_END):
        ends = [match.end() for match in border.finditer(text, longest // 2, longest)]
        if ends:
            return ends[-1]
    return longest


def _longest(text: str, limit: int) -> int:
    """Return how much of `text` has at most `limit` characters."""
    if text.isascii():
        return limit
    head = text[:limit]
    return max(1, sum(total <= limit for total in accumulate(map(count_characters, head))))
