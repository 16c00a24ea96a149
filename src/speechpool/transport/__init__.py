"""One WebSocket: open it, send, receive, close, slow the peer down; over TLS and through a proxy.

This floor knows nothing about speech and nothing about pools. What it promises is in `connection`; `websocket` keeps
the promise at both ends, over picows, opened by `connect` and by `serve`. The in-memory version for tests is
`speechpool.testing.memory`.

The parts over picows are imported when they are first used: the vocabulary alone costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .connection import Closed, Connection, Frame, Owner
from .heartbeat import Heartbeat
from .requests import Accepted, Accepter, Refusal, Request, ServedOwner

if TYPE_CHECKING:
    from .dialling import connect
    from .serving import Listener, serve
    from .websocket import WebSocketConnection

__all__ = [
    "Accepted",
    "Accepter",
    "Closed",
    "Connection",
    "Frame",
    "Heartbeat",
    "Listener",
    "Owner",
    "Refusal",
    "Request",
    "ServedOwner",
    "WebSocketConnection",
    "connect",
    "serve",
]

_LATER = {"connect": "dialling", "serve": "serving", "Listener": "serving", "WebSocketConnection": "websocket"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value
