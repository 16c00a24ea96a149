"""Synthesis: a speech task on a lease, with bounded waits, one outcome, and no byte of another task."""

from .blocking import SpeechPool
from .endpoint import Endpoint
from .lease import SpeechLease
from .pool import AsyncSpeechPool
from .speech import Speech
from .stream import SpeechStream
from .task import SpeechTask
from .timing import TaskReport

__all__ = [
    "AsyncSpeechPool",
    "Endpoint",
    "Speech",
    "SpeechLease",
    "SpeechPool",
    "SpeechStream",
    "SpeechTask",
    "TaskReport",
]
