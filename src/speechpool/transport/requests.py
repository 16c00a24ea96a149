"""What a listener asks of its user for each handshake: let it in, or refuse it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from .connection import Connection, Owner

__all__ = ["Accepted", "Accepter", "Greeter", "Greeting", "Refusal", "Request", "ServedOwner"]


@dataclass(frozen=True, slots=True)
class Request:
    """The HTTP request that opens a connection.

    Attributes:
        method: Always `GET` so far; other methods are answered 400 before anybody is asked.
        path: The path as sent, still percent-encoded, without the query.
        query: What follows the question mark, or an empty string.
        headers: Header values by name; names ignore case, and values are never logged.
        upgrade: It asks for a WebSocket. Otherwise only a `Refusal` (which may be a 200) makes sense.
        peer: Address and port of the other end of the socket, which may be a proxy; None: it has none.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    upgrade: bool = True
    peer: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A plain HTTP answer instead of a connection: an error, a redirect, or a page such as a health check.

    Attributes:
        status: An HTTP status other than 101.
        body: The body; plain text unless `headers` say otherwise.
        headers: Further headers, e.g. `Retry-After`.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class ServedOwner(Owner, Protocol):
    """The owner of a connection that a listener accepted."""

    def on_connected(self, connection: Connection) -> None:
        """Take the connection: the handshake is done, and frames may follow from now on."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Let the connection in.

    Attributes:
        owner: Gets `on_connected` once the handshake is done. A peer that gives up before that is never announced, so
            an owner takes hold of nothing before it.
        headers: Further headers of the 101 answer.
    """

    owner: ServedOwner
    headers: Mapping[str, str] = field(default_factory=dict)


Accepter: TypeAlias = Callable[[Request], Accepted | Refusal]
"""Decides on one handshake, without waiting. An exception is logged and answered 500."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What goes wrong with one handshake, for tests of clients; all at their defaults: nothing.

    Attributes:
        delay: Seconds that the request lies unread; `math.inf`: until the peer leaves.
        drop: Then the socket is dropped without a word.
        refusal: Else this is the answer, whatever was asked for.
    """

    delay: float = 0.0
    drop: bool = False
    refusal: Refusal | None = None


Greeter: TypeAlias = Callable[[str], Greeting]
"""Told the path of a request, as sent and without the query, it says how to greet who asked."""
