"""The environment of the Java SDK, and the page that maps it."""

import re
from pathlib import Path

import pytest

from speechpool.errors import SettingsError
from speechpool.limits import java
from speechpool.settings import Deadlines, PoolSettings

PAGE = Path(__file__).parents[2] / "docs" / "java.md"


def test_an_object_pool_has_the_size_of_its_variable_or_that_of_the_samples():
    assert java.pool_settings("sambert", {}) == PoolSettings(max_size=500)
    environ = {"SAMBERT_OBJECTPOOL_SIZE": "1200", "COSYVOICE_OBJECTPOOL_SIZE": "40"}
    assert java.pool_settings("sambert", environ).max_size == 1200
    settings = java.pool_settings("cosyvoice", environ)
    assert (settings.max_size, settings.idle_limit, settings.floor) == (40, 40, 40)  # maxTotal = maxIdle = minIdle
    assert java.pool_settings("cosyvoice", environ, min_size=2).floor == 2
    with pytest.raises(SettingsError, match="'cosyvoice', 'sambert'"):
        java.pool_settings("paraformer", environ)


def test_times_have_their_counterparts():
    environ = {"DASHSCOPE_CONNECTION_IDLE_TIME": "30", "DASHSCOPE_CONNECTION_TIMEOUT": "2.5"}
    assert java.pool_settings("sambert", environ).idle_timeout == 30.0
    assert java.deadlines(environ) == Deadlines(connect=2.5)
    assert java.deadlines({}) == Deadlines()


def test_the_proxy_is_an_url_of_this_library():
    assert java.proxy({}) is None
    assert java.proxy({"DASHSCOPE_PROXY_HOST": "proxy.corp"}) == "http://proxy.corp:443"
    assert (
        java.proxy({"DASHSCOPE_PROXY_HOST": "proxy.corp", "DASHSCOPE_PROXY_PORT": "3128"}) == "http://proxy.corp:3128"
    )
    assert java.proxy({"DASHSCOPE_PROXY_PORT": "3128"}) is None


@pytest.mark.parametrize(
    ("read", "name", "value", "allowed"),
    [
        (lambda env: java.pool_settings("sambert", env), "SAMBERT_OBJECTPOOL_SIZE", "0", "from 1 to 1,000,000"),
        (lambda env: java.pool_settings("cosyvoice", env), "COSYVOICE_OBJECTPOOL_SIZE", "x", "from 1 to 1,000,000"),
        (
            lambda env: java.pool_settings("sambert", env),
            "DASHSCOPE_CONNECTION_IDLE_TIME",
            "-3",
            "above 0, at most 86,400",
        ),
        (java.deadlines, "DASHSCOPE_CONNECTION_TIMEOUT", "nan", "above 0, at most 86,400"),
        (java.deadlines, "DASHSCOPE_CONNECTION_TIMEOUT", "10s", "above 0, at most 86,400"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_and_range(read, name, value, allowed):
    with pytest.raises(SettingsError) as caught:
        read({name: value})
    assert f"{name} = {value!r}" in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    "environ",
    [
        {"DASHSCOPE_PROXY_HOST": "http://proxy.corp"},
        {"DASHSCOPE_PROXY_HOST": "user:secret@proxy.corp"},
        {"DASHSCOPE_PROXY_HOST": "proxy.corp", "DASHSCOPE_PROXY_PORT": "65536"},
    ],
)
def test_a_wrong_proxy_is_refused_without_its_password(environ):
    with pytest.raises(SettingsError, match="DASHSCOPE_PROXY") as caught:
        java.proxy(environ)
    assert "secret" not in str(caught.value)


def test_the_page_for_java_users_names_every_variable_and_every_documented_problem():
    page = PAGE.read_text()
    for name in (
        "DASHSCOPE_CONNECTION_POOL_SIZE",
        "DASHSCOPE_MAXIMUM_ASYNC_REQUESTS",
        "DASHSCOPE_MAXIMUM_ASYNC_REQUESTS_PER_HOST",
        "DASHSCOPE_CONNECTION_IDLE_TIME",
        "DASHSCOPE_CONNECTION_TIMEOUT",
        "DASHSCOPE_READ_TIMEOUT",
        "DASHSCOPE_WRITE_TIMEOUT",
        "DASHSCOPE_PROXY_HOST",
        "DASHSCOPE_PROXY_PORT",
        "COSYVOICE_OBJECTPOOL_SIZE",
        "SAMBERT_OBJECTPOOL_SIZE",
        "DASHSCOPE_API_KEY",
    ):
        assert re.search(rf"^\| `{name}`", page, re.MULTILINE), name
    assert re.findall(r"^\| (\d) \|", page, re.MULTILINE) == list("123456")


def test_the_settings_that_the_page_names_exist():
    names = {setting.name for kind in (PoolSettings, Deadlines) for setting in kind.describe()}
    named = set(re.findall(r"`(?:PoolSettings|Deadlines)\.(\w+)`", PAGE.read_text()))
    assert named
    assert named <= names
