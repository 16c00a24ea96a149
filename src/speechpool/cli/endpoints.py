"""Where a verb connects to: what was named, else the local service, else one of its own for as long as it runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final
from urllib.parse import urlsplit

from speechpool.errors import ConnectFailed, SettingsError
from speechpool.synthesis import AsyncSpeechPool, Endpoint

from .certificates import client_context
from .child import running_service

__all__ = ["LOCAL_PORT", "Wish", "chosen_endpoint", "insist", "is_local", "opened_pool", "url_of"]

LOCAL_PORT: Final = 8765
"""Where `speechpool service` listens unless told otherwise."""
_FAREWELL: Final = 1.0
"""Seconds that running tasks get when a pool closes."""
_NO_KEY: Final = "none"
"""In place of a key, where only the URL matters."""
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Where to, by the flags of a verb and the section `endpoint` of the settings; a flag wins.

    Attributes:
        url: `ws://` or `wss://` URL.
        region: Name of a DashScope region, in place of a URL.
        workspace: Workspace id.
        api_key: The key.
        tls_ca: PEM file with the certificates to trust, for `wss`.
        configured: The section of the settings: the same names.
    """

    url: str | None = None
    region: str | None = None
    workspace: str | None = None
    api_key: str | None = None
    tls_ca: Path | None = None
    configured: Mapping[str, str] = field(default_factory=dict)

    def address(self) -> str | None:
        """Return the URL that is wished; None: none is.

        Raises:
            SettingsError: The URL is none, or the region unknown; or both were given.
        """
        url, region = self.url, self.region
        if url and region:
            raise SettingsError("--endpoint and --region exclude each other: a region has its own URL; give one.")
        if not url and not region:
            url, region = self.configured.get("url"), self.configured.get("region")
        return url_of(url, region, self.team())

    def team(self) -> str | None:
        """Return the workspace."""
        return self.workspace or self.configured.get("workspace")

    def key(self) -> str | None:
        """Return the key, where it is not that of the environment."""
        return self.api_key or self.configured.get("api_key")


def url_of(url: str | None, region: str | None, workspace: str | None) -> str | None:
    """Return `url`, or that of `region`, after a check; None where both are.

    Raises:
        SettingsError: It is no URL; or the region is unknown, or needs a workspace.
    """
    if region:
        return Endpoint.dashscope(region, workspace=workspace, api_key=_NO_KEY).url
    return Endpoint(url, api_key=_NO_KEY).url if url else None


@asynccontextmanager
async def chosen_endpoint(wish: Wish) -> AsyncIterator[Endpoint]:
    """Yield the endpoint to use.

    A named one gets the key of the flag, the settings or the environment. The local default gets no key of the
    environment: that one belongs to the provider.

    Raises:
        SettingsError: The URL is none, the region unknown, there is no key, `tls_ca` is of no use, or no local service
            could be started.
        ConnectFailed: Nothing listens there on this machine, or a local service did not come up.
    """
    url, key = wish.address(), wish.key()
    tls = _trust(url, wish)
    if url is not None:
        local = is_local(url)
        if key is None and not os.environ.get("DASHSCOPE_API_KEY"):
            key = "local"  # a local service without a key of its own takes any
            if not local:
                where = Endpoint(url, api_key=key).display
                raise SettingsError(f"there is no API key for {where}: set DASHSCOPE_API_KEY, or pass --api-key.")
        endpoint = Endpoint(url, api_key=key, workspace=wish.team(), ssl=tls)
        if local:
            await insist(endpoint)
        yield endpoint
    elif await _listens("127.0.0.1", LOCAL_PORT):
        yield Endpoint.local(LOCAL_PORT, api_key=key or "local")
    else:
        async with running_service() as endpoint:
            yield endpoint


@asynccontextmanager
async def opened_pool(endpoint: Endpoint, **options: Any) -> AsyncIterator[AsyncSpeechPool]:
    """Yield an open pool; see `AsyncSpeechPool`. A task that was cut short gets a moment to end on the server."""
    pool = AsyncSpeechPool(endpoint, **options)
    try:
        await pool.__aenter__()
        yield pool
    finally:
        await pool.close(drain=_FAREWELL)


def _trust(url: str | None, wish: Wish) -> SSLContext | None:
    secure = (url or "").startswith("wss:")
    if wish.tls_ca is not None and not secure:
        raise SettingsError("--tls-ca is for TLS only; name a wss:// endpoint by --endpoint.")
    # What is configured is of no meaning for an endpoint without TLS, such as the local service.
    named = wish.tls_ca or (wish.configured.get("tls_ca") if secure else None)
    return client_context(Path(named)) if named else None


def is_local(url: str) -> bool:
    """Whether it is on this machine."""
    try:
        return urlsplit(url).hostname in _LOCAL_HOSTS
    except ValueError:
        return False  # Endpoint says what is wrong with it


async def insist(endpoint: Endpoint) -> None:
    """Fail now where nothing listens on this machine: a pool would hope for its start for ten seconds.

    Raises:
        ConnectFailed: Nothing does.
    """
    parts = urlsplit(endpoint.url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    if not await _listens(parts.hostname or "127.0.0.1", port):
        where = "" if port == LOCAL_PORT else f" --port {port}"
        raise ConnectFailed(
            f"cannot reach {endpoint.display}: nothing listens there. Start a service with: speechpool service{where}",
            endpoint=endpoint.display,
        )


async def _listens(host: str, port: int) -> bool:
    """Whether somebody answers on a port of this machine. Loopback answers at once, so there is no limit."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
