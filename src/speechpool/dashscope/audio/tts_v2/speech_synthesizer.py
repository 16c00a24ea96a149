"""`SpeechSynthesizer` with the official names, order and defaults (source: the official SDK 2.0.2)."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speechpool.dashscope.callbacks import finish_at_exit
from speechpool.dashscope.endpoints import current_key, resolved
from speechpool.dashscope.errors import (
    InputRequired,
    InvalidTask,
    ModelRequired,
    built,
    failure_frame,
    raised,
    translated,
)
from speechpool.dashscope.pools import ObjectPool, shared
from speechpool.dashscope.tasks import Callback, SynthesizerTask, too_late
from speechpool.errors import LeaseError, SettingsError
from speechpool.synthesis.loop_thread import loop_thread

from .formats import AudioFormat
from .wishes import Format, Wishes

if TYPE_CHECKING:
    from speechpool.synthesis import SpeechLease
    from speechpool.synthesis.host import TaskHost

__all__ = ["AudioFormat", "HotFix", "ResultCallback", "SpeechSynthesizer"]

_PATIENCE = 10.0
"""Seconds that a new task of an object waits for the callbacks of the one before."""


@dataclass
class HotFix:
    """How words are pronounced, and what is said in place of what.

    HotFix(pronunciation=[{"草地": "cao3 di4"}], replace=[{"草地": "草弟"}])
    """

    pronunciation: list[dict[str, str]] | None = None
    replace: list[dict[str, str]] | None = None

    def to_dict(self) -> dict[str, list[dict[str, str]]]:
        """Return what is sent."""
        both = {"pronunciation": self.pronunciation, "replace": self.replace}
        return {name: value for name, value in both.items() if value is not None}


class ResultCallback:
    """Derive from this, and override what you want to know.

    `on_open`, then `on_event` and `on_data` as they come, then `on_complete` or `on_error`, and `on_close` once. They
    are called one at a time, `on_open` in the thread that begins the task, the others on a worker thread. They may take
    their time, which slows this task only, and may call the SDK.
    """

    def on_open(self) -> None:
        """The server has accepted the task."""

    def on_complete(self) -> None:
        """All audio has come, or the task was cancelled."""

    def on_error(self, message: str) -> None:
        """The task has failed; `message` is the server's `task-failed` frame, or one of that shape made here."""

    def on_close(self) -> None:
        """Nothing follows."""

    def on_event(self, message: str) -> None:
        """A `result-generated` frame, as it came."""

    def on_data(self, data: bytes) -> None:
        """The next piece of audio."""


