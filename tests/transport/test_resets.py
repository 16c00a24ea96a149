"""A reset right behind data that nobody has read yet is noticed at once, at both ends and on both loops."""

import asyncio
import base64
import hashlib
import socket
import struct

import pytest
from transport_pair import Recorder, pair, run

from raw_peer import GUID, TEXT, frame
from speechpool.transport import connect

pytestmark = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def send_and_reset(sock, data):
    """Both happen before the loop polls again: it finds data, the end and the error at once."""
    sock.settimeout(None)
    sock.sendall(data)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def shake_hands(sock, request):
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))[19:].strip()
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    await asyncio.get_running_loop().sock_sendall(sock, answer + accept + b"\r\n\r\n")


def test_at_the_client(loop):
    async def main():
        here = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(0)
            heard = Recorder()
            dial = asyncio.ensure_future(connect(f"ws://127.0.0.1:{listening.getsockname()[1]}/", heard))
            sock, _ = await here.sock_accept(listening)
            await shake_hands(sock, await here.sock_recv(sock, 4096))
            connection = await dial
            send_and_reset(sock, frame(TEXT, b"hi"))
            await heard.ended()
            await connection.wait_closed()
            assert heard.frames in ([], [(False, b"hi")])  # the kernel may drop what a reset overtakes

    run(main(), loop)


def test_at_the_server(loop):
    async def main():
        here = asyncio.get_running_loop()
        async with pair("picows") as ends:
            served = Recorder()
            ends.accept_next(served)
            sock = socket.socket()
            sock.settimeout(0)
            await here.sock_connect(sock, (ends.listener.host, ends.listener.port))
            await here.sock_sendall(
                sock,
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            )
            await here.sock_recv(sock, 4096)
            await served.until(lambda: served.connection)
            send_and_reset(sock, b"\x81\xfehalf")
            await served.ended()

    run(main(), loop)
