"""One Sambert task, read by the thread that called: its audio as bytes, its sentences as the server sent them."""

from __future__ import annotations

from asyncio import TimerHandle
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from speechpool.errors import FirstAudioTimeout, SpeechPoolError, TaskFailed
from speechpool.synthesis.core import TaskCore
from speechpool.synthesis.loop_thread import loop_thread

if TYPE_CHECKING:
    from speechpool.protocol import Voice
    from speechpool.synthesis.host import TaskHost

__all__ = ["Item", "Reading"]

Item = bytes | Mapping[str, Any]

_GENERATED: Final = b'"result-generated"'


class Reading(TaskCore):
    """A task whose reader is a thread. One that reads slowly slows its own connection only.

    Args:
        host: The pool that it runs on.
        voice: Who speaks, and how.
        text: The whole text.
        limit: Seconds that the task may take; None: as long as the pool's deadlines let it.
    """

    __slots__ = ("_limit", "_text", "_timer")

    def __init__(self, host: TaskHost, voice: Voice, text: str, limit: float | None) -> None:
        super().__init__(host, voice)
        self._text = text
        self._limit = limit
        self._timer: TimerHandle | None = None

    def items(self) -> Generator[Item, None, None]:
        """Run the task, and hand out what comes. From any thread but the loop's; closing it ends the task.

        Raises:
            SpeechPoolError: Its kinds; see `speechpool.errors`.
        """
        try:
            loop_thread.run(self._begun)
            while batch := loop_thread.run(self._ready):
                yield from batch
        finally:
            loop_thread.post(self._left)

    # ------------------------------------------------------------------------------------ on the loop
    async def _begun(self) -> None:
        self._say(self._text)
        self._finish()
        if self._limit is not None:
            self._timer = self._host.loop.call_later(self._limit, self._too_late)
        await self._start()

    def _too_late(self) -> None:
        limit = self._limit or 0.0
        self.abandon(FirstAudioTimeout(f"the task took longer than {limit:g} s.", phase="total", limit=limit))

    def _left(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._cancel()

    def on_text(self, data: bytes) -> None:
        """Take one text frame: keep the sentence for the reader, then look at it."""
        if self._segment is not None and self.outcome is None and _GENERATED in data:
            sentence = _sentence(data, self._segment.id)
            if sentence is not None:
                self._queue.append(sentence)
                self._wake()
        super().on_text(data)

    def _retry_or_fail(self, error: SpeechPoolError) -> None:
        # A text of signs that nobody can speak. The official class takes silence for success.
        if isinstance(error, TaskFailed) and error.code == "NoAudio":
            self._end("completed")
        else:
            super()._retry_or_fail(error)


def _sentence(data: bytes, task_id: str) -> Mapping[str, Any] | None:
    """Return `payload.output.sentence` of a frame of this task; None of any other, and of what cannot be read."""
    try:
        frame = msgspec.json.decode(data)
        if frame["header"]["task_id"] != task_id:
            return None
        sentence = frame["payload"]["output"]["sentence"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return None  # the protocol has its own word on such a frame
    return sentence if isinstance(sentence, dict) else None
