"""A child process that is talked to by lines of JSON.

It does not outlive this process: it is ended on the way out, and should this one be killed, the end of its standard
input tells the child. It has a session of its own, so that Ctrl-C in a terminal reaches this process only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from typing import IO, Any, Final, Self

import msgspec

__all__ = ["Helper", "Parent"]

_LONGEST: Final = 1 << 28
"""Bytes of a line: the result of an hour."""


class Helper:
    """One child.

    Args:
        module: What it runs.
        on_line: Called with each line that it says.
        on_end: Called once, should it end by itself, with what it said last on standard error.
    """

    def __init__(self, module: str, on_line: Callable[[bytes], object], on_end: Callable[[str], object]) -> None:
        self._module, self._on_line, self._on_end = module, on_line, on_end
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __aexit__

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module, stdin=PIPE, stdout=PIPE, stderr=self._complaints,
            start_new_session=True, limit=_LONGEST,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(self, *_: object) -> None:
        process, reading = self._process, self._reading
        if process is None or reading is None:
            return
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # it holds nothing that must be saved
        await process.wait()
        self._complaints.close()

    def say(self, message: Any) -> None:
        """Send one line. A child that has ended hears nothing; `on_end` tells."""
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        async for line in process.stdout:
            self._on_line(line)
        await process.wait()
        self._on_end(self._last_words())

    def _last_words(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


# ------------------------------------------------------------------------------------ in the child
class Parent:
    """Who started this process. Whatever else prints goes to standard error from now on."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def say(self, message: Any) -> None:
        """Send one line, from any thread."""
        rest = memoryview(msgspec.json.encode(message) + b"\n")
        with self._lock:
            while rest:
                rest = rest[os.write(self._out, rest) :]

    @staticmethod
    def lines() -> Iterator[bytes]:
        """Yield what the parent says, until it has nothing more to say, or is no more."""
        yield from sys.stdin.buffer

    @staticmethod
    async def lines_on_loop() -> AsyncIterator[bytes]:
        """Yield the same, without blocking the event loop."""
        reader = asyncio.StreamReader(limit=_LONGEST)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        try:
            async for line in reader:
                yield line
        finally:
            transport.close()
