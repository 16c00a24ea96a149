"""Wire formats without I/O: frames in, events out. No socket, no clock, no asyncio.

Both ends use this floor: the client (`speechpool.synthesis`), the local service, the load tester and every fault test.
`dialect` is the seam that the floors above speak to; each protocol stands in a module of its own.
"""

from .dialect import Dialect, Segment
from .events import (
    Audio,
    Event,
    Failed,
    Finished,
    Phoneme,
    PronouncedWord,
    SentenceBegin,
    SentenceEnd,
    Started,
    Word,
)
from .voice import Voice

__all__ = [
    "Audio",
    "Dialect",
    "Event",
    "Failed",
    "Finished",
    "Phoneme",
    "PronouncedWord",
    "Segment",
    "SentenceBegin",
    "SentenceEnd",
    "Started",
    "Voice",
    "Word",
]
