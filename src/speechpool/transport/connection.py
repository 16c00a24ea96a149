"""What the floors above know of a WebSocket: eight methods, one owner, plain calls.

A connection has one owner at a time. Frames go to it by a plain call on the event loop, not through a queue: a queue
and a consumer coroutine would cost 40 to 50 % more CPU for each task. Whoever wants `async for` builds it above.

Two versions stand under one contract test (tests/transport/test_contract.py): `speechpool.transport.websocket` over
picows, and `speechpool.testing.memory` without a socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Closed", "Connection", "Frame", "Owner"]

Frame = tuple[bool, bytes]
"""(is it binary?, payload) of one whole message."""


@dataclass(frozen=True, slots=True)
class Closed:
    """How a connection ended.

    Attributes:
        code: The peer's close code, or ours where we closed; None after a reset, an end of stream or a missing pong.
        reason: The peer's words, or ours; for people.
        clean: Both close frames were exchanged.
    """

    code: int | None
    reason: str
    clean: bool

    def __str__(self) -> str:
        code = "no close frame" if self.code is None else f"close code {self.code}"
        return f"{code} ({self.reason})" if self.reason else code


class Owner(Protocol):
    """Who gets the frames of a connection. Every method runs on the event loop and must return soon.

    An exception that leaves one of these methods is a bug of the owner: it is logged and the connection is aborted.
    """

    def on_text(self, data: bytes) -> None:
        """Take one whole text message (fragments are joined), as UTF-8 bytes that are not checked yet."""

    def on_binary(self, data: bytes) -> None:
        """Take one whole binary message (fragments are joined)."""

    def on_closed(self, closed: Closed) -> None:
        """Learn that the connection ended. Called once, to the owner of that moment; nothing comes after it."""


class Connection(Protocol):
    """One open WebSocket, at either end."""

    owner: Owner
    """The only receiver of everything that comes from now on. Changing it costs an assignment."""

    @property
    def closed(self) -> Closed | None:
        """How it ended, or None while it is open and no close has begun on either side."""

    def send(self, data: bytes, binary: bool = False) -> None:
        """Send one message, without waiting.

        Raises:
            ConnectionLost: The connection is closed or closing.
        """

    def send_all(self, frames: Sequence[Frame]) -> None:
        """Send messages that are ready together in one write: half the CPU of one write for each.

        Raises:
            ConnectionLost: The connection is closed or closing.
        """

    async def drain(self) -> None:
        """Wait until the peer has taken enough of what was sent.

        Cancellation: nothing is lost; what was sent stays sent.

        Raises:
            ConnectionLost: The connection ended meanwhile.
        """

    def pause(self) -> None:
        """Stop reading from the socket, so that TCP slows the peer. A few frames that were read already may follow."""

    def resume(self) -> None:
        """Read again after `pause`."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake. Does nothing on a closed connection."""

    def abort(self) -> None:
        """Drop the socket now, without a close frame."""

    async def wait_closed(self) -> None:
        """Wait until the socket is gone.

        Cancellation: the close goes on.
        """
