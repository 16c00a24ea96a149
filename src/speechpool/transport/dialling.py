"""Opening a connection: DNS, TCP, proxy, TLS and handshake under one limit, with an error that says what failed.

picows lets go of its transport when it is cancelled in the WebSocket handshake, and the socket would stay open. So the
socket is ours: `_Dial.open_socket` makes it, and `_Dial.drop` shuts it down whatever happens
(tests/transport/test_websocket.py::test_cancelled_dial_leaves_no_socket).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl as tls
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import picows
from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

from speechpool.errors import ConnectFailed, SettingsError

from . import descriptors, failures
from .accepting import runs_on_uvloop
from .connection import Closed, Owner
from .heartbeat import Heartbeat
from .logs import PICOWS_LOG
from .target import Proxy, Target
from .websocket import MAX_MESSAGE, WebSocketConnection

__all__ = ["connect"]

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_SHORTEST_SECRET = 4


async def connect(
    url: str,
    owner: Owner,
    *,
    headers: Mapping[str, str] = _NO_HEADERS,
    ssl: tls.SSLContext | None = None,
    proxy: str | None = None,
    timeout: float | None = 10.0,  # noqa: ASYNC109  # the error names the step that hung, which a caller's limit cannot
    heartbeat: Heartbeat | None = None,
    max_message: int = MAX_MESSAGE,
    read_buffer: int = 2048,
) -> WebSocketConnection:
    """Open a connection to `url`; frames go to `owner` from the first one on.

    Args:
        url: `ws://` or `wss://`, host, port, path and query; no user, password or fragment.
        owner: The first owner.
        headers: Headers of the handshake, e.g. the key. Redirects are not followed, so they reach no other host.
        ssl: The TLS settings for `wss://` and an `https://` proxy; None: the system's certificates.
        proxy: `http://`, `https://`, `socks4://` or `socks5://`, with user and password where it asks for them.
        timeout: Seconds for the whole dial, from the name look-up to the answer; None: no limit.
        heartbeat: Shared by all connections of one endpoint; None: no pings.
        max_message: Bytes of the longest message that is taken.
        read_buffer: Bytes of the read buffer at first. It doubles when a read fills it; 2 kB halves the memory of a
            connection that is idle.

    Raises:
        SettingsError: The URL, the proxy or a header cannot be used; nothing was sent.
        ConnectFailed: With its kinds `Unauthorized` and `RateLimited`: the connection could not be opened.

    Cancellation: the socket is closed, and the owner hears nothing more.
    """
    dial = _Dial(Target.parse(url), Proxy.parse(proxy), owner, _checked(headers), heartbeat, max_message)
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await dial.run(ssl, read_buffer)
    except TimeoutError as error:
        if timeout is None or not limit.expired():
            raise
        raise failures.timed_out(dial.endpoint, timeout, dial.step) from error


class _Connected(socket.socket):
    """Says whom it was connected to, even where that peer has reset it already.

    Else picows takes it for one that was never connected, connects it again, fails, and closes it never.
    """

    __slots__ = ("peer",)
    peer: Any

    def getpeername(self) -> Any:
        """Return the address that it was connected to."""
        return self.peer


class _Dial:
    """One attempt: it knows which step it is in, and leaves no socket behind."""

    def __init__(  # noqa: PLR0917  # called once, above
        self,
        target: Target,
        proxy: Proxy | None,
        owner: Owner,
        headers: Mapping[str, str],
        heartbeat: Heartbeat | None,
        max_message: int,
    ) -> None:
        self.endpoint = target.endpoint
        self.step = "starting"
        self._target, self._proxy = target, proxy
        self._owner, self._headers = owner, headers
        self._heartbeat, self._max_message = heartbeat, max_message
        self._socket: socket.socket | None = None
        self._connection: WebSocketConnection | None = None

    async def run(self, ssl: tls.SSLContext | None, read_buffer: int) -> WebSocketConnection:
        """Dial, and turn every failure into the error that explains it."""
        try:
            await self._dial(ssl, read_buffer)
        except BaseException as error:
            self._drop()
            failure = self._explain(error)
            if failure is None or failure is error:
                raise
            raise failure from error
        if self._connection is None:
            self._let_go()
            # An end of stream in the middle of the handshake is no error to picows: it returns no listener.
            raise failures.closed_early(self.endpoint, self._target.authority, self._target.secure)
        return self._connection

    async def _dial(self, ssl: tls.SSLContext | None, read_buffer: int) -> None:
        await picows.ws_connect(
            self._connected,
            self._target.url,
            ssl_context=(ssl or _default_tls()) if self._target.secure else None,
            proxy=self._proxy.url if self._proxy else None,
            proxy_ssl_context=(ssl or _default_tls()) if self._proxy and self._proxy.secure else None,
            socket_factory=self._open_socket,
            extra_headers=self._headers,
            websocket_handshake_timeout=None,
            max_redirects=0,
            enable_auto_pong=False,
            max_frame_size=self._max_message,
            read_buffer_init_size=read_buffer,
            logger_name=PICOWS_LOG,
            use_aiofastnet=not runs_on_uvloop(),  # see accepting
        )

    def _connected(self, _request: object, _response: object) -> WebSocketConnection:
        self._connection = WebSocketConnection(
            self._owner, endpoint=self.endpoint, heartbeat=self._heartbeat, max_message=self._max_message
        )
        return self._connection

    async def _open_socket(self, where: picows.WSParsedURL) -> socket.socket:
        """Connect to the server, or to the proxy where there is one: the first of its addresses that answers."""
        loop = asyncio.get_running_loop()
        name = f"{where.host}:{where.port}"
        self.step = f"looking up {where.host}"
        try:
            addresses = await _addresses(loop, where.host, where.port)
        except (socket.gaierror, UnicodeError) as error:
            raise self._short(error) or self._unknown(where.host, error) from error
        self.step = f"connecting to {name}"
        self._socket = await self._first_that_answers(loop, addresses, name)
        self.step = f"waiting for the {'proxy and the ' if self._proxy else ''}handshake of {self._target.authority}"
        return self._socket

    async def _first_that_answers(
        self, loop: asyncio.AbstractEventLoop, addresses: list[tuple[Any, ...]], name: str
    ) -> socket.socket:
        last: OSError | None = None
        for family, kind, protocol, _, address in addresses:
            try:
                sock = _Connected(family, kind, protocol)
            except OSError as error:  # no descriptor is left, or this machine knows no IPv6
                last = last or error
                continue
            try:
                sock.setblocking(False)  # noqa: FBT003  # positional only
                await loop.sock_connect(sock, address)
                sock.peer = address
            except OSError as error:
                sock.close()
                last = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        last = last or OSError(f"no address for {name}")
        if (short := self._short(last)) is not None:
            raise short from last
        if self._proxy:
            raise failures.proxy_failed(self.endpoint, self._proxy.shown, last) from last
        raise failures.unreachable(self.endpoint, name, last) from last

    def _short(self, error: BaseException) -> ConnectFailed | None:
        cause = descriptors.shortage(error)
        return None if cause is None else failures.out_of_descriptors(self.endpoint, cause)

    def _unknown(self, host: str, error: socket.gaierror | UnicodeError) -> ConnectFailed:
        if isinstance(error, UnicodeError):  # e.g. a label of more than 63 characters
            error = socket.gaierror(socket.EAI_NONAME, str(error))
        return failures.name_unknown(self.endpoint, host, error)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.owner = _Nobody()
            self._connection.abort()
        if self._socket is not None:
            # Not close(): where a transport has the socket it must do that itself, and it does at the end of stream.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._let_go()

    def _let_go(self) -> None:
        # libuv closes the descriptor. Where the peer was quicker than the set-up of the transport, the socket does not
        # learn of it, and would later close a number that may be another connection's by then.
        if self._socket is not None and runs_on_uvloop():
            self._socket.detach()

    def _explain(self, error: BaseException) -> ConnectFailed | None:
        """The error for the caller, or None where `error` itself is (a cancellation, a bug)."""
        target, proxy = self._target, self._proxy
        if isinstance(error, ConnectFailed):
            return error
        if isinstance(error, picows.WSHandshakeError):
            return self._answered(error)
        if (short := self._short(error)) is not None:
            return short
        if proxy and isinstance(error, ProxyError | ProxyConnectionError | ProxyTimeoutError):
            return failures.proxy_failed(self.endpoint, proxy.shown, error)
        if isinstance(error, tls.SSLError):
            return failures.tls_failed(self.endpoint, target.authority, error)
        if isinstance(error, OSError):
            return failures.unreachable(self.endpoint, target.authority, error)
        return None

    def _answered(self, error: picows.WSHandshakeError) -> ConnectFailed:
        # picows knows neither HTTP/1.0 nor statuses outside the standard (520), so the answer is read again here.
        status, headers = _parse_answer(error.raw_header or b"")
        if status is None:
            return failures.no_websocket(self.endpoint, "what came is no HTTP")
        if status == 101:
            return failures.no_websocket(self.endpoint, str(error))
        secrets = sorted(_secrets(self._headers), key=len, reverse=True)
        return failures.refused(self.endpoint, status, headers, error.raw_body or b"", secrets)


class _Nobody:
    """Owns a connection that was given up before its caller got it."""

    def on_text(self, data: bytes) -> None:
        """Drop it."""

    def on_binary(self, data: bytes) -> None:
        """Drop it."""

    def on_closed(self, closed: Closed) -> None:
        """Keep it to itself."""


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[tuple[Any, ...]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # an address needs no thread to look it up
            socket.inet_pton(family, host)
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
    return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _parse_answer(raw: bytes) -> tuple[int | None, dict[str, str]]:
    first, *lines = raw.decode("latin-1").split("\r\n")
    match = re.match(r"HTTP/\d(?:\.\d)? (\d{3})\b", first)
    pairs = (line.partition(":") for line in lines)
    return (int(match[1]) if match else None), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if "\r" in value or "\n" in value or "\0" in value:
            raise SettingsError(f"The header {name} has a line break in its value; strip the key or value you pass.")
    return headers


def _secrets(headers: Mapping[str, str]) -> set[str]:
    """Header values, and the words in them: `Bearer sk-1` holds `sk-1`."""
    words = {word for value in headers.values() for word in (value, *value.split())}
    return {word for word in words if len(word) >= _SHORTEST_SECRET and word.lower() not in {"bearer", "basic"}}


@cache
def _default_tls() -> tls.SSLContext:
    """The system's certificates, read once: it takes some 20 ms, and each dial would do it again.

    Where no file can be opened OpenSSL reads none of them and does not say so, and no server would be trusted again.
    """
    descriptors.need_one()
    return tls.create_default_context()
