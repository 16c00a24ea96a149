"""Sambert: one text in, audio out, over the same connections as CosyVoice; both ends.

A task is one `run-task` with `streaming: "out"` and the whole text. There is no continue-task, no finish-task and no
cancel. Handshake, headers of the frames, error codes and the order of tasks are CosyVoice's.

Source: DashScope's Sambert pages (client events, server events, Python SDK) and the official SDK, as of 2026-10.
"""

from .client import Sambert, SambertSegment
from .frames import Span, TimedWord
from .server import RunSambert, SambertSession

__all__ = ["RunSambert", "Sambert", "SambertSegment", "SambertSession", "Span", "TimedWord"]
