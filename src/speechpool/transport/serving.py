"""Listening for connections: who may come in is asked once per handshake.

The listener is aiofastnet's, as picows chooses it: uvloop's own accepts one connection per turn of the loop.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from functools import partial
from http import HTTPStatus
from typing import Any

import picows

from .heartbeat import Heartbeat
from .logs import PICOWS_LOG, logger
from .requests import Accepted, Accepter, Refusal, Request, ServedOwner
from .websocket import MAX_MESSAGE, WebSocketConnection

__all__ = ["Listener", "serve"]

_BACKLOG = 512
"""Connections that may wait to be accepted: a pool of hundreds dials at once."""

_READ_BUFFER = 4096


async def serve(
    accept: Accepter,
    host: str | None,
    port: int,
    *,
    ssl: tls.SSLContext | None = None,
    heartbeat: Heartbeat | None = None,
    max_message: int = MAX_MESSAGE,
    handshake_timeout: float | None = 5.0,
) -> Listener:
    """Listen on `host` and `port`.

    Args:
        accept: Asked for each handshake, and for each plain GET.
        host: Name or address to bind; None: all interfaces.
        port: The port; 0: any free one, see `Listener.port`.
        ssl: TLS settings with a certificate; None: no TLS.
        heartbeat: Shared by all connections; None: no pings.
        max_message: Bytes of the longest message that is taken.
        handshake_timeout: Seconds a peer may take for its request; None: no limit.

    Raises:
        OSError: The address cannot be bound.
    """
    listener = Listener(accept, heartbeat, max_message)
    listener._server = await picows.ws_create_server(
        listener._decide,
        host,
        port,
        ssl=ssl,
        backlog=_BACKLOG,
        websocket_handshake_timeout=handshake_timeout,
        enable_auto_pong=False,
        max_frame_size=max_message,
        read_buffer_init_size=_READ_BUFFER,
        logger_name=PICOWS_LOG,
    )
    listener._address = listener._server.sockets[0].getsockname()[:2]
    return listener


class Listener:
    """A listening port and the connections that came in through it. Made by `serve`."""

    _server: asyncio.Server
    _address: tuple[str, int]

    def __init__(self, accept: Accepter, heartbeat: Heartbeat | None, max_message: int) -> None:
        self._accept = accept
        self._heartbeat = heartbeat
        self._max_message = max_message
        self._connections: set[WebSocketConnection] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def host(self) -> str:
        """The address that is bound."""
        return self._address[0]

    @property
    def port(self) -> int:
        """The port that is bound."""
        return self._address[1]

    @property
    def connections(self) -> frozenset[WebSocketConnection]:
        """The connections whose sockets are open now, closing ones included."""
        return frozenset(self._connections)

    def close(self) -> None:
        """Stop listening. The connections stay; close or abort them."""
        self._server.close()

    async def wait_closed(self) -> None:
        """Wait, after `close`, until the last connection is gone. Peers that never finished a handshake are dropped.

        Cancellation: nothing is lost.
        """
        await self._idle.wait()
        drop = getattr(self._server, "abort_clients", None)  # aiofastnet, and asyncio from Python 3.13 on
        if drop is not None:
            drop()
        await self._server.wait_closed()

    def _decide(self, raw: picows.WSUpgradeRequest) -> picows.WSUpgradeResponseWithListener:
        request = _parse(raw)
        try:
            answer = self._accept(request)
        except Exception:  # noqa: BLE001  # whatever the accepter let escape
            # picows would send the text of the exception to the stranger.
            logger.exception("The accepter failed for %s.", request.path)
            answer = Refusal(500, b"internal error")
        if isinstance(answer, Accepted) and not request.upgrade:
            answer = Refusal(426, b"this path speaks WebSocket only", {"Upgrade": "websocket"})
        if isinstance(answer, Refusal):
            return picows.WSUpgradeResponseWithListener(_plain(answer), None)
        response = picows.WSUpgradeResponse.create_101_response(answer.headers)
        return picows.WSUpgradeResponseWithListener(response, self._connection(answer.owner, request))

    def _connection(self, owner: ServedOwner, request: Request) -> _ServedWebSocket:
        host = request.headers.get("host", "a client")
        return _ServedWebSocket(
            self, owner, endpoint=f"{host}{request.path}", heartbeat=self._heartbeat, max_message=self._max_message
        )

    def _add(self, connection: WebSocketConnection) -> None:
        self._connections.add(connection)
        self._idle.clear()

    def _remove(self, connection: WebSocketConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._idle.set()


class _ServedWebSocket(WebSocketConnection):
    """A connection that its listener knows of, from the end of the handshake to the end of the socket."""

    __slots__ = ("_announce", "_listener")

    def __init__(self, listener: Listener, owner: ServedOwner, **options: Any) -> None:
        super().__init__(owner, **options)
        self._listener = listener
        self._announce = partial(owner.on_connected, self)

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Announce the connection to its owner."""
        super().on_ws_connected(transport)
        self._listener._add(self)
        announce, self._announce = self._announce, None  # type: ignore[assignment]  # a cycle otherwise
        try:
            announce()
        except Exception as error:  # noqa: BLE001  # whatever the owner let escape
            self._owner_failed(error)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Forget the connection."""
        self._listener._remove(self)
        super().on_ws_disconnected(transport)


def _parse(raw: picows.WSUpgradeRequest) -> Request:
    headers = raw.headers
    upgrade = headers.get("upgrade", "").lower() == "websocket"
    if upgrade and "upgrade" in {word.strip().lower() for word in headers.get("connection", "").split(",")}:
        headers["Connection"] = "Upgrade"  # Firefox sends "keep-alive, Upgrade", which picows would refuse
    path, _, query = raw.path.decode("latin-1").partition("?")
    return Request(raw.method.decode("latin-1"), path, query, headers, upgrade)


def _plain(refusal: Refusal) -> picows.WSUpgradeResponse:
    if refusal.status == HTTPStatus.SWITCHING_PROTOCOLS:
        raise ValueError("A Refusal cannot have status 101; return Accepted to let the connection in.")
    response: picows.WSUpgradeResponse = picows.WSUpgradeResponse.create_ok_response(refusal.body, refusal.headers)
    response.status = HTTPStatus(refusal.status)
    if not refusal.body:
        response.headers["Content-Length"] = "0"
    return response
