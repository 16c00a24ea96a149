"""`FaultProxy`: a TCP proxy on the way to a server, with faults that come and go while connections are open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from speechpool.errors import SettingsError

from .faults import Direction, Drop, Fault, PlacedFault, Refuse
from .grammar import parse_fault
from .link import Link
from .side import reset_socket

__all__ = ["ActiveFault", "Counts", "FaultProxy"]

logger: Final = logging.getLogger("speechpool.testing.proxy")

_BACKLOG: Final = 512
_BREATHER: Final = 0.1
"""Seconds without accepting while no descriptor is left."""
_OUT_OF_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_DIAL: Final = 10.0
"""Seconds that the server may take to accept a connection."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What went through a proxy.

    Attributes:
        accepted: Connections of clients so far.
        open: Those of them that are open, or being connected to the server.
        failed: Those that the server did not take.
        upstream: Bytes that clients sent; `downstream`: that the server sent.
    """

    accepted: int
    open: int
    failed: int
    upstream: int
    downstream: int


class ActiveFault:
    """A fault that acts, until `remove`.

    Attributes:
        number: Names it, in order of the additions.
        placed: Which fault, where, and on what share of the connections.
        strikes: How often it struck; each kind says what that counts (`Fault.strikes`).
    """

    __slots__ = ("_proxy", "number", "placed", "strikes")

    def __init__(self, proxy: FaultProxy, number: int, placed: PlacedFault) -> None:
        self._proxy, self.number, self.placed = proxy, number, placed
        self.strikes = 0

    def __repr__(self) -> str:
        return f"<ActiveFault {self.number} {self.placed}, {self.strikes} strikes>"

    def strike(self) -> None:
        """Count one strike."""
        self.strikes += 1

    def remove(self) -> None:
        """Let it act no longer, on open connections either. A second call does nothing."""
        self._proxy.remove(self)


class FaultProxy:
    """A TCP proxy with faults, on the running event loop.

        async with FaultProxy("127.0.0.1", 8765) as proxy:
            endpoint = Endpoint(proxy.url("ws", "/api-ws/v1/inference"))
            slow = proxy.add(Latency(0.05), direction="both")
            ...
            slow.remove()
            proxy.add("half-open")

    Which connections a fault meets, and every other chance, follow from `seed` and from the order of connections and
    faults alone.

    Args:
        target_host: The server.
        target_port: Its port.
        host: Where to listen.
        port: Its port; 0: a free one.
        seed: Of all chances.
        buffer: Bytes that each direction of a connection may hold while a fault delays them; else a source waits when
            64 kB wait for its sink.
    """

    def __init__(
        self,
        target_host: str,
        target_port: int,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        buffer: int = 4_194_304,
    ) -> None:
        self._target = (target_host, target_port)
        self._where: tuple[Any, ...] = (host, port)
        self._family = socket.AF_INET
        self._seed = seed
        self._window = buffer
        self._listener: socket.socket | None = None
        self._listening = False
        self._breather: asyncio.TimerHandle | None = None
        self._dials: set[asyncio.Task[None]] = set()
        self._links: dict[Link, int] = {}
        self._faults: dict[ActiveFault, None] = {}
        self._accepted = self._failed = self._numbers = 0
        self._upstream = self._downstream = 0

    # -------------------------------------------------------------------------------------- open and close
    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        found = await self._loop.getaddrinfo(*self._where[:2], type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self._family, _, _, _, self._where = found[0]
        self._bind()
        if not any(isinstance(fault.placed.fault, Refuse) for fault in self._faults):
            self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the listener and every connection. A second call does nothing."""
        self._unbind()
        for dial in self._dials:
            dial.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for link in list(self._links):
            link.close()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._where[0], self._where[1]

    def url(self, scheme: str = "ws", path: str = "") -> str:
        """Return the URL of a path at the server, by way of this proxy."""
        host, port = self.address
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"

    # -------------------------------------------------------------------------------------- faults
    def add(
        self, fault: Fault | PlacedFault | str, direction: Direction | None = None, toxicity: float = 1.0
    ) -> ActiveFault:
        """Let a fault act, on open connections and on later ones.

        Args:
            fault: An object, such as `Latency(0.05)`, or text in the grammar of the command line.
            direction: None: the fault's own default.
            toxicity: The share of connections that meet it.

        Raises:
            SettingsError: The fault cannot be read or placed so.
        """
        placed = parse_fault(fault) if isinstance(fault, str) else fault
        if not isinstance(placed, PlacedFault):
            placed = PlacedFault(placed, direction, toxicity)
        elif direction is not None or toxicity != 1.0:
            raise SettingsError(
                f"the fault {str(placed)!r} says itself where it acts; leave out direction and toxicity."
            )
        self._numbers += 1
        active = ActiveFault(self, self._numbers, placed)
        if isinstance(placed.fault, Drop):
            for link, number in list(self._links.items()):
                if self._meets(active, number):
                    active.strike()
                    link.reset()
            return active  # done
        self._faults[active] = None
        if isinstance(placed.fault, Refuse):
            self._refuse()
        else:
            for link, number in list(self._links.items()):
                self._begin(active, link, number)
        return active

    def remove(self, active: ActiveFault) -> None:
        """Let a fault act no longer; what it held passes."""
        if active not in self._faults:
            return
        del self._faults[active]
        if isinstance(active.placed.fault, Refuse):
            if self._listener is not None and not any(isinstance(one.placed.fault, Refuse) for one in self._faults):
                self._listen()
        else:
            for link in list(self._links):
                link.remove(active)

    def clear(self) -> None:
        """Let no fault act any longer."""
        for active in list(self._faults):
            self.remove(active)

    def cut(self, *, reset: bool = True) -> int:
        """End all connections that exist now, and return how many: by a reset of both peers, or by closing both."""
        links = list(self._links)
        for link in links:
            (link.reset if reset else link.close)()
        return len(links)

    @property
    def faults(self) -> tuple[ActiveFault, ...]:
        """What acts now, in the order of addition."""
        return tuple(self._faults)

    @property
    def counts(self) -> Counts:
        """What went through it so far."""
        upstream = self._upstream + sum(link.upstream.taken for link in self._links)
        downstream = self._downstream + sum(link.downstream.taken for link in self._links)
        return Counts(self._accepted, len(self._links) + len(self._dials), self._failed, upstream, downstream)

    def _meets(self, active: ActiveFault, number: int) -> bool:
        dice = random.Random(f"{self._seed}/{active.number}/{number}")
        return dice.random() < active.placed.toxicity

    def _begin(self, active: ActiveFault, link: Link, number: int) -> None:
        if self._meets(active, number):
            link.add(active, active.placed, f"{self._seed}/{active.number}/{number}", active.strike)

    # -------------------------------------------------------------------------------------- the listener
    def _bind(self) -> None:
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)  # noqa: FBT003  # positional only
            listener.bind(self._where)
        except BaseException:
            listener.close()
            raise
        self._listener, self._where = listener, listener.getsockname()

    def _listen(self) -> None:
        assert self._listener is not None  # noqa: S101  # whoever calls has bound it
        self._listener.listen(_BACKLOG)
        self._loop.add_reader(self._listener, self._accept)
        self._listening = True

    def _refuse(self) -> None:
        if self._listening:
            self._unbind()
            self._bind()  # without listening: the port stays ours, and the kernel refuses

    def _unbind(self) -> None:
        listener, self._listener = self._listener, None
        if self._breather is not None:
            self._breather.cancel()
            self._breather = None
        if listener is not None:
            if self._listening:
                self._loop.remove_reader(listener)
            self._listening = False
            listener.close()

    def _accept(self) -> None:
        while self._listener is not None and self._listening:
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                logger.warning("No connection can be accepted: %s. Trying again every %g s.", error.strerror, _BREATHER)
                self._loop.remove_reader(self._listener)
                self._breather = self._loop.call_later(_BREATHER, self._breathe)
                return
            self._accepted += 1
            dial = self._loop.create_task(self._dial(client, self._accepted))
            self._dials.add(dial)
            dial.add_done_callback(self._dials.discard)

    def _breathe(self) -> None:
        self._breather = None
        if self._listener is not None and self._listening:
            self._loop.add_reader(self._listener, self._accept)

    async def _dial(self, client: socket.socket, number: int) -> None:
        server: socket.socket | None = None
        try:
            client.setblocking(False)  # noqa: FBT003  # positional only
            async with asyncio.timeout(_DIAL):
                server = await self._connected()
            link = Link(client, server, self._window, self._forget)
        except OSError as error:
            self._failed += 1
            logger.debug("%s:%s takes no connection: %s", *self._target, error)
            reset_socket(client)
        except asyncio.CancelledError:
            client.close()
            raise
        else:
            self._links[link] = number
            for active in self._faults:
                if not isinstance(active.placed.fault, Refuse):
                    self._begin(active, link, number)
            link.begin()

    async def _connected(self) -> socket.socket:
        found = await self._loop.getaddrinfo(*self._target, type=socket.SOCK_STREAM)
        error: OSError | None = None
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            with _closing_on_failure(sock):
                sock.setblocking(False)  # noqa: FBT003  # positional only
                try:
                    await self._loop.sock_connect(sock, address)
                except OSError as failed:
                    sock.close()
                    error = failed
                else:
                    return sock
        raise error or OSError(f"no address of {self._target[0]}")

    def _forget(self, link: Link) -> None:
        if self._links.pop(link, None) is not None:
            self._upstream += link.upstream.taken
            self._downstream += link.downstream.taken


@contextlib.contextmanager
def _closing_on_failure(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise
