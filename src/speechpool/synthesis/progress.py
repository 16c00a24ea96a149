"""Does the server owe something, and since when has it been silent?

`first_audio` and `gap` run only while it owes audio: after a text that ends a sentence, a flush or the finish, and
between the begin and the end of a sentence. A caller that thinks for long, or does not read, makes no server late. A
frame costs nothing here: the ticker compares the task's count of bytes with the one it saw before.
"""

from __future__ import annotations

from typing import Literal

from speechpool.settings import Deadlines

__all__ = ["Phase", "Progress"]

Phase = Literal["start", "first_audio", "gap", "total"]


class Progress:
    """The clock of one task's running segment."""

    __slots__ = (
        "_before",
        "_mark",
        "_owed",
        "_quiet_since",
        "_seen",
        "_spoken",
        "_tells",
        "events",
        "finishing",
        "in_sentence",
        "sentences",
        "started",
        "text_at",
    )

    def __init__(self, now: float) -> None:
        self._quiet_since = now
        self._seen = self._mark = self._before = 0
        self._owed = self._spoken = 0
        self._tells = False
        self.events = 0
        """Events that came; together with the bytes of audio they tell whether anything moved."""
        self.started = False
        """The server has accepted the segment."""
        self.in_sentence = False
        """A sentence has begun and not ended."""
        self.sentences = 0
        """How many have begun."""
        self.finishing = False
        """The text is complete, and the server owes the rest until the end."""
        self.text_at = now
        """When the segment last got a text; its beginning, where it has got none."""

    def begin(self, now: float) -> None:
        """A segment begins; whatever was said is said again."""
        self.started = self.in_sentence = False
        self._spoken = self.sentences = 0
        self._quiet_since = now

    def follow(self, audio_bytes: int, *, owed: int, finishing: bool) -> None:
        """The segment that begins follows `audio_bytes` of others; of its text the first `owed` characters are owed."""
        self.finishing = finishing
        self._owed = owed
        self._before = audio_bytes
        self._mark = audio_bytes + self.events

    def open(self, now: float) -> None:
        """Its first frame leaves only now."""
        self._quiet_since = now

    def accept(self, now: float) -> None:
        """The server accepted the segment."""
        self.started = True
        self._quiet_since = self.text_at = now

    @property
    def _owes(self) -> bool:
        return self.in_sentence or self.finishing or self._spoken < self._owed

    def owe(self, now: float, characters: int, audio_bytes: int) -> None:
        """From now on the server owes the first `characters` of the text. A silence that is counted already goes on."""
        if not self._owes:
            self._quiet_since = now
        self._owed = characters
        self._mark = audio_bytes + self.events

    def heard(self, audio_bytes: int) -> bool:
        """Whether audio of this segment has come, where the task has got `audio_bytes`."""
        return audio_bytes > self._before

    def enter_sentence(self) -> None:
        """A sentence begins."""
        self.in_sentence = self._tells = True
        self.sentences += 1

    def leave_sentence(self, characters: int | None) -> None:
        """A sentence ends; `characters` were spoken so far, or, where the server does not count, all that was owed."""
        self.in_sentence = False
        self._spoken = self._owed if characters is None else characters

    def overdue(
        self, now: float, audio_bytes: int, deadlines: Deadlines, *, paused: bool
    ) -> tuple[Phase, float] | None:
        """Return the deadline that has passed, and its limit, if one has."""
        if not self.started:
            return self._passed("start", deadlines.start, now)
        moved = audio_bytes + self.events
        if moved != self._seen:
            self._seen, self._quiet_since = moved, now
            if not self._tells and self.heard(audio_bytes) and moved > self._mark:
                self._spoken = self._owed  # a server that tells no sentences: audio is all that can be expected
        if paused or not self._owes:
            self._quiet_since = now
            return None
        if self.heard(audio_bytes):
            return self._passed("gap", deadlines.gap, now)
        return self._passed("first_audio", deadlines.first_audio, now)

    def _passed(self, phase: Phase, limit: float | None, now: float) -> tuple[Phase, float] | None:
        return (phase, limit) if limit is not None and now - self._quiet_since >= limit else None
