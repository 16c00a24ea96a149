"""The dials and closes of a pool: background tasks, owned by the pool and never by a borrower.

They know the pool only weakly, so that one that its owner has forgotten can go.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from speechpool.errors import ConnectFailed

from .connector import Connector
from .slot import Slot

__all__ = ["Jobs", "Listener"]

logger = logging.getLogger("speechpool.pool")


class Listener(Protocol):
    """Who hears how the jobs end: the pool."""

    def _on_opened(self, slot: Slot, connection: Any) -> None: ...

    def _on_open_failed(self, slot: Slot, error: BaseException, *, interrupted: bool) -> None: ...

    def _on_lost(self, slot: Slot) -> None: ...

    def _on_closed(self, slot: Slot) -> None: ...


class Jobs:
    """Runs dials and closes on one loop, and reports how they end."""

    def __init__(
        self,
        connector: Connector[Any],
        listener: Listener,
        loop: asyncio.AbstractEventLoop,
        name: str,
        connect_timeout: float | None,
    ) -> None:
        self._connector = connector
        self._listener = weakref.ref(listener)
        self._loop = loop
        self._name = name
        self._connect_timeout = connect_timeout
        self._dials: dict[Slot, asyncio.Task[Any]] = {}
        self._closes: dict[Slot, asyncio.Task[None]] = {}
        self._abandoned: set[Slot] = set()

    def open(self, slot: Slot) -> None:
        """Begin a dial."""
        lost = partial(_report_lost, self._listener, slot)
        task = self._loop.create_task(_dial(self._connector, lost), name=f"speechpool dial {self._name}")
        self._dials[slot] = task
        task.add_done_callback(partial(self._dialled, slot))

    def abandon(self, slot: Slot) -> None:
        """Stop a dial. It still reports how it ended."""
        if slot in self._dials:
            self._abandoned.add(slot)
            self._dials[slot].cancel()

    def _dialled(self, slot: Slot, task: asyncio.Task[Any]) -> None:
        self._dials.pop(slot, None)
        abandoned = slot in self._abandoned
        self._abandoned.discard(slot)
        error = self.too_slow() if task.cancelled() else task.exception()
        listener = self._listener()
        if listener is None:
            if error is None:
                self._abort(task.result())
        elif error is None:
            listener._on_opened(slot, task.result())
        else:
            # Cancelled, but not by us: the loop is being torn down, and must not meet new dials.
            listener._on_open_failed(slot, error, interrupted=task.cancelled() and not abandoned)

    def too_slow(self) -> ConnectFailed:
        """Return the error of a dial that took too long or was stopped."""
        limit = "" if self._connect_timeout is None else f" within {self._connect_timeout:g} s"
        endpoint = self._connector.endpoint
        return ConnectFailed(f"no connection to {endpoint} opened{limit}; check the network.", endpoint=endpoint)

    def close(self, slot: Slot) -> None:
        """Begin a close, and report when the peer is gone."""
        try:
            self._connector.close(slot.connection)
        except (Exception, asyncio.CancelledError):
            logger.exception("pool %r: closing a connection failed; it is dropped", self._name)
            self._abort(slot.connection)
        task = self._loop.create_task(
            _wait_closed(self._connector, slot.connection), name=f"speechpool close {self._name}"
        )
        self._closes[slot] = task
        task.add_done_callback(partial(self._closed, slot))

    def abort(self, slot: Slot) -> None:
        """Drop a connection, whether it closes already or not."""
        self._abort(slot.connection)
        task = self._closes.pop(slot, None)
        if task is not None:
            task.cancel()

    def _closed(self, slot: Slot, task: asyncio.Task[None]) -> None:
        ours = self._closes.pop(slot, None) is not None
        if task.cancelled():
            if ours:  # somebody else stopped it, before the peer was gone
                self._abort(slot.connection)
        elif error := task.exception():
            logger.error("pool %r: waiting for a close failed; the connection is dropped", self._name, exc_info=error)
            self._abort(slot.connection)
        listener = self._listener()
        if listener is not None:
            listener._on_closed(slot)

    def usable(self, connection: Any) -> bool:
        """Ask the connector; one that fails to answer means no."""
        try:
            return self._connector.usable(connection)
        except (Exception, asyncio.CancelledError):
            logger.exception("pool %r: cannot tell whether a connection is usable; it is discarded", self._name)
            return False

    def _abort(self, connection: Any) -> None:
        try:
            self._connector.abort(connection)
        except (Exception, asyncio.CancelledError):
            logger.exception("pool %r: dropping a connection failed", self._name)

    def drop(self, connections: list[Any]) -> None:
        """Stop everything: the pool is gone."""
        for dial in self._dials.values():
            dial.cancel()
        for connection in connections:
            self._abort(connection)


async def _dial(connector: Connector[Any], lost: Callable[[Any], None]) -> Any:
    return await connector.open(lost)


async def _wait_closed(connector: Connector[Any], connection: Any) -> None:
    await connector.wait_closed(connection)


def _report_lost(listener: weakref.ref[Listener], slot: Slot, _connection: Any) -> None:
    alive = listener()
    if alive is not None:
        alive._on_lost(slot)
