"""One task of a synthesizer: on the event loop, with its callbacks on worker threads.

Theory of operation. The loop appends what arrives to a deque; whoever holds the claim, a lock that is never waited for,
takes it out and calls back. A task is born with its claim held by the caller who starts it: that thread runs `on_open`
and lets go, so nothing can come before it. From then on the loop takes the claim for a worker when something is ready,
and the worker gives it up when nothing is left. So callbacks run one at a time and in order, and an idle task has no
thread. A deque and a lock are safe between threads; all other state belongs to the loop.

A worker that lags by `HIGH_WATER` bytes holds the task's own socket, and nobody else's.
"""

from __future__ import annotations

import logging
import threading
from asyncio import Task, TimerHandle
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from speechpool.errors import FirstAudioTimeout, InvalidText, SpeechPoolError, TaskFailed
from speechpool.protocol import Started, Voice
from speechpool.synthesis.core import Outcome, TaskCore
from speechpool.synthesis.delivery import HIGH_WATER

from .callbacks import finish_at_exit, workers
from .errors import CallbackError, RequestFailure, failure_frame, raised

if TYPE_CHECKING:
    from speechpool.synthesis.host import TaskHost
    from speechpool.synthesis.lease import SpeechLease

__all__ = ["Callback", "SynthesizerTask", "too_late"]

logger: Final = logging.getLogger("speechpool.dashscope")

_END: Final = None
_GENERATED: Final = b'"result-generated"'
_FAILED: Final = b'"task-failed"'


class Callback(Protocol):
    """What a program passes as `callback`: the official class, ours, or anything that looks like it."""

    def on_open(self) -> None:
        """The server has accepted the task."""

    def on_complete(self) -> None:
        """All audio has come."""

    def on_error(self, message: str) -> None:
        """The task has failed."""

    def on_close(self) -> None:
        """Nothing follows."""

    def on_event(self, message: str) -> None:
        """An event came."""

    def on_data(self, data: bytes) -> None:
        """Audio came."""


