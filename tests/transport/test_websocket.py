"""What only the version over sockets does: fragments, heartbeats, broken peers, plain HTTP on the server."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket

import pytest
from transport_pair import LOOPS, Recorder, pair, run

from raw_peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, raw_server, read_frame, shake_hands
from speechpool.errors import ConnectionLost, SettingsError
from speechpool.transport import Accepted, Closed, Heartbeat, Refusal, connect, serve
from speechpool.transport import websocket as module

MAX = 1000


@pytest.fixture(params=list(LOOPS))
def loop(request):
    return request.param


def with_peer(script, body, loop="asyncio", **options):
    """Run `body(connection, recorder)` against a peer that shakes hands and then follows `script`."""

    async def peer(reader, writer):
        await shake_hands(reader, writer)
        await script(reader, writer)

    async def main():
        async with raw_server(peer) as port:
            heard = Recorder()
            connection = await connect(f"ws://127.0.0.1:{port}/x", heard, **options)
            try:
                await body(connection, heard)
            finally:
                connection.abort()
                await connection.wait_closed()
                del connection
                gc.collect()  # an error that picows keeps and nobody has read would be reported now

    run(main(), loop)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def says(*frames, then=None):
    async def script(reader, writer):
        writer.write(b"".join(frames))
        await (then or reader.read)(*(() if then is None else (reader, writer)))

    return script


class TestFragments:
    @pytest.mark.parametrize(("kind", "binary"), [(TEXT, False), (BINARY, True)])
    def test_fragments_are_joined(self, loop, kind, binary):
        async def body(_connection, heard):
            assert await heard.got(2) == [(binary, b"one, two, three"), (True, b"whole")]

        parts = (
            frame(kind, b"one, ", fin=False),
            frame(CONTINUATION, b"two, ", fin=False),
            frame(PING, b"between"),
            frame(CONTINUATION, b"three"),
            frame(BINARY, b"whole"),
        )
        with_peer(says(*parts), body, loop)

    def test_the_sum_of_fragments_is_capped(self):
        codes = []

        async def then(reader, _writer):
            codes.append(await read_frame(reader))

        async def body(connection, heard):
            assert await heard.ended() == Closed(1009, f"message longer than {MAX} bytes", clean=False)
            assert heard.frames == [(True, b"x" * MAX)]
            await connection.wait_closed()
            await until(lambda: codes)

        parts = [frame(BINARY, b"x" * 400, fin=False), frame(CONTINUATION, b"x" * 600)]
        parts += [frame(BINARY, b"y" * 400, fin=False), frame(CONTINUATION, b"y" * 601, fin=False)]
        with_peer(says(*parts, frame(CONTINUATION, b""), then=then), body, max_message=MAX)
        assert codes[0][0] == CLOSE
        assert codes[0][1][:2] == (1009).to_bytes(2)

    @pytest.mark.parametrize(
        "parts",
        [
            [frame(CONTINUATION, b"of nothing")],
            [frame(TEXT, b"begun", fin=False), frame(TEXT, b"another")],
            [frame(TEXT, b"begun", fin=False), frame(BINARY, b"another", fin=False)],
        ],
    )
    def test_fragments_out_of_order_close(self, parts):
        async def body(_connection, heard):
            assert (await heard.ended()).code == 1002
            assert heard.frames == []

        with_peer(says(*parts), body)


class TestBrokenPeers:
    @pytest.mark.parametrize(
        ("broken", "code"),
        [
            (bytes((0x83, 0)), 1002),  # unknown opcode
            (bytes((0x82, 0x81, 0, 0, 0, 0, 0)), 1002),  # masked by a server
            (frame(BINARY, b"x" * (MAX + 1)), 1009),
        ],
    )
    def test_a_broken_frame_closes_and_nothing_follows(self, broken, code):
        async def body(connection, heard):
            end = await heard.ended()
            assert (end.code, end.clean) == (code, False)
            with pytest.raises(ConnectionLost):
                connection.send(b"x")
            await connection.wait_closed()
            assert heard.frames == []
            assert heard.ends == [end]

        # picows reads on for 10 ms, and would deliver the frame it has refused.
        async def then(reader, writer):
            await reader.readexactly(4)
            writer.write(frame(BINARY, b"behind") * 3)
            await reader.read()

        with_peer(says(broken, then=then), body, max_message=MAX)

    def test_send_notices_a_close_that_picows_began(self):
        async def body(connection, heard):
            while not connection._transport.is_close_frame_sent:
                await asyncio.sleep(0)
            assert heard.ends == []
            with pytest.raises(ConnectionLost, match="1002"):
                connection.send(b"x")
            assert connection.closed.code == 1002
            await heard.ended()

        with_peer(says(bytes((0x83, 0))), body)

    def test_reset_in_the_middle_of_a_frame(self, loop):
        async def script(_reader, writer):
            sock = writer.get_extra_info("socket")
            writer.write(frame(TEXT, b"first") + frame(BINARY, b"x" * 5000)[:100])
            await asyncio.sleep(0.01)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

        async def body(connection, heard):
            end = await heard.ended()
            assert (end.code, end.clean) == (None, False)
            assert heard.frames == [(False, b"first")]
            assert connection.closed is end

        with_peer(script, body, loop)

    def test_end_of_stream_without_a_close_frame(self, loop):
        async def script(_reader, _writer):
            pass

        async def body(_connection, heard):
            assert str(await heard.ended()).startswith("no close frame")

        with_peer(script, body, loop)

    def test_an_empty_close_frame_is_1005_and_answered_with_1000(self):
        answers = []

        async def then(reader, _writer):
            answers.append(await read_frame(reader))

        async def body(connection, heard):
            assert await heard.ended() == Closed(1005, "", clean=True)
            await connection.wait_closed()
            await until(lambda: answers)

        with_peer(says(frame(CLOSE), then=then), body)
        assert answers == [(CLOSE, (1000).to_bytes(2))]

    def test_a_peer_that_never_answers_the_close_is_dropped(self, monkeypatch):
        monkeypatch.setattr(module, "CLOSING_LIMIT", 0.05)

        async def body(connection, heard):
            connection.close(1000, "bye")
            await connection.wait_closed()
            assert heard.ends == [Closed(1000, "bye", clean=False)]

        async def script(reader, _writer):
            await reader.read()
            await asyncio.Event().wait()

        with_peer(script, body)

    def test_pings_are_answered(self):
        answers = []

        async def then(reader, writer):
            answers.append(await read_frame(reader))
            writer.write(frame(TEXT, b"thanks"))
            await reader.read()

        async def body(_connection, heard):
            await heard.got(1)

        with_peer(says(frame(PING, b"are you there?"), then=then), body)
        assert answers == [(PONG, b"are you there?")]

    def test_a_long_reason_is_cut_between_characters(self):
        async def main():
            async with pair("picows") as ends:
                ends.client.close(4000, "é" * 100)
                assert (await ends.served.ended()).reason == "é" * 61

        run(main())

    @pytest.mark.parametrize("code", [0, 999, 1005, 1006, 5000])
    def test_codes_that_must_not_be_sent(self, code):
        async def main():
            async with pair("picows") as ends:
                with pytest.raises(ValueError, match="no close code"):
                    ends.client.close(code)
                assert ends.client.closed is None

        run(main())


class TestHeartbeat:
    def test_a_silent_peer_is_pinged_and_lives_if_it_answers(self):
        kinds = []

        async def script(reader, writer):
            while True:
                kind, payload = await read_frame(reader)
                kinds.append(kind)
                writer.write(frame(PONG, payload))
                if len(kinds) == 3:
                    writer.write(frame(TEXT, b"enough"))

        heartbeat = Heartbeat(0.02)

        async def body(connection, heard):
            await heard.got(1)
            assert kinds == [PING] * 3
            assert heartbeat.answered
            assert connection.closed is None

        with_peer(script, body, heartbeat=heartbeat)

    def test_a_missing_pong_means_death_where_pings_were_answered_before(self, loop):
        async def script(reader, _writer):
            await reader.read()

        async def body(connection, heard):
            assert await heard.ended() == Closed(None, "no pong within 0.02 s", clean=False)
            await connection.wait_closed()

        with_peer(script, body, loop, heartbeat=Heartbeat(0.02, answered=True))

    def test_a_peer_that_never_answered_a_ping_is_left_alone(self):
        pings = []

        async def script(reader, writer):
            while len(pings) < 4:
                pings.append(await read_frame(reader))
            writer.write(frame(TEXT, b"I do not answer pings"))
            await reader.read()

        heartbeat = Heartbeat(0.02)

        async def body(connection, heard):
            await heard.got(1)
            assert connection.closed is None
            assert not heartbeat.answered

        with_peer(script, body, heartbeat=heartbeat)

    def test_frames_count_as_life(self):
        async def script(_reader, writer):
            for _ in range(12):
                writer.write(frame(BINARY, b"audio"))
                await asyncio.sleep(0.01)
            writer.write(frame(TEXT, b"done"))
            await asyncio.Event().wait()

        async def body(connection, heard):
            # Never answers a ping, yet sends: alive for longer than two intervals.
            await heard.got(13)
            assert connection.closed is None

        with_peer(script, body, heartbeat=Heartbeat(0.05, answered=True))

    def test_a_paused_connection_is_not_declared_dead(self):
        async def main():
            heartbeat = Heartbeat(0.01, answered=True)
            async with pair("picows") as ends:
                client = await ends.dial(Recorder(), heartbeat=heartbeat)
                client.pause()
                await asyncio.sleep(0.08)
                assert client.closed is None
                client.resume()
                await until(lambda: client._pinged)
                await until(lambda: not client._pinged)
                assert client.closed is None

        run(main())

    def test_a_pong_left_unread_by_a_pause_is_not_missed(self):
        async def main():
            async with pair("picows", heartbeat=Heartbeat(30.0, answered=True)) as ends:
                client = ends.client
                client._tick()  # silence so far: a ping, whose pong stays in the socket
                client.pause()
                client._tick()
                client.resume()
                client._tick()
                assert client.closed is None

        run(main())

    def test_one_timer_per_connection_and_none_after_it(self):
        async def main():
            async with pair("picows", heartbeat=Heartbeat(30.0)) as ends:
                timer = ends.client._timer
                ends.server.send_all([(True, b"x")] * 100)
                await ends.heard.got(100)
                assert ends.client._timer is timer
                ends.client.close()
                await ends.client.wait_closed()
                assert timer.cancelled()
                assert ends.client._timer is None

        run(main())

    def test_interval_is_checked(self):
        with pytest.raises(SettingsError, match=r"Heartbeat\.interval = 0"):
            Heartbeat(0)


GET = b"GET %s HTTP/1.1\r\nHost: here\r\n%s\r\n"
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


class TestServer:
    def answers(self, *sent, accept=None, loop="asyncio", **options):
        """What a server answers to each of `sent`, and whether it still serves afterwards."""
        requests = []

        def default(request):
            requests.append(request)
            if request.path == "/healthz":
                return Refusal(200, b"fine\n")
            return Accepted(Recorder())

        async def main():
            listener = await serve(accept or default, "127.0.0.1", 0, **options)
            results = []
            for data in sent:
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                writer.write(data)
                if not data:
                    writer.write_eof()
                if UPGRADE in data:
                    results.append(await reader.readuntil(b"\r\n\r\n"))
                else:
                    results.append(await reader.read())
                writer.close()
                await writer.wait_closed()
            if accept is None:
                last = await connect(f"ws://127.0.0.1:{listener.port}/?a=b", Recorder())
                last.abort()
                await last.wait_closed()
            listener.close()
            await listener.wait_closed()
            return results

        return run(main(), loop), requests

    def test_garbage_is_refused_without_noise(self, loop, caplog):
        sent = [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"GARBAGE\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"",
            b"x" * 20_000,
        ]
        with caplog.at_level(logging.DEBUG):
            results, _ = self.answers(*sent, loop=loop)
        for result in results[:4]:
            assert result.startswith(b"HTTP/1.1 400")
        assert results[4:] == [b"", b""]
        loud = [record for record in caplog.records if record.levelno > logging.INFO or "picows" in record.name]
        assert loud == []

    def test_a_peer_that_says_nothing_is_dropped(self, loop):
        async def main():
            listener = await serve(lambda _: Refusal(404), "127.0.0.1", 0, handshake_timeout=0.05)
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            listener.close()
            await listener.wait_closed()

        run(main(), loop)

    def test_wait_closed_drops_peers_that_never_shook_hands(self, loop):
        async def main():
            listener = await serve(lambda _: Refusal(404), "127.0.0.1", 0, handshake_timeout=None)
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(b"GET ")
            await asyncio.sleep(0.02)
            listener.close()
            await listener.wait_closed()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

        run(main(), loop)

    def test_plain_answers(self):
        (health, needs_upgrade), requests = self.answers(GET % (b"/healthz", b""), GET % (b"/ws", b""))
        assert health.startswith(b"HTTP/1.1 200 OK\r\n")
        assert health.endswith(b"\r\n\r\nfine\n")
        assert needs_upgrade.startswith(b"HTTP/1.1 426 ")
        assert [request.upgrade for request in requests] == [False, False, True]

    def test_the_request_is_handed_over(self):
        sent = GET % (b"/a%20b?x=1&y=2", b"X-Dashscope-WorkSpace: ws-1\r\n" + UPGRADE)
        (answer,), requests = self.answers(sent)
        # Firefox's Connection header, which picows alone refuses.
        assert answer.startswith(b"HTTP/1.1 101 ")
        request = requests[0]
        assert (request.method, request.path, request.query) == ("GET", "/a%20b", "x=1&y=2")
        assert request.headers["x-dashscope-workspace"] == "ws-1"
        assert request.upgrade
        assert "ws-1" not in repr(request)

    def test_headers_of_the_answer(self):
        def accept(_request):
            return Accepted(Recorder(), {"X-Request-Id": "42"})

        (answer,), _ = self.answers(GET % (b"/", UPGRADE), accept=accept)
        assert b"\r\nX-Request-Id: 42\r\n" in answer

    def test_a_failing_accepter_tells_strangers_nothing(self, caplog):
        def accept(_request):
            raise RuntimeError("the key is sk-secret")

        (answer,), _ = self.answers(GET % (b"/", b""), accept=accept)
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in answer
        assert [record.levelno for record in caplog.records] == [logging.ERROR]

    def test_peer_address(self):
        async def main():
            async with pair("picows") as ends:
                local = ends.client._transport.underlying_transport.get_extra_info("sockname")
                assert ends.server.peer == local
                assert ends.client.peer == ("127.0.0.1", ends.listener.port)

        run(main())

    def test_send_all_is_one_write(self):
        async def main():
            async with pair("picows") as ends:
                transport = ends.server._transport.underlying_transport
                writes = []

                class Spy:
                    def writelines(self, lines):
                        writes.append(b"".join(lines))
                        transport.writelines(lines)

                class Transport:
                    is_client_side = is_close_frame_sent = False
                    underlying_transport = Spy()

                real, ends.server._transport = ends.server._transport, Transport()
                ends.server.send_all([(True, b"a" * 3200)] * 10)
                ends.server._transport = real
                assert len(writes) == 1
                assert await ends.heard.got(10) == [(True, b"a" * 3200)] * 10

        run(main())

    def test_a_herd_is_accepted(self, loop):
        async def main():
            async with pair("picows") as ends:
                recorders = [Recorder() for _ in range(150)]
                await asyncio.gather(*(ends.dial(recorder) for recorder in recorders))
                assert len(ends.listener.connections) == 151
                for connection in ends.listener.connections:
                    connection.close(1001)
                for recorder in recorders:
                    assert (await recorder.ended()).code == 1001

        run(main(), loop)
