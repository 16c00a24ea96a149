"""Where a verb connects to: what was named, else the local service, else one of its own for as long as it runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from speechpool.errors import ConnectFailed, SettingsError
from speechpool.synthesis import AsyncSpeechPool, Endpoint

from .child import running_service

__all__ = ["LOCAL_PORT", "chosen_endpoint", "opened_pool"]

LOCAL_PORT: Final = 8765
"""Where `speechpool service` listens unless told otherwise."""
_FAREWELL: Final = 1.0
"""Seconds that running tasks get when a pool closes."""
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@asynccontextmanager
async def chosen_endpoint(
    url: str | None, api_key: str | None, configured: Mapping[str, str]
) -> AsyncIterator[Endpoint]:
    """Yield the endpoint to use.

    A named one gets the key of the flag, the settings or the environment. The local default gets no key of the
    environment: that one belongs to the provider.

    Args:
        url: From the flag.
        api_key: From the flag.
        configured: The section `endpoint` of the settings.

    Raises:
        SettingsError: The URL is none, there is no key, or no local service could be started.
        ConnectFailed: Nothing listens there on this machine, or a local service did not come up.
    """
    url = url or configured.get("url")
    key = api_key or configured.get("api_key")
    if url is not None:
        local = _is_local(url)
        if key is None and not os.environ.get("DASHSCOPE_API_KEY"):
            key = "local"  # a local service without a key of its own takes any
            if not local:
                where = Endpoint(url, api_key=key).display
                raise SettingsError(f"there is no API key for {where}: set DASHSCOPE_API_KEY, or pass --api-key.")
        endpoint = Endpoint(url, api_key=key, workspace=configured.get("workspace"))
        if local:
            await _insist(endpoint)
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


def _is_local(url: str) -> bool:
    try:
        return urlsplit(url).hostname in _LOCAL_HOSTS
    except ValueError:
        return False  # Endpoint says what is wrong with it


async def _insist(endpoint: Endpoint) -> None:
    """Fail now where nothing listens on this machine: a pool would hope for its start for ten seconds."""
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
