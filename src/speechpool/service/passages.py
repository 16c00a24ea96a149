"""What a task says, in the manner in which it is to be said."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Passage"]


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
    """

    text: str = ""
    pause: float = 0.0
    rate: float = 1.0
    pitch: float = 1.0
    volume: float = 1.0
    language: str | None = None
