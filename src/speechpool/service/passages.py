"""What a task says, in the manner in which it is to be said."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .sentences import Sentences

__all__ = ["Passage", "Reading", "sentences_of"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A part of a text that is read otherwise than it is written.

    Attributes:
        begin: Position of its first character in the text.
        end: Position after its last character.
        spoken: What is said in its place.
    """

    begin: int
    end: int
    spoken: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Text in one manner, and the silence after it. Plain text is a passage without a manner of its own.

    Attributes:
        text: What is spoken; empty: only the silence.
        pause: Seconds of silence after the text. Paced engines leave it out.
        rate: Factor on the task's rate.
        pitch: Factor on the task's pitch.
        volume: Factor on the task's volume.
        language: ISO 639-1 code of the text, where the text says so; None: the task's language hint decides.
        readings: Parts of the text that are read otherwise, in order. A player gets the text as it is spoken, and none.
        pronunciations: Pairs of a word of the text and how it is read, in pinyin with tone numbers; before the task's.
    """

    text: str = ""
    pause: float = 0.0
    rate: float = 1.0
    pitch: float = 1.0
    volume: float = 1.0
    language: str | None = None
    readings: tuple[Reading, ...] = ()
    pronunciations: tuple[tuple[str, str], ...] = ()

    def part(self, begin: int, end: int, readings: Sequence[Reading]) -> Passage:
        """Return the text between two positions, without the space around it, in the same manner and without a pause.

        `readings` are those of this passage that lie between the positions.
        """
        text = self.text[begin:end]
        begin += len(text) - len(text.lstrip())
        return replace(
            self,
            text=text.strip(),
            pause=0.0,
            readings=tuple(Reading(each.begin - begin, each.end - begin, each.spoken) for each in readings),
        )


def sentences_of(passage: Passage, language: str) -> Iterator[tuple[str, Passage]]:
    """Cut a passage, which is complete, into its sentences. A reading is never cut.

    Yields:
        Each piece of the text with the space around it, and the sentence in it.
    """
    cutter = Sentences(passage.language or language)
    waiting = deque(passage.readings)
    inside: list[Reading] = []
    begin = end = 0
    for piece in [*cutter.feed(passage.text), *cutter.flush()]:
        end += len(piece)
        while waiting and waiting[0].end <= end:
            inside.append(waiting.popleft())
        if waiting and waiting[0].begin < end:
            continue
        yield passage.text[begin:end], passage.part(begin, end, inside)
        begin, inside = end, []
