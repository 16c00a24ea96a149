"""Opening a connection: every way to fail becomes an error that says what to do, and no socket stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import logging
import pathlib
import socket
import ssl
import struct
import traceback

import pytest
import trustme
from transport_pair import LOOPS, Recorder, push, run

from proxy_kit import ConnectProxy, SocksProxy
from raw_peer import TEXT, frame, raw_server, shake_hands
from speechpool.errors import ConnectFailed, RateLimited, SettingsError, Unauthorized
from speechpool.transport import Accepted, connect, dialling, failures, serve
from tls_kit import presenting, trusting

KEY = "sk-0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(params=list(LOOPS))
def loop(request):
    return request.param


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def open_sockets():
    gc.collect()
    links = []
    for each in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(each.readlink()))
    return sorted(link for link in links if link.startswith("socket:"))


async def failure(url, **options):
    """The error of a dial, after checks that hold for all of them."""
    with pytest.raises(ConnectFailed) as caught:
        await connect(url, Recorder(), headers=HEADERS, **options)
    error = caught.value
    # TracebackException with its causes is what a log would show.
    shown = "".join(traceback.format_exception(error))
    assert KEY not in shown
    assert KEY not in repr(error)
    assert error.retryable is not error.permanent
    assert "?" not in error.endpoint
    assert error.endpoint in str(error)
    return error


def answer(status_line, headers="", body=""):
    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{status_line}\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()

    return handler


def dial_raw(handler, path="/v1/x?token=secret", loop="asyncio", scheme="ws", **options):
    async def main():
        async with raw_server(handler) as port:
            return await failure(f"{scheme}://127.0.0.1:{port}{path}", **options), port

    return run(main(), loop)


def test_a_socket_that_is_reset_as_soon_as_it_is_connected_is_closed(loop, monkeypatch):
    """picows would take it for one that was never connected, connect it, fail, and leave it open."""
    answering = dialling._Dial._first_that_answers

    async def answering_and_reset(*arguments):
        sock = await answering(*arguments)
        peer, _ = server.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with contextlib.suppress(OSError):
            while True:
                socket.socket.getpeername(sock)
        return sock

    monkeypatch.setattr(dialling._Dial, "_first_that_answers", answering_and_reset)
    with socket.create_server(("127.0.0.1", 0)) as server:

        async def main():
            before = open_sockets()
            error = await failure(f"ws://127.0.0.1:{server.getsockname()[1]}")
            await asyncio.sleep(0)
            assert open_sockets() == before
            return error

        assert "hung up without an answer" in str(run(main(), loop))


class TestStatus:
    @pytest.mark.parametrize(
        ("line", "kind", "permanent"),
        [
            ("HTTP/1.1 401 Unauthorized", Unauthorized, True),
            ("HTTP/1.1 403 Forbidden", Unauthorized, True),
            ("HTTP/1.1 429 Too Many Requests", RateLimited, False),
            ("HTTP/1.1 500 Internal Server Error", ConnectFailed, False),
            ("HTTP/1.1 502 Bad Gateway", ConnectFailed, False),
            ("HTTP/1.1 503 Service Unavailable", ConnectFailed, False),
            ("HTTP/1.0 503 Service Unavailable", ConnectFailed, False),
            ("HTTP/1.1 504 Gateway Timeout", ConnectFailed, False),
            ("HTTP/1.1 520 Web Server Returned an Unknown Error", ConnectFailed, False),
            ("HTTP/1.1 408 Request Timeout", ConnectFailed, False),
            ("HTTP/1.1 400 Bad Request", ConnectFailed, True),
            ("HTTP/1.1 404 Not Found", ConnectFailed, True),
            ("HTTP/1.1 418 I'm a Teapot", ConnectFailed, True),
            ("HTTP/1.1 200 OK", ConnectFailed, True),
        ],
    )
    def test_status(self, line, kind, permanent):
        error, port = dial_raw(answer(line, body='{"message": "because"}'))
        assert type(error) is kind
        assert (error.status, error.permanent) == (int(line.split()[1]), permanent)
        assert error.endpoint == f"127.0.0.1:{port}/v1/x"
        assert "because" in str(error)

    @pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
    def test_retry_after(self, loop, status):
        assert dial_raw(answer(f"HTTP/1.1 {status}", "Retry-After: 7\r\n"), loop=loop)[0].retry_after == 7.0
        assert dial_raw(answer(f"HTTP/1.1 {status}"), loop=loop)[0].retry_after is None

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after": "1.5"}, 1.5),
            ({"retry-after": "-3"}, 0.0),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "inf"}, None),
            ({"retry-after": ""}, None),
            ({}, None),
            ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
            ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
            (
                {"retry-after": "Fri, 01 Jan 2100 00:00:30 GMT", "date": "Fri, 01 Jan 2100 00:00:00 GMT"},
                30.0,
            ),
        ],
    )
    def test_retry_after_forms(self, headers, seconds):
        assert failures.retry_after(headers, now=60.0) == seconds

    def test_a_redirect_to_nowhere_is_a_refusal_too(self):
        error = failures.refused("host/x", 302, {"location": "http://[x/"})
        assert (error.status, error.permanent) == (302, True)
        assert "a place that is no URL" in str(error)

    def test_redirects_are_not_followed(self):
        hits = []

        async def other(reader, writer):
            hits.append(await reader.readuntil(b"\r\n\r\n"))

        async def main():
            async with raw_server(other) as there:
                location = f"Location: ws://user:pw@127.0.0.1:{there}/elsewhere?sig=secret\r\n"
                async with raw_server(answer("HTTP/1.1 302 Found", location)) as port:
                    error = await failure(f"ws://127.0.0.1:{port}/x")
            assert hits == []
            assert (error.status, error.permanent) == (302, True)
            assert f"ws://127.0.0.1:{there}/elsewhere" in str(error)
            assert "secret" not in str(error)
            assert "pw" not in str(error)

        run(main())

    def test_a_body_that_echoes_the_key_is_cleaned(self):
        error, _ = dial_raw(answer("HTTP/1.1 401 Unauthorized", body=f"bad key {KEY} in Bearer {KEY}"))
        assert "bad key *** in" in str(error)

    def test_no_http(self):
        async def handler(reader, writer):
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            await reader.read()

        error, _ = dial_raw(handler)
        assert error.permanent
        assert "no HTTP" in str(error)

    def test_101_that_is_no_websocket(self):
        error, _ = dial_raw(answer("HTTP/1.1 101 Switching Protocols", "Upgrade: h2c\r\nConnection: Upgrade\r\n"))
        assert error.permanent
        assert "WebSocket" in str(error)


class TestNetwork:
    def test_refused(self, loop):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            error = run(failure(f"ws://127.0.0.1:{port}/"), loop)
        assert error.retryable
        assert "Is the service running" in str(error)
        assert f"127.0.0.1:{port}" in str(error)

    def test_hung_up_before_the_answer(self, loop):
        async def handler(reader, _writer):
            await reader.readuntil(b"\r\n\r\n")

        error, _ = dial_raw(handler, loop=loop)
        assert error.retryable
        assert "hung up without an answer" in str(error)
        assert "wss://" in str(error)

    @pytest.mark.parametrize(
        ("number", "permanent"), [(socket.EAI_NONAME, True), (socket.EAI_NODATA, True), (socket.EAI_AGAIN, False)]
    )
    def test_names(self, number, permanent):
        async def main():
            async def getaddrinfo(*_args, **_options):
                raise socket.gaierror(number, "as the resolver says")

            asyncio.get_running_loop().getaddrinfo = getaddrinfo
            return await failure("wss://nowhere.invalid/x?token=secret")

        error = run(main())
        assert error.permanent is permanent
        assert "nowhere.invalid" in str(error)

    def test_a_second_address_is_tried(self):
        async def main():
            listener = await serve(lambda _: Accepted(Recorder()), "127.0.0.1", 0)
            running = asyncio.get_running_loop()

            async def getaddrinfo(host, port, **_options):
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
                ]

            running.getaddrinfo = getaddrinfo
            connection = await connect(f"ws://two.addresses:{listener.port}/", Recorder())
            connection.abort()
            await connection.wait_closed()
            listener.close()
            await listener.wait_closed()

        run(main())

    @pytest.mark.parametrize("scheme", ["ws", "wss"])
    def test_a_server_that_accepts_and_is_silent(self, loop, scheme):
        async def handler(reader, _writer):
            await reader.read()

        before = open_sockets()
        error, port = dial_raw(handler, loop=loop, scheme=scheme, timeout=0.05)
        assert error.retryable
        assert "within 0.05 s" in str(error)
        assert f"handshake of 127.0.0.1:{port}" in str(error)
        assert open_sockets() == before

    @pytest.mark.parametrize("scheme", ["ws", "wss"])
    def test_cancelled_dial_leaves_no_socket(self, loop, scheme):
        async def main():
            asked = asyncio.Event()
            ended = asyncio.Event()

            async def handler(reader, _writer):
                await reader.read(1)
                asked.set()
                await reader.read()
                ended.set()

            async with raw_server(handler) as port:
                dial = asyncio.ensure_future(connect(f"{scheme}://127.0.0.1:{port}/", Recorder(), timeout=None))
                await asked.wait()
                dial.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await dial
                await ended.wait()

        before = open_sockets()
        run(main(), loop)
        assert open_sockets() == before

    def test_a_cancelled_dial_at_every_step(self, loop):
        """Cancel after each number of loop turns: whatever the dial was doing, nothing stays open."""

        async def main():
            listener = await serve(lambda _: Accepted(Recorder()), "127.0.0.1", 0)
            finished = False
            for turns in range(200):
                owner = Recorder()
                dial = asyncio.ensure_future(connect(f"ws://127.0.0.1:{listener.port}/", owner))
                for _ in range(turns):
                    await asyncio.sleep(0)
                finished = dial.done()
                dial.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    connection = await dial
                    connection.abort()
                if finished:
                    break
                assert owner.frames == owner.ends == []
            assert finished
            listener.close()
            async with asyncio.timeout(5):
                await listener.wait_closed()

        before = open_sockets()
        run(main(), loop)
        assert open_sockets() == before

    def test_the_program_may_end_right_after_a_cancelled_dial(self, loop, recwarn):
        async def main():
            async def handler(reader, _writer):
                await reader.read()

            async with raw_server(handler) as port:
                dial = asyncio.ensure_future(connect(f"ws://127.0.0.1:{port}/", Recorder()))
                await asyncio.sleep(0.02)
                dial.cancel()
                await asyncio.gather(dial, return_exceptions=True)

        run(main(), loop)
        gc.collect()
        assert [str(warning.message) for warning in recwarn] == []

    def test_frames_that_come_with_the_answer_are_not_lost(self, loop):
        async def handler(reader, writer):
            await shake_hands(reader, writer, frame(TEXT, b"at once"))
            await reader.read()

        async def main():
            async with raw_server(handler) as port:
                heard = Recorder()
                connection = await connect(f"ws://127.0.0.1:{port}/", heard)
                assert await heard.got(1) == [(False, b"at once")]
                connection.abort()
                await connection.wait_closed()

        run(main(), loop)

    def test_a_dial_cancelled_after_its_handshake_leaves_no_connection(self, loop):
        async def main():
            ended = asyncio.Event()

            async def handler(reader, writer):
                await shake_hands(reader, writer, frame(TEXT, b"one") + frame(TEXT, b"two"))
                await reader.read()
                ended.set()

            class Cancelling(Recorder):
                def on_text(self, data):
                    super().on_text(data)
                    dial.cancel()

            async with raw_server(handler) as port:
                owner = Cancelling()
                dial = asyncio.ensure_future(connect(f"ws://127.0.0.1:{port}/", owner))
                with pytest.raises(asyncio.CancelledError):
                    await dial
                heard = len(owner.frames)
                await ended.wait()
                assert len(owner.frames) == heard
                assert owner.ends == []

        before = open_sockets()
        run(main(), loop)
        assert open_sockets() == before

    def test_small_frames_leave_at_once(self):
        async def main():
            listener = await serve(lambda _: Accepted(Recorder()), "127.0.0.1", 0)
            connection = await connect(f"ws://127.0.0.1:{listener.port}/", Recorder())
            sock = connection._transport.underlying_transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            connection.abort()
            await connection.wait_closed()
            listener.close()
            await listener.wait_closed()

        run(main())

    def test_the_key_is_in_no_log(self, caplog):
        async def main():
            listener = await serve(lambda _: Accepted(Recorder()), "127.0.0.1", 0)
            connection = await connect(f"ws://127.0.0.1:{listener.port}/?token={KEY}", Recorder(), headers=HEADERS)
            connection.close()
            await connection.wait_closed()
            listener.close()
            await listener.wait_closed()

        with caplog.at_level(1), caplog.at_level(1, logger="speechpool.transport"):
            run(main())
        logging.getLogger("speechpool.transport").setLevel(logging.NOTSET)
        assert any("picows" in record.getMessage() for record in caplog.records)
        assert KEY not in caplog.text


class TestArguments:
    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("https://host/x", "must begin with wss://"),
            ("host/x", "must begin with wss://"),
            ("wss:///x", "must begin with wss://"),
            ("wss://user:sk-secret@host/x", "credentials go into headers"),
            ("wss://host/x#sk-secret", "credentials go into headers"),
            ("wss://host:notaport/x?sk-secret", "cannot be read"),
            ("wss://host/a b?sk-secret", "a space"),
        ],
    )
    def test_urls(self, url, words):
        with pytest.raises(SettingsError, match=words) as caught:
            run(connect(url, Recorder()))
        assert "sk-secret" not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("value", [f"Bearer {KEY}\n", f"Bearer {KEY}\r\nX: y", f"{KEY}\0"])
    def test_header_values_with_line_breaks(self, value):
        with pytest.raises(SettingsError, match="The header Authorization has a line break") as caught:
            run(connect("ws://127.0.0.1:1/", Recorder(), headers={"Authorization": value}))
        assert KEY not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("proxy", ["ftp://u:secret@host:1", "host:1", "http://", "socks5://u:secret@host:port"])
    def test_proxies(self, proxy):
        with pytest.raises(SettingsError) as caught:
            run(connect("ws://127.0.0.1:1/", Recorder(), proxy=proxy))
        assert "secret" not in "".join(traceback.format_exception(caught.value))


class TestTls:
    def dial(self, certificate, authority, loop="asyncio", host="localhost"):
        async def main():
            listener = await serve(lambda _: Accepted(Recorder()), "127.0.0.1", 0, ssl=presenting(certificate))
            url = f"wss://{host}:{listener.port}/x"
            context = trusting(authority) if authority else None
            try:
                heard = Recorder()
                try:
                    connection = await connect(url, heard, ssl=context, headers=HEADERS)
                except ConnectFailed as error:
                    return error
                (server,) = listener.connections
                server.send_all([(True, b"x" * 100_000), (False, b"y")])
                assert await heard.got(2) == [(True, b"x" * 100_000), (False, b"y")]
                connection.close(1000, "bye")
                await connection.wait_closed()
                assert heard.ends[0].clean
                return None
            finally:
                listener.close()
                await listener.wait_closed()

        before = open_sockets()
        error = run(main(), loop)
        assert open_sockets() == before
        assert error is None or KEY not in "".join(traceback.format_exception(error))
        return error

    def test_valid(self, loop, authority):
        assert self.dial(authority.issue_cert("localhost"), authority, loop) is None

    def test_backpressure(self, loop, authority):
        async def main():
            served = Recorder()
            certificate = presenting(authority.issue_cert("localhost"))
            listener = await serve(lambda _: Accepted(served), "127.0.0.1", 0, ssl=certificate)
            heard = Recorder()
            connection = await connect(f"wss://localhost:{listener.port}/", heard, ssl=trusting(authority))
            connection.pause()
            await served.until(lambda: served.connection)
            count, waiting = await push(served.connection)
            connection.resume()
            await waiting
            assert len(await heard.got(count)) == count
            connection.abort()
            await served.ended()
            listener.close()
            await listener.wait_closed()

        run(main(), loop)

    @pytest.mark.parametrize("trusted", ["another", "system"])
    def test_unknown_authority(self, loop, authority, trusted):
        error = self.dial(authority.issue_cert("localhost"), trustme.CA() if trusted == "another" else None, loop)
        assert error.permanent
        assert "authority is unknown" in str(error)

    def test_wrong_host(self, authority):
        error = self.dial(authority.issue_cert("elsewhere.example"), authority)
        assert error.permanent
        assert "for another host" in str(error)

    def test_wrong_address(self, authority):
        error = self.dial(authority.issue_cert("localhost"), authority, host="127.0.0.1")
        assert error.permanent
        assert "for another address" in str(error)

    def test_expired(self, authority):
        then = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        error = self.dial(authority.issue_cert("localhost", not_after=then), authority)
        assert error.permanent
        assert "expired" in str(error)

    def test_wss_to_a_port_that_answers_in_plain_http(self, loop):
        async def handler(reader, writer):
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()

        error, _ = dial_raw(handler, loop=loop, scheme="wss")
        assert error.permanent
        assert "speak no TLS" in str(error)
        assert "ws://" in str(error)

    @pytest.mark.parametrize(
        ("reason", "words", "permanent"),
        [
            ("UNSUPPORTED_PROTOCOL", "TLS 1.2 or newer", True),
            ("TLSV1_ALERT_PROTOCOL_VERSION", "TLS 1.2 or newer", True),
            ("NO_SHARED_CIPHER", "no cipher", True),
            ("WRONG_VERSION_NUMBER", "speak no TLS", True),
            ("SOMETHING_NEW", "TLS settings", False),
        ],
    )
    def test_each_reason_says_what_to_do(self, reason, words, permanent):
        error = ssl.SSLError(1, f"[SSL: {reason}] words of OpenSSL (_ssl.c:1006)")
        error.reason = reason
        failed = failures.tls_failed("host/path", "host:443", error)
        assert words in str(failed)
        assert reason in str(failed)
        assert failed.permanent is permanent

    def test_wss_to_a_port_that_hangs_up(self, loop, caplog):
        async def main():
            listener = await serve(lambda _: Accepted(Recorder()), "127.0.0.1", 0, handshake_timeout=0.05)
            try:
                return await failure(f"wss://127.0.0.1:{listener.port}/")
            finally:
                listener.close()
                await listener.wait_closed()

        error = run(main(), loop)
        assert "ws://" in str(error)
        assert caplog.records == []

    def test_a_peer_that_hangs_up_on_a_tls_port_is_not_logged(self, loop, authority, caplog):
        async def main():
            context = presenting(authority.issue_cert("localhost"))
            listener = await serve(lambda _: Accepted(Recorder()), "127.0.0.1", 0, ssl=context)
            for sent in (b"", b"GET / HTTP/1.1\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                writer.write(sent)
                writer.write_eof()
                await reader.read()
                writer.close()
                await writer.wait_closed()
            listener.close()
            await listener.wait_closed()

        run(main(), loop)
        assert caplog.records == []

    def test_ws_to_a_tls_port(self, loop, authority):
        async def main():
            context = presenting(authority.issue_cert("localhost"))
            listener = await serve(lambda _: Accepted(Recorder()), "127.0.0.1", 0, ssl=context)
            try:
                return await failure(f"ws://127.0.0.1:{listener.port}/")
            finally:
                listener.close()
                await listener.wait_closed()

        error = run(main(), loop)
        assert "wss://" in str(error)


@pytest.mark.parametrize("proxy_type", [ConnectProxy, SocksProxy])
class TestProxies:
    def dial(self, proxy, loop="asyncio", user="user:p%40ss@", authority=None, **options):
        async def main():
            certificate = presenting(authority.issue_cert("localhost")) if authority else None
            context = trusting(authority) if authority else None
            listener = await serve(lambda _: Accepted(Recorder()), "127.0.0.1", 0, ssl=certificate)
            url = f"{'wss' if authority else 'ws'}://localhost:{listener.port}/x"
            async with raw_server(proxy) as port:
                try:
                    options.update(ssl=context, proxy=f"{proxy.shown}://{user}127.0.0.1:{port}", headers=HEADERS)
                    connection = await connect(url, Recorder(), **options)
                except ConnectFailed as error:
                    return error, f"{proxy.shown}://127.0.0.1:{port}"
                else:
                    assert proxy.asked == [f"localhost:{listener.port}"]
                    connection.close()
                    await connection.wait_closed()
                    assert connection.closed.clean
                    return None, ""
                finally:
                    listener.close()
                    await listener.wait_closed()

        before = open_sockets()
        error, shown = run(main(), loop)
        assert open_sockets() == before
        if error:
            text = "".join(traceback.format_exception(error))
            assert not any(secret in text for secret in ("p@ss", "p%40ss", KEY))
            assert shown in str(error) or "within" in str(error)
        return error

    def test_with_password(self, loop, proxy_type):
        assert self.dial(proxy_type(), loop) is None

    def test_tls_inside(self, loop, proxy_type, authority):
        assert self.dial(proxy_type(), loop, authority=authority) is None

    @pytest.mark.parametrize("user", ["", "user:wrong@"])
    def test_wrong_password(self, loop, proxy_type, user):
        error = self.dial(proxy_type(), loop, user=user)
        assert error.permanent
        assert "user and password of the proxy" in str(error)

    def test_the_proxy_cannot_reach_the_server(self, proxy_type):
        error = self.dial(proxy_type("502 Bad Gateway"))
        assert error.retryable
        assert "may reach the endpoint" in str(error)

    def test_no_proxy_there(self, proxy_type):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            shown = f"{proxy_type.shown}://127.0.0.1:{free.getsockname()[1]}"
            error = run(failure("ws://localhost:1/x", proxy=shown))
        assert error.retryable
        assert shown in str(error)

    def test_a_silent_proxy(self, loop, proxy_type):
        class Silent:
            shown = proxy_type.shown

            async def __call__(self, reader, _writer):
                await reader.read()
                await reader.read()

        error = self.dial(Silent(), loop, timeout=0.05)
        assert "waiting for the proxy" in str(error)
