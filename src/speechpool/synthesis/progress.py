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

    __slots__ = ("_owed_since", "_quiet_since", "_seen", "events", "finishing", "in_sentence", "started")

    def __init__(self, now: float) -> None:
        self._quiet_since = now
        self._seen = 0
        self._owed_since: int | None = None
        self.events = 0
        """Events that came; together with the bytes of audio they tell whether anything moved."""
        self.started = False
        """The server has accepted the segment."""
        self.in_sentence = False
        """A sentence has begun and not ended."""
        self.finishing = False
        """The text is complete, and the server owes the rest until the end."""

    def begin(self, now: float) -> None:
        """A segment begins."""
        self.started = self.in_sentence = False
        self._quiet_since = now

    def accept(self, now: float) -> None:
        """The server accepted the segment."""
        self.started = True
        self._quiet_since = now

    def owe(self, now: float, audio_bytes: int) -> None:
        """Something was sent that makes the server owe audio. A silence that is counted already goes on."""
        if self._owed_since is None and not self.in_sentence:
            self._quiet_since = now
        self._owed_since = audio_bytes + self.events

    def enter_sentence(self) -> None:
        """A sentence begins."""
        self.in_sentence, self._owed_since = True, None

    def overdue(
        self, now: float, audio_bytes: int, deadlines: Deadlines, *, paused: bool
    ) -> tuple[Phase, float] | None:
        """Return the deadline that has passed, and its limit, if one has."""
        if not self.started:
            return self._passed("start", deadlines.start, now)
        moved = audio_bytes + self.events
        if moved != self._seen:
            self._seen, self._quiet_since = moved, now
            if self._owed_since is not None and audio_bytes and moved > self._owed_since:
                self._owed_since = None
        if paused or not (self._owed_since is not None or self.in_sentence or self.finishing):
            self._quiet_since = now
            return None
        if audio_bytes:
            return self._passed("gap", deadlines.gap, now)
        return self._passed("first_audio", deadlines.first_audio, now)

    def _passed(self, phase: Phase, limit: float | None, now: float) -> tuple[Phase, float] | None:
        return (phase, limit) if limit is not None and now - self._quiet_since >= limit else None
