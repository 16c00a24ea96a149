"""A socket from its acceptance to its handshake: whose it is, and what may go wrong with it on purpose.

picows says nothing before it has read the request, and not the address of the peer even then. So its protocol is made
here, by a subclass that adds no code to the path of a frame. Where handshakes are to fail, another protocol reads the
request first, and hands over to picows what it has read.
"""

from __future__ import annotations

import asyncio
import math
import ssl as tls
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import aiofastnet
import picows
from picows.api import WSProtocol  # type: ignore[attr-defined]  # its stub leaves it out

from .accepting import AcceptingServer
from .logs import PICOWS_LOG
from .requests import Greeter, Refusal

__all__ = ["Decide", "listen", "peer_of"]

Decide = Callable[[picows.WSUpgradeRequest, tuple[str, int] | None], picows.WSUpgradeResponseWithListener]
"""Answers a request, told the address of the peer."""

_BACKLOG: Final = 512
"""Connections that may wait to be accepted: a pool of hundreds dials at once."""
_READ_BUFFER: Final = 4096
_LONGEST_REQUEST: Final = 16 * 1024
"""Bytes; picows has the same limit."""


async def listen(
    decide: Decide,
    host: str | None,
    port: int,
    *,
    ssl: tls.SSLContext | None,
    max_message: int,
    handshake_timeout: float | None,
    greet: Greeter | None,
    refuse: Callable[[Refusal], picows.WSUpgradeResponseWithListener],
    sockets: set[Any],
) -> asyncio.Server | AcceptingServer:
    """Listen, and let `decide` answer each request; see `serve`.

    Args:
        refuse: Makes the answer that a greeting asks for.
        sockets: Holds the transport of each accepted socket as long as it is open, with or without a handshake.

    Raises:
        OSError: The address cannot be bound.
    """

    def arrival(answer: Decide = decide) -> _Arrival:
        return _Arrival(answer, max_message, handshake_timeout, sockets)

    def refused(refusal: Refusal) -> _Arrival:
        return arrival(lambda _request, _peer: refuse(refusal))

    factory = arrival if greet is None else lambda: _Greeted(greet, arrival, refused, handshake_timeout, sockets)
    # Without it a peer could take a minute for TLS alone.
    limits: Any = {"ssl_handshake_timeout": handshake_timeout} if ssl and handshake_timeout else {}
    if sys.platform == "win32":  # its loop can wait for no listening socket of ours
        server: asyncio.Server = await aiofastnet.create_server(
            asyncio.get_running_loop(), factory, host, port, ssl=ssl, backlog=_BACKLOG, **limits
        )
        return server
    accepting = AcceptingServer(factory, ssl=ssl, **limits)
    await accepting.listen(host, port, backlog=_BACKLOG)
    return accepting


def peer_of(transport: Any) -> tuple[str, int] | None:
    """Address and port of the other end of a transport, or None where it has none (any more)."""
    address = transport.get_extra_info("peername")
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None


class _Caller:
    """Who called. Apart from the protocol, because that would keep itself alive through its own decision."""

    __slots__ = ("address",)
    address: tuple[str, int] | None


class _Arrival(WSProtocol):  # type: ignore[misc]  # of no known type
    """The protocol of picows at a server, which knows its peer."""

    __slots__ = ("_caller", "_socket", "_sockets")

    def __init__(self, decide: Decide, max_message: int, handshake_timeout: float | None, sockets: set[Any]) -> None:
        caller = _Caller()
        is_client, disconnects_on_exception, pings, pongs = False, True, False, False
        super().__init__(
            None,  # host and path are a client's
            None,
            is_client,
            lambda request: decide(request, caller.address),
            PICOWS_LOG,
            disconnects_on_exception,
            handshake_timeout,
            pings,
            1,
            1,
            picows.WSAutoPingStrategy.PING_WHEN_IDLE,
            pongs,
            max_message,
            None,
            _READ_BUFFER,
        )
        self._caller = caller
        self._sockets = sockets

    def connection_made(self, transport: Any) -> None:
        """Take the socket."""
        self._caller.address = peer_of(transport)
        self._socket = transport
        self._sockets.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        self._sockets.discard(self._socket)
        super().connection_lost(error)


class _Greeted(asyncio.Protocol):
    """Reads a request and greets who sent it; then picows takes over, unless the greeting forbids it.

    It reads on while it waits, so it notices a peer that leaves.
    """

    def __init__(
        self,
        greet: Greeter,
        arrival: Callable[[], _Arrival],
        refused: Callable[[Refusal], _Arrival],
        handshake_timeout: float | None,
        sockets: set[Any],
    ) -> None:
        self._greet, self._arrival, self._refused = greet, arrival, refused
        self._limit = handshake_timeout
        self._sockets = sockets
        self._read = bytearray()
        self._greeted = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # aiofastnet's are no asyncio.Transport
        """Take the socket."""
        self._transport = transport
        self._sockets.add(transport)
        self._after(self._limit, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Read the request, and what comes behind it."""
        self._read += data
        if len(self._read) > _LONGEST_REQUEST:
            self._transport.abort()
        elif not self._greeted and b"\r\n\r\n" in self._read:
            self._greeted = True
            self._on_request()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        self._sockets.discard(self._transport)
        self._after(None)

    def _on_request(self) -> None:
        target = self._read.split(b"\r\n", 1)[0].split(b" ")[1:2]
        path = target[0].partition(b"?")[0].decode("latin-1") if target else ""
        greeting = self._greet(path)
        if greeting.drop:
            act: Callable[[], None] = self._transport.abort
        elif greeting.refusal is not None:
            act = partial(self._hand_over, partial(self._refused, greeting.refusal))
        else:
            act = partial(self._hand_over, self._arrival)
        if greeting.delay <= 0:
            self._after(None)
            act()
        else:
            self._after(None if greeting.delay == math.inf else greeting.delay, act)

    def _hand_over(self, make: Callable[[], _Arrival]) -> None:
        protocol = make()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        rest = memoryview(self._read)
        while rest and not self._transport.is_closing():
            space = protocol.get_buffer(len(rest))
            size = min(len(space), len(rest))
            space[:size] = rest[:size]
            protocol.buffer_updated(size)
            rest = rest[size:]

    def _after(self, seconds: float | None, act: Callable[[], None] = lambda: None) -> None:
        """Act later, and nothing that was to be done before; None: never."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, act)