class SynthesizerTask(TaskCore):
    """A task with a callback, or one that collects its audio.

    Args:
        host: The pool, or the lease, that it runs on.
        voice: Who speaks, and how.
        callback: Called on worker threads; None: the audio is collected.
        request_id: Its id on the wire; a retry takes another one.
        owner: Kept alive until the task is over.
    """

    __slots__ = (
        "_callback",
        "_claim",
        "_first_id",
        "_held",
        "_limit",
        "_owner",
        "_runner",
        "_serving",
        "_wire_id",
        "accepted",
        "broken",
        "ending",
        "last_frame",
        "over",
        "started",
    )

    def __init__(self, host: TaskHost, voice: Voice, callback: Callback | None, request_id: str, owner: object) -> None:
        super().__init__(host, voice, bounded=False)
        self.started = threading.Event()
        """The server has accepted the task, or it has ended before."""
        self.over = threading.Event()
        """It has ended, and its last callback has returned."""
        self.accepted = False
        """The server has accepted it."""
        self.broken: BaseException | None = None
        """What a callback raised."""
        self.ending: Outcome | None = None
        """What the program has made of it, where the loop has still to learn that."""
        self.last_frame: bytes | None = None
        """The last event of the server, as it came."""
        self._callback = callback
        self._claim = threading.Lock()
        self._claim.acquire()
        self._serving: int | None = None  # the thread that runs the callbacks at this moment
        self._owner = owner
        self._first_id: str | None = request_id
        self._wire_id = b""
        self._held = ""
        self._runner: Task[None] | None = None
        self._limit: TimerHandle | None = None

    # ------------------------------------------------------------------------------------ asked for, on the loop
    def start(self, text: str, lease: SpeechLease | None, limit: float | None, *, finish: bool) -> None:
        """Begin with a first text; `finish`: which is all there is, and is to be spoken within `limit` seconds."""
        if lease is not None:
            lease._remember(self)
        self.say(text)
        if finish:
            self.finish(limit)
        if self.outcome is None:
            self._runner = self._host.loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._start()
        except Exception:  # it is the outcome of the task, which whoever waits is told
            logger.debug("A task could not start.", exc_info=True)
        finally:
            self._runner = None

    def say(self, text: str) -> None:
        """Send one piece of text. A blank one waits for the next: the server refuses it by itself."""
        if self.outcome is not None:
            return  # its caller learns of that in another way
        try:
            if isinstance(text, str):
                text = self._held + text
                if not text or text.isspace():
                    self._held = text
                    return
            self._held = ""
            self._say(text)
        except SpeechPoolError as error:
            self._fail(error)

    def flush(self) -> None:
        """Ask the server to speak what it holds."""
        if self.outcome is None:
            self._flush()

    def finish(self, limit: float | None) -> None:
        """End the text; after `limit` seconds the task is given up."""
        if self.outcome is not None:
            return
        try:
            self._finish()
        except InvalidText as error:
            self._fail(error)
            return
        if limit is not None:
            self._limit = self._host.loop.call_later(limit, self.abandon, too_late(limit))

    def _dismissed(self) -> None:
        self._callback = None
        self._cancel()
        self._is_over()

    # ------------------------------------------------------------------------------------ what arrives, on the loop
    def _new_id(self) -> str:
        first, self._first_id = self._first_id, None
        new = first or super()._new_id()
        self._wire_id = new.encode()
        return new

    def on_text(self, data: bytes) -> None:
        """Take one text frame, and keep it for the program."""
        segment = self._segment
        # Two searches are a tenth of reading JSON once more, and neither text can stand in a string unescaped.
        if segment is None or self._wire_id not in data:
            super().on_text(data)
            return
        self.last_frame = data
        super().on_text(data)
        if _GENERATED in data and self._segment is segment and self.outcome is None and self._callback is not None:
            self._call_back((data,))

    def _to_reader(self, data: bytes) -> None:
        self.audio_bytes += len(data)
        self._queue.append(data)
        if self._callback is None:
            return
        if self._claim.acquire(blocking=False):
            workers.run(self._serve)
        elif self.audio_bytes - self._consumed > HIGH_WATER and not self._paused:
            self._pause()
            # The worker sees the pause when it has taken everything; if it had before, nobody else would end it.
            if self._consumed == self.audio_bytes:
                self._resume()

    def _call_back(self, item: Any) -> None:
        self._queue.append(item)
        if self._claim.acquire(blocking=False):
            workers.run(self._serve)

    def _on_started(self, event: Started) -> None:
        if self.outcome is None:
            self.accepted = True
            self.started.set()
        super()._on_started(event)

    def _retry_or_fail(self, error: SpeechPoolError) -> None:
        # A text of signs that nobody can speak. The official classes take silence for success.
        if isinstance(error, TaskFailed) and error.code == "NoAudio":
            self._end("completed")
        elif isinstance(error, FirstAudioTimeout):
            self._end("failed", error)  # its caller has waited for as long as was promised
        else:
            super()._retry_or_fail(error)

    def _end(self, outcome: Outcome, error: BaseException | None = None) -> None:
        if self.outcome is not None:
            return
        super()._end(outcome, error)
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        if self._callback is None:
            self._is_over()
        else:
            self._call_back(_END)
        self.started.set()

    def _is_over(self) -> None:
        self._owner = self._callback = None
        self.over.set()
        finish_at_exit.ended(self)

    # ------------------------------------------------------------------------------------ the caller's thread
    def stop(self, error: SpeechPoolError | None = None) -> None:
        """End soon: as failed with `error`, or cancelled, which a callback is told as completed. Never waits."""
        self.ending = "cancelled" if error is None else "failed"
        self._post(self._cancel if error is None else partial(self.abandon, error))

    def dismiss(self) -> None:
        """Cancel a task whose caller no longer waits for it to begin: `on_open` was not called, so nothing else is."""
        self.ending = "cancelled"
        self._post(self._dismissed)

    @property
    def verdict(self) -> Outcome | None:
        """Its outcome, or the one that the program has given it. What the loop is told next comes after that."""
        return self.outcome or self.ending

    @property
    def calling_back(self) -> bool:
        """The present thread runs a callback of this task, so it must not wait for the others."""
        return self._serving == threading.get_ident()

    def open(self) -> None:
        """Call `on_open` in this thread, then let the other callbacks follow.

        Raises:
            BaseException: What `on_open` raised; the task is given up.
        """
        try:
            if self._callback is not None:
                self._serving = threading.get_ident()
                self._callback.on_open()
        except BaseException as error:
            self._broke(error)
            raise
        finally:
            self._serving = None
            self._claim.release()
            if self._queue and self._callback is not None and self._claim.acquire(blocking=False):
                workers.run(self._serve)

    def refuse(self) -> BaseException:
        """Return why the task never began. What the server said is told to the callback, too, in this thread."""
        error = self.failure
        if self._callback is not None:
            if isinstance(error, RequestFailure):
                self._serve()
            else:
                self._is_over()
        return error or InterruptedError("the task was cancelled before it began.")

    @property
    def failure(self) -> BaseException | None:
        """What a waiting caller is to get, or None where all went well."""
        if self.broken is not None:
            return self.broken
        if self._error is None:
            return None
        error = raised(self._error, self.request_id)
        if error is not self._error:
            error.__cause__ = self._error
        return error

    def audio(self) -> bytes | None:
        """Return what was collected."""
        return b"".join(self._queue) or None

    # ------------------------------------------------------------------------------------ a worker's thread
    def _serve(self) -> None:
        """Call back everything that is ready. One thread at a time: it holds the claim."""
        queue = self._queue
        while True:
            self._serving = threading.get_ident()
            while queue:
                try:
                    item = queue.popleft()
                except IndexError:  # a cancel has emptied it meanwhile
                    break
                if item is _END:
                    self._tell_the_end()
                    return
                if self.broken is None:
                    self._tell(item)
                if type(item) is bytes:
                    self._consumed += len(item)
            if self._paused:
                self._post(self._resume)
            self._serving = None
            self._claim.release()
            # Something may have come between the last look and the release; the loop saw the claim held, then.
            if not queue or not self._claim.acquire(blocking=False):
                return

    def _tell(self, item: Any) -> None:
        callback = self._callback
        assert callback is not None  # noqa: S101  # a task without one has no worker
        try:
            if type(item) is bytes:
                callback.on_data(item)
            else:
                callback.on_event(item[0].decode())
        except BaseException as error:  # noqa: BLE001  # whatever the program's code raises belongs to the program
            self._broke(error)

    def _tell_the_end(self) -> None:
        callback = self._callback
        assert callback is not None  # noqa: S101  # a task without one has no worker
        error = self.broken or (None if self.outcome == "cancelled" else self._error)
        if error is None:
            try:
                callback.on_complete()
            except BaseException as raised_now:  # noqa: BLE001  # as above
                self._broke(raised_now)
                error = raised_now
        if error is not None:
            self._quietly(callback.on_error, self._message(error))
        self._quietly(callback.on_close)
        self._serving = None
        self._is_over()

    def _message(self, error: BaseException) -> str:
        frame = self.last_frame
        if error is self._error and isinstance(error, TaskFailed) and frame is not None and _FAILED in frame:
            return frame.decode(errors="replace")
        if error is self.broken:
            told = CallbackError(f"a callback raised {type(error).__name__}: {error}")
            return failure_frame(told, self.request_id)
        return failure_frame(error, self.request_id)

    def _broke(self, error: BaseException) -> None:
        """A callback has raised: nothing more is told but the end, and the server is told to stop."""
        self.broken = error
        logger.error("A callback of task %s raised; the task is given up.", self.request_id, exc_info=error)
        if self.outcome is None:
            told = CallbackError(f"a callback raised {type(error).__name__}.")
            told.__cause__ = error
            self._post(lambda: self.abandon(told))

    def _quietly(self, callback: Callable[..., None], *arguments: str) -> None:
        try:
            callback(*arguments)
        except BaseException as error:  # the task has ended: there is nobody else to tell
            self.broken = self.broken or error
            logger.exception("A callback of task %s raised after its end.", self.request_id)

    def _post(self, work: Callable[[], object]) -> None:
        self._host.loop.call_soon_threadsafe(work)


def too_late(limit: float) -> FirstAudioTimeout:
    """Return the error of a task that has not ended within `limit` seconds of the end of its text."""
    text = f"speech synthesizer wait for complete timeout {limit * 1000:g}ms"
    return FirstAudioTimeout(text, phase="total", limit=limit)
