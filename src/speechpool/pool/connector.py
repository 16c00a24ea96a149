"""What a pool pools: something that opens, can be asked whether it is usable, and closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["Connector"]

C = TypeVar("C")


class Connector(Protocol[C]):
    """Opens, judges and closes connections to one endpoint. Everything is called on the event loop of the pool."""

    endpoint: str
    """Where to, for messages; never a key."""

    async def open(self, lost: Callable[[C], None]) -> C:
        """Open a connection.

        Args:
            lost: To be called, on the loop, when the connection ends or receives something that nobody asked for, at
                the latest when its owner is done with it. May be called more than once, and before `open` returns.

        Raises:
            ConnectFailed: It cannot be opened. An attribute `permanent` says that trying again does not help, and
                `retry_after` how many seconds to wait; other exceptions count as failures that may pass.
            SettingsError: What a dial needs is wrong; trying again does not help.

        Cancellation: what was begun is dropped at once.
        """

    def usable(self, connection: C) -> bool:
        """Whether the connection is open and nothing unread or unexpected stands on it. Asked often, must be quick."""

    def close(self, connection: C) -> None:
        """Begin a polite close. Does nothing on a connection that is closed."""

    def abort(self, connection: C) -> None:
        """Drop the connection now."""

    async def wait_closed(self, connection: C) -> None:
        """Wait until the peer is gone. Returns at once where it is."""
