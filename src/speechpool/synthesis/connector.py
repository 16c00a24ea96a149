"""What the pool pools: a connection to a speech endpoint, and how to open, judge and close one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from speechpool.protocol import Dialect, Voice
from speechpool.transport import Closed, Connection, Heartbeat, Owner, connect

from .endpoint import Endpoint

__all__ = ["Dial", "SpeechConnection", "SpeechConnector"]


class Dial(Protocol):
    """The signature of `speechpool.transport.connect`; tests pass an in-memory network instead."""

    def __call__(self, url: str, owner: Owner, **options: object) -> Awaitable[Connection]:
        """Open a connection."""


class SpeechConnection:
    """A connection and, while nobody runs a task on it, its owner.

    What arrives between tasks is either the end of the connection or something that nobody asked for. Both make it
    useless, and the pool learns it in the same moment
    (tests/synthesis/test_task.py::test_t37_frames_between_tasks_discard_an_idle_connection_at_once).
    """

    __slots__ = ("_lost", "cancelled", "carried", "last_id", "stray", "transport")

    transport: Connection

    def __init__(self, lost: Callable[[SpeechConnection], None]) -> None:
        self._lost = lost
        self.stray = False
        self.carried = 0  # tasks begun on it
        self.cancelled = False  # one of them was
        self.last_id: str | None = None  # of the last one

    def on_text(self, data: bytes) -> None:
        """Take a frame that belongs to no task."""
        self.on_binary(data)

    def on_binary(self, data: bytes) -> None:
        """Take a frame that belongs to no task."""
        if not self.stray:
            self.stray = True
            self._lost(self)

    def on_closed(self, closed: Closed) -> None:
        """Learn that the connection ended. Its task passes this on, where one runs."""
        self._lost(self)


class SpeechConnector:
    """Opens, judges and closes connections to one endpoint; see `speechpool.pool.Connector`."""

    def __init__(
        self,
        endpoint: Endpoint,
        dialect: Dialect,
        *,
        voice: Voice | None = None,
        timeout: float | None = 10.0,
        heartbeat: float | None = None,
        dial: Dial | None = None,
    ) -> None:
        self.endpoint = endpoint.display
        self._endpoint = endpoint
        self._dialect = dialect
        self._voice = voice
        self._timeout = timeout
        self._heartbeat = Heartbeat(heartbeat) if heartbeat is not None else None
        self._dial: Dial = dial or connect  # type: ignore[assignment]  # connect names its options

    async def open(self, lost: Callable[[SpeechConnection], None]) -> SpeechConnection:
        """Dial. The key is asked for each time, so that a rotated one reaches new connections.

        Raises:
            ConnectFailed: And its kinds; see there.
        """
        endpoint = self._endpoint
        headers = {**self._dialect.headers(await endpoint.key(), endpoint.workspace), **endpoint.headers}
        connection = SpeechConnection(lost)
        connection.transport = await self._dial(
            endpoint.address(self._dialect, self._voice),
            connection,
            headers=headers,
            ssl=endpoint.ssl,
            proxy=endpoint.route,
            timeout=self._timeout,
            heartbeat=self._heartbeat,
        )
        return connection

    def usable(self, connection: SpeechConnection) -> bool:
        """Whether it may be handed out."""
        return not connection.stray and connection.transport.closed is None  # asked at each borrow and return

    def close(self, connection: SpeechConnection) -> None:
        """Begin a polite close."""
        connection.transport.close()

    def abort(self, connection: SpeechConnection) -> None:
        """Drop it now."""
        connection.transport.abort()

    async def wait_closed(self, connection: SpeechConnection) -> None:
        """Wait until its socket is gone."""
        await connection.transport.wait_closed()
