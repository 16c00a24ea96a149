"""What only the in-memory version has: a network that can be cut."""

from __future__ import annotations

import asyncio

import pytest
from transport_pair import Recorder, pair, run

from speechpool.errors import ConnectionLost
from speechpool.transport import Closed

RESET = Closed(None, "reset", clean=False)


def test_cut_resets_every_connection_and_loses_what_was_under_way():
    async def main():
        async with pair("memory") as ends:
            second = Recorder()
            await ends.dial(second)
            ends.server.send(b"lost")
            ends.client.send(b"lost, too")
            ends._network.cut()
            assert await ends.heard.ended() == RESET
            assert await ends.served.ended() == RESET
            assert await second.ended() == RESET
            assert ends.heard.frames == ends.served.frames == []
            with pytest.raises(ConnectionLost):
                ends.client.send(b"x")
            assert ends.listener.connections == frozenset()

    run(main())


def test_cut_of_one_connection_leaves_the_others():
    async def main():
        async with pair("memory") as ends:
            second = Recorder()
            await ends.dial(second)
            ends.client.cut()
            assert await ends.served.ended() == RESET
            assert second.ends == []

    run(main())


def test_a_paused_end_learns_of_the_cut_at_resume():
    async def main():
        async with pair("memory") as ends:
            ends.client.pause()
            ends.client.cut()
            await ends.served.ended()
            for _ in range(5):
                await asyncio.sleep(0)
            assert ends.heard.ends == []
            ends.client.resume()
            assert await ends.heard.ended() == RESET

    run(main())


def test_the_request_carries_path_query_and_headers():
    async def main():
        async with pair("memory") as ends:
            seen = []
            accept = ends.listener._accept
            ends.listener._accept = lambda request: (seen.append(request), accept(request))[1]
            url = f"{ends.listener.url}/a?b=c"
            client = await ends._network.connect(url, Recorder(), headers={"Authorization": "Bearer k"})
            assert (seen[0].path, seen[0].query, seen[0].headers["authorization"]) == ("/a", "b=c", "Bearer k")
            client.abort()
            await client.wait_closed()

    run(main())
