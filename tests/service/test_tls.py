"""The service over TLS, as a pool meets it: every certificate that is wrong says what to do about it."""

import asyncio
import datetime as dt
import logging

import pytest
import trustme

from raw_peer import raw_server
from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.errors import ConnectFailed
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.transport import connect
from tls_kit import blocking_server, presenting, presenting_tls_1_1, trusting

VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
KEY = "sk-0123456789abcdef"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue_cert("localhost")


async def speak(url, context):
    """Say something over a pool of two."""
    endpoint = Endpoint(url, api_key=KEY, ssl=context)
    async with AsyncSpeechPool(endpoint, max_size=2) as pool:
        await pool.wait_ready()
        speeches = await asyncio.gather(pool.synthesize("Hello.", VOICE), pool.synthesize("Hello.", VOICE))
        return [len(speech.audio) for speech in speeches]


def run(main):
    async def bounded():
        async with asyncio.timeout(10):
            return await main

    return asyncio.run(bounded())


def meet(context, trusted, *, host="localhost", scheme="wss"):
    """What a pool gets from a service with `context` that it calls by `host`: bytes of audio, or an error."""

    async def whole():
        async with SpeechService(LocalBackend(engine="marker"), port=0, ssl=context) as service:
            assert service.url.startswith("wss://" if context else "ws://")
            try:
                return await speak(f"{scheme}://{host}:{service.port}", trusted)
            finally:
                assert service.counts.running == 0

    return run(whole())


def refused(*arguments, **options):
    """The error of a pool that could not be entered; it must be known at once, and never hold the key."""
    with pytest.raises(ConnectFailed) as caught:
        meet(*arguments, **options)
    assert KEY not in str(caught.value)
    return caught.value


def test_a_pool_speaks_over_tls(authority, certificate):
    plain = meet(None, None, scheme="ws")
    assert plain[0] > 1000
    assert meet(presenting(certificate), trusting(authority)) == plain


@pytest.mark.parametrize(
    ("issued", "host", "words"),
    [
        pytest.param(lambda ca: trustme.CA().issue_cert("localhost"), "localhost", "--tls-ca", id="unknown authority"),
        pytest.param(lambda ca: ca.issue_cert("elsewhere.example"), "localhost", "another host", id="wrong host"),
        pytest.param(lambda ca: ca.issue_cert("localhost"), "127.0.0.1", "another address", id="wrong address"),
        pytest.param(
            lambda ca: ca.issue_cert("localhost", not_after=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
            "localhost",
            "expired",
            id="expired",
        ),
        pytest.param(
            lambda ca: ca.issue_cert("localhost", not_before=dt.datetime(2999, 1, 1, tzinfo=dt.UTC)),
            "localhost",
            "not valid yet",
            id="not yet valid",
        ),
    ],
)
def test_a_certificate_that_is_wrong_says_what_to_do(authority, issued, host, words):
    error = refused(presenting(issued(authority)), trusting(authority), host=host)
    assert error.permanent
    assert words in str(error)


@pytest.mark.parametrize(("client", "server"), [("wss", "ws"), ("ws", "wss")])
def test_a_client_of_the_wrong_kind_is_asked_whether_it_is(authority, certificate, client, server):
    # A pool would hope for a service that is being started; the transport says what it met.
    async def whole():
        service = SpeechService(
            LocalBackend(engine="marker"),
            port=0,
            ssl=presenting(certificate) if server == "wss" else None,
            settings=ServiceSettings(handshake_timeout=0.05),
        )
        async with service:
            await connect(f"{client}://localhost:{service.port}", None, ssl=trusting(authority))

    with pytest.raises(ConnectFailed, match=f"{server}://"):
        run(whole())


def test_a_server_that_speaks_only_tls_1_1(authority, certificate):
    with blocking_server(presenting_tls_1_1(certificate)) as port:
        with pytest.raises(ConnectFailed, match=r"TLS 1\.2 or newer") as caught:
            run(speak(f"wss://localhost:{port}", trusting(authority)))
    assert caught.value.permanent


def test_a_peer_that_never_finishes_tls_is_dropped_and_logged_nowhere(certificate, caplog):
    async def whole():
        settings = ServiceSettings(handshake_timeout=0.05)
        backend = LocalBackend(engine="marker")
        async with SpeechService(backend, port=0, ssl=presenting(certificate), settings=settings) as service:
            for sent in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
                writer.write(sent)
                while await reader.read(100):
                    pass
                writer.close()
                await writer.wait_closed()

    with caplog.at_level(logging.INFO):
        run(whole())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_silent_server_times_out_in_tls(authority):
    async def whole():
        async def silent(reader, _writer):
            await reader.read()

        async with raw_server(silent) as port:
            await connect(f"wss://localhost:{port}/", None, ssl=trusting(authority), timeout=0.05)

    with pytest.raises(ConnectFailed, match=r"within 0\.05 s"):
        run(whole())
