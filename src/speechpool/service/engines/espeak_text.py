"""What espeak-ng is given of a sentence, and what its marks say about the sentence's words."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from speechpool.protocol.events import Word

from .scripts import Run, language_runs

__all__ = ["pieces", "syllables", "with_phonemes", "word_times"]

_CLAUSE: Final = "(?:[,;:.!?\u2014]\\s+|[\uff0c\u3001\uff1b\uff1a\u3002\uff01\uff1f]\\s*)"
_PIECE: Final = re.compile(f".{{1,100}}\\Z|.{{30,100}}{_CLAUSE}|.{{1,300}}\\Z|.{{1,300}}\\s|.{{1,100}}", re.DOTALL)
_EACH_A_WORD: Final = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_TOKEN: Final = re.compile(f"[{_EACH_A_WORD}]|[^\\s{_EACH_A_WORD}]+")
_SYLLABLE: Final = re.compile("[a-z]+[1-5]")


def pieces(text: str, hint: str | None) -> Iterator[Run]:
    """Cut a text where its language changes, and what is longer than 100 characters at the ends of clauses.

    What has no such ends is cut between words after 300 characters, and a word after 100 letters.
    """
    for run in language_runs(text, hint):
        for match in _PIECE.finditer(text, run.begin, run.end):
            yield Run(match.start(), match.end(), run.language)


def syllables(pinyin: str) -> list[str]:
    """Return the syllables of "chong2 qing4"; none, if it is no pinyin with a tone for each syllable."""
    plain = re.sub("[\\s']+", "", pinyin.lower()).replace("u:", "v").replace("ü", "v")
    found = _SYLLABLE.findall(plain)
    return found if "".join(found) == plain else []


def with_phonemes(text: str, phonemes: Mapping[str, str]) -> tuple[str, Sequence[int]]:
    """Put phonemes in place of words, longer words first.

    Returns:
        The new text, in which only phonemes stand in `[[...]]`; and where each of its characters comes from.
    """
    if not phonemes:
        return text, range(len(text))
    words = re.compile("|".join(re.escape(word) for word in sorted(phonemes, key=len, reverse=True)))
    parts: list[str] = []
    places: list[int] = []
    at = 0
    for match in words.finditer(text):
        parts += [text[at : match.start()].replace("[", " "), f"[[{phonemes[match.group()]}]]"]
        places += [*range(at, match.start()), *[match.start()] * len(parts[-1])]
        at = match.end()
    return "".join([*parts, text[at:].replace("[", " ")]), [*places, *range(at, len(text))]


def word_times(text: str, marks: Sequence[tuple[int, float]]) -> tuple[Word, ...]:
    """Return the words of `text`; those of Chinese and Japanese are its characters.

    Between two marks the time is shared out by the number of characters.

    Args:
        text: What was spoken.
        marks: Places in it, in any order, and the milliseconds when each is reached.
    """
    reached: dict[int, float] = {0: 0.0}
    latest = 0.0
    for place, time in sorted(marks):
        latest = max(latest, time)
        reached.setdefault(place, latest)
    places, times = list(reached), list(reached.values())

    def when(place: int) -> int:
        after = bisect_right(places, place)
        if after == len(places):
            return round(times[-1])
        begin, end = places[after - 1], places[after]
        return round(times[after - 1] + (times[after] - times[after - 1]) * (place - begin) / (end - begin))

    tokens = [match for match in _TOKEN.finditer(text) if any(map(str.isalnum, match.group()))]
    return tuple(Word(each.group(), each.start(), each.end(), when(each.start()), when(each.end())) for each in tokens)
