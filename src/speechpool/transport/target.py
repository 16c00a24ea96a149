"""URLs of endpoints and proxies: checked, and what of them may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from speechpool.errors import SettingsError

__all__ = ["Proxy", "Target"]

_PROXY_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080}
_ALIASES = {"socks5h": "socks5"}
"""What curl calls a SOCKS5 proxy that looks the host name up, as ours always does."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to.

    Attributes:
        url: The whole URL; its query may hold secrets.
        secure: It is `wss://`.
        authority: Host and port.
        endpoint: Host, the port where the URL names one, and path. The form for errors and logs.
    """

    url: str
    secure: bool
    authority: str
    endpoint: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """Check a WebSocket URL.

        Raises:
            SettingsError: It is none, or it holds a user, a password or a fragment.
        """
        parts, port = _split(url, "endpoint")
        if parts.scheme not in {"ws", "wss"} or not parts.hostname:
            shown = f"{parts.scheme}://{parts.hostname or ''}"
            raise SettingsError(
                f"The endpoint {shown} is no WebSocket URL; it must begin with wss:// or ws:// and a host."
            )
        if "@" in parts.netloc or parts.fragment:
            raise SettingsError(
                f"The URL of {parts.hostname} holds a user, a password or a fragment; credentials go into headers."
            )
        if any(character <= " " or character == "\x7f" for character in url):
            raise SettingsError(
                f"The URL of {parts.hostname} holds a space or a control character; encode or strip it."
            )
        secure = parts.scheme == "wss"
        authority = f"{parts.hostname}:{port or (443 if secure else 80)}"
        return cls(url, secure, authority, f"{parts.netloc}{parts.path}")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy.

    Attributes:
        url: The whole URL, with its password and a port.
        secure: Itself spoken to over TLS.
        shown: Scheme, host and port: the form for errors and logs.
    """

    url: str
    secure: bool
    shown: str

    @classmethod
    def parse(cls, url: str | None) -> Proxy | None:
        """Check the URL of a proxy, and fill in its port; None stays None.

        Raises:
            SettingsError: The scheme is none of http, https, socks4 and socks5, or the host is missing.
        """
        if url is None:
            return None
        parts, port = _split(url, "proxy")
        parts = parts._replace(scheme=_ALIASES.get(parts.scheme, parts.scheme))
        if parts.scheme not in _PROXY_PORTS or not parts.hostname:
            schemes = ", ".join(f"{scheme}://" for scheme in _PROXY_PORTS)
            raise SettingsError(
                f"The proxy URL with scheme {parts.scheme!r} is of no use; it must be one of {schemes}host."
            )
        port = port or _PROXY_PORTS[parts.scheme]
        user, at, _ = parts.netloc.rpartition("@")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(
            f"{parts.scheme}://{user}{at}{host}:{port}", parts.scheme == "https", f"{parts.scheme}://{host}:{port}"
        )


def _split(url: str, what: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Neither the URL nor the cause is shown: they may hold a password.
        raise SettingsError(f"The URL of the {what} cannot be read; check its host and port.") from None
    return parts, port
