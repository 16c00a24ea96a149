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
        wait: For a connection, from there on.
        held: For how long it had that connection.
        first_packet: From the planned moment to the first audio: a stall of the server delays everybody behind it.
        first_packet_sent: From the moment at which it began.
        first_audible: From the planned moment to the first sample that can be heard.
        end_to_end: From the planned moment to its end.
        audio_seconds: Length of its audio.
        longest_gap: Between two pieces of audio.
        underrun: For how long a player that begins with the first piece would have been silent.
        outcome: `completed`, `failed`, `cancelled` or `shed`.
        error: Code or class of its error.
        reused: It ran on a connection that was open before.
        foreign: It brought what belongs to another task.
        characters: Characters of its text.
    """

    stage: int
    target: str
    planned: float
    late: float = 0.0
    wait: float | None = None
    held: float | None = None
    first_packet: float | None = None
    first_packet_sent: float | None = None
    first_audible: float | None = None
    end_to_end: float | None = None
    audio_seconds: float = 0.0
    longest_gap: float = 0.0
    underrun: float = 0.0
    outcome: str = "failed"
    error: str | None = None
    reused: bool = False
    foreign: bool = False
    characters: int = 0


class Listener:
    """The sink of one task of PCM: writes down when what came."""

    __slots__ = ("_heard", "_last", "_rate", "_record", "_start", "_text")

    def __init__(self, record: Record, start: float, text: str, rate: int) -> None:
        self._record, self._start, self._text, self._rate = record, start, text, rate
        self._heard: float | None = None  # when the first piece came
        self._last = 0.0

    def __call__(self, event: Any) -> None:
        """Take one event of the task."""
        if isinstance(event, bytes):
            self._audio(event, time.monotonic())
        elif isinstance(event, SentenceBegin) and event.text is not None:
            self._record.foreign |= event.text.strip() not in self._text

    def _audio(self, data: bytes, now: float) -> None:
        record = self._record
        if self._heard is None:
            self._heard = now
            record.first_packet = now - self._start - record.planned
            record.first_packet_sent = record.first_packet - record.late
        else:
            record.longest_gap = max(record.longest_gap, now - self._last)
            behind = now - self._heard - record.underrun - record.audio_seconds
            record.underrun += max(0.0, behind)
        if record.first_audible is None and _audible(data):
            record.first_audible = now - self._start - record.planned
        self._last = now
        record.audio_seconds += pcm_seconds(len(data), self._rate)


def _audible(data: bytes) -> bool:
    samples = array("h", data[: len(data) & ~1])
    return bool(samples) and (max(samples) > AUDIBLE or min(samples) < -AUDIBLE)
