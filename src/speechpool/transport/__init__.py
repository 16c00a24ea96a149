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
from .requests import Accepted, Accepter, Greeter, Greeting, Refusal, Request, ServedOwner

if TYPE_CHECKING:
    from .dialling import connect
    from .proxies import environment_proxy
    from .serving import Listener, serve
    from .target import Proxy
    from .websocket import WebSocketConnection

__all__ = [
    "Accepted",
    "Accepter",
    "Closed",
    "Connection",
    "Frame",
    "Greeter",
    "Greeting",
    "Heartbeat",
    "Listener",
    "Owner",
    "Proxy",
    "Refusal",
    "Request",
    "ServedOwner",
    "WebSocketConnection",
    "connect",
    "environment_proxy",
    "serve",
]

_LATER = {
    "Listener": "serving",
    "Proxy": "target",
    "WebSocketConnection": "websocket",
    "connect": "dialling",
    "environment_proxy": "proxies",
    "serve": "serving",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value