class SpeechSynthesizer:
    """Speaks text, with a callback as it comes, or without one all at once.

    An object speaks any number of tasks, one after another. Its connections are warm ones that all synthesizers of the
    process share, or the one that an object pool has lent it.

    Args:
        model: The model.
        voice: One of its voices.
        format: Container and sample rate of the audio.
        volume: 0 to 100.
        speech_rate: 0.5 to 2.
        pitch_rate: 0.5 to 2.
        seed: 0 to 65,535.
        synthesis_type: The provider's `type`.
        instruction: How to speak, in words.
        language_hints: Languages of the text.
        headers: Further headers of the handshake.
        callback: A `ResultCallback`; None: `call` returns the audio.
        workspace: The workspace.
        url: Where to; None: `dashscope.base_websocket_api_url`.
        hot_fix: A `HotFix`, or its dictionary.
        additional_params: Further parameters of the wire; they win over all others.

    Raises:
        ModelRequired: There is no model.
        InputRequired: There is no format, no key, or no workspace where the URL wants one.
    """

    def __init__(  # noqa: PLR0917  # the official order
        self,
        model: str,
        voice: str,
        format: Format = AudioFormat.DEFAULT,  # noqa: A002  # the official name
        volume: int = 50,
        speech_rate: float = 1.0,
        pitch_rate: float = 1.0,
        seed: int = 0,
        synthesis_type: int = 0,
        instruction: str | None = None,
        language_hints: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
        callback: Callback | None = None,
        workspace: str | None = None,
        url: str | None = None,
        hot_fix: HotFix | Mapping[str, Any] | None = None,
        additional_params: Mapping[str, Any] | None = None,
    ) -> None:
        self._lease: SpeechLease | None = None
        self._pool: ObjectPool | None = None
        self._given_up = ""
        self._task: SynthesizerTask | None = None
        self._speaking = False  # a text has begun, and the program has not ended it
        self._lock = threading.Lock()
        self._next_id = os.urandom(16).hex()
        if model is None:
            raise built(ModelRequired, "Model is required!")
        if format is None:
            raise built(InputRequired, "format is required!")
        self.url = resolved(url, workspace)
        current_key()
        self.headers = headers
        self.workspace = workspace
        self.callback = callback
        # A copy: what the program does with its dictionary later is its own affair.
        additional = dict(additional_params or {})
        if hot_fix is not None:
            additional["hot_fix"] = dict(hot_fix) if isinstance(hot_fix, Mapping) else hot_fix.to_dict()
        self._wishes = Wishes(
            model, voice, format, volume, speech_rate, pitch_rate,
            seed, synthesis_type, instruction, language_hints, additional,
        )  # fmt: skip

    def __str__(self) -> str:
        wishes = self._wishes
        return f"[SpeechSynthesizer model:{wishes.model}, voice:{wishes.voice}, format:{wishes.format}]"

    def __del__(self) -> None:
        # Not returned: its connection goes back all the same. Nothing runs on it, or the task would keep this object.
        if getattr(self, "_lease", None) is not None:
            self._leave("")

    # ---------------------------------------------------------------------------------- speak
    def call(self, text: str, timeout_millis: float | None = None) -> bytes | None:
        """Speak a whole text, which may be SSML.

        With a callback this returns None once the task has begun, and the rest happens in the background; the process
        does not exit before. Without one it returns the audio.

        Args:
            text: The text.
            timeout_millis: Milliseconds that the speech may take; None or 0: any time.

        Raises:
            RequestFailure: The server refused the task, or (without a callback) gave it up.
            TimeoutError: It took too long, or (`NotConnected`) no connection could be had.
            ConnectionError: The connection broke, without a callback.
            InvalidTask: The task before has not ended.
        """
        limit = _seconds(timeout_millis)
        callback = self.callback
        task = self._begin(text, limit if callback is not None else None, finish=True)
        self._speaking = False  # what was begun before has failed
        if callback is not None:
            finish_at_exit(task)
            self._accepted(task)
            return None
        self._wait(task, limit)
        if (failure := task.failure) is not None:
            raise failure
        return task.audio()

    def streaming_call(self, text: str) -> None:
        """Speak one more piece of a text; the first one begins the task, and waits until the server has accepted it.

        Raises:
            InputRequired: There is no callback.
            InvalidTask: The task before has not ended.
            RequestFailure: The server refused the task, or has given it up meanwhile.
            TimeoutError: As of `call`.
            ConnectionError: The connection broke.
        """
        if self._speaking:
            self._post(self._running().say, text)
            return
        if self.callback is None:
            raise built(InputRequired, "callback is required!")
        task = self._begin(text, None, finish=False)
        self._speaking = True
        try:
            self._accepted(task)
        except BaseException:
            self._speaking = False  # the next call tries again
            raise

    def streaming_flush(self) -> None:
        """Have everything spoken that was sent so far, and keep the task open.

        Raises:
            InvalidTask: No text has begun.
            RequestFailure: And others, as of `streaming_call`.
        """
        self._started()
        self._post(self._running().flush)

    def streaming_complete(self, complete_timeout_millis: float | None = 600000) -> None:
        """End the text, and wait until its last callback has returned.

        From one of its own callbacks this does not wait, as that would never end.

        Raises:
            InvalidTask: No text has begun.
            TimeoutError: It took longer than `complete_timeout_millis`; the task is given up. None or 0: any time.
            Exception: What a callback raised. What the server says against the task goes to `on_error` instead.
        """
        task = self._started()
        self._speaking = False
        limit = _seconds(complete_timeout_millis)
        if task.calling_back:
            self._post(task.finish, limit)
            return
        self._post(task.finish, None)
        self._wait(task, limit)
        if task.broken is not None:
            raise task.broken

    def async_streaming_complete(self, complete_timeout_millis: float | None = 600000) -> None:
        """End the text, and return at once; `on_complete` or `on_error` tells the rest. The process waits for it.

        Raises:
            InvalidTask: No text has begun.
        """
        task = self._started()
        self._speaking = False
        finish_at_exit(task)
        self._post(task.finish, _seconds(complete_timeout_millis))

    def streaming_cancel(self, complete_timeout_millis: float | None = 10000) -> None:
        """End the task now; audio that was not delivered is dropped. The callback gets `on_complete` and `on_close`.

        The connection is used again once the server has confirmed, which this does not wait for.

        Args:
            complete_timeout_millis: Milliseconds to wait for the callbacks; None or 0: any time.

        Raises:
            InvalidTask: No task has begun.
        """
        task = self._task
        if task is None or (not self._speaking and task.over.is_set()):
            raise built(InvalidTask, "speech synthesizer has not been started.")
        self._speaking = False
        task.stop()
        if not task.calling_back:
            task.over.wait(_seconds(complete_timeout_millis))

    def close(self) -> None:
        """Give up a running task (`on_error`, `on_close`), and close the connection of an object pool.

        Its place in the pool is free at once. An object of its own may be used again.
        """
        self._speaking = False
        task = self._task
        if task is not None and task.verdict is None:
            task.stop(LeaseError("the program has closed the synthesizer."))
        if self._pool is not None:
            self.give_up("closed", discard=True)

    # ---------------------------------------------------------------------------------- see
    def get_last_request_id(self) -> str:
        """Return the id of the last task, or of the coming one."""
        task = self._task
        return self._next_id if task is None else task.request_id or self._next_id

    def get_first_package_delay(self) -> float:
        """Return milliseconds from the first text of the last task to its first audio; -1 before that."""
        delay = None if self._task is None else self._task.first_packet_delay
        return -1 if delay is None else delay * 1000

    def get_response(self) -> Any:
        """Return the last event of the server as a dictionary; None before the first."""
        frame = None if self._task is None else self._task.last_frame
        try:
            return None if frame is None else json.loads(frame)
        except ValueError:  # it broke the protocol, and so ended the task
            return None

    # ---------------------------------------------------------------------------------- begin
    def _begin(self, text: str, limit: float | None, *, finish: bool) -> SynthesizerTask:
        before = self._task
        if before is not None:
            self._settle(before)
            self._next_id = os.urandom(16).hex()
        try:
            voice = self._wishes.spoken(ssml=finish)
        except SettingsError as error:
            raise self._refused(error) from error
        # Not before: a callback that is waited for, or told, may return this object to its pool, which takes the lock.
        with self._lock:
            if self._task is not before:
                raise built(InvalidTask, "task has already started.")
            task = SynthesizerTask(self._host(), voice, self.callback, self._next_id, self)
            self._task, lease = task, self._lease
        loop_thread.loop.call_soon_threadsafe(lambda: task.start(text, lease, limit, finish=finish))
        return task

    def _settle(self, before: SynthesizerTask) -> None:
        """Make sure that no callback of the task before can come after one of the next."""
        if before.verdict is None:
            raise built(InvalidTask, "task has already started.")
        if not before.calling_back and not before.over.wait(_PATIENCE):
            raise built(InvalidTask, f"a callback of the task before has not returned within {_PATIENCE:g} s.")

    def _refused(self, error: SettingsError) -> BaseException:
        """Tell of values that cannot be sent in the way in which the server tells of wrong ones."""
        if self.callback is not None:
            self.callback.on_error(failure_frame(error, self._next_id))
            self.callback.on_close()
        return raised(error, self._next_id)

    def _host(self) -> TaskHost:
        if self._given_up:
            raise built(InvalidTask, f"the synthesizer was {self._given_up}; borrow another one.")
        if self._lease is not None:
            return self._lease._host
        with translated():
            return (self._pool or shared).host(self.url, self.workspace, self.headers)

    def _accepted(self, task: SynthesizerTask) -> None:
        """Wait until the server has accepted the task, then call `on_open`."""
        try:
            task.started.wait()
        except BaseException:
            # Ctrl-C: nothing goes on that nobody waits for.
            task.dismiss()
            raise
        if not task.accepted:
            raise task.refuse()
        task.open()

    # ---------------------------------------------------------------------------------- go on
    def _started(self) -> SynthesizerTask:
        task = self._task
        if task is None or not self._speaking:
            raise built(InvalidTask, "speech synthesizer has not been started.")
        return task

    def _running(self) -> SynthesizerTask:
        """Return the task that takes more text. One that has failed says so, and never begins anew half-way."""
        task = self._started()
        if task.outcome is not None:
            raise task.failure or built(InvalidTask, "speech synthesizer task has stopped.")
        return task

    def _wait(self, task: SynthesizerTask, limit: float | None) -> None:
        try:
            if task.over.wait(limit):
                return
        except BaseException:
            task.stop()
            raise
        assert limit is not None  # noqa: S101  # a wait without a limit ends with the task
        error = too_late(limit)
        task.stop(error)
        raise TimeoutError(str(error))

    @staticmethod
    def _post(work: Any, *arguments: Any) -> None:
        loop_thread.loop.call_soon_threadsafe(work, *arguments)

    # ---------------------------------------------------------------------------------- lent by an object pool
    def lent(self, pool: ObjectPool, lease: SpeechLease | None) -> None:
        """Belong to a pool from now on, with a connection of it or without one."""
        self._pool, self._lease = pool, lease

    def lent_by(self, pool: ObjectPool) -> bool:
        """Whether it was `pool` that has lent this object."""
        return self._pool is pool

    @property
    def running(self) -> bool:
        """Its task has not ended."""
        return self._task is not None and self._task.verdict is None

    def wait_until(self, end: float) -> None:
        """Wait until its task is over, or until `end` of `time.monotonic()`; not for one whose callback calls this."""
        task = self._task
        if task is not None and not task.calling_back:
            task.over.wait(max(0.0, end - time.monotonic()))

    @property
    def fault(self) -> str:
        """Why an object pool must not take this object back; empty where it may."""
        task = self._task
        if self._given_up:
            return f"it was {self._given_up} already"
        if self.running:
            return "its task still runs"
        if task is not None and task.verdict in {"failed", "shed"}:
            return "its last task failed"
        return ""

    def give_up(self, how: str, *, discard: bool) -> bool:
        """Part from the pool; False: it had already. `discard`: its connection is closed."""
        with self._lock:
            if self._given_up:
                return False
            self._given_up = how
        self._leave(how if discard else "")
        return True

    def _leave(self, discard: str) -> None:
        lease, self._lease = self._lease, None
        if lease is not None and self._pool is not None:
            self._pool.take_back(lease, discard)


def _seconds(millis: float | None) -> float | None:
    return millis / 1000 if millis is not None and millis > 0 else None


def __getattr__(name: str) -> Any:
    if name == "SpeechSynthesizerObjectPool":  # the official module has it, too; ours stands above this one
        from .pool import SpeechSynthesizerObjectPool

        return SpeechSynthesizerObjectPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.")
