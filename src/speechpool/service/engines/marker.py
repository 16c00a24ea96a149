"""PCM that says whose it is and where: for proving that no byte of one task ever reaches another.

Layout: records of 16 bytes. 8 bytes are the BLAKE2b hash of the task's id, 8 are the record's offset in the stream in
bytes, big-endian. Every visible character lasts 640 bytes, whatever the sample rate, the voice and the volume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

from speechpool.audio import pcm_seconds
from speechpool.errors import SettingsError
from speechpool.service.sentences import is_speakable
from speechpool.service.voices import VOICES, VoiceProfile

from . import Take

__all__ = ["BYTES_PER_CHARACTER", "RECORD", "MarkerEngine", "check", "marker_length"]

RECORD: Final = 16
"""Bytes of one record."""
BYTES_PER_CHARACTER: Final = 640
"""Bytes for each character that is no space."""

_PROFILES: Final = {"unpaced": 0.0, "paced": 0.01}


def marker_length(text: str) -> int:
    """Return how many bytes speak `text`, as long as each of its sentences holds a letter or a digit."""
    return BYTES_PER_CHARACTER * sum(not letter.isspace() for letter in text)


def check(data: bytes, task_id: str) -> int:
    """Check that `data` is the beginning of the stream of `task_id`, and return its length.

    Raises:
        ValueError: A record is foreign, or one is missing, doubled or out of order; the message says where.
    """
    mark = _mark(task_id)
    for offset in range(0, len(data), RECORD):
        record = data[offset : offset + RECORD]
        if record != (mark + offset.to_bytes(8, "big"))[: len(record)]:
            raise ValueError(_complaint(record, mark, offset))
    return len(data)


def _complaint(record: bytes, mark: bytes, offset: int) -> str:
    if record[:8] != mark[: len(record)]:
        return f"the record at {offset} belongs to another task."
    return f"the record at {offset} says that it belongs at {int.from_bytes(record[8:], 'big')}."


def _mark(task_id: str) -> bytes:
    return hashlib.blake2b(task_id.encode(), digest_size=8).digest()


class MarkerEngine:
    """Makes marked PCM.

    Args:
        profile: `unpaced` (default): a chunk in each turn of the event loop; `paced`: a chunk each 10 ms.
        seed: Not used; nothing is drawn.
        interval: Seconds between chunks, in place of the profile's.
        chunk: Bytes of a chunk, whole records.

    Raises:
        SettingsError: The profile is unknown, or a chunk holds no whole records.
    """

    name = "marker"
    formats = ("pcm",)

    def __init__(
        self, *, profile: str | None = None, seed: int = 0, interval: float | None = None, chunk: int = 4096
    ) -> None:
        self.profile: str | None = profile or "unpaced"
        if self.profile not in _PROFILES:
            raise SettingsError(f"engine 'marker' has no profile {profile!r}; choose one of {', '.join(_PROFILES)}.")
        if chunk < RECORD or chunk % RECORD:
            raise SettingsError(f"chunk = {chunk} must be a multiple of {RECORD} (bytes), so that records stay whole.")
        self._interval = _PROFILES[self.profile] if interval is None else interval
        self._chunk = chunk

    def load(self) -> None:
        """Do nothing."""

    def voices(self) -> Mapping[str, VoiceProfile]:
        """Return all voices; none can be told from another."""
        return VOICES

    def speaks(self, text: str) -> bool:
        """Whether there is something to say, in any script."""
        return is_speakable(text)

    def open(
        self, task_id: str, *, audio_format: str, sample_rate: int, bit_rate: int | None, rate: float, volume: float
    ) -> MarkerTrack:
        """Begin a task."""
        return MarkerTrack(task_id, sample_rate=sample_rate, interval=self._interval, chunk=self._chunk)


class MarkerTrack:
    """One task: its offsets go on from sentence to sentence."""

    def __init__(self, task_id: str, *, sample_rate: int, interval: float, chunk: int) -> None:
        self._mark = _mark(task_id)
        self._sample_rate = sample_rate
        self._interval = interval
        self._chunk = chunk
        self._offset = 0

    def take(self, text: str, *, awaited: bool) -> Take:
        """Return the records for `text`."""
        return Take(delay=0.0, interval=self._interval, chunks=self._chunks(marker_length(text)))

    def flush(self) -> bytes:
        """Return nothing: records need no end."""
        return b""

    def _chunks(self, length: int) -> Iterator[tuple[bytes, float]]:
        end = self._offset + length
        while self._offset < end:
            size = min(self._chunk, end - self._offset)
            offsets = range(self._offset, self._offset + size, RECORD)
            self._offset += size
            data = b"".join(self._mark + offset.to_bytes(8, "big") for offset in offsets)
            yield data, pcm_seconds(size, self._sample_rate)
