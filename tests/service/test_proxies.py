"""A pool that reaches the service through a proxy, named by the endpoint or by the environment."""

import asyncio
import os

import pytest
import trustme

from proxy_kit import USER, ConnectProxy, SocksProxy
from raw_peer import raw_server
from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.errors import ConnectFailed
from speechpool.service import LocalBackend, SpeechService
from tls_kit import presenting, trusting

VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
NAME = "speech.test"
"""A host that only the proxies know: it is this machine."""


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class Known(ConnectProxy):
    """HTTP CONNECT to the one host it knows."""

    target = "127.0.0.1"


class KnownSocks(SocksProxy):
    """SOCKS5 to the one host it knows."""

    target = "127.0.0.1"


def through(proxy, authority, scheme, endpoint):
    """Say something through `proxy`; `endpoint(url, ssl, proxy_url)` makes the endpoint."""

    async def whole():
        certificate = presenting(authority.issue_cert(NAME)) if scheme == "wss" else None
        # The service has a key, so that it answers to a name of no machine.
        service = SpeechService(LocalBackend(engine="marker"), port=0, api_key="secret", ssl=certificate)
        async with asyncio.timeout(10), service, raw_server(proxy) as port:
            proxy_url = f"{proxy.shown}://{USER}127.0.0.1:{port}"
            where = endpoint(f"{scheme}://{NAME}:{service.port}", trusting(authority), proxy_url)
            async with AsyncSpeechPool(where, max_size=2) as pool:
                await pool.wait_ready()
                speech = await pool.synthesize("Hello.", VOICE)
            assert len(speech.audio) > 1000
            assert proxy.asked == [f"{NAME}:{service.port}"] * 2

    asyncio.run(whole())


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("proxy", [Known, KnownSocks])
def test_through_the_proxy_of_the_endpoint(authority, proxy, scheme):
    def endpoint(url, ssl, proxy_url):
        return Endpoint(url, api_key="secret", ssl=ssl, proxy=proxy_url)

    through(proxy(), authority, scheme, endpoint)


@pytest.mark.parametrize(
    ("scheme", "name", "proxy"),
    [
        ("ws", "HTTP_PROXY", Known),
        ("ws", "http_proxy", Known),
        ("wss", "HTTPS_PROXY", Known),
        ("wss", "https_proxy", Known),
        ("wss", "ALL_PROXY", KnownSocks),
    ],
)
def test_through_the_proxy_of_the_environment(authority, scheme, name, proxy, monkeypatch):
    def endpoint(url, ssl, proxy_url):
        monkeypatch.setenv(name, proxy_url)
        return Endpoint(url, api_key="secret", ssl=ssl)

    through(proxy(), authority, scheme, endpoint)


def test_a_wrong_password_is_known_at_once_and_not_shown():
    async def whole():
        async with asyncio.timeout(10), raw_server(Known()) as port:
            endpoint = Endpoint(f"ws://{NAME}", api_key="secret", proxy=f"http://user:wr0ng@127.0.0.1:{port}")
            async with AsyncSpeechPool(endpoint, max_size=1):
                raise AssertionError("it must not open")

    with pytest.raises(ConnectFailed, match="user and password of the proxy") as caught:
        asyncio.run(whole())
    assert caught.value.permanent
    assert "wr0ng" not in str(caught.value)
