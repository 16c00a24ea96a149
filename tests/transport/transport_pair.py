"""What the transport tests share: an owner that records, a loop of either kind, a pair of ends of either kind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from speechpool.testing.memory import MemoryNetwork
from speechpool.transport import Accepted, Closed, Refusal, Request, connect, serve

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

# libuv makes a pipe for the whole process with its first loop; made here, no test is charged for it.
uvloop.new_event_loop().close()


def run(main: Coroutine[Any, Any, T], loop: str = "asyncio", limit: float = 10.0) -> T:
    """Run a test on a loop of its own; errors that the loop would only log fail the test."""
    unseen: list[dict[str, Any]] = []

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), type):
            loop.default_exception_handler(context)  # aiofastnet's slip, which logs.py keeps out of the log
        else:
            unseen.append(context)

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(handle)
        async with asyncio.timeout(limit):
            return await main

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(bounded())
    assert not unseen, unseen
    return result


class Recorder:
    """An owner that keeps what it gets, and lets tests wait for it."""

    def __init__(self) -> None:
        self.frames: list[tuple[bool, bytes]] = []
        self.ends: list[Closed] = []
        self.connection: Any = None
        self._changed = asyncio.Event()

    def on_connected(self, connection: Any) -> None:
        self.connection = connection
        self._changed.set()

    def on_text(self, data: bytes) -> None:
        self.frames.append((False, data))
        self._changed.set()

    def on_binary(self, data: bytes) -> None:
        self.frames.append((True, data))
        self._changed.set()

    def on_closed(self, closed: Closed) -> None:
        self.ends.append(closed)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def got(self, count: int) -> list[tuple[bool, bytes]]:
        await self.until(lambda: len(self.frames) >= count)
        return self.frames

    async def ended(self) -> Closed:
        await self.until(lambda: self.ends)
        return self.ends[0]


async def push(connection: Any, most: int = 2000) -> tuple[int, asyncio.Future[None]]:
    """Send until `drain` waits; returns how many messages went, and the drain."""
    message = b"\x00" * 32_000
    for count in range(1, most):
        connection.send(message, binary=True)
        waiting = asyncio.ensure_future(connection.drain())
        # A drain that waits for the peer is still waiting after many turns in which nobody reads.
        for _ in range(5):
            await asyncio.sleep(0)
        if not waiting.done():
            return count, waiting
        await waiting
    raise AssertionError(f"{most * len(message)} bytes went to a peer that does not read")


class Pair:
    """Both ends of one connection, with their recorders, and a way to open more."""

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self.kind, self.options = kind, options
        self.heard, self.served = Recorder(), Recorder()
        self.client: Any = None
        self.server: Any = None
        self.listener: Any = None
        self._next: Any = self.served
        self._network = MemoryNetwork()
        self._dialled: list[Any] = []

    def accept_next(self, owner: Any) -> None:
        self._next = owner

    async def dial(self, owner: Any, **options: Any) -> Any:
        url = f"ws://{self.listener.host}:{self.listener.port}/speech"
        open_: Callable[..., Awaitable[Any]] = self._network.connect if self.kind == "memory" else connect
        connection = await open_(url, owner, **self.options, **options)
        self._dialled.append(connection)
        return connection

    async def open(self) -> None:
        def accept(_request: Request) -> Any:
            return self._next if isinstance(self._next, Refusal) else Accepted(self._next)

        if self.kind == "memory":
            self.listener = await self._network.listen(accept, **self.options)
        else:
            self.listener = await serve(accept, "127.0.0.1", 0, **self.options)
        self.client = await self.dial(self.heard)
        await self.served.until(lambda: self.served.connection)
        self.server = self.served.connection

    async def close(self) -> None:
        self.listener.close()
        for connection in [*self._dialled, *self.listener.connections]:
            connection.abort()
        for connection in self._dialled:
            await connection.wait_closed()
        await self.listener.wait_closed()


@contextlib.asynccontextmanager
async def pair(kind: str, **options: Any) -> AsyncIterator[Pair]:
    """Open a connection over loopback sockets (`picows`) or without (`memory`); everything is gone afterwards."""
    ends = Pair(kind, options)
    await ends.open()
    try:
        yield ends
    finally:
        await ends.close()
