"""What the name of a model tells: Sambert's carry their voice (`sambert-zhichu-v1`), and take less than the others.

Source: DashScope's Sambert pages (models, client events).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

__all__ = ["SAMBERT_FORMATS", "SAMBERT_SAMPLE_RATE", "SAMBERT_SAMPLE_RATES", "is_sambert", "sambert_voice"]

SAMBERT_FORMATS: Final[Collection[str]] = ("pcm", "wav", "mp3")
SAMBERT_SAMPLE_RATES: Final[Collection[int]] = (8000, 16000, 22050, 24000, 48000)
SAMBERT_SAMPLE_RATE: Final = 16000
"""Hertz, where a client leaves the choice to the server; the page of the Python SDK names each model's best instead."""

_SAMBERT: Final = re.compile(r"sambert-(.+?)(?:-v\d+)?", re.ASCII)


def is_sambert(model: str) -> bool:
    """Whether a model speaks Sambert's protocol."""
    return model.startswith("sambert-")


def sambert_voice(model: str) -> str | None:
    """Return the voice in the name of a Sambert model; None for all others."""
    match = _SAMBERT.fullmatch(model)
    return match[1] if match else None
