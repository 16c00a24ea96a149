"""From a sentence to hibari's phonemes, and from the durations of phonemes back to the times of its words."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from hibari.g2p import G2P
from hibari.g2p.normalize import normalize

from speechpool.protocol.events import Word

__all__ = ["Phonemizer", "Run", "word_times"]

# Where no space is, the reader's time grows with the cube of the parts: 17 s for 400 characters like "a-b-c-d". Beyond
# 60 letters its network for unknown words breaks, and beyond 36 digits its names of numbers.
_TOO_LONG: Final = re.compile(r"\S{37,}|\d{25,}")
_SHORT_ENOUGH: Final = re.compile(r"\S{8,23}[^\w\s]|[^\W\d_]{24,60}|\S{1,24}")
_PAD: Final = 0
_LONGEST_RUN: Final = 400  # phonemes the model was made for
_NO_WORD: Final = -1


@dataclass(frozen=True, slots=True)
class Run:
    """Phonemes that the model speaks at once.

    Attributes:
        ids: The model's numbers, with a pad at both ends.
        owners: For each of them the word it belongs to, or -1.
        words: The words as they are read, e.g. "twenty" and "five" for "25".
    """

    ids: list[int]
    owners: list[int]
    words: list[str]


class Phonemizer:
    """Reads English text.

    Args:
        vocabulary: The model's number for each phoneme.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._vocabulary = vocabulary
        self._read = G2P(british=False)
        # Its network for unknown words is made at the first of them; and two readers at once would only share the GIL.
        self._lock = threading.Lock()

    def runs(self, text: str) -> list[Run]:
        """Return the phonemes of one sentence: one run, unless it is very long; none, if nothing in it can be read."""
        with self._lock:
            tokens = self._read.phonemize_tokens(self._read.tokenize(_TOO_LONG.sub(_in_pieces, normalize(text))))
        return [self._run(part) for part in _parts(list(_read_words(tokens)))]

    def _run(self, words: Sequence[tuple[str, str]]) -> Run:
        ids, owners = [_PAD], [_NO_WORD]
        for index, (_, phonemes) in enumerate(words):
            for symbol in f" {phonemes}" if index else phonemes:
                if symbol in self._vocabulary:
                    ids.append(self._vocabulary[symbol])
                    owners.append(index if symbol.isalpha() else _NO_WORD)
        return Run([*ids, _PAD], [*owners, _NO_WORD], [word for word, _ in words])


def _in_pieces(run: re.Match[str]) -> str:
    return " ".join(_SHORT_ENOUGH.findall(run.group()))


def _read_words(tokens: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Join the tokens that stand without space between them, and leave out what has no sound."""
    word = phonemes = ""
    for token in tokens:
        word += token.text
        phonemes += token.phonemes or ""
        if token.whitespace:
            if phonemes:
                yield word, phonemes
            word = phonemes = ""
    if phonemes:
        yield word, phonemes


def _parts(words: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    part: list[tuple[str, str]] = []
    length = 0
    for word in words:
        length += len(word[1]) + 1
        if part and length > _LONGEST_RUN:
            yield part
            part, length = [], len(word[1]) + 1
        part.append(word)
    if any(symbol.isalpha() for _, phonemes in part for symbol in phonemes):
        yield part


def word_times(text: str, read: Sequence[tuple[str, float, float]]) -> tuple[Word, ...]:
    """Return the words of `text` with their times.

    Words that are read as they are written have the times of their phonemes; where the reading differs ("$5" is "five
    dollars"), the time of the passage is shared out by the number of letters.

    Args:
        text: What was to be spoken.
        read: The words as they were read, with begin and end in milliseconds.
    """
    written = [match for match in re.finditer(r"\S+", text) if any(map(str.isalnum, match.group()))]
    matcher = SequenceMatcher(None, [_key(each.group()) for each in written], [_key(each[0]) for each in read], False)  # noqa: FBT003  # its third argument has had no other form for 20 years
    words: list[Word] = []
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        if kind == "equal":
            words += [
                _word(each, begin, end) for each, (_, begin, end) in zip(written[i:i_end], read[j:j_end], strict=True)
            ]
        elif i < i_end:
            here = words[-1].end_time if words else 0.0
            begin, end = (read[j][1], read[j_end - 1][2]) if j < j_end else (here, here)
            words += _shared_out(written[i:i_end], begin, end)
    return tuple(words)


def _shared_out(written: Sequence[re.Match[str]], begin: float, end: float) -> Iterator[Word]:
    letters = sum(len(each.group()) for each in written)
    passed = 0
    for each in written:
        start = begin + (end - begin) * passed / letters
        passed += len(each.group())
        yield _word(each, start, begin + (end - begin) * passed / letters)


def _word(match: re.Match[str], begin: float, end: float) -> Word:
    return Word(match.group(), match.start(), match.end(), round(begin), round(end))


def _key(word: str) -> str:
    return "".join(filter(str.isalnum, word)).casefold()
