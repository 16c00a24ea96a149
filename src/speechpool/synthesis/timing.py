"""The milestones of a task, and what they mean for the first packet delay.

    entered ── queue ──▶ dial begins ── connect ──▶ connection ── start ──▶ task-started ── synthesis ──▶ first audio

The delay counts from the first text; what passed before it is `text_wait` and lies outside. The four parts are cut at
that moment too, so that they always sum to the delay exactly (tests/synthesis/test_timing.py).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TaskReport", "Timing"]


@dataclass(frozen=True, slots=True)
class TaskReport:
    """How one task went. Times in seconds; None where the moment did not come.

    Attributes:
        outcome: `completed`, `failed`, `cancelled` or `shed`; None while it runs.
        request_id: The wire id of the last segment.
        request_ids: Those of all its segments, in order: the replayed ones, and those that were bridged.
        reused: It ran on a connection that was open before it was borrowed.
        first_packet_delay: From the first text to the first audio, the sum of the four parts after it.
        queue: Waiting for a permit and a connection, failed attempts included.
        connect: Waiting for the dial of its own connection; 0 on reuse.
        start: Waiting for the server to accept the task.
        synthesis: From there to the first audio.
        text_wait: From entering to the first text, outside of the delay.
        end_to_end: From the first text to the last byte.
        audio_seconds: Duration of the audio, where the format tells it.
        audio_bytes: Its size.
        characters: Characters of the text, by the provider's counting.
        retries: Attempts after the first.
    """

    outcome: str | None
    request_id: str | None
    request_ids: tuple[str, ...]
    reused: bool
    first_packet_delay: float | None
    queue: float | None
    connect: float | None
    start: float | None
    synthesis: float | None
    text_wait: float
    end_to_end: float | None
    audio_seconds: float | None
    audio_bytes: int
    characters: int
    retries: int


class Timing:
    """Loop times of the milestones; None until they come. A retry overwrites those of the attempt before."""

    __slots__ = ("connect_time", "connected", "ended", "entered", "first_audio", "first_text", "started", "trace_id")

    def __init__(self, entered: float, trace_id: str | None = None) -> None:
        self.entered = entered
        self.trace_id = trace_id
        self.first_text: float | None = None
        self.connected: float | None = None
        self.connect_time = 0.0
        self.started: float | None = None
        self.first_audio: float | None = None
        self.ended: float | None = None

    @property
    def text_wait(self) -> float:
        """Seconds from entering to the first text."""
        return 0.0 if self.first_text is None else self.first_text - self.entered

    @property
    def first_packet_delay(self) -> float | None:
        """Seconds from the first text to the first audio."""
        return None if self.first_audio is None or self.first_text is None else self.first_audio - self.first_text

    def parts(self) -> tuple[float, float, float, float] | None:
        """Return queue, connect, start and synthesis, which sum to the first packet delay; None without audio."""
        text, audio, connected = self.first_text, self.first_audio, self.connected
        if text is None or audio is None or connected is None:
            return None
        started = connected if self.started is None else self.started
        dialled = max(connected - self.connect_time, text)
        connected = max(connected, text)
        started = max(started, text)
        return dialled - text, connected - dialled, started - connected, audio - started
