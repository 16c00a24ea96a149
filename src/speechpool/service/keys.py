"""The key of a handshake: is it the right one, and whose is it, without keeping it."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Final

__all__ = ["client_of", "given_key", "is_welcome"]

_SECRET: Final = os.urandom(32)
"""Of this process, so that a name of a client that leaks is worth nothing."""


def given_key(authorization: str | None) -> str | None:
    """Return the key of an `Authorization` header, or None where it holds none.

    The scheme is `Bearer` in any case, as the provider's own samples disagree about it.
    """
    scheme, _, given = (authorization or "").strip().partition(" ")
    return given.strip() or None if scheme.lower() == "bearer" else None


def is_welcome(given: str | None, api_key: str | None) -> bool:
    """Whether a client gave the right key; without `api_key` any key is right, but none is not."""
    if given is None:
        return False
    # In constant time, so that the answer's delay tells nothing about the key.
    return api_key is None or hmac.compare_digest(_bytes(given), _bytes(api_key))


def client_of(key: str) -> str:
    """Return the name that limits and queues know the owner of `key` by: 16 hex digits, others in each process."""
    return hashlib.blake2b(_bytes(key), key=_SECRET, digest_size=8).hexdigest()


def _bytes(key: str) -> bytes:
    # What a header holds beyond ASCII arrives as surrogates, each for one byte.
    return key.encode(errors="surrogateescape")
