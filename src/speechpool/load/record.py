"""What one task was like for somebody who listens."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass
from typing import Any, Final

from speechpool.audio import pcm_seconds
from speechpool.protocol import SentenceBegin

__all__ = ["Listener", "Record"]

AUDIBLE: Final = 300
"""Of 32,768: what is louder can be heard."""


@dataclass(slots=True, kw_only=True)
class Record:
    """One task. Seconds; None where the moment did not come.

    Attributes:
        stage: Number of its stage.
        target: What it ran against.
        planned: When it should have begun, from the start of the run.
        late: How much later it did.
        first_packet: From the planned moment to the first audio: a stall of the server delays everybody behind it.
        first_packet_sent: From the moment at which it began.
        first_audible: From the planned moment to the first sample that can be heard.
        end_to_end: From the planned moment to its end.
        audio_seconds: Length of its audio.
        connection: Of `first_packet_sent`, waiting for a connection; None, as the next two, where nobody tells.
        start: Waiting for the server to accept the task.
        synthesis: From there to the first audio.
        longest_gap: Between two pieces of audio; None, as the next, for a listener that takes audio slowly itself.
        underrun: For how long a player that begins with the first piece would have been silent.
        outcome: `completed`, `failed`, `cancelled` or `shed`.
        error: Code or class of its error.
        reused: It ran on a connection that was open before; None where the target does not tell.
        foreign: It brought what belongs to another task.
        characters: Characters of its text.
    """

    stage: int
    target: str
    planned: float
    late: float = 0.0
    first_packet: float | None = None
    first_packet_sent: float | None = None
    first_audible: float | None = None
    end_to_end: float | None = None
    audio_seconds: float = 0.0
    connection: float | None = None
    start: float | None = None
    synthesis: float | None = None
    longest_gap: float | None = 0.0
    underrun: float | None = 0.0
    outcome: str = "failed"
    error: str | None = None
    reused: bool | None = None
    foreign: bool = False
    characters: int = 0


class Listener:
    """The sink of one task of PCM: writes down when what came.

    Args:
        record: Where to.
        start: When the run began, by `time.monotonic()`.
        text: What should be spoken.
        rate: Samples a second.
        slow: It takes audio slowly itself, so that gaps say nothing of the server.
    """

    __slots__ = ("_heard", "_last", "_rate", "_record", "_slow", "_start", "_text")

    def __init__(self, record: Record, start: float, text: str, rate: int, *, slow: bool = False) -> None:
        self._record, self._start, self._text, self._rate, self._slow = record, start, text, rate, slow
        if slow:
            record.longest_gap = record.underrun = None
        self._heard: float | None = None  # when the first piece came
        self._last = 0.0

    def __call__(self, event: Any) -> None:
        """Take one event of the task."""
        if isinstance(event, bytes):
            self._audio(event, time.monotonic())
        elif isinstance(event, SentenceBegin) and event.text is not None:
            self._record.foreign |= event.text.strip() not in self._text

    def ahead(self) -> float:
        """Return the seconds of audio that a player which began with the first piece has not played yet."""
        if self._heard is None:
            return 0.0
        return max(0.0, self._heard + self._record.audio_seconds - time.monotonic())

    def _audio(self, data: bytes, now: float) -> None:
        record = self._record
        if self._heard is None:
            self._heard = now
            record.first_packet = now - self._start - record.planned
            record.first_packet_sent = record.first_packet - record.late
        elif not self._slow:
            record.longest_gap = max(record.longest_gap or 0.0, now - self._last)
            silent = record.underrun or 0.0
            record.underrun = silent + max(0.0, now - self._heard - silent - record.audio_seconds)
        if record.first_audible is None and _audible(data):
            record.first_audible = now - self._start - record.planned
        self._last = now
        record.audio_seconds += pcm_seconds(len(data), self._rate)


def _audible(data: bytes) -> bool:
    samples = array("h", data[: len(data) & ~1])[::8]  # speech has no sound that is loud for less
    return bool(samples) and (max(samples) > AUDIBLE or min(samples) < -AUDIBLE)
