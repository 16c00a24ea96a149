"""Where a pool connects to, and with which credential."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from ssl import SSLContext
from typing import Final
from urllib.parse import SplitResult, urlsplit

from speechpool.errors import SettingsError
from speechpool.protocol import Dialect, Voice
from speechpool.transport import Proxy, environment_proxy

__all__ = ["ApiKey", "Endpoint"]

ApiKey = str | Callable[[], str | Awaitable[str]]
"""A key, or a function (async or not) that is asked for one at each dial, for keys that rotate."""

NO_PROXY: Final = "none"
"""As `Endpoint.proxy`: no proxy, whatever the environment says."""

# Classic hosts, and hosts that carry the workspace in their name (DashScope's region pages, SDK common/env.py).
_CLASSIC: Final = {
    "cn": "dashscope.aliyuncs.com",
    "intl": "dashscope-intl.aliyuncs.com",
    "hk": "cn-hongkong.dashscope.aliyuncs.com",
}
_BY_WORKSPACE: Final = {
    "us": "us-east-1",
    "eu": "eu-central-1",
    "jp": "ap-northeast-1",
    "cn-beijing": "cn-beijing",
    "ap-southeast-1": "ap-southeast-1",
    "cn-hongkong": "cn-hongkong",
    "us-east-1": "us-east-1",
    "eu-central-1": "eu-central-1",
    "ap-northeast-1": "ap-northeast-1",
}
_WORKSPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Endpoint:
    """URL, credential and workspace of a speech service. Its text form never shows the key.

    Args:
        url: A base such as `wss://dashscope.aliyuncs.com`, to which the dialect adds its path, or a whole URL.
        api_key: The key, or a function asked at each dial; None takes the environment variable `DASHSCOPE_API_KEY`.
        workspace: The workspace, where the account has several.
        headers: Further headers of the handshake; they win over ours.
        ssl: A TLS context; None uses the system's trusted certificates for `wss`.
        proxy: `http://`, `https://`, `socks4://` or `socks5://`, with `user:password@` where it asks for them;
            `"none"`: never one. None takes what the environment says when the endpoint is made: `HTTPS_PROXY` for
            `wss`, `HTTP_PROXY` for `ws`, else `ALL_PROXY`; none for hosts in `NO_PROXY` and for this machine.

    Raises:
        SettingsError: The URL is none, there is no key, or a proxy cannot be used. Nothing was dialled.
    """

    url: str
    _: KW_ONLY
    api_key: ApiKey | None = field(default=None, repr=False)
    workspace: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ssl: SSLContext | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    _route: str | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _split(self.url)
        object.__setattr__(self, "_route", self._find_route())
        key = self.api_key
        if key is None:
            key = os.environ.get("DASHSCOPE_API_KEY")
            if not key:
                raise SettingsError(
                    f"there is no API key for {self.display}: set the environment variable DASHSCOPE_API_KEY, "
                    "or pass Endpoint(..., api_key=...)."
                )
            object.__setattr__(self, "api_key", key)
        if isinstance(key, str):
            _check_key(key)

    @classmethod
    def dashscope(cls, region: str, *, workspace: str | None = None, api_key: ApiKey | None = None) -> Endpoint:
        """Return the endpoint of a DashScope region.

        Args:
            region: `cn` (Beijing), `intl` (Singapore), `hk`; or, with a workspace, `us`, `eu`, `jp` and the provider's
                own names such as `ap-southeast-1`. A key belongs to one region.
            workspace: The workspace id.
            api_key: See `Endpoint`.

        Raises:
            SettingsError: The region is unknown, or needs a workspace.
        """
        if workspace is not None and not _WORKSPACE.fullmatch(workspace):
            raise SettingsError(
                f"workspace {workspace!r} is no workspace id (letters, digits, '-' and '_', at most 64)."
            )
        if region in _CLASSIC:
            return cls(f"wss://{_CLASSIC[region]}", api_key=api_key, workspace=workspace)
        if region in _BY_WORKSPACE:
            if workspace is None:
                raise SettingsError(f"region {region!r} needs a workspace id: its host name carries it.")
            host = f"{workspace}.{_BY_WORKSPACE[region]}.maas.aliyuncs.com"
            return cls(f"wss://{host}", api_key=api_key, workspace=workspace)
        known = ", ".join([*_CLASSIC, *_BY_WORKSPACE])
        raise SettingsError(f"region {region!r} is unknown; choose one of {known}.")

    @classmethod
    def local(cls, port: int = 8765, *, api_key: ApiKey = "local") -> Endpoint:
        """Return the endpoint of a local speech service (`speechpool service`) on this machine."""
        return cls(f"ws://127.0.0.1:{port}", api_key=api_key)

    @property
    def display(self) -> str:
        """Host, port and path: what errors, logs and metrics may show."""
        parts = _split(self.url)
        return parts.netloc.rpartition("@")[2] + parts.path

    @property
    def host(self) -> str:
        """The host name: what one limit of connections to a host counts."""
        return _split(self.url).hostname or ""

    @property
    def account(self) -> str:
        """What shares one quota: host and workspace, so name the workspace where one process uses several accounts."""
        return f"{self.host}/{self.workspace or ''}"

    @property
    def route(self) -> str | None:
        """The URL of the proxy that every dial takes, with its password; None: none."""
        return self._route

    def address(self, dialect: Dialect, voice: Voice | None) -> str:
        """Return the whole URL for a connection."""
        path = _split(self.url).path
        return self.url.rstrip("/") + dialect.path(voice) if path in {"", "/"} else self.url

    def _find_route(self) -> str | None:
        if self.proxy is None:
            return environment_proxy(self.url)
        if self.proxy == NO_PROXY:
            return None
        Proxy.parse(self.proxy)
        return self.proxy

    async def key(self) -> str:
        """Return the key of the next dial.

        Raises:
            SettingsError: The function that was asked for it gave something else.
        """
        key = self.api_key
        if callable(key):
            answer = key()
            key = await answer if inspect.isawaitable(answer) else answer
        if not isinstance(key, str) or not key:
            raise SettingsError(f"the api_key function of {self.display} gave no key.")
        _check_key(key)
        return key


def _split(url: str) -> SplitResult:
    shown = str(url).rpartition("@")[2]  # what stands before it may be a password
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise SettingsError(f"{shown!r} is no URL; write e.g. wss://dashscope.aliyuncs.com.") from None
    if parts.scheme not in {"ws", "wss"} or not parts.hostname or not port_is_valid:
        raise SettingsError(f"{shown!r} is no WebSocket URL; it must begin with ws:// or wss:// and name a host.")
    if "@" in parts.netloc or parts.fragment:
        raise SettingsError(
            f"the URL of {parts.hostname} holds a user, a password or a fragment; "
            "the key goes into api_key or DASHSCOPE_API_KEY."
        )
    return parts


def _check_key(key: str) -> None:
    if not key.isascii() or not key.isprintable() or key != key.strip():
        # The key itself must not appear here.
        raise SettingsError("the API key holds blanks, line breaks or other characters that a header cannot carry.")
