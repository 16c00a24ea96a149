"""The environment variables of the Java SDK, in the words of this library.

    from speechpool.limits import java

    endpoint = Endpoint("wss://dashscope.aliyuncs.com", proxy=java.proxy())
    pool = SpeechPool(endpoint, settings=java.pool_settings("cosyvoice"), deadlines=java.deadlines())

Only the limits of connections are read without being asked for (`ConnectionLimits.from_environment`). `docs/java.md`
lists all variables, also those without a counterpart. An empty variable counts as not set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from speechpool.errors import SettingsError
from speechpool.settings import Deadlines, PoolSettings

__all__ = ["OBJECT_POOL_SIZE", "connection_limits", "deadlines", "object_pools", "pool_settings", "proxy"]

OBJECT_POOL_SIZE = 500
"""The size that the Java samples give their object pool where the variable is not set."""

_POOL_SIZE = "DASHSCOPE_CONNECTION_POOL_SIZE"
_REQUESTS = "DASHSCOPE_MAXIMUM_ASYNC_REQUESTS"
_REQUESTS_PER_HOST = "DASHSCOPE_MAXIMUM_ASYNC_REQUESTS_PER_HOST"
_IDLE_TIME = "DASHSCOPE_CONNECTION_IDLE_TIME"
_CONNECTION_TIMEOUT = "DASHSCOPE_CONNECTION_TIMEOUT"
_PROXY_HOST = "DASHSCOPE_PROXY_HOST"
_PROXY_PORT = "DASHSCOPE_PROXY_PORT"
_OBJECTS = {"cosyvoice": "COSYVOICE_OBJECTPOOL_SIZE", "sambert": "SAMBERT_OBJECTPOOL_SIZE"}
_PROXY_DEFAULT_PORT = 443  # the SDK's (ConnectionConfigurations)
_MOST_CONNECTIONS = 1_000_000
_A_DAY = 86_400


def connection_limits(environ: Mapping[str, str] = os.environ) -> tuple[int | None, int | None]:
    """Return the limits of open connections, in total and for a host; None where nothing sets one.

    In the SDK the dispatcher's requests bound the open WebSockets and the connection pool only idle HTTP connections,
    but its documentation asks for equal numbers: the smaller one keeps to both.

    Raises:
        SettingsError: A variable holds no whole number from 1 to 1,000,000.
    """
    totals = [_whole(environ, name, _MOST_CONNECTIONS) for name in (_POOL_SIZE, _REQUESTS)]
    per_host = _whole(environ, _REQUESTS_PER_HOST, _MOST_CONNECTIONS)
    return min((total for total in totals if total is not None), default=None), per_host


def object_pools(environ: Mapping[str, str] = os.environ) -> dict[str, int]:
    """Return the sizes of object pools that are set, by their variables.

    Raises:
        SettingsError: A variable holds no whole number from 1 to 1,000,000.
    """
    sizes = {name: _whole(environ, name, _MOST_CONNECTIONS) for name in _OBJECTS.values()}
    return {name: size for name, size in sizes.items() if size is not None}


def pool_settings(
    kind: Literal["cosyvoice", "sambert"], environ: Mapping[str, str] = os.environ, **fields: object
) -> PoolSettings:
    """Return the settings of an object pool: `maxTotal` = `maxIdle` = `minIdle`, as in the Java samples.

    Args:
        kind: Whose size: `COSYVOICE_OBJECTPOOL_SIZE` or `SAMBERT_OBJECTPOOL_SIZE`; not set: 500.
        environ: Where the variables stand.
        fields: Further fields of `PoolSettings`; they win.

    Raises:
        SettingsError: A variable is no number in its range, or a field is wrong.
    """
    if kind not in _OBJECTS:
        raise SettingsError(f"kind = {kind!r} is unknown; choose one of {', '.join(map(repr, _OBJECTS))}.")
    size = _whole(environ, _OBJECTS[kind], _MOST_CONNECTIONS)
    found: dict[str, object] = {"max_size": OBJECT_POOL_SIZE if size is None else size}
    idle = _seconds(environ, _IDLE_TIME)
    if idle is not None:
        found["idle_timeout"] = idle
    return PoolSettings(**(found | fields))  # type: ignore[arg-type]  # PoolSettings checks each value


def deadlines(environ: Mapping[str, str] = os.environ) -> Deadlines:
    """Return the deadlines, with `DASHSCOPE_CONNECTION_TIMEOUT` as `connect`.

    Raises:
        SettingsError: The variable holds no number of seconds above 0, up to a day.
    """
    connect = _seconds(environ, _CONNECTION_TIMEOUT)
    return Deadlines() if connect is None else Deadlines(connect=connect)


def proxy(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the HTTP proxy of `DASHSCOPE_PROXY_HOST` and `DASHSCOPE_PROXY_PORT` (443), for `Endpoint(proxy=...)`.

    Raises:
        SettingsError: The host is a URL or holds blanks, or the port is no whole number from 1 to 65,535.
    """
    host = _text(environ, _PROXY_HOST)
    if host is None:
        return None
    if any(character in host for character in "/@: \t") or not host.isprintable():
        # Its value may hold a password, and must not appear here.
        raise SettingsError(
            f"The environment variable {_PROXY_HOST} must be a host name only: no URL, no user, no port."
        )
    port = _whole(environ, _PROXY_PORT, 65_535)
    return f"http://{host}:{_PROXY_DEFAULT_PORT if port is None else port}"


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _whole(environ: Mapping[str, str], name: str, most: int) -> int | None:
    text = _text(environ, name)
    if text is None:
        return None
    # No signs and no foreign digits: what Java would not read must not count here either.
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= most:
        raise SettingsError(f"The environment variable {name} = {text!r} must be a whole number from 1 to {most:,}.")
    return number


def _seconds(environ: Mapping[str, str], name: str) -> float | None:
    text = _text(environ, name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= _A_DAY:
        raise SettingsError(
            f"The environment variable {name} = {text!r} must be a number of seconds above 0, at most {_A_DAY:,}."
        )
    return number
