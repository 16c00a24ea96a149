"""Which web pages may talk to the service, and by which name it may be called.

A page of any site can open WebSockets to this machine. Two headers, which no page can forge, tell where it came from:
`Origin` names the page's host, and `Host` the name that the browser looked up. A page whose own name was made to point
to this machine (DNS rebinding) has the right origin, but a strange host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from speechpool.errors import SettingsError

__all__ = ["check_origins", "is_local_name", "is_loopback", "is_own_page"]

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_local_name(host: str | None) -> bool:
    """Whether the `Host` header of a request names this machine as only programs on it can."""
    parts = _split(f"//{host}")
    return host is not None and parts is not None and is_loopback(parts.hostname or "")


def is_own_page(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Whether a request may come from where its `Origin` header says.

    Programs send none, or, as websocket-client does (and so the official SDK), that of the service itself.

    Args:
        origin: The header.
        host: The `Host` header.
        allowed: Further origins, in lower case; `*`: any.
    """
    if origin is None or "*" in allowed or origin.lower() in allowed:
        return True
    page, own = _split(origin), _split(f"//{host}")
    if host is None or page is None or own is None or page.scheme not in _PORTS:
        return False
    default = _PORTS[page.scheme]
    return (page.hostname, page.port or default) == (own.hostname, own.port or default)


def check_origins(origins: Collection[str]) -> frozenset[str]:
    """Return origins as `is_own_page` compares them.

    Raises:
        SettingsError: One is none.
    """
    for each in origins:
        parts = _split(each)
        is_origin = parts is not None and parts.scheme and parts.netloc and not (parts.path or parts.query)
        if each != "*" and not is_origin:
            raise SettingsError(f"{each!r} is no origin; write e.g. https://example.com or http://localhost:3000.")
    return frozenset(each.lower() for each in origins)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises where it is none
    except ValueError:
        return None
    return parts
