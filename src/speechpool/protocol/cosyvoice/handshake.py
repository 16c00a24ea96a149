"""What a connection to `/api-ws/v1/inference` needs. CosyVoice and Sambert share it."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from typing import Final

from speechpool.settings import LifetimeProfile

__all__ = ["LIFETIME", "PATH", "handshake_headers"]

PATH: Final = "/api-ws/v1/inference"
LIFETIME: Final = LifetimeProfile(idle_timeout=50.0)
"""The server closes an idle connection after 60 s (API reference); the margin covers its clock and the way. Whether
pings put that off is not documented, and neither is a longest life."""


def handshake_headers(api_key: str, workspace: str | None = None) -> Mapping[str, str]:
    """Return the headers of the handshake (API reference, "request headers")."""
    headers = {
        "Authorization": f"Bearer {api_key}",
        "User-Agent": _user_agent(),
    }
    if workspace:
        headers["X-DashScope-WorkSpace"] = workspace
    return headers


@functools.cache
def _user_agent() -> str:
    from importlib.metadata import version  # slow to import, and not needed before the first dial

    return f"speechpool/{version('speechpool')}; python/{platform.python_version()}"
