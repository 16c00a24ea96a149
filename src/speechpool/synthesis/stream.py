"""`pool.stream()`: text in, audio out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from speechpool.errors import LeaseError
from speechpool.protocol import Voice

from .core import TaskCore

if TYPE_CHECKING:
    from speechpool.limits import Priority

    from .host import TaskHost

__all__ = ["SpeechStream", "Text"]

Text = str | Iterable[str] | AsyncIterable[str]
"""A whole text, or its pieces as they come, for instance the tokens of a language model."""


class SpeechStream(TaskCore):
    """One task as an asynchronous iterable of `bytes`, and a context manager.

        async with pool.stream(tokens, voice) as stream:
            async for chunk in stream:
                play(chunk)

    A text that comes with pauses longer than the server's text clock allows is bridged; see `AsyncSpeechPool.task`.

    Without `async with` the task starts with the first chunk asked for. Leaving or dropping it cancels what is left. A
    consumer that stops reading slows its own connection only; memory stays below about 512 KiB a stream.

    Raises:
        SpeechPoolError: Its kinds, while entering or reading; whatever the text iterator raises, while reading.
    """

    __slots__ = ("_feeder", "_read", "_text")

    def __init__(
        self, host: TaskHost, voice: Voice, text: Text, *, priority: Priority = "interactive", bridge: bool = True
    ) -> None:
        super().__init__(host, voice, priority=priority, bridge=bridge)
        self._feeder: asyncio.Task[None] | None = None
        self._read = False
        self._text = text
        if isinstance(text, str):
            # Known now, checked now: a bad text must not cost a connection.
            self._say(text)
            self._finish()

    async def __aenter__(self) -> Self:
        await self._start()
        if not isinstance(self._text, str):
            self._feeder = self._host.loop.create_task(self._feed(self._text))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._read:
            raise LeaseError("a stream is read once; two consumers would each get a part of it.")
        self._read = True
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Hand out the audio. One generator over the deque: a second layer costs 12 to 37 % of the whole task."""
        queue = self._queue
        if self._timing is None:
            await self.__aenter__()
        try:
            while True:
                while queue:
                    yield queue.popleft()
                self._caught_up()
                if self._ended:
                    self._raise()
                    return
                await self._wait_for_item()
        finally:
            self._leave()

    async def cancel(self) -> None:
        """End the stream now (barge-in); see `SpeechTask.cancel`."""
        self._leave()

    def _leave(self) -> None:
        self._cancel()
        if self._feeder is not None:
            self._feeder.cancel()

    async def _feed(self, text: Iterable[str] | AsyncIterable[str]) -> None:
        """Send the pieces as they come. Pieces that are blank are joined with the next one."""
        try:
            held = ""
            async for piece in _pieces(text):
                held += piece
                if held and not held.isspace() and self.outcome is None:
                    self._say(held)
                    held = ""
                    await self._drain()
            if self.outcome is None:
                self._finish()
        except asyncio.CancelledError as error:
            if self.outcome is not None:
                raise  # by us: the stream was left
            self._fail(RuntimeError("the text iterator was cancelled, so the rest of the text never came."))
            raise error from None
        except Exception as error:  # noqa: BLE001  # the caller's iterator may raise anything, and must see it again
            if self.outcome is None:
                self._fail(error)
        finally:
            self._feeder = None


async def _pieces(text: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    if isinstance(text, AsyncIterable):
        async for piece in text:
            yield piece
    else:
        for piece in text:
            yield piece
            # A generator may be slow; between two of its pieces the loop gets a turn.
            await asyncio.sleep(0)
