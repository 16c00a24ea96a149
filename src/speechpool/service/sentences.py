"""Cuts a stream of text into what is spoken at a time.

A sentence is released when it is certainly complete:

- inside the text, when a whole word of the next sentence is there;
- at the end of what has come so far, when it ends with a full stop, an exclamation or a question mark. A full stop
  after an abbreviation ("Dr.") or a digit ("3." may become "3.14"), an ellipsis, a colon, a semicolon or a line break
  leave it `undecided`: the caller waits a moment, then flushes.

Runs without an end are cut after 40 words or 400 characters: at clause punctuation, else between words, else anywhere.
Where it is cut depends on the text before the cut only. Nothing visible is ever lost: the pieces joined are the text
without its control characters and half surrogates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import sentencex  # type: ignore[import-untyped]  # it ships no types

from speechpool.text import ends_sentence

__all__ = ["MAX_CHARACTERS", "MAX_WORDS", "Sentences", "is_speakable"]

MAX_WORDS: Final = 40
"""Words of one piece at most: more would delay its first audio."""
MAX_CHARACTERS: Final = 400
"""Characters of one piece at most, for text without spaces."""

_UNSPEAKABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_CLOSERS: Final = "[\"'\u2019\u201d)\\]\u300d\u300f\uff09]*"
_CERTAIN: Final = re.compile(f"[!?\u3002\uff01\uff1f]{_CLOSERS}\\s*$")
_FULL_STOP: Final = re.compile(f"(?<!\\.)\\.{_CLOSERS}\\s*$")
_NUMBER: Final = re.compile(r"\d\.$")
_CLAUSE: Final = re.compile(f"[,;:\u2014]{_CLOSERS}\\s+|[\uff0c\u3001\uff1b\uff1a]{_CLOSERS}\\s*")
_SPACE: Final = re.compile(r"\s+")
_WORD: Final = re.compile(r"\S+")
_PROBE: Final = " xylo"  # cut off from what is before it, unless that may be an abbreviation


def is_speakable(text: str) -> bool:
    """Whether `text` holds a letter or a digit: punctuation and emoji alone say nothing."""
    return any(map(str.isalnum, text))


class Sentences:
    """Takes text in pieces of any size, gives sentences with the space around them.

    Args:
        language: ISO code for the list of abbreviations.
    """

    __slots__ = ("_language", "_tail")

    def __init__(self, language: str = "en") -> None:
        self._language = language
        self._tail = ""

    @property
    def undecided(self) -> bool:
        """Whether the tail may be a whole sentence, but more text could still belong to it."""
        return bool(self._tail) and ends_sentence(self._tail)

    def feed(self, text: str) -> list[str]:
        """Take the next text, and return the sentences that are complete with it."""
        self._tail += _UNSPEAKABLE.sub("", text)
        *whole, last = self._segments(self._tail) or [""]
        if whole and not self._is_begun(last):
            # "U.S. A" may become "U.S. Army": what follows a full stop decides, and it is not all there.
            last = whole.pop() + last
        pieces = [piece for sentence in whole for piece in _split(sentence)]
        *begun, self._tail = _split(last) or [""]
        pieces += begun
        if self._is_complete(self._tail):
            pieces.append(self._tail)
            self._tail = ""
        return pieces

    def flush(self) -> list[str]:
        """Return what is left, complete or not."""
        tail, self._tail = self._tail, ""
        return [piece for sentence in self._segments(tail) for piece in _split(sentence)]

    def _segments(self, text: str) -> list[str]:
        """Cut at the ends of sentences; space alone stays with what is before it."""
        sentences: list[str] = []
        for each in sentencex.segment(self._language, text) if text else ():
            if sentences and (each.isspace() or sentences[-1].isspace()):
                sentences[-1] += each
            else:
                sentences.append(each)
        return sentences

    def _is_begun(self, sentence: str) -> bool:
        return _SPACE.search(sentence.lstrip()) is not None or self._is_complete(sentence)

    def _is_complete(self, tail: str) -> bool:
        if not is_speakable(tail):
            return False
        if _CERTAIN.search(tail):
            return True
        if not _FULL_STOP.search(tail) or _NUMBER.search(tail):
            return False
        return len(list(sentencex.segment(self._language, tail.rstrip() + _PROBE))) > 1


def _split(sentence: str) -> list[str]:
    pieces = list(_heads(sentence))
    if len(pieces) > 1 and not pieces[-1].strip():
        last = pieces.pop()
        pieces[-1] += last
    return pieces


def _heads(sentence: str) -> Iterator[str]:
    while (at := _overlong(sentence)) is not None:
        yield sentence[:at]
        sentence = sentence[at:]
    if sentence:
        yield sentence


def _overlong(sentence: str) -> int | None:
    """Where to cut a run that is too long, or None. Looks at nothing behind the limit."""
    words = [match.start() for match in _WORD.finditer(sentence[:MAX_CHARACTERS])]
    if len(words) > MAX_WORDS:
        limit = words[MAX_WORDS]
    elif len(sentence) > MAX_CHARACTERS:
        limit = MAX_CHARACTERS
    else:
        return None
    for border in (_CLAUSE, _SPACE):
        ends = [match.end() for match in border.finditer(sentence, 0, limit) if match.end() > limit // 2]
        if ends:
            return ends[-1]
    return limit
