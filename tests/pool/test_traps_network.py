"""What only a real socket shows: where a new dial goes after the name has moved."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from fake_connector import make_pool

from speechpool.synthesis.connector import SpeechConnector
from speechpool.synthesis.endpoint import Endpoint
from speechpool.testing.tiny import Tiny
from speechpool.transport import Accepted, serve

HOST = "speech.test"


class Guest:
    """The server's end of a connection; nothing is spoken here."""

    def on_connected(self, connection):
        """It came."""

    def on_closed(self, closed):
        """It went."""


@contextlib.asynccontextmanager
async def two_machines():
    async with contextlib.AsyncExitStack() as stack:
        listeners = []
        for _ in range(2):
            listener = await serve(lambda request: Accepted(Guest()), "127.0.0.1", 0)
            stack.push_async_callback(listener.wait_closed)
            stack.callback(listener.close)
            listeners.append(listener)
        yield listeners


def test_t33_a_name_that_moves_is_found_by_every_new_dial_and_the_old_ones_drain(monkeypatch):
    async def main():
        loop = asyncio.get_running_loop()
        asked = []

        async with two_machines() as (old, new):
            there = old

            async def getaddrinfo(host, port, **_options):
                asked.append(host)
                return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", there.port))]

            monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
            endpoint = Endpoint(f"ws://{HOST}/v1", api_key="k", proxy="none")
            pool = make_pool(SpeechConnector(endpoint, Tiny()), max_size=2)
            try:
                await pool.open()
                await pool.wait_ready()
                assert (len(old.connections), len(new.connections)) == (2, 0)
                kept = await pool.borrow()
                there = new  # the endpoint moves
                (await pool.borrow()).discard("its time was over")
                await pool.wait_ready()
                assert (len(old.connections), len(new.connections)) == (1, 1)
                assert kept.usable  # who speaks to the old machine may end the sentence
                for connection in old.connections:
                    connection.close()  # the old machine goes away
                await kept.renew(fresh=True)
                kept.return_()
                await pool.wait_ready()
                assert (len(old.connections), len(new.connections)) == (0, 2)
                assert asked == [HOST] * 4  # once for each dial
            finally:
                await pool.close(drain=0)

    asyncio.run(main())
