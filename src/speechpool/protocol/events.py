"""What a server tells, in one vocabulary for all protocols."""

from __future__ import annotations

import msgspec

__all__ = [
    "Audio",
    "Event",
    "Failed",
    "Finished",
    "Phoneme",
    "PronouncedWord",
    "SentenceBegin",
    "SentenceEnd",
    "Started",
    "Word",
]


class Word(msgspec.Struct, frozen=True, gc=False):
    """When one word is heard.

    Attributes:
        text: The word.
        begin_index: Position of its first character in the sentence, from 0.
        end_index: Position after its last character; 0 where the server tells no positions (Sambert).
        begin_time: Milliseconds from the start of the task's audio.
        end_time: The same, of its end.
    """

    text: str = ""
    begin_index: int = 0
    end_index: int = 0
    begin_time: float = 0
    end_time: float = 0

    def later(self, by: float) -> Word:
        """Return the same word, `by` milliseconds later."""
        return msgspec.structs.replace(self, begin_time=self.begin_time + by, end_time=self.end_time + by)


class Phoneme(msgspec.Struct, frozen=True, gc=False):
    """When one sound of a word is heard.

    Attributes:
        text: The sound, in the provider's notation.
        tone: Its tone, where the language has tones.
        begin_time: Milliseconds from the start of the task's audio.
        end_time: The same, of its end.
    """

    text: str = ""
    tone: int | None = None
    begin_time: float = 0
    end_time: float = 0


class PronouncedWord(Word, frozen=True, gc=False):
    """A word whose sounds the server told, too: Sambert's `phoneme_timestamp_enabled`."""

    phonemes: tuple[Phoneme, ...] = ()

    def later(self, by: float) -> PronouncedWord:
        """Return the same word and its sounds, `by` milliseconds later."""
        phonemes = tuple(
            msgspec.structs.replace(each, begin_time=each.begin_time + by, end_time=each.end_time + by)
            for each in self.phonemes
        )
        return msgspec.structs.replace(
            self, begin_time=self.begin_time + by, end_time=self.end_time + by, phonemes=phonemes
        )


class Started(msgspec.Struct, frozen=True, gc=False):
    """The server accepted the segment; `server_request_id` is its own name for it, where it gave one."""

    server_request_id: str | None = None


class SentenceBegin(msgspec.Struct, frozen=True, gc=False):
    """The audio of sentence `index` begins; `text` is its text, where the server tells it."""

    index: int
    text: str | None = None


class Audio(msgspec.Struct, frozen=True, gc=False):
    """The next bytes of the stream. Containers have their header in the first one only: concatenate, then decode."""

    data: bytes


class SentenceEnd(msgspec.Struct, frozen=True):
    """All audio of sentence `index` was sent.

    Attributes:
        words: Word times, where they were asked for.
        characters: Characters billed for the task so far, where the server tells it.
        begin_time: Milliseconds from the start of the task's audio, where the server tells it.
        end_time: The same, of the sentence's end.
    """

    index: int
    text: str | None = None
    words: tuple[Word, ...] = ()
    characters: int | None = None
    begin_time: float | None = None
    end_time: float | None = None


class Finished(msgspec.Struct, frozen=True):
    """The task is complete.

    Attributes:
        characters: Characters billed for the task, where the server tells it.
        words: Word times that came only with the end.
        server_request_id: The server's own name for the task, where it gave one.
    """

    characters: int | None = None
    words: tuple[Word, ...] = ()
    server_request_id: str | None = None


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The server gave the segment up. The connection is of no further use.

    Attributes:
        code: The provider's error code.
        message: The provider's words.
        retryable: The same request may succeed on a fresh connection.
    """

    code: str
    message: str
    retryable: bool


Event = Started | SentenceBegin | Audio | SentenceEnd | Finished | Failed
"""Everything that `Segment.feed` can answer."""
