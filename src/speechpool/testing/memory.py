"""WebSockets without sockets: the transport contract inside one process and one event loop.

    network = MemoryNetwork()
    listener = await network.listen(accept)
    connection = await network.connect(listener.url, owner)
    network.cut()                      # every connection is reset

`listen` and `connect` take what `speechpool.transport.serve` and `connect` take, and raise what they raise. Frames
arrive by `loop.call_soon`, in order. What the peer has not taken yet is bounded by `drain`, as over TCP.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from multidict import CIMultiDict

from speechpool.errors import ConnectionLost
from speechpool.transport import failures
from speechpool.transport.connection import Closed, Frame, Owner
from speechpool.transport.requests import Accepted, Accepter, Refusal, Request

__all__ = ["MemoryConnection", "MemoryListener", "MemoryNetwork"]

HIGH_WATER, LOW_WATER = 64 * 1024, 16 * 1024
"""Bytes not taken by the peer at which `drain` begins to wait, and at which it goes on."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_MAX_MESSAGE = 16 * 2**20

logger = logging.getLogger("speechpool.testing")


@dataclass(frozen=True, slots=True)
class _End:
    """Behind the last frame: a close frame, or (without a code) the end of the stream."""

    code: int | None
    reason: str = ""


class MemoryConnection:
    """One end of a connection; `Connection` says what the methods promise."""

    def __init__(self, owner: Owner, endpoint: str, max_message: int) -> None:
        self.owner, self._endpoint, self._max_message = owner, endpoint, max_message
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._peer = self
        self._closed: Closed | None = None
        self._inbox: deque[Frame | _End] = deque()
        self._unread = 0
        self._told = self._paused = self._scheduled = False
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def closed(self) -> Closed | None:
        """How it ended, or None while it is open."""
        return self._closed

    def send(self, data: bytes, binary: bool = False) -> None:
        """Send one message. Raises `ConnectionLost` after the end."""
        if self._closed is not None:
            raise self._lost()
        self._peer._put((binary, bytes(data)))
        if self._peer._unread > HIGH_WATER:
            self._drained.clear()

    def send_all(self, frames: Sequence[Frame]) -> None:
        """Send messages that are ready together. Raises `ConnectionLost` after the end."""
        if self._closed is not None:
            raise self._lost()
        for binary, data in frames:
            self.send(data, binary)

    async def drain(self) -> None:
        """Wait until the peer has taken enough. Raises `ConnectionLost` if the connection ended meanwhile."""
        while self._closed is None and not self._drained.is_set():
            await self._drained.wait()
        if self._closed is not None:
            raise self._lost()

    def pause(self) -> None:
        """Take nothing until `resume`."""
        self._paused = self._closed is None

    def resume(self) -> None:
        """Take frames again."""
        self._paused = False
        self._schedule()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake."""
        if self._closed is None:
            self._end(Closed(code, reason, clean=False))
            self._peer._put(_End(code, reason))

    def abort(self) -> None:
        """Drop the connection without a close frame."""
        if self._gone.done():
            return
        if self._closed is None:
            self._end(Closed(None, "aborted by this side", clean=False))
        self._inbox = deque([_End(None)])
        self._schedule()

    def cut(self) -> None:
        """Reset the connection under both ends: what was under way is lost. An end that is paused learns it later."""
        for end in (self, self._peer):
            end._inbox = deque([_End(None)])
            end._schedule()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await asyncio.shield(self._gone)

    def _put(self, item: Frame | _End) -> None:
        if self._gone.done():
            return
        self._inbox.append(item)
        if not isinstance(item, _End):
            self._unread += len(item[1])
        self._schedule()

    def _schedule(self) -> None:
        if self._inbox and not self._scheduled and not self._paused:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        while self._inbox and not self._paused:
            item = self._inbox.popleft()
            if isinstance(item, _End):
                self._on_end(item)
                return
            self._unread -= len(item[1])
            if self._unread <= LOW_WATER:
                self._peer._drained.set()
            if self._closed is None:
                self._on_frame(*item)

    def _on_frame(self, binary: bool, data: bytes) -> None:
        if len(data) > self._max_message:
            self.close(1009, f"message longer than {self._max_message} bytes")
            self._tell()
            return
        try:
            (self.owner.on_binary if binary else self.owner.on_text)(data)
        except Exception as error:  # noqa: BLE001  # whatever the owner let escape
            self._owner_failed(error)

    def _on_end(self, end: _End) -> None:
        if self._closed is None:
            clean = end.code is not None
            self._end(Closed(end.code, end.reason if clean else "reset", clean))
            if clean:
                self._peer._put(end)
        elif end.code is not None and self._closed.code is not None:
            self._closed = replace(self._closed, clean=True)
        if end.code is None and not self._peer._gone.done():
            self._peer._put(end)  # so that the other end of a broken connection is never left open
        self._inbox.clear()
        self._unread = 0
        self._tell()
        if not self._gone.done():
            self._gone.set_result(None)

    def _end(self, closed: Closed) -> None:
        self._closed = closed
        self._drained.set()
        self.resume()

    def _tell(self) -> None:
        if self._told or self._closed is None:
            return
        self._told = True
        try:
            self.owner.on_closed(self._closed)
        except Exception:  # whatever the owner let escape
            logger.exception("The owner of a connection to %s failed in on_closed.", self._endpoint)

    def _owner_failed(self, error: Exception) -> None:
        logger.error("The owner of a connection to %s failed; dropping it.", self._endpoint, exc_info=error)
        if self._closed is None:
            self._end(Closed(None, f"its owner failed with {type(error).__name__}", clean=False))
        self.abort()

    def _lost(self) -> ConnectionLost:
        code = None if self._closed is None else self._closed.code
        text = f"The connection to {self._endpoint} has ended: {self._closed}. Nothing can be sent; open a new one."
        return ConnectionLost(text, close_code=code, endpoint=self._endpoint)


class MemoryListener:
    """A place to connect to. Made by `MemoryNetwork.listen`."""

    def __init__(self, network: MemoryNetwork, accept: Accepter, host: str, port: int, max_message: int) -> None:
        self._network, self._accept, self._max_message = network, accept, max_message
        self.host, self.port = host, port
        self._connections: set[MemoryConnection] = set()

    @property
    def url(self) -> str:
        """What `connect` takes."""
        return f"ws://{self.host}:{self.port}"

    @property
    def connections(self) -> frozenset[MemoryConnection]:
        """The server's ends of the connections that are not gone."""
        return frozenset(each for each in self._connections if not each._gone.done())

    def close(self) -> None:
        """Refuse further connections."""
        self._network._listeners.pop((self.host, self.port), None)

    async def wait_closed(self) -> None:
        """Wait until the last connection is gone."""
        for each in self.connections:
            await each.wait_closed()

    def _open(self, request: Request, client: MemoryConnection, endpoint: str) -> None:
        try:
            answer = self._accept(request)
        except Exception:  # whatever the accepter let escape
            logger.exception("The accepter failed for %s.", request.path)
            answer = Refusal(500, b"internal error")
        if not isinstance(answer, Accepted):
            headers = {name.lower(): value for name, value in answer.headers.items()}
            secrets = {word for value in request.headers.values() for word in (value, *value.split())}
            raise failures.refused(
                endpoint, answer.status, headers, answer.body, sorted(secrets, key=len, reverse=True)
            )
        server = MemoryConnection(answer.owner, endpoint, self._max_message)
        client._peer, server._peer = server, client
        self._connections = {*self.connections, server}
        try:
            answer.owner.on_connected(server)
        except Exception as error:  # noqa: BLE001  # whatever the owner let escape
            server._owner_failed(error)


