"""What a task has for its consumer, and the one who waits for it.

A base class rather than a part, because the frame of the hot path must not pay for another call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from speechpool.errors import LeaseError
from speechpool.protocol import Audio, Event

if TYPE_CHECKING:
    from .connector import SpeechConnection

__all__ = ["Delivery", "Sink"]

Sink = Callable[[Any], object]
"""Takes each piece of audio as plain `bytes`, and every other event as it is, by a plain call on the event loop."""

HIGH_WATER: Final = 256 * 1024
"""Bytes of audio since the consumer last had everything, at which the socket is no longer read until it has again."""


class Delivery:
    """A deque, at most one consumer, and the pressure back to the socket."""

    __slots__ = (
        "_bounded",
        "_connection",
        "_consumed",
        "_ended",
        "_error",
        "_loop",
        "_paused",
        "_queue",
        "_sink",
        "_waiter",
        "_waiters",
        "_wrap",
        "audio_bytes",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, *, sink: Sink | None, bounded: bool, wrap: bool) -> None:
        self.audio_bytes = 0
        """Bytes of audio that arrived."""
        self._loop = loop
        self._connection: SpeechConnection | None = None
        self._sink = sink
        self._bounded = bounded  # a consumer that does not read holds the socket
        self._wrap = wrap  # the consumer wants event objects, not only bytes
        self._queue: deque[Any] = deque()
        self._consumed = 0
        self._paused = False
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waiters: list[asyncio.Future[None]] | None = None

    def _to_sink(self, data: bytes) -> None:
        """Hand one piece of audio to the sink. This is the hot path."""
        self.audio_bytes += len(data)
        try:
            self._sink(data)  # type: ignore[misc]  # there is one
        except Exception as error:  # noqa: BLE001  # whatever the user's sink raises belongs to the user
            self._sink_failed(error)

    def _to_reader(self, data: bytes) -> None:
        """Keep one piece of audio for the consumer. This is the hot path."""
        self.audio_bytes += len(data)
        self._queue.append(Audio(data) if self._wrap else data)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        elif self._bounded and self.audio_bytes - self._consumed > HIGH_WATER:
            self._pause()

    def _put(self, event: Event) -> None:
        """Hand over any other event. A consumer of plain bytes (`wrap` off, no sink) gets none."""
        if self._sink is not None:
            try:
                self._sink(event)
            except Exception as error:  # noqa: BLE001  # whatever the user's sink raises belongs to the user
                self._sink_failed(error)
        elif self._wrap:
            self._queue.append(event)
            self._wake()

    def _sink_failed(self, error: Exception) -> None:
        raise NotImplementedError

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------------------------------ backpressure
    def _pause(self) -> None:
        # Only this socket is held; TCP slows its server down.
        if not self._paused and self._connection is not None:
            self._paused = True
            self._connection.transport.pause()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._connection is not None:
                self._connection.transport.resume()

    def _caught_up(self) -> None:
        """The consumer has taken everything that was there."""
        self._consumed = self.audio_bytes
        self._resume()

    # ------------------------------------------------------------------------------------ the consumer
    def _wait_for_item(self) -> asyncio.Future[None]:
        if self._waiter is not None and not self._waiter.done():
            raise LeaseError("two consumers read one task at once; each task has one reader.")
        self._waiter = self._loop.create_future()
        return self._waiter

    async def _ready(self) -> list[Any]:
        """Wait for something to read, and take everything that is there; an empty list is the end."""
        while not self._queue:
            if self._ended:
                self._raise()
                return []
            await self._wait_for_item()
        batch = list(self._queue)
        self._queue.clear()
        self._caught_up()
        return batch

    async def _wait_ended(self) -> None:
        """Wait for the end; raise where it is a failure.

        Cancellation: the task goes on.
        """
        if not self._ended:
            future = self._loop.create_future()
            self._waiters = [*(self._waiters or ()), future]
            await future
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _close(self) -> None:
        """Nothing follows: let everybody who waits look again."""
        self._ended = True
        self._wake()
        for future in self._waiters or ():
            if not future.done():
                future.set_result(None)
        self._waiters = None
