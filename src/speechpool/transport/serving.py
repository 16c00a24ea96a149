"""Listening for connections: who may come in is asked once per handshake.

What happens before a request is read is in `arrivals`.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any

import picows

from .accepting import AcceptingServer
from .arrivals import listen
from .heartbeat import Heartbeat
from .logs import logger
from .requests import Accepted, Accepter, Greeter, Refusal, Request, ServedOwner
from .websocket import MAX_MESSAGE, WebSocketConnection

__all__ = ["Listener", "serve"]


async def serve(
    accept: Accepter,
    host: str | None,
    port: int,
    *,
    ssl: tls.SSLContext | None = None,
    heartbeat: Heartbeat | None = None,
    max_message: int = MAX_MESSAGE,
    handshake_timeout: float | None = 5.0,
    greet: Greeter | None = None,
) -> Listener:
    """Listen on `host` and `port`.

    Args:
        accept: Asked for each handshake, and for each plain GET.
        host: Name or address to bind; None: all interfaces.
        port: The port; 0: any free one, see `Listener.port`.
        ssl: TLS settings with a certificate; None: no TLS.
        heartbeat: Shared by all connections; None: no pings.
        max_message: Bytes of the longest message that is taken.
        handshake_timeout: Seconds a peer may take for TLS, and then for its request; None: no limit.
        greet: Asked for each request before anything else, to make handshakes fail; None: none does.

    Raises:
        OSError: The address cannot be bound.
    """
    listener = Listener(accept, heartbeat, max_message)
    listener._server = await listen(
        listener._decide,
        host,
        port,
        ssl=ssl,
        max_message=max_message,
        handshake_timeout=handshake_timeout,
        greet=greet,
        refuse=_refusal,
        sockets=listener._sockets,
    )
    listener._address = listener._server.sockets[0].getsockname()[:2]
    return listener


class Listener:
    """A listening port and the connections that came in through it. Made by `serve`."""

    _server: asyncio.Server | AcceptingServer
    _address: tuple[str, int]

    def __init__(self, accept: Accepter, heartbeat: Heartbeat | None, max_message: int) -> None:
        self._accept = accept
        self._heartbeat = heartbeat
        self._max_message = max_message
        self._connections: set[WebSocketConnection] = set()
        self._sockets: set[Any] = set()  # those that have not shaken hands, too
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
        for transport in list(self._sockets):
            transport.abort()
        await self._server.wait_closed()

    def _decide(
        self, raw: picows.WSUpgradeRequest, peer: tuple[str, int] | None
    ) -> picows.WSUpgradeResponseWithListener:
        request = _parse(raw, peer)
        try:
            answer = self._answer(request)
        except Exception:  # noqa: BLE001  # whatever the accepter let escape
            # picows would send the text of the exception to the stranger.
            logger.exception("The accepter failed for %s.", request.path)
            answer = Refusal(500, b"internal error")
        if isinstance(answer, Accepted) and not request.upgrade:
            answer = Refusal(426, b"this path speaks WebSocket only", {"Upgrade": "websocket"})
        if isinstance(answer, Refusal):
            return _refusal(answer)
        response = picows.WSUpgradeResponse.create_101_response(answer.headers)
        return picows.WSUpgradeResponseWithListener(response, self._connection(answer.owner, request))

    def _answer(self, request: Request) -> Accepted | Refusal:
        # picows would put it into its answer, and fail to encode that.
        if not request.headers.get("sec-websocket-version", "").isascii():
            return Refusal(400, b"the WebSocket version is no number")
        return self._accept(request)

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

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Pass a frame on, unless it claims an extension: none is ever agreed on, so it may be compressed."""
        # Here and not at both ends: clients get most frames, and only a server has strangers to fear.
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._break_off(1002, "reserved bits are set, but no extension was agreed on")
        else:
            super().on_ws_frame(transport, frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Forget the connection."""
        self._listener._remove(self)
        super().on_ws_disconnected(transport)


def _parse(raw: picows.WSUpgradeRequest, peer: tuple[str, int] | None) -> Request:
    headers = raw.headers
    upgrade = headers.get("upgrade", "").lower() == "websocket"
    if upgrade and "upgrade" in {word.strip().lower() for word in headers.get("connection", "").split(",")}:
        headers["Connection"] = "Upgrade"  # Firefox sends "keep-alive, Upgrade", which picows would refuse
    path, _, query = raw.path.decode("latin-1").partition("?")
    return Request(raw.method.decode("latin-1"), path, query, headers, upgrade, peer)


class _Status(int):
    """An HTTP status, also one that the standard does not know, such as 520."""

    @property
    def value(self) -> int:
        """Its number."""
        return int(self)

    @property
    def phrase(self) -> str:
        """Its name, or nothing."""
        return next((known.phrase for known in HTTPStatus if known.value == self), "")


def _refusal(refusal: Refusal) -> picows.WSUpgradeResponseWithListener:
    if refusal.status == HTTPStatus.SWITCHING_PROTOCOLS:
        raise ValueError("A Refusal cannot have status 101; return Accepted to let the connection in.")
    response: picows.WSUpgradeResponse = picows.WSUpgradeResponse.create_ok_response(refusal.body, refusal.headers)
    response.status = _Status(refusal.status)  # type: ignore[assignment]  # picows needs no more of it
    if not refusal.body:
        response.headers["Content-Length"] = "0"
    response.headers["Date"] = formatdate(usegmt=True)  # RFC 9110, 6.6.1; and whoever asks can compare the clocks
    return picows.WSUpgradeResponseWithListener(response, None)
