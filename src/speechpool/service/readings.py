"""Texts that are read otherwise than they are written: from what was sent to what is spoken, and back."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from speechpool.protocol.events import Word

from .passages import Passage, Reading

__all__ = ["Replacements", "spoken_text", "words_as_written"]


def spoken_text(passage: Passage) -> str:
    """Return what is spoken of a passage."""
    if not passage.readings:
        return passage.text
    parts: list[str] = []
    at = 0
    for each in passage.readings:
        parts += (passage.text[at : each.begin], each.spoken)
        at = each.end
    return "".join((*parts, passage.text[at:]))


def words_as_written(passage: Passage, words: Sequence[Word]) -> tuple[Word, ...]:
    """Return the words that were spoken as words of the passage's text, by their positions in it.

    What is written as one ("1984" that is read "1 9 8 4") is one word, as long as all that was spoken for it.
    """
    if not passage.readings:
        return tuple(words)
    text, written = passage.text, _Positions(passage.readings)
    result: list[Word] = []
    for word in words:
        begin, end = written.of(word.begin_index)[0], written.of(max(word.begin_index, word.end_index - 1))[1]
        begin_time = word.begin_time
        if result and begin < result[-1].end_index:
            earlier = result.pop()
            begin, begin_time = earlier.begin_index, earlier.begin_time
        result.append(Word(text[begin:end], begin, end, begin_time, word.end_time))
    return tuple(result)


class _Positions:
    """Where in the written text a character of the spoken text comes from."""

    __slots__ = ("_begins", "_readings")

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings
        self._begins: list[int] = []
        longer = 0  # by how much the spoken text is longer so far
        for each in readings:
            self._begins.append(each.begin + longer)
            longer += len(each.spoken) - (each.end - each.begin)

    def of(self, position: int) -> tuple[int, int]:
        """Return begin and end: those of a whole reading, or of one character."""
        index = bisect_right(self._begins, position) - 1
        if index < 0:
            return position, position + 1
        reading = self._readings[index]
        behind = position - self._begins[index] - len(reading.spoken)
        if behind < 0:
            return reading.begin, reading.end
        return reading.end + behind, reading.end + behind + 1


class Replacements:
    """Words that a task wants replaced: the longest first, and nothing that was put in is replaced again.

    Args:
        pairs: What is written, and what is spoken in its place. Case counts.
    """

    __slots__ = ("_pattern", "_spoken")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._spoken = dict(pairs)
        longest_first = sorted(self._spoken, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def add(self, text: str, readings: tuple[Reading, ...] = ()) -> tuple[Reading, ...]:
        """Return `readings` and the replacements in the rest of `text`, in order."""
        if self._pattern is None:
            return readings
        found = [
            Reading(match.start(), match.end(), self._spoken[match[0]])
            for match in self._pattern.finditer(text)
            if all(match.end() <= each.begin or each.end <= match.start() for each in readings)
        ]
        return tuple(sorted((*readings, *found), key=lambda each: each.begin))
