"""What a load test ran against: which software, in which version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from .endpoints import is_local

__all__ = ["build_of"]

_PATIENCE: Final = 2.0
"""Seconds for a service to say what it is."""


async def build_of(url: str, targets: Sequence[str]) -> dict[str, str | None]:
    """Return engine, profile and version of the service, and the version of the official SDK where it is a target.

    Only a service of ours on this machine is asked; of another one nothing is known.
    """
    health = await asyncio.to_thread(_health, url) if is_local(url) and url.startswith("ws:") else {}
    sdk = version("dashscope") if {"sdk", "sdk-pool"}.intersection(targets) else None
    return {
        "engine": health.get("engine"),
        "profile": health.get("profile"),
        "service": health.get("version"),
        "dashscope": sdk,
    }


def _health(url: str) -> dict[str, str | None]:
    try:
        with build_opener(ProxyHandler({})).open(f"http://{urlsplit(url).netloc}/healthz", timeout=_PATIENCE) as answer:
            found = json.load(answer)
    except (URLError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
