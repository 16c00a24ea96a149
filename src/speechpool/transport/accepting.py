"""Accepting connections: all that wait, in one turn of the loop, and none while no descriptor is left.

uvloop's own server accepts one connection per turn, so that hundreds that dial at once wait for each other.
aiofastnet's accepts them all, but out of descriptors it fails to stop (aiofastnet 1.2 calls a method that sockets do
not have) and asks again in each turn: one core is busy and the log fills. So the sockets are accepted here
(tests/transport/test_descriptors.py).

The transports are aiofastnet's, but uvloop's own under uvloop: there aiofastnet's miss a reset that comes right behind
data which they have not read. uvloop reports an error once, and they stop after a short read
(tests/transport/test_resets.py).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl as tls
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import aiofastnet

from . import descriptors

__all__ = ["AcceptingServer", "runs_on_uvloop"]

logger: Final = logging.getLogger("speechpool.transport")

_OUT_OF_DESCRIPTORS: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BREATHER: Final = 1.0
"""Seconds without accepting once descriptors have run out: else the socket would be asked in each turn of the loop."""


def runs_on_uvloop() -> bool:
    """Whether the running loop is uvloop's."""
    return type(asyncio.get_running_loop()).__module__.startswith("uvloop")


class AcceptingServer:
    """Listening sockets, and the handshakes of TLS that run; the part of `asyncio.Server` that is used here.

    Args:
        factory: Makes the protocol of each connection.
        options: Of `loop.connect_accepted_socket`.
    """

    def __init__(self, factory: Callable[[], asyncio.BaseProtocol], **options: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._factory = factory
        self._options = options
        self._handshakes: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._short = False
        self._connected: Callable[..., Awaitable[Any]] = (
            self._loop.connect_accepted_socket
            if runs_on_uvloop()
            else partial(aiofastnet.connect_accepted_socket, self._loop)
        )
        self.sockets: Sequence[socket.socket] = ()

    async def listen(self, host: str | None, port: int, *, backlog: int) -> None:
        """Bind every address of `host`; None: all interfaces.

        Raises:
            OSError: The name is unknown, or an address cannot be bound.
        """
        addresses = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        sockets: list[socket.socket] = []
        try:
            for family, address in dict.fromkeys((each[0], each[4][:2]) for each in addresses):
                sockets.append(socket.create_server(address, family=family, backlog=backlog))
        except OSError:
            for each in sockets:
                each.close()
            raise
        self.sockets = sockets
        for each in sockets:
            each.settimeout(0)
            self._loop.add_reader(each, self._accept, each, backlog)

    def close(self) -> None:
        """Stop listening. Connections stay."""
        for timer in self._timers:
            timer.cancel()
        for each in self.sockets:
            if each.fileno() >= 0:
                self._loop.remove_reader(each)
                each.close()

    async def wait_closed(self) -> None:
        """Give up the handshakes of TLS that still run."""
        for each in self._handshakes:
            each.cancel()
        if self._handshakes:
            await asyncio.wait(self._handshakes)

    def _accept(self, listening: socket.socket, backlog: int) -> None:
        for _ in range(backlog):
            try:
                accepted, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                self._run_short(error)
                self._pause(listening, backlog)
                return
            self._short = False
            accepted.settimeout(0)
            handshake = self._loop.create_task(self._connect(accepted))
            self._handshakes.add(handshake)
            handshake.add_done_callback(partial(self._ended, accepted))

    def _run_short(self, error: OSError) -> None:
        if self._short:  # said once, not each second
            return
        self._short = True
        why = descriptors.remedy(error) if descriptors.shortage(error) else f"{error.strerror}."
        logger.warning("No connection can be accepted until some are closed; trying every %g s. %s", _BREATHER, why)

    def _pause(self, listening: socket.socket, backlog: int) -> None:
        def go_on() -> None:
            self._timers.discard(timer)
            self._loop.add_reader(listening, self._accept, listening, backlog)

        self._loop.remove_reader(listening)
        timer = self._loop.call_later(_BREATHER, go_on)
        self._timers.add(timer)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await self._connected(self._factory, accepted, **self._options)
        except (OSError, tls.SSLError) as error:
            # Whoever knocks may hang up or speak no TLS; that is no concern of the service.
            logger.debug("A connection ended before its request: %s", error)
            accepted.close()

    def _ended(self, accepted: socket.socket, handshake: asyncio.Task[None]) -> None:
        self._handshakes.discard(handshake)
        if handshake.cancelled():  # perhaps before it began, so not in `_connect`
            accepted.close()
