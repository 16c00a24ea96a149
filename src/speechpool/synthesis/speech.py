"""`pool.synthesize()`: the whole audio of a text."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from speechpool.audio import stream_seconds, wav_payload_offset
from speechpool.protocol import Word

from .core import TaskCore
from .timing import TaskReport

__all__ = ["Speech"]


@dataclass(frozen=True, slots=True)
class Speech:
    """The result of one task.

    Attributes:
        audio: All bytes, container header included.
        format: `mp3`, `wav`, `pcm` or `opus`.
        sample_rate: Hertz.
        request_id: The wire id.
        server_request_id: The server's own name for the task, where it gave one.
        words: Word times, where the voice asks for them.
        characters: Characters billed, or counted here where the server did not say.
        report: How the task went, with the parts of the first packet delay.
    """

    audio: bytes = field(repr=False)
    format: str
    sample_rate: int
    request_id: str
    server_request_id: str | None
    words: tuple[Word, ...]
    characters: int
    report: TaskReport

    @property
    def first_packet_delay(self) -> float:
        """Seconds from the call to the first audio."""
        return self.report.first_packet_delay or 0.0

    @property
    def duration(self) -> float | None:
        """Seconds of audio; None where neither a bit rate nor a last page tells."""
        if self.report.audio_seconds is not None:
            return self.report.audio_seconds
        return stream_seconds(self.format, self.sample_rate, self.audio, len(self.audio))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the audio to a file, through a neighbour that takes its place when it is whole, and return its path.

        Raises:
            OSError: The file cannot be written; whatever stood at `path` is untouched.
        """
        target = Path(path)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            part.write_bytes(_with_lengths(self.audio) if self.format == "wav" else self.audio)
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return target


def _with_lengths(audio: bytes) -> bytes:
    """Return a WAV stream as a file: the header of a stream cannot know the lengths, that of a file must."""
    offset = wav_payload_offset(audio)
    if offset is None:
        return audio
    data_length = struct.pack("<I", len(audio) - offset)
    return audio[:4] + struct.pack("<I", len(audio) - 8) + audio[8 : offset - 4] + data_length + audio[offset:]


def speech_of(task: TaskCore) -> Speech:
    """Return the result of a completed task that nobody read."""
    return Speech(
        audio=b"".join(task._queue),
        format=task.voice.format,
        sample_rate=task.voice.effective_sample_rate,
        request_id=task.request_id or "",
        server_request_id=task.server_request_id,
        words=task.words,
        characters=task.characters or task._script.characters,
        report=task.report,
    )
