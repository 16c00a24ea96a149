"""Where audio goes as it arrives: a file, standard output, a player.

A regular file is written beside its place and takes it when it is whole, so that a run that fails or is interrupted
leaves nothing half-written, and whatever stood there untouched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import struct
from pathlib import Path
from typing import Final, Protocol

from speechpool.audio import wav_payload_offset

from .outcome import CannotWrite

__all__ = ["FileOutput", "Output", "RawOutput", "open_output"]

_SLICE: Final = 4096
"""What a pipe that can be written takes without blocking (PIPE_BUF)."""
_HEAD: Final = 4096
"""More than the header of any WAV stream."""
_LARGEST_WAV: Final = 0xFFFFFFFF


class Output(Protocol):
    """Takes the audio of one task. Either `finish` or `discard` comes last, and once."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            CannotWrite: They cannot be written.
            BrokenPipeError: Nobody reads them any more.
        """

    async def finish(self) -> None:
        """All audio came.

        Raises:
            CannotWrite: It cannot be kept.
        """

    def discard(self) -> None:
        """The audio ended early: leave nothing behind."""


def open_output(path: str, audio_format: str) -> Output:
    """Open what `path` names, before anything else happens; `-` is standard output.

    Raises:
        CannotWrite: It cannot be opened.
    """
    if path == "-":
        return RawOutput(1, "standard output")
    target = Path(os.path.realpath(path))  # a link stays, what it leads to is written
    try:
        mode = target.stat().st_mode
    except OSError:
        mode = None
    if mode is None or stat.S_ISREG(mode):
        return FileOutput(target, audio_format)
    if stat.S_ISDIR(mode):
        raise CannotWrite(f"{path} is a directory; name a file in it, e.g. -o {target / 'speech'}.{audio_format}")
    try:
        return RawOutput(os.open(target, os.O_WRONLY), path)
    except OSError as error:
        raise _cannot_write(path, error) from error


class FileOutput:
    """A regular file.

    Args:
        target: Its path.
        audio_format: In `wav`, the lengths in the header are set at the end.

    Raises:
        CannotWrite: There can be no such file.
    """

    def __init__(self, target: Path, audio_format: str) -> None:
        self._target = target
        self._is_wav = audio_format == "wav"
        self._head = b""
        self._part = target.with_name(f".{target.name}.{os.getpid()}.part")
        if not target.parent.is_dir():
            raise CannotWrite(f"{target} cannot be written: there is no directory {target.parent}; make it first.")
        if target.exists() and not os.access(target, os.W_OK):
            raise CannotWrite(f"{target} cannot be written: it is read-only; choose another name.")
        try:
            # Unbuffered: others may read it while it grows.
            self._file = self._part.open("wb", buffering=0)
        except OSError as error:
            raise _cannot_write(str(target), error) from error

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if len(self._head) < _HEAD:
            self._head += data[:_HEAD]
        try:
            _write_all(self._file.fileno(), data)
        except OSError as error:
            raise _cannot_write(str(self._target), error) from error

    async def finish(self) -> None:
        """Put the file in its place."""
        try:
            if self._is_wav:
                self._set_lengths()
            self._file.close()
            self._part.replace(self._target)
        except OSError as error:
            self.discard()
            raise _cannot_write(str(self._target), error) from error

    def discard(self) -> None:
        """Remove what was written."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _set_lengths(self) -> None:
        offset, length = wav_payload_offset(self._head), self._file.tell()
        if offset is not None and length <= _LARGEST_WAV:
            for position in (4, offset - 4):
                self._file.seek(position)
                self._file.write(struct.pack("<I", length - position - 4))


class RawOutput:
    """A descriptor that takes the bytes for good: a pipe, a device, standard output.

    Args:
        descriptor: Where to.
        name: For people.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        mode = os.fstat(descriptor).st_mode
        self._may_block = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    async def write(self, data: bytes) -> None:
        """Take the next bytes. A slow reader holds up this task, not the event loop: Ctrl-C gets through."""
        try:
            if not self._may_block:
                _write_all(self._descriptor, data)
                return
            for start in range(0, len(data), _SLICE):
                await self._writable()
                _write_all(self._descriptor, data[start : start + _SLICE])
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _cannot_write(self._name, error) from error

    async def finish(self) -> None:
        """Close what this opened."""
        self.discard()

    def discard(self) -> None:
        """Close what this opened; what was written cannot be taken back."""
        if self._descriptor > 2:
            os.close(self._descriptor)

    async def _writable(self) -> None:
        # Not the descriptor's non-blocking mode: other processes share it, and would meet errors they do not expect.
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.add_writer(self._descriptor, _wake, future)
        try:
            await future
        finally:
            loop.remove_writer(self._descriptor)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _cannot_write(name: str, error: OSError) -> CannotWrite:
    return CannotWrite(f"{name} cannot be written: {error.strerror or error}; choose another place.")
