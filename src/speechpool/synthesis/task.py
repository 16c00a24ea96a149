"""`pool.task()`: full control of one task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from speechpool.errors import LeaseError
from speechpool.protocol import Event

from .core import TaskCore

__all__ = ["SpeechTask"]


class SpeechTask(TaskCore):
    """One task: send text, read events, cancel.

        async with pool.task(voice) as task:
            await task.send("First. ")
            await task.finish()
            async for event in task:
                ...

    Entering borrows a connection and starts the task on the wire, so that its round trip hides behind the caller's
    thinking. A caller that thinks longer than the server waits for text is bridged: see `AsyncSpeechPool.task`. Leaving
    without `finish()`, or before the events were read to their end, cancels. With a sink there is
    nothing to read: leaving after `finish()` waits for the end.

    Raises:
        SpeechPoolError: Its kinds, from every method once the task has failed; see `speechpool.errors`.
    """

    __slots__ = ()

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._sink is not None and (self._script.finished or self._ended):
            try:
                await self._wait_ended()
            finally:
                self._cancel()
            return
        self._cancel()

    async def send(self, text: str) -> None:
        """Send one piece of text: at most 20,000 characters, where a Han character counts 2, and 200,000 in all.

        Cancellation: the piece was sent.

        Raises:
            InvalidText: The text breaks a rule; nothing of it was sent, and the task goes on.
            LeaseError: The task is finished or has ended.
        """
        self._say(text)
        await self._drain()

    async def flush(self) -> None:
        """Ask the server to speak what it holds of an incomplete sentence, and keep the task open."""
        self._flush()

    async def finish(self) -> None:
        """End the text. The rest of the audio follows; a second call does nothing.

        Raises:
            InvalidText: No text was sent.
        """
        self._finish()

    async def cancel(self) -> None:
        """End the task now (barge-in).

        No further audio arrives. The connection goes back warm when the server has confirmed, which this does not wait
        for. A second call does nothing.
        """
        self._cancel()

    async def wait(self) -> None:
        """Wait for the end of the task.

        Cancellation: the task goes on.

        Raises:
            SpeechPoolError: The task failed.
        """
        await self._wait_ended()

    def __aiter__(self) -> AsyncIterator[Event]:
        if self._sink is not None:
            raise LeaseError("the events of this task go to its sink; there is nothing to read.")
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        queue = self._queue
        while True:
            while queue:
                yield queue.popleft()
            self._caught_up()
            if self._ended:
                self._raise()
                return
            await self._wait_for_item()
