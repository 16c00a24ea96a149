"""Who may come in: the key of the handshake, and the addresses that need none."""

from __future__ import annotations

import hmac
import ipaddress

__all__ = ["is_loopback", "is_welcome"]


def is_welcome(authorization: str | None, api_key: str | None) -> bool:
    """Whether the header of a handshake carries the right key; without `api_key` any key is right, but none is not.

    The scheme is `Bearer` in any case, as the provider's own samples disagree about it.
    """
    scheme, _, given = (authorization or "").strip().partition(" ")
    given = given.strip()
    if scheme.lower() != "bearer" or not given:
        return False
    # In constant time, so that the answer's delay tells nothing about the key.
    return api_key is None or hmac.compare_digest(given.encode(errors="replace"), api_key.encode())


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
