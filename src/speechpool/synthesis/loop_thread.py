"""The one event loop in the background that everything for threads runs on."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from speechpool.errors import PoolClosed, WrongLoop

__all__ = ["LoopThread", "loop_thread"]

_Result = TypeVar("_Result")


class LoopThread:
    """One event loop in a daemon thread; started when first used, stopped at the exit of the process."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            # A child has the loop, but not its thread: whoever waited for it would wait for ever.
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs. In a forked child it is another one than in its parent.

        Raises:
            PoolClosed: The process exits, and the loop has ended.
        """
        loop = self._loop
        return self._running() if loop is None or self._stopped else loop

    def runs(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether `loop` is the one of this process, and has not ended. Starts none: a finaliser may ask."""
        return loop is self._loop and not self._stopped

    def run(self, work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Run one coroutine on the loop and wait for its result.

        Raises:
            WrongLoop: Called from the loop itself, where waiting would never end.
            PoolClosed: The process exits, and the loop has ended.
        """
        loop = self._elsewhere()
        future = asyncio.run_coroutine_threadsafe(work(), loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C while waiting: whatever was waited for must not go on alone.
            future.cancel()
            raise

    def call(self, function: Callable[[], _Result]) -> _Result:
        """Run a plain function on the loop and wait for its result: a fifth of the cost of a coroutine.

        Raises:
            WrongLoop: Called from the loop itself.
            PoolClosed: The process exits, and the loop has ended.
        """
        call = _Call(function)
        self._elsewhere().call_soon_threadsafe(call.run)
        return call.result()

    def post(self, work: Callable[[], object]) -> None:
        """Have something done on the loop soon, without waiting; from a finaliser, in whatever thread it runs."""
        loop = self._loop
        if loop is not None and not self._stopped:
            loop.call_soon_threadsafe(work)

    def _elsewhere(self) -> asyncio.AbstractEventLoop:
        loop = self.loop
        if threading.current_thread() is self._thread:
            raise WrongLoop("SpeechPool was called from its own event loop (from a sink?); use AsyncSpeechPool there.")
        return loop

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._stopped:
                raise PoolClosed("the process exits, and the event loop of SpeechPool has ended.")
            if self._loop is None:
                self._loop = _new_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="speechpool", daemon=True)
                self._thread.start()
                atexit.register(self._stop)
            return self._loop

    def _stop(self) -> None:
        # The thread must have left the loop before the interpreter takes its parts away.
        with self._lock:
            self._stopped = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=2.0)


class _Call(Generic[_Result]):
    """A function on its way to the loop. A bare lock tells the end; an event or a future costs several times more."""

    __slots__ = ("_done", "_error", "_function", "_result")

    def __init__(self, function: Callable[[], _Result]) -> None:
        self._function = function
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001  # it belongs to the thread that waits
            self._error = error
        self._done.release()

    def result(self) -> _Result:
        with self._done:
            if self._error is not None:
                raise self._error
            return self._result


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


loop_thread = LoopThread()