class MemoryNetwork:
    """Listeners by host and port, and the connections between them and their clients."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, int], MemoryListener] = {}
        self._next_port = 1

    async def listen(
        self, accept: Accepter, host: str = "memory", port: int = 0, *, max_message: int = _MAX_MESSAGE, **_ignored: Any
    ) -> MemoryListener:
        """Listen, as `speechpool.transport.serve` does; TLS, heartbeats and limits of time have no meaning here."""
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        listener = self._listeners[host, port] = MemoryListener(self, accept, host, port, max_message)
        return listener

    async def connect(
        self,
        url: str,
        owner: Owner,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        max_message: int = _MAX_MESSAGE,
        **_ignored: Any,
    ) -> MemoryConnection:
        """Connect, as `speechpool.transport.connect` does; TLS, proxies, heartbeats and limits have no meaning here.

        Raises:
            ConnectFailed: Nobody listens there (retryable), or the listener refused.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
        endpoint = f"{parts.netloc}{parts.path}"
        await asyncio.sleep(0)
        listener = self._listeners.get((host, port))
        if listener is None:
            refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            raise failures.unreachable(endpoint, f"{host}:{port}", refused)
        client = MemoryConnection(owner, endpoint, max_message)
        listener._open(Request("GET", parts.path or "/", parts.query, CIMultiDict(headers)), client, endpoint)
        return client

    def cut(self) -> None:
        """Reset every connection."""
        for listener in self._listeners.values():
            for each in listener.connections:
                each.cut()
