"""The proxy that the environment names: `HTTPS_PROXY` for `wss`, `HTTP_PROXY` for `ws`, `ALL_PROXY` for both.

The names count in lower case, too, which wins. `NO_PROXY` lists hosts, or ends of host names, that are reached without
one; `*`: all. The rules are the standard library's, so that every Python program on a machine goes the same way; and as
there, `HTTP_PROXY` does not count in a CGI program, where a stranger can set it (by a header `Proxy`). This machine
itself is never reached through a proxy that only the environment names.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from speechpool.errors import SettingsError

from .target import Proxy

__all__ = ["environment_proxy"]

_SCHEMES = {"ws": "http", "wss": "https"}


def environment_proxy(url: str) -> str | None:
    """Return the URL of the proxy for `url`, a WebSocket URL; None: none.

    Raises:
        SettingsError: The variable holds no URL of a proxy. The error names it, and never its value.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None  # the usual case; urllib.request takes 30 ms to import
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies_environment()
    kind = next((kind for kind in (_SCHEMES[parts.scheme], "all") if kind in proxies), None)
    authority = parts.netloc.rpartition("@")[2]
    if kind is None or _is_loopback(host) or proxy_bypass_environment(authority, proxies):
        return None
    # A bare "proxy:3128" is common, and every other program takes it.
    proxy = proxies[kind] if "://" in proxies[kind] else f"http://{proxies[kind]}"
    try:
        Proxy.parse(proxy)
    except SettingsError as error:
        raise SettingsError(f"The environment variable {_name(kind)} cannot be used. {error}") from None
    return proxy


def _name(kind: str) -> str:
    names = (f"{kind}_proxy", f"{kind.upper()}_PROXY")
    return next((name for name in names if os.environ.get(name)), names[1])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
