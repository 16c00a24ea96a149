"""Where to, and with which key; the key is never shown."""

import asyncio
import dataclasses
import os
import traceback

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
    endpoint = Endpoint("wss://example.com", api_key="canary", headers={"X": "canary"})
    assert "canary" not in repr(endpoint)


@pytest.mark.parametrize(
    "url", ["wss://user:canary@h", "ws://user:canary@h:99999", "http://user:canary@h", "ws://h/#canary"]
)
def test_t80_a_url_that_holds_a_password_is_refused_without_showing_it(url):
    with pytest.raises(SettingsError) as caught:
        Endpoint(url, api_key="k")
    assert "canary" not in str(caught.value) + repr(caught.value)


# ------------------------------------------------------------------------------------------ proxies
@pytest.fixture
def environment(monkeypatch):
    """Set variables for proxies; no others are there."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name == "REQUEST_METHOD":
            monkeypatch.delenv(name)
    return lambda **variables: [monkeypatch.setenv(*each) for each in variables.items()]


def route(url, **options):
    return Endpoint(url, api_key="k", **options).route


def test_without_variables_there_is_no_proxy(environment):
    assert route("wss://example.com") is None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_variable_names_the_proxy_of_wss(environment, name):
    environment(**{name: "http://proxy:3128"})
    assert route("wss://example.com") == "http://proxy:3128"
    assert (route("ws://example.com") is None) is ("http" in name.lower())


def test_the_variable_of_the_scheme_wins_over_that_of_all_and_lower_case_over_upper(environment):
    environment(HTTP_PROXY="http://upper:1", http_proxy="http://lower:1", ALL_PROXY="socks5://all:1")
    assert route("ws://example.com") == "http://lower:1"
    assert route("wss://example.com") == "socks5://all:1"


@pytest.mark.parametrize(
    ("value", "proxied"),
    [
        ("other.example", True),
        ("example.com", False),
        (".example.com", False),
        ("com", False),
        ("other.example, example.com", False),
        ("sub.example.com", True),
        ("example.com:443", True),
        ("example.com:8443", False),
        ("*", False),
        ("", True),
    ],
)
def test_no_proxy_lists_hosts_that_are_reached_without_one(environment, value, proxied):
    environment(HTTPS_PROXY="http://proxy:3128", NO_PROXY=value)
    assert (route("wss://example.com:8443/x") is not None) is proxied


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_this_machine_is_never_reached_through_a_proxy_unless_the_endpoint_says_so(environment, host):
    environment(ALL_PROXY="http://proxy:3128")
    assert route(f"wss://{host}:8765") is None
    assert route(f"wss://{host}:8765", proxy="http://own:1") == "http://own:1"
    assert Endpoint.local().route is None


def test_the_proxy_of_the_endpoint_wins_and_none_means_none(environment):
    environment(HTTPS_PROXY="http://proxy:3128", NO_PROXY="example.com")
    assert route("wss://example.com", proxy="socks5h://own:1080") == "socks5h://own:1080"
    assert route("wss://elsewhere.example", proxy="none") is None


def test_a_stranger_cannot_set_the_proxy_of_a_cgi_program(environment):
    environment(HTTP_PROXY="http://evil:1", REQUEST_METHOD="GET")
    assert route("ws://example.com") is None


def test_the_environment_counts_when_the_endpoint_is_made(environment, monkeypatch):
    environment(HTTPS_PROXY="http://first:1")
    endpoint = Endpoint("wss://example.com", api_key="k")
    monkeypatch.setenv("HTTPS_PROXY", "http://second:1")
    assert endpoint.route == "http://first:1"
    assert dataclasses.replace(endpoint).route == "http://second:1"


def test_a_bare_host_is_an_http_proxy_and_user_and_password_stay(environment):
    environment(HTTPS_PROXY="user:p%40ss@proxy:3128")
    endpoint = Endpoint("wss://example.com", api_key="k")
    assert endpoint.route == "http://user:p%40ss@proxy:3128"
    assert "p%40ss" not in repr(endpoint)


@pytest.mark.parametrize("value", ["ftp://u:canary@proxy", "http://u:canary@proxy:port", "http://"])
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_variable_that_is_no_proxy_is_named_and_its_password_not_shown(environment, name, value):
    environment(**{name: value})
    with pytest.raises(SettingsError, match=name) as caught:
        route("wss://example.com")
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("proxy", ["", "None", "proxy:3128", "ftp://u:canary@proxy"])
def test_an_endpoint_refuses_what_is_no_proxy(proxy):
    with pytest.raises(SettingsError) as caught:
        route("wss://example.com", proxy=proxy)
    assert "canary" not in str(caught.value)
