"""Two proxies that ask for a password, as handlers of `raw_peer.raw_server`."""

import asyncio
import socket

USER = "user:p%40ss@"
"""Who they let through, as it stands in a URL."""


async def relay(reader, writer, host, port):
    there_reader, there_writer = await asyncio.open_connection(host, port)

    async def copy(source, sink):
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    try:
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
    finally:
        there_writer.close()


class ConnectProxy:
    """HTTP CONNECT, with Basic authentication."""

    shown = "http"
    target: str | None = None
    """Where it really connects to; None: where it was asked to."""

    def __init__(self, status=None):
        self.asked = []
        self.status = status

    async def __call__(self, reader, writer):
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = request.split()[1]
        self.asked.append(target)
        if self.status or "Proxy-Authorization: Basic dXNlcjpwQHNz" not in request:
            writer.write(f"HTTP/1.1 {self.status or '407 Proxy Authentication Required'}\r\n\r\n".encode())
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        host, _, port = target.rpartition(":")
        await relay(reader, writer, self.target or host, int(port))


class SocksProxy:
    """SOCKS5 with user and password."""

    shown = "socks5"
    target: str | None = None

    def __init__(self, status=None):
        self.asked = []
        self.status = status

    async def __call__(self, reader, writer):
        _, methods = await reader.readexactly(2)
        offered = await reader.readexactly(methods)
        if 2 not in offered:
            writer.write(b"\5\xff")
            return
        writer.write(b"\5\2")
        user = await reader.readexactly((await reader.readexactly(2))[1])
        password = await reader.readexactly((await reader.readexactly(1))[0])
        good = (user, password) == (b"user", b"p@ss")
        writer.write(b"\1\0" if good else b"\1\1")
        if not good:
            return
        _, _, _, kind = await reader.readexactly(4)
        assert kind in {1, 3}
        raw = await reader.readexactly(4 if kind == 1 else (await reader.readexactly(1))[0])
        host = socket.inet_ntoa(raw) if kind == 1 else raw.decode()
        port = int.from_bytes(await reader.readexactly(2))
        self.asked.append(f"{host}:{port}")
        if self.status:
            writer.write(b"\5\5\0\1" + bytes(6))
            return
        writer.write(b"\5\0\0\1" + bytes(6))
        await relay(reader, writer, self.target or host, port)
