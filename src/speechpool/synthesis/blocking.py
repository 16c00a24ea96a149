"""`SpeechPool`: the same pool for threads.

A facade over `AsyncSpeechPool` on one background event loop, shared by all pools of the process: one core, one set
of races. A blocked caller waits on a future; Ctrl-C in that wait cancels what it waited for. The loop's thread is a
daemon, so a forgotten pool never keeps the process alive.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from speechpool.protocol import Event, Voice

from .endpoint import Endpoint
from .lease import SpeechLease
from .loop_thread import loop_thread
from .pool import AsyncSpeechPool
from .speech import Speech
from .stream import SpeechStream, Text
from .task import SpeechTask

if TYPE_CHECKING:
    from speechpool.limits import Priority
    from speechpool.pool import PoolStats
    from speechpool.telemetry import PoolEvent, Report

    from .core import Outcome
    from .delivery import Sink

__all__ = ["BlockingLease", "BlockingStream", "BlockingTask", "SpeechPool"]

_Result = TypeVar("_Result")

_thread = loop_thread


class SpeechPool:
    """A pool of warm connections to one endpoint, for threads; see `AsyncSpeechPool`. Any thread may use it.

        with SpeechPool(Endpoint.local()) as pool:
            pool.synthesize("Hello.", voice).save("hello.mp3")

    Takes the same arguments, and raises the same errors.
    """

    def __init__(self, endpoint: Endpoint, **options: Any) -> None:
        self._pool = AsyncSpeechPool(endpoint, **options)

    def __enter__(self) -> Self:
        _thread.run(self._pool.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def wait_ready(self, min_ready: int | None = None) -> None:
        """Wait until `min_ready` connections are open; None: all of `min_size`."""
        _thread.run(lambda: self._pool.wait_ready(min_ready))

    def resize(self, max_size: int, min_size: int | None = None) -> None:
        """Change the size at run time."""
        _thread.run(lambda: self._pool.resize(max_size, min_size))

    def drain(self) -> None:
        """Take no new tasks, let the running ones end, and close."""
        _thread.run(self._pool.drain)

    def close(self, drain: float | None = None) -> None:
        """Close every connection; `drain` gives running tasks so many seconds to end."""
        _thread.run(lambda: self._pool.close(drain))

    def synthesize(self, text: str, voice: Voice, *, priority: Priority = "interactive") -> Speech:
        """Return the whole speech of a text."""
        return _thread.run(lambda: self._pool.synthesize(text, voice, priority=priority))

    def stream(
        self,
        text: str | Iterable[str],
        voice: Voice,
        *,
        priority: Priority = "interactive",
        bridge: bool = True,
    ) -> BlockingStream:
        """Return a stream of audio for a text, or for its pieces as they come."""
        return BlockingStream(
            lambda: _made(self._pool.stream(_threaded(text), voice, priority=priority, bridge=bridge))
        )

    def task(
        self,
        voice: Voice,
        *,
        sink: Sink | None = None,
        priority: Priority = "interactive",
        bridge: bool = True,
    ) -> BlockingTask:
        """Return a task to control by hand. A sink is called on the loop's thread, and must return soon."""
        return BlockingTask(lambda: _made(self._pool.task(voice, sink=sink, priority=priority, bridge=bridge)))

    def borrow(self, *, timeout: float | None = None, priority: Priority = "interactive") -> BlockingLease:
        """Return a lease to enter with `with`."""
        return BlockingLease(lambda: _made(self._pool.borrow(timeout=timeout, priority=priority)))

    @property
    def stats(self) -> PoolStats:
        """The pool at this moment."""
        return _thread.run(lambda: _called(lambda: self._pool.stats))

    def on(self, listener: Callable[[PoolEvent], object]) -> Callable[[], None]:
        """Call `listener` on the loop's thread with everything that happens; see `AsyncSpeechPool.on`."""
        remove: Callable[[], None] = self._pool.on(listener)
        return remove

    def report(self) -> Report:
        """Return the five signals: value, target and verdict."""
        return _thread.run(lambda: _called(self._pool.report))

    def explain(self) -> str:
        """Say in a few sentences what the pool does now, and why."""
        return _thread.run(lambda: _called(self._pool.explain))


def _threaded(text: str | Iterable[str]) -> Text:
    """Let another thread wait for the caller's iterator, which may be slow: the loop is everybody's."""
    return text if isinstance(text, str) else _in_thread(iter(text))


