"""One connection through the proxy: two sides, and a pipe in each direction."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Final

from .faults import Fault, PlacedFault
from .pipe import Pipe
from .side import Side
from .stage import End

__all__ = ["Link"]

_GRACE: Final = 1.0
"""Seconds that a peer has to go by itself: a socket closed at once, with bytes of it unread, would reset it."""


class Link:
    """See the module. Reads from the first moment on.

    Args:
        client: The socket that was accepted.
        server: The socket that was connected.
        window: As of `Pipe`.
        over: Called once, when both sockets are closed.
    """

    def __init__(self, client: socket.socket, server: socket.socket, window: int, over: Callable[[Link], None]) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._client, self._server = Side(loop, client, self), Side(loop, server, self)
        self.upstream = Pipe(self, "upstream", self._client, self._server, window)
        self.downstream = Pipe(self, "downstream", self._server, self._client, window)
        self._tell = over
        self._over = False
        self._leaving: Side | None = None
        self._grace: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Read from both."""
        self.upstream.settle()
        self.downstream.settle()

    # -------------------------------------------------------------------------------------- faults
    def add(self, key: object, placed: PlacedFault, dice: str, strike: Callable[[], None]) -> None:
        """Let a fault act where it is placed; `dice` seeds its random numbers."""
        for pipe in (self.upstream, self.downstream):
            if placed.covers(pipe.direction) and not self._over:
                pipe.add(key, placed.fault, random.Random(f"{dice}/{pipe.direction}"), strike)

    def remove(self, key: object) -> None:
        """Let a fault act no longer."""
        for pipe in (self.upstream, self.downstream):
            if not self._over:
                pipe.remove(key)

    # -------------------------------------------------------------------------------------- what the sides tell
    def received(self, side: Side, data: bytes) -> None:
        """Take what a peer has sent; nobody hears it who was told that the connection ends."""
        if side is not self._leaving:
            self._pipe_of(side).take(data)

    def ended(self, side: Side) -> None:
        """Hear that a peer sends no more."""
        if side is self._leaving:
            self.close()
        elif not self._over:
            self._pipe_of(side).take(End.FINISHED)

    def lost(self, side: Side) -> None:
        """Hear that the connection to a peer broke."""
        if side is self._leaving:
            self.close()
        elif not self._over:
            self._pipe_of(side).take(End.RESET)

    def drained(self, side: Side) -> None:
        """Hear that something of what waited has left."""
        if not self._over:
            (self.downstream if side is self._client else self.upstream).settle()
            self.check()

    def _pipe_of(self, source: Side) -> Pipe:
        return self.upstream if source is self._client else self.downstream

    # -------------------------------------------------------------------------------------- ends
    def check(self) -> None:
        """Close once both directions have ended."""
        if self._leaving is None and self._client.finished and self._server.finished:
            self.close()

    def end(self, pipe: Pipe) -> None:
        """End the connection behind what the sink of `pipe` still gets."""
        if self._over or self._leaving is not None:
            return
        self._leaving = pipe.sink
        pipe.source.close()
        pipe.sink.finish()
        pipe.sink.resume()
        self._grace = self._loop.call_later(_GRACE, self.close)

    def reset_peer(self, pipe: Pipe, fault: Fault) -> None:
        """Reset the sink of `pipe`, and the other peer too where `fault` acts in both directions; else close that."""
        other = self.downstream if pipe is self.upstream else self.upstream
        if self._over:
            return
        pipe.sink.reset()
        if other.resets(fault):
            pipe.source.reset()
        self.close()

    def reset(self) -> None:
        """Reset both peers."""
        for side in (self._client, self._server):
            if not side.closed:
                side.reset()
        self.close()

    def close(self) -> None:
        """Close both sockets now."""
        if self._over:
            return
        self._over = True
        if self._grace is not None:
            self._grace.cancel()
        for pipe in (self.upstream, self.downstream):
            pipe.stop()
        for side in (self._client, self._server):
            if not side.closed:
                side.close()
        self._tell(self)
