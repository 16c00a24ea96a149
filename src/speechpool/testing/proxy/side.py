"""One end of a connection: a socket that does not block, and what waits to leave through it.

Not a transport of asyncio: those of uvloop cannot reset a connection, and none says which of two peers is how far.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import Final, Protocol

__all__ = ["Side", "reset_socket"]

CHUNK: Final = 65_536
"""Bytes read at once."""
_READS: Final = 8
"""Reads in one turn of the loop, before others have theirs."""
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class _Owner(Protocol):
    """Who hears what happens at a side."""

    def received(self, side: Side, data: bytes) -> None:
        """Take what the peer has sent."""

    def ended(self, side: Side) -> None:
        """Hear that the peer sends no more."""

    def lost(self, side: Side) -> None:
        """Hear that the connection to the peer broke."""

    def drained(self, side: Side) -> None:
        """Hear that something of what waited has left."""


def reset_socket(sock: socket.socket) -> None:
    """Close a socket so that its peer gets a reset, and what was not sent is forgotten."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    sock.close()


class Side:
    """See the module. It reads only between `resume` and `pause`.

    Attributes:
        waiting: Bytes that wait to leave.
        sent: Bytes that the kernel took.
        at_end: The peer has sent its end.
        finished: The end was sent to the peer, behind everything else.
        closed: The socket is closed, or broken and about to be.
    """

    __slots__ = (
        "_finishing",
        "_loop",
        "_owner",
        "_queue",
        "_reading",
        "_socket",
        "at_end",
        "closed",
        "finished",
        "sent",
        "waiting",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: _Owner) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop, self._socket, self._owner = loop, sock, owner
        self._queue: deque[memoryview] = deque()
        self._reading = self._finishing = False
        self.at_end = self.finished = self.closed = False
        self.waiting = self.sent = 0

    # -------------------------------------------------------------------------------------- in
    def resume(self) -> None:
        """Read on."""
        if not (self._reading or self.at_end or self.closed):
            self._reading = True
            self._loop.add_reader(self._socket, self._readable)

    def pause(self) -> None:
        """Read no more for now: the kernel's buffer fills, and then the peer has to wait."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        # Until nothing is left, not once a turn: uvloop reports an error only once, perhaps together with data.
        for _ in range(_READS):
            if not self._reading:
                return
            try:
                data = self._socket.recv(CHUNK)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._break()
                return
            if not data:
                self.pause()
                self.at_end = True
                self._owner.ended(self)
                return
            self._owner.received(self, data)
        self._loop.call_soon(self._readable)

    # -------------------------------------------------------------------------------------- out
    def write(self, data: bytes) -> None:
        """Send `data`, or let it wait behind what waits already."""
        if self.closed or self._finishing:
            return
        sent = 0
        if not self._queue:
            sent = self._send(data)
            if sent == len(data) or self.closed:
                return
            self._loop.add_writer(self._socket, self._writable)
        self._queue.append(memoryview(data)[sent:])
        self.waiting += len(data) - sent

    def _send(self, data: bytes | memoryview) -> int:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._break()
            return 0
        self.sent += sent
        return sent

    def _writable(self) -> None:
        while self._queue:
            piece = self._queue[0]
            sent = self._send(piece)
            if self.closed:
                return
            self.waiting -= sent
            if sent < len(piece):
                self._queue[0] = piece[sent:]
                break
            self._queue.popleft()
        if not self._queue:
            self._loop.remove_writer(self._socket)
            if self._finishing:
                self._shut()
        self._owner.drained(self)

    def finish(self) -> None:
        """Send the end behind everything that waits; the peer may go on sending."""
        if not (self._finishing or self.closed):
            self._finishing = True
            if not self._queue:
                self._shut()

    def _shut(self) -> None:
        self.finished = True
        with contextlib.suppress(OSError):  # the peer has reset it; reading will tell
            self._socket.shutdown(socket.SHUT_WR)

    # -------------------------------------------------------------------------------------- the end
    def close(self) -> None:
        """Close the socket now; what waits is lost."""
        self._detach()
        self._socket.close()

    def reset(self) -> None:
        """Close the socket now, so that the peer gets a reset."""
        self._detach()
        reset_socket(self._socket)

    def _break(self) -> None:
        # Told later: whoever writes is in the middle of something.
        self._detach()
        self._socket.close()
        self._loop.call_soon(self._owner.lost, self)

    def _detach(self) -> None:
        self.closed = True
        self._queue.clear()
        self.waiting = 0
        self.pause()
        if self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket)
