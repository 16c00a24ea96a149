"""What the service sees of its own tasks, in the shape of a pool's numbers, so that one page shows both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from speechpool.telemetry import Telemetry
from speechpool.telemetry.events import TaskEnded

from .counts import Outcome

__all__ = ["Moments", "Watch"]

NAME = "service"
"""As which the service stands beside pools."""


class Moments(Protocol):
    """What a task knows of itself. Times of the event loop; None where the moment did not come.

    Attributes:
        first_text: When its first text came.
        first_audio: When its first audio was sent.
        audio_bytes: Bytes of audio that were sent.
        characters: Characters that came in.
    """

    first_text: float | None
    first_audio: float | None
    audio_bytes: int

    @property
    def characters(self) -> int:
        """Characters that came in."""
        ...


class Watch:
    """Measures the tasks of one service. Here a first packet delay ends where the audio is sent: no network is in it.

    Args:
        clock: Seconds; the clock of the event loop.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.telemetry = Telemetry(NAME, clock)
        """The five signals of the service's tasks."""

    def began(self) -> float:
        """Count a task that was taken, and return the time."""
        self.telemetry.task_started()
        return self._clock()

    def refused(self, outcome: Outcome, code: str) -> None:
        """Count a task that was not taken."""
        self.telemetry.task_started()
        self.telemetry.task_ended(outcome, self._clock(), error=code)

    def ended(
        self, task: Moments, outcome: Outcome, began: float, *, reused: bool, request_id: str, code: str | None
    ) -> None:
        """Count the end of a task.

        Args:
            task: Which.
            outcome: How it ended.
            began: What `began` returned.
            reused: It was not the first one of its connection.
            request_id: The wire id of the task.
            code: Which error its client got.
        """
        now = self._clock()
        text, audio = task.first_text, task.first_audio
        delay = None if text is None or audio is None else audio - text
        whole = None if text is None else now - text
        self.telemetry.task_ended(
            outcome, now, first_packet_delay=delay, synthesis=delay, text_wait=None if text is None else text - began,
            end_to_end=whole, connected=True, reused=reused, characters=task.characters, audio_bytes=task.audio_bytes,
            error=code,
        )  # fmt: skip
        if self.telemetry.slowest.wants(now - began, now):
            self.telemetry.slowest.add(
                TaskEnded(
                    pool=NAME, number=0, model="", voice="", trace_id=None, outcome=outcome, request_id=request_id,
                    error=code, seconds=now - began, text_wait=(now if text is None else text) - began, queue=None,
                    connect=None, start=None, synthesis=delay, first_packet_delay=delay, end_to_end=whole,
                    audio_seconds=None, audio_bytes=task.audio_bytes, characters=task.characters, retries=0,
                    reused=reused,
                ),
                now,
            )  # fmt: skip