async def _in_thread(pieces: Iterator[str]) -> AsyncIterator[str]:
    """Read an iterator in a thread of its own: a shared executor would let a few slow ones hold up all others."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[str | BaseException | None] = asyncio.Queue(1)
    left = threading.Event()

    def put(item: str | BaseException | None) -> None:
        asyncio.run_coroutine_threadsafe(ready.put(item), loop).result()

    def read() -> None:
        with contextlib.suppress(RuntimeError, concurrent.futures.CancelledError):  # the loop has ended
            try:
                for piece in pieces:
                    put(piece)
                    if left.is_set():
                        return
                put(None)
            except Exception as error:  # noqa: BLE001  # the caller's iterator may raise anything, and must see it again
                put(error)

    # A daemon: an iterator that blocks for ever must not keep the process alive.
    threading.Thread(target=read, name="speechpool-text", daemon=True).start()
    try:
        while (item := await ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        while not ready.empty():
            ready.get_nowait()  # a thread that waits to put something goes on, sees `left`, and ends


async def _made(thing: _Result) -> _Result:
    return thing


async def _called(function: Callable[[], _Result]) -> _Result:
    return function()


class BlockingTask:
    """`SpeechTask` for threads: the same methods, as plain calls."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, SpeechTask]]) -> None:
        self._task = _thread.run(make)

    def __enter__(self) -> Self:
        _thread.run(self._task.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _thread.run(lambda: self._task.__aexit__(kind, error, traceback))

    def send(self, text: str) -> None:
        """Send one piece of text."""
        _thread.run(lambda: self._task.send(text))

    def flush(self) -> None:
        """Ask the server to speak what it holds, and keep the task open."""
        _thread.run(self._task.flush)

    def finish(self) -> None:
        """End the text."""
        _thread.run(self._task.finish)

    def cancel(self) -> None:
        """End the task now."""
        _thread.run(self._task.cancel)

    def wait(self) -> None:
        """Wait for the end of the task."""
        _thread.run(self._task.wait)

    def __iter__(self) -> Iterator[Event]:
        return _batches(self._task)

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        return self._task.outcome

    @property
    def request_id(self) -> str | None:
        """The wire id of the last segment."""
        return self._task.request_id

    @property
    def first_packet_delay(self) -> float | None:
        """Seconds from the first text to the first audio; None before it."""
        return self._task.first_packet_delay


class BlockingStream:
    """`SpeechStream` for threads: an iterable of `bytes`, and a context manager."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, SpeechStream]]) -> None:
        self._stream = _thread.run(make)

    def __enter__(self) -> Self:
        _thread.run(self._stream.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the stream now."""
        _thread.run(self._stream.cancel)

    def __iter__(self) -> Iterator[bytes]:
        if self._stream._timing is None:
            _thread.run(self._stream.__aenter__)
        return _left_at_the_end(self._stream)

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        return self._stream.outcome

    @property
    def request_id(self) -> str | None:
        """The wire id of the last segment."""
        return self._stream.request_id

    @property
    def first_packet_delay(self) -> float | None:
        """Seconds from the first text to the first audio; None before it."""
        return self._stream.first_packet_delay


def _batches(task: Any) -> Iterator[Any]:
    """Hand out everything that is ready per visit to the loop: one hop of threads for many frames."""
    while batch := _thread.run(task._ready):
        yield from batch


def _left_at_the_end(stream: SpeechStream) -> Iterator[bytes]:
    try:
        yield from _batches(stream)
    finally:
        # Not waited for: this may be a finaliser, in the thread of the loop or while the process exits.
        _thread.post(stream._leave)


class BlockingLease:
    """`SpeechLease` for threads."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, SpeechLease]]) -> None:
        self._lease = _thread.run(make)

    def __enter__(self) -> Self:
        _thread.run(self._lease.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _thread.run(lambda: self._lease.__aexit__(kind, error, traceback))

    def discard(self, reason: str = "discarded") -> None:
        """Close the connection instead of giving it back. The lease is over."""
        _thread.run(lambda: _called(lambda: self._lease.discard(reason)))

    def task(self, voice: Voice, *, sink: Sink | None = None, bridge: bool = True) -> BlockingTask:
        """Return a task on this lease."""
        return BlockingTask(lambda: _made(self._lease.task(voice, sink=sink, bridge=bridge)))

    def stream(self, text: str | Iterable[str], voice: Voice, *, bridge: bool = True) -> BlockingStream:
        """Return a stream on this lease."""
        return BlockingStream(lambda: _made(self._lease.stream(_threaded(text), voice, bridge=bridge)))

    def synthesize(self, text: str, voice: Voice) -> Speech:
        """Return the speech of a text."""
        return _thread.run(lambda: self._lease.synthesize(text, voice))
