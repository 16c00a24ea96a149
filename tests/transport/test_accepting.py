"""Sockets between `accept` and their request: nobody is left behind when the listener closes."""

import asyncio
import contextlib
import gc
import socket

import pytest
import trustme
import uvloop

from speechpool.transport import Refusal, serve
from tls_kit import presenting


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("when", ["before the accept", "before the handshake began", "in the handshake"])
def test_a_listener_that_closes_drops_whoever_is_still_in_the_handshake_of_tls(factory, when):
    context = presenting(trustme.CA().issue_cert("localhost"))

    async def main():
        listener = await serve(lambda _: Refusal(404), "127.0.0.1", 0, ssl=context, handshake_timeout=60)
        with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as caller:
            caller.sendall(b"\x16\x03\x01")
            if when == "in the handshake":
                await asyncio.sleep(0.05)
            elif when == "before the handshake began":
                listener._server._accept(listener._server.sockets[0], 1)
            listener.close()
            await listener.wait_closed()
            with contextlib.suppress(ConnectionResetError):
                assert caller.recv(1) == b""
        assert len(asyncio.all_tasks()) == 1

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    gc.collect()  # a socket that nobody closed warns now
