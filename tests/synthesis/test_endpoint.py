"""Where to, and with which key; the key is never shown."""

import asyncio

import pytest

from speechpool import Endpoint, SettingsError, Voice
from speechpool.protocol.cosyvoice import CosyVoice
from speechpool.testing.tiny import Tiny

VOICE = Voice("m", "ada")


def test_a_base_gets_the_path_of_its_dialect_and_a_whole_url_is_kept():
    base, whole = Endpoint("wss://example.com", api_key="k"), Endpoint("ws://h:1/x/?q=1", api_key="k")
    assert base.address(CosyVoice(), VOICE) == "wss://example.com/api-ws/v1/inference"
    assert Endpoint("wss://example.com/", api_key="k").address(Tiny(), VOICE) == "wss://example.com/tiny?voice=ada"
    assert whole.address(CosyVoice(), VOICE) == "ws://h:1/x/?q=1"
    assert whole.display == "h:1/x/"


def test_regions():
    assert Endpoint.dashscope("cn", api_key="k").url == "wss://dashscope.aliyuncs.com"
    assert Endpoint.dashscope("intl", api_key="k").url == "wss://dashscope-intl.aliyuncs.com"
    assert Endpoint.dashscope("us", workspace="ws1", api_key="k").url == "wss://ws1.us-east-1.maas.aliyuncs.com"
    for region, workspace, named in [("us", None, "workspace"), ("mars", None, "intl"), ("cn", "a b", "workspace id")]:
        with pytest.raises(SettingsError, match=named):
            Endpoint.dashscope(region, workspace=workspace, api_key="k")


def test_a_missing_key_is_an_error_before_any_dial(monkeypatch):
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="DASHSCOPE_API_KEY"):
        Endpoint("wss://example.com")
    monkeypatch.setenv("DASHSCOPE_API_KEY", "from-the-environment")
    assert asyncio.run(Endpoint("wss://example.com").key()) == "from-the-environment"


def test_a_key_may_be_a_function_asked_at_each_dial():
    keys = iter(["one", "two"])

    async def later():
        return next(keys)

    endpoint = Endpoint("wss://example.com", api_key=later)
    assert [asyncio.run(endpoint.key()) for _ in range(2)] == ["one", "two"]
    assert asyncio.run(Endpoint("wss://e", api_key=lambda: "sync").key()) == "sync"
    with pytest.raises(SettingsError, match="gave no key"):
        asyncio.run(Endpoint("wss://e", api_key=lambda: None).key())


@pytest.mark.parametrize("url", ["", "http://x", "wss://", "localhost:8765", "ws://h:99999", "ws://h:x", None])
def test_no_url(url):
    with pytest.raises(SettingsError):
        Endpoint(str(url), api_key="k")


@pytest.mark.parametrize("key", ["two\nlines", "blank ", "schlüssel"])
def test_t80_a_broken_key_is_refused_without_showing_it(key):
    with pytest.raises(SettingsError) as caught:
        Endpoint("wss://example.com", api_key=key)
    assert key not in str(caught.value)


def test_t80_the_text_form_shows_no_key():
    endpoint = Endpoint("wss://user:pw@example.com", api_key="canary", headers={"X": "canary"})
    assert "canary" not in repr(endpoint)
    assert "pw" not in endpoint.display
