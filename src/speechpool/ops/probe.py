"""A look at the endpoint over the network: the way a pool dials it, and what the steps on the way take.

The dial is the pool's own, so what it proves holds for the pool: name, route, proxy, TLS, path and key. A second
connection is taken step by step for the times, the certificate and the server's clock; a proxy has no such steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as tls
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from speechpool.errors import ConnectFailed, SettingsError
from speechpool.protocol import Dialect
from speechpool.protocol.inference import Inference
from speechpool.settings import PoolSettings
from speechpool.synthesis import Endpoint
from speechpool.synthesis.connector import SpeechConnection, SpeechConnector

__all__ = ["LIMIT", "LOOPBACK", "Probe", "probe"]

LIMIT: Final = 10.0
"""Seconds for each of the two connections."""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_DAY: Final = 86400.0
_HEAD: Final = 65536
"""Bytes of an answer's headers that are read at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was seen; None: it was not.

    Attributes:
        endpoint: Host, port and path, for people.
        host: The name.
        secure: It is `wss`.
        direct: No proxy is in between.
        handshake: Seconds from the look-up of the name to an open WebSocket.
        error: Why there is none.
        addresses: Of the name.
        lookup: Seconds that the name took.
        connect: Seconds that TCP took: one round trip.
        tls: Seconds that TLS took.
        tls_version: As in `TLSv1.3`.
        certificate_days: Until the certificate expires.
        skew: Seconds by which the server's clock is ahead of ours; known to a second.
        watched: Seconds for which an idle connection was watched.
        closed_after: Seconds after which the server closed it.
    """

    endpoint: str
    host: str
    secure: bool
    direct: bool
    handshake: float | None = None
    error: ConnectFailed | SettingsError | None = None
    addresses: tuple[str, ...] = ()
    lookup: float | None = None
    connect: float | None = None
    tls: float | None = None
    tls_version: str | None = None
    certificate_days: float | None = None
    skew: float | None = None
    watched: float = 0.0
    closed_after: float | None = None

    @property
    def local(self) -> bool:
        """It is this machine."""
        return self.host in LOOPBACK


async def probe(
    endpoint: Endpoint,
    *,
    dialect: Dialect | None = None,
    watch: float = 0.0,
    limit: float = LIMIT,
    clock: Callable[[], float] = time.time,
) -> Probe:
    """Dial the endpoint, and look at it. Nothing is spoken, so it costs nothing.

    Args:
        endpoint: Where to, and with which key.
        dialect: The protocol; None: that of DashScope.
        watch: Seconds to watch an idle connection: does the server close it?
        limit: Seconds for each connection.
        clock: This machine's, in seconds since 1970.

    Cancellation: every socket is closed.
    """
    seen = Probe(
        endpoint=endpoint.display,
        host=endpoint.host,
        secure=urlsplit(endpoint.url).scheme == "wss",
        direct=endpoint.route is None,
    )
    connector = SpeechConnector(
        endpoint,
        dialect or Inference(),
        timeout=limit,
        heartbeat=PoolSettings().heartbeat,  # as a pool does: a server may close only what does not answer pings
    )
    ended = asyncio.Event()
    start = time.monotonic()
    try:
        connection = await connector.open(lambda _: ended.set())
    except (ConnectFailed, SettingsError) as error:
        seen = replace(seen, error=error)
        return await _steps(seen, endpoint, limit, clock) if getattr(error, "status", None) else seen
    try:
        seen = replace(seen, handshake=time.monotonic() - start)
        seen = await _steps(seen, endpoint, limit, clock)
        return await _watched(seen, ended, watch)
    finally:
        await _closed(connector, connection)


async def _watched(seen: Probe, ended: asyncio.Event, seconds: float) -> Probe:
    if not seconds:
        return seen
    start = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ended.wait()
    if not ended.is_set():
        return replace(seen, watched=seconds)
    lasted = time.monotonic() - start
    return replace(seen, watched=lasted, closed_after=lasted)


async def _closed(connector: SpeechConnector, connection: SpeechConnection) -> None:
    connector.close(connection)
    try:
        async with asyncio.timeout(1.0):
            await connector.wait_closed(connection)
    except TimeoutError:
        connector.abort(connection)
        await connector.wait_closed(connection)


# ------------------------------------------------------------------------------------ step by step
async def _steps(seen: Probe, endpoint: Endpoint, limit: float, clock: Callable[[], float]) -> Probe:
    if not seen.direct:
        return seen
    look = _Look(seen, endpoint, clock)
    # The dial has been answered, so what fails here is an answer that did not come; the times stay.
    with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
        async with asyncio.timeout(limit):
            await look.run()
    await look.close()
    return look.seen


class _Look:
    def __init__(self, seen: Probe, endpoint: Endpoint, clock: Callable[[], float]) -> None:
        self.seen = seen
        self._endpoint, self._clock = endpoint, clock
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        parts = urlsplit(self._endpoint.url)
        port = parts.port or (443 if self.seen.secure else 80)
        start = time.monotonic()
        found = await asyncio.get_running_loop().getaddrinfo(self.seen.host, port, type=socket.SOCK_STREAM)
        addresses = tuple(dict.fromkeys(str(each[4][0]) for each in found))
        self.seen = replace(self.seen, addresses=addresses, lookup=time.monotonic() - start)
        reader, writer = await self._connected(addresses, port)
        if self.seen.secure:
            await self._secured(writer)
        await self._asked(reader, writer, parts.netloc)

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _connected(
        self, addresses: tuple[str, ...], port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for number, address in enumerate(addresses, 1):
            start = time.monotonic()
            try:
                reader, self._writer = await asyncio.open_connection(address, port, limit=_HEAD)
            except OSError:
                if number == len(addresses):
                    raise
            else:
                self.seen = replace(self.seen, connect=time.monotonic() - start)
                return reader, self._writer
        raise OSError("no address")

    async def _secured(self, writer: asyncio.StreamWriter) -> None:
        start = time.monotonic()
        context = self._endpoint.ssl or tls.create_default_context()
        await writer.start_tls(context, server_hostname=self.seen.host)
        self.seen = replace(self.seen, tls=time.monotonic() - start)
        secured = writer.get_extra_info("ssl_object")
        ends = (secured.getpeercert() or {}).get("notAfter")
        days = None if ends is None else (tls.cert_time_to_seconds(ends) - self._clock()) / _DAY
        self.seen = replace(self.seen, tls_version=secured.version(), certificate_days=days)

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        """Ask for any page: whatever the answer is, its date is the server's clock. The key is not sent."""
        sent = self._clock()
        writer.write(f"GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        middle = (sent + self._clock()) / 2
        for line in head.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower() == "date":
                with contextlib.suppress(ValueError, OverflowError):
                    # Dates are cut to whole seconds, so on average half a second is missing.
                    self.seen = replace(self.seen, skew=parsedate_to_datetime(value.strip()).timestamp() + 0.5 - middle)
