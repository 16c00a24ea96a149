"""The way out of one connection: frames that are ready together leave together, and a slow peer is noticed.

A frame waits for the next turn of the loop, no longer: `send_all` then writes all frames of a turn at once, which costs
half the CPU of one write for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from speechpool.errors import ConnectionLost
from speechpool.transport import Closed, Frame

__all__ = ["Outbox", "Wire"]

LOOK_EVERY = 64 * 1024
"""Bytes between two looks at the write buffer. A look costs a task; this bounds what a slow peer can add unseen."""


class Wire(Protocol):
    """What a session needs of its connection; see `speechpool.transport.Connection`."""

    @property
    def closed(self) -> Closed | None:
        """How it ended, or None."""

    def send_all(self, frames: Sequence[Frame]) -> None:
        """Send messages in one write. Raises ConnectionLost."""

    async def drain(self) -> None:
        """Wait until the peer has taken enough. Raises ConnectionLost."""

    def pause(self) -> None:
        """Read nothing more."""

    def resume(self) -> None:
        """Read again."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake."""

    def abort(self) -> None:
        """Drop the socket now."""


class Outbox:
    """Sends the frames of one connection.

    Args:
        connection: Where to.
        on_full: Called when the peer does not keep up; whoever produces should stop.
        on_taken: Called when it has caught up.
    """

    __slots__ = ("_connection", "_drain", "_frames", "_loop", "_on_full", "_on_taken", "_unseen", "full_since")

    def __init__(self, connection: Wire, on_full: Callable[[], None], on_taken: Callable[[], None]) -> None:
        self._connection = connection
        self._on_full = on_full
        self._on_taken = on_taken
        self._loop = asyncio.get_running_loop()
        self._frames: list[Frame] = []
        self._unseen = 0
        self._drain: asyncio.Task[None] | None = None
        self.full_since: float | None = None

    def add(self, event: bytes, audio: bytes | None = None) -> None:
        """Send an event, and right after it the audio that it announces."""
        if not self._frames:
            self._loop.call_soon(self.flush)
        self._frames.append((False, event))
        if audio is not None:
            self._frames.append((True, audio))
            self._unseen += len(audio)
        self._unseen += len(event)

    def add_audio(self, audio: bytes) -> None:
        """Send audio that no event announces."""
        if not self._frames:
            self._loop.call_soon(self.flush)
        self._frames.append((True, audio))
        self._unseen += len(audio)

    def flush(self) -> None:
        """Send what waits now, e.g. because the connection is about to be closed."""
        frames, self._frames = self._frames, []
        if not frames:
            return
        try:
            self._connection.send_all(frames)
        except ConnectionLost:
            return  # on_closed tells the session, or has told it
        if self._unseen >= LOOK_EVERY and self._drain is None:
            self._unseen = 0
            drain = self._loop.create_task(self._drained())
            self._drain = None if drain.done() else drain  # it may be over already, where tasks start eagerly
            # Callbacks run in order, so this one runs after the first step of the task: a task that is still there
            # waits (tests/service/test_session.py::test_a_slow_peer_pauses_its_speech).
            self._loop.call_soon(self._look)

    def close(self) -> None:
        """Forget everything; the connection is gone."""
        self._frames.clear()
        if self._drain is not None:
            self._drain.cancel()

    def _look(self) -> None:
        if self._drain is not None and self.full_since is None:
            self.full_since = self._loop.time()
            self._on_full()

    async def _drained(self) -> None:
        try:
            await self._connection.drain()
        except ConnectionLost:
            return
        finally:
            self._drain = None
        if self.full_since is not None:
            self.full_since = None
            self._on_taken()
