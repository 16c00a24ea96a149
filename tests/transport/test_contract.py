"""The contract of `speechpool.transport.connection`, kept by picows over sockets and by the in-memory version."""

from __future__ import annotations

import asyncio
import logging

import pytest
from transport_pair import LOOPS, Pair, Recorder, pair, push, run

from speechpool.errors import ConnectFailed, ConnectionLost, RateLimited, Unauthorized
from speechpool.transport import Closed, Connection, Refusal


@pytest.fixture(params=["picows", "memory"])
def kind(request):
    return request.param


@pytest.fixture(params=list(LOOPS))
def loop(request):
    return request.param


class Bug(Exception):
    pass


class TestContract:
    def check(self, kind, loop, body, **options):
        async def main():
            async with pair(kind, **options) as ends:
                await body(ends)

        run(main(), loop)

    def test_both_fit_the_protocol(self, kind, loop):
        async def body(ends: Pair):
            client: Connection = ends.client
            server: Connection = ends.server
            assert client.closed is None
            assert server.closed is None

        self.check(kind, loop, body)

    def test_frames_keep_their_order_and_kind(self, kind, loop):
        async def body(ends: Pair):
            sent = [(number % 3 == 0, f"frame {number}".encode()) for number in range(200)]
            for binary, data in sent:
                ends.client.send(data, binary)
                ends.server.send(data, binary)
            assert await ends.served.got(200) == sent
            assert await ends.heard.got(200) == sent

        self.check(kind, loop, body)

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 3_000_000])
    def test_sizes(self, kind, loop, size):
        async def body(ends: Pair):
            data = bytes(range(256)) * (size // 256 + 1)
            data = data[:size]
            ends.client.send(data, binary=True)
            ends.server.send(data)
            ends.server.send_all([(True, data), (False, b"behind")])
            assert await ends.served.got(1) == [(True, data)]
            assert await ends.heard.got(3) == [(False, data), (True, data), (False, b"behind")]

        self.check(kind, loop, body)

    def test_send_all_equals_sends(self, kind, loop):
        async def body(ends: Pair):
            frames = [(number % 2 == 0, bytes([number]) * number * 40) for number in range(60)]
            ends.server.send_all(frames[:30])
            for binary, data in frames[30:40]:
                ends.server.send(data, binary)
            ends.server.send_all(frames[40:])
            ends.server.send_all([])
            assert await ends.heard.got(60) == frames

        self.check(kind, loop, body)

    def test_what_the_server_sends_at_once_is_not_lost(self, kind, loop):
        async def body(ends: Pair):
            class Eager(Recorder):
                def on_connected(self, connection):
                    super().on_connected(connection)
                    connection.send(b"welcome")
                    connection.close(1001)

            ends.accept_next(Eager())
            heard = Recorder()
            await ends.dial(heard)
            assert await heard.ended() == Closed(1001, "", clean=True)
            assert heard.frames == [(False, b"welcome")]

        self.check(kind, loop, body)

    def test_a_failing_on_connected_costs_its_connection_only(self, kind, loop, caplog):
        async def body(ends: Pair):
            class Failing(Recorder):
                def on_connected(self, connection):
                    super().on_connected(connection)
                    raise Bug

            failing, heard = Failing(), Recorder()
            ends.accept_next(failing)
            await ends.dial(heard)
            assert (await heard.ended()).clean is False
            assert await failing.ended() == Closed(None, "its owner failed with Bug", clean=False)
            assert ends.client.closed is None

        self.check(kind, loop, body)
        assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [Bug]

    def test_owner_swap(self, kind, loop):
        async def body(ends: Pair):
            second = Recorder()
            ends.server.send(b"for the first")
            await ends.heard.got(1)
            ends.client.owner = second
            ends.server.send(b"for the second")
            assert await second.got(1) == [(False, b"for the second")]
            ends.server.close(1001, "bye")
            assert await second.ended() == Closed(1001, "bye", clean=True)
            assert ends.heard.frames == [(False, b"for the first")]
            assert ends.heard.ends == []

        self.check(kind, loop, body)

    def test_owner_swap_between_two_frames_of_one_read(self, kind, loop):
        async def body(ends: Pair):
            second = Recorder()

            class Giver(Recorder):
                def on_text(self, data):
                    super().on_text(data)
                    ends.client.owner = second

            giver = Giver()
            ends.client.owner = giver
            ends.server.send_all([(False, b"one"), (False, b"two")])
            assert await second.got(1) == [(False, b"two")]
            assert giver.frames == [(False, b"one")]

        self.check(kind, loop, body)

    def test_a_paused_reader_bounds_the_sender(self, kind, loop):
        async def body(ends: Pair):
            ends.client.pause()
            ends.client.pause()
            count, waiting = await push(ends.server)
            ends.client.resume()
            await waiting
            await ends.heard.got(count)
            ends.client.resume()
            ends.server.send(b"behind")
            assert (await ends.heard.got(count + 1))[-1] == (False, b"behind")

        self.check(kind, loop, body)

    def test_drain_on_an_idle_connection_does_not_wait(self, kind, loop):
        async def body(ends: Pair):
            await ends.client.drain()
            ends.client.send(b"x")
            await ends.client.drain()

        self.check(kind, loop, body)

    def test_cancelled_drain_loses_nothing(self, kind, loop):
        async def body(ends: Pair):
            ends.client.pause()
            count, waiting = await push(ends.server)
            second = asyncio.ensure_future(ends.server.drain())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            ends.client.resume()
            await second
            assert len(await ends.heard.got(count)) == count

        self.check(kind, loop, body)

    def test_drain_raises_when_the_connection_ends(self, kind, loop):
        async def body(ends: Pair):
            ends.client.pause()
            _, waiting = await push(ends.server)
            ends.client.abort()
            with pytest.raises(ConnectionLost, match="has ended"):
                await waiting

        self.check(kind, loop, body)

    @pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4001, 4999])
    def test_both_sides_see_the_close_code(self, kind, loop, code):
        async def body(ends: Pair):
            ends.server.close(code, "wörds")
            assert ends.server.closed == Closed(code, "wörds", clean=False)
            assert await ends.heard.ended() == Closed(code, "wörds", clean=True)
            assert await ends.served.ended() == Closed(code, "wörds", clean=True)
            assert ends.client.closed == ends.server.closed == Closed(code, "wörds", clean=True)
            await ends.client.wait_closed()
            await ends.server.wait_closed()

        self.check(kind, loop, body)

    def test_closed_is_set_before_the_owner_hears_of_it(self, kind, loop):
        async def body(ends: Pair):
            class Asking(Recorder):
                def on_closed(self, closed):
                    assert ends.client.closed == closed
                    super().on_closed(closed)

            asking = Asking()
            ends.client.owner = asking
            ends.server.close(1001)
            assert (await asking.ended()).code == 1001

        self.check(kind, loop, body)

    def test_both_close_at_once(self, kind, loop):
        async def body(ends: Pair):
            ends.client.close(1000, "mine")
            ends.server.close(1001, "yours")
            assert await ends.heard.ended() == Closed(1000, "mine", clean=True)
            assert await ends.served.ended() == Closed(1001, "yours", clean=True)
            await ends.client.wait_closed()
            await ends.server.wait_closed()

        self.check(kind, loop, body)

    def test_frames_before_the_close_arrive_and_none_after_it(self, kind, loop):
        async def body(ends: Pair):
            for number in range(50):
                ends.server.send(str(number).encode())
            ends.server.close()
            await ends.heard.ended()
            assert len(ends.heard.frames) == 50

        self.check(kind, loop, body)

    def test_nothing_reaches_the_owner_after_its_own_close(self, kind, loop):
        async def body(ends: Pair):
            class Closing(Recorder):
                def on_text(self, data):
                    super().on_text(data)
                    ends.client.close()

            owner = Closing()
            ends.client.owner = owner
            ends.server.send_all([(False, b"one"), (False, b"two"), (True, b"three")])
            await owner.ended()
            assert owner.frames == [(False, b"one")]
            assert owner.ends == [Closed(1000, "", clean=True)]

        self.check(kind, loop, body)

    def test_close_of_a_paused_connection_ends(self, kind, loop):
        async def body(ends: Pair):
            ends.client.pause()
            ends.server.send(b"unread")
            ends.client.close(1000, "enough")
            await ends.client.wait_closed()
            assert ends.heard.frames == []
            assert ends.heard.ends == [Closed(1000, "enough", clean=True)]

        self.check(kind, loop, body)

    def test_a_paused_connection_notices_the_end_at_resume(self, kind, loop):
        async def body(ends: Pair):
            ends.client.pause()
            ends.server.close(1001, "restart")
            for _ in range(20):
                await asyncio.sleep(0)
            assert ends.heard.ends == []
            ends.client.resume()
            assert await ends.heard.ended() == Closed(1001, "restart", clean=True)

        self.check(kind, loop, body)

    def test_abort(self, kind, loop):
        async def body(ends: Pair):
            ends.client.abort()
            assert ends.client.closed == Closed(None, "aborted by this side", clean=False)
            await ends.client.wait_closed()
            assert ends.heard.ends == [ends.client.closed]
            end = await ends.served.ended()
            assert (end.code, end.clean) == (None, False)
            await ends.server.wait_closed()

        self.check(kind, loop, body)

    def test_abort_of_a_close_that_is_not_answered(self, kind, loop):
        async def body(ends: Pair):
            ends.server.pause()
            ends.client.close(1000, "enough")
            waiting = asyncio.ensure_future(ends.client.wait_closed())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not waiting.done()
            assert ends.heard.ends == []
            ends.client.abort()
            await waiting
            assert ends.heard.ends == [Closed(1000, "enough", clean=False)]

        self.check(kind, loop, body)

    def test_send_after_the_end_raises(self, kind, loop):
        async def body(ends: Pair):
            ends.client.close(4000, "own")
            with pytest.raises(ConnectionLost) as caught:
                ends.client.send(b"x")
            assert caught.value.close_code == 4000
            assert caught.value.endpoint.endswith("/speech")
            await ends.served.ended()
            for refuse in (lambda: ends.server.send(b"x"), lambda: ends.server.send_all([(True, b"x")])):
                with pytest.raises(ConnectionLost, match="close code 4000"):
                    refuse()
            with pytest.raises(ConnectionLost):
                await ends.server.drain()
            await ends.client.wait_closed()
            with pytest.raises(ConnectionLost):
                ends.client.send(b"x")

        self.check(kind, loop, body)

    def test_the_end_is_told_once(self, kind, loop):
        async def body(ends: Pair):
            ends.server.close(1001)
            await ends.heard.ended()
            ends.client.close(1000)
            ends.client.abort()
            ends.client.abort()
            await ends.client.wait_closed()
            await ends.server.wait_closed()
            ends.client.close()
            ends.client.abort()
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(ends.heard.ends) == len(ends.served.ends) == 1
            assert ends.heard.ends[0].code == 1001

        self.check(kind, loop, body)

    @pytest.mark.parametrize("method", ["on_text", "on_binary"])
    def test_a_failing_owner_costs_its_connection_only(self, kind, loop, method, caplog):
        async def body(ends: Pair):
            class Failing(Recorder):
                pass

            def fail(_self, _data):
                raise Bug

            setattr(Failing, method, fail)
            failing = Failing()
            ends.client.owner = failing
            ends.server.send_all([(method == "on_binary", b"payload")] * 3)
            end = await failing.ended()
            assert end == Closed(None, "its owner failed with Bug", clean=False)
            await ends.client.wait_closed()
            assert failing.ends == [end]
            assert (await ends.served.ended()).clean is False

        with caplog.at_level(logging.ERROR):
            self.check(kind, loop, body)
        assert len(caplog.records) == 1
        assert caplog.records[0].levelno == logging.ERROR
        assert caplog.records[0].exc_info[0] is Bug
        assert "payload" not in caplog.records[0].getMessage()

    def test_a_failing_on_closed_is_logged(self, kind, loop, caplog):
        async def body(ends: Pair):
            class Failing(Recorder):
                def on_closed(self, closed):
                    super().on_closed(closed)
                    raise Bug

            failing = Failing()
            ends.client.owner = failing
            ends.server.close()
            await ends.client.wait_closed()
            assert len(failing.ends) == 1

        self.check(kind, loop, body)
        assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]

    def test_cancelled_wait_closed_leaves_the_close_going(self, kind, loop):
        async def body(ends: Pair):
            ends.server.pause()
            ends.client.close()
            waiting = asyncio.ensure_future(ends.client.wait_closed())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            ends.server.resume()
            await ends.client.wait_closed()
            assert ends.heard.ends == [Closed(1000, "", clean=True)]

        self.check(kind, loop, body)

    def test_a_message_that_is_too_long_closes(self, kind, loop):
        async def body(ends: Pair):
            ends.server.send(b"x" * 1000, binary=True)
            await ends.heard.got(1)
            ends.server.send(b"x" * 1001, binary=True)
            assert (await ends.heard.ended()).code == 1009
            assert (await ends.served.ended()).code == 1009
            assert ends.heard.frames == [(True, b"x" * 1000)]
            assert ends.client.closed.code == 1009

        self.check(kind, loop, body, max_message=1000)

    @pytest.mark.parametrize(
        ("status", "kind_of_error", "permanent"),
        [(401, Unauthorized, True), (429, RateLimited, False), (503, ConnectFailed, False), (404, ConnectFailed, True)],
    )
    def test_refusals(self, kind, loop, status, kind_of_error, permanent):
        async def body(ends: Pair):
            ends.accept_next(Refusal(status, b"because", {"Retry-After": "7"}))
            with pytest.raises(ConnectFailed, match="because") as caught:
                await ends.dial(Recorder(), headers={"Authorization": "Bearer sk-secret"})
            error = caught.value
            assert type(error) is kind_of_error
            assert (error.status, error.permanent) == (status, permanent)
            assert error.retry_after == (None if permanent and status == 401 else 7)

        self.check(kind, loop, body)

    def test_nobody_listens(self, kind, loop):
        async def body(ends: Pair):
            ends.listener.close()
            with pytest.raises(ConnectFailed, match=r"refused the connection\. Is the service running") as caught:
                await ends.dial(Recorder())
            assert caught.value.retryable

        self.check(kind, loop, body)

    def test_listener_knows_its_connections(self, kind, loop):
        async def body(ends: Pair):
            assert ends.listener.connections == {ends.server}
            ends.listener.close()
            waiting = asyncio.ensure_future(ends.listener.wait_closed())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            ends.client.send(b"still here")
            await ends.served.got(1)
            ends.server.close(1001, "going away")
            await waiting
            assert ends.listener.connections == frozenset()

        self.check(kind, loop, body)
