"""One task of a connection: its text on the way in, its frames on the way out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Final

from speechpool.errors import InvalidText
from speechpool.protocol import Word
from speechpool.protocol.cosyvoice import INVALID_PARAMETER, Refused, RunTask, ServerSession
from speechpool.text import TextRules, check_text, count_characters, ends_sentence

from .backend import Backend, Speech
from .limits import ServiceSettings
from .outbox import Outbox
from .passages import Passage
from .ssml import is_ssml, parse_ssml
from .wishes import speech_parameters

__all__ = ["ServedTask"]

_NO_SSML: Final = frozenset({"cosyvoice-v1"})
"""Models that take plain text only."""


class ServedTask:
    """The listener of one speech, and who sends its frames.

    Args:
        backend: Who speaks.
        protocol: The state of the connection; it makes the frames.
        outbox: Where the frames go.
        run: What is asked for.
        settings: How much text it may have.
        client: Who asks, for the backend to be fair; never a key.
        on_finished: Called when all was spoken and `task-finished` is in the outbox.
        on_failed: Called with code and message when the backend gave up. Nothing was sent about it.

    Raises:
        Refused: The parameters cannot be served.
        BackendRefusal: The backend does not want the task.
    """

    def __init__(
        self,
        backend: Backend,
        protocol: ServerSession,
        outbox: Outbox,
        run: RunTask,
        *,
        settings: ServiceSettings,
        client: str = "",
        on_finished: Callable[[], None],
        on_failed: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._protocol = protocol
        self._outbox = outbox
        self._finished = on_finished
        self._failed = on_failed
        self._over = False
        self._single = bool(run.parameters.enable_ssml) or run.parameters.text_type == "SSML"
        self._words = bool(run.parameters.word_timestamp_enabled)
        self._sent = 0  # characters that came in, as the provider limits them
        self._given = 0  # characters that the speech got
        self._owed = 0  # how many of those it has to speak now
        self._spoken = 0  # how many it has spoken
        self._speaking = False
        self._index = 0
        self.touched = 0.0
        self.first_text: float | None = None
        self.first_audio: float | None = None
        self.audio_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._parameters = speech_parameters(run, settings)
        self._speech: Speech = backend.open(run.task_id, self._parameters, self, client=client)

    @property
    def characters(self) -> int:
        """Characters that came in, as the provider limits them."""
        return self._sent

    @property
    def owes_audio(self) -> bool:
        """Whether it is the speech's turn: it is in a sentence, or has a whole one that waits, or the end."""
        return self._speaking or self._spoken < self._owed

    # ---------------------------------------------------------------------------------- instructions
    def begin(self) -> None:
        """Wait for text; `task-started` was sent."""

    def text(self, text: str) -> None:
        """Take one piece of text.

        A task that takes SSML takes one piece, and plain text in it too: the official SDK's `call` always asks for
        SSML. Without that, markup is text like any other.

        Raises:
            Refused: It is too long, empty of words, one piece too many, or SSML that cannot be spoken.
        """
        if self._single and self._sent:
            raise Refused(INVALID_PARAMETER, "Text request limit violated, expected 1.")
        ssml = self._single and is_ssml(text)
        if ssml and self._parameters.model in _NO_SSML:
            raise Refused(INVALID_PARAMETER, "SSML text is not supported at the moment!")
        limits = self._settings
        try:
            self._sent += check_text(
                text, sent=self._sent, ssml=ssml, rules=TextRules(limits.max_send, limits.max_task)
            )
            passages = self._parsed(text) if ssml else None
        except InvalidText as error:
            raise Refused(INVALID_PARAMETER, str(error)) from None
        if self.first_text is None:
            self.first_text = self._loop.time()
        if passages is None:
            self._take(text)
        else:
            self._take_passages(passages)

    def _take(self, text: str) -> None:
        self._given += count_characters(text)
        if ends_sentence(text):
            self._owed = self._given
        self._speech.text(text)

    def _take_passages(self, passages: Sequence[Passage]) -> None:
        self._owed = self._given = sum(count_characters(each.text) for each in passages)
        self._speech.passages(passages)

    def _parsed(self, document: str) -> Sequence[Passage]:
        wish = self._parameters
        return parse_ssml(
            document,
            voice=wish.voice,
            rate=wish.rate,
            pitch=wish.pitch,
            volume=wish.volume,
            language=wish.language_hints[0] if wish.language_hints else None,
        )

    def flush(self) -> None:
        """Speak what is there."""
        self._owed = self._given
        self._speech.flush()

    def finish(self) -> None:
        """Speak the rest, then end."""
        self._owed = self._given
        self._speech.finish()

    def pause(self) -> None:
        """Stop speaking: the peer does not keep up."""
        self._speech.pause()

    def resume(self) -> None:
        """Speak on."""
        self._speech.resume()

    def close(self) -> None:
        """Say nothing more. A speech that is not finished is cancelled."""
        if not self._over:
            self._over = True
            self._speech.cancel()

    def confirm(self) -> None:
        """Send `task-finished`, with the characters that were spoken."""
        self._outbox.add(self._protocol.finished(self._spoken, {"request_uuid": os.urandom(16).hex()}))

    # ---------------------------------------------------------------------------------- what the speech says
    def on_sentence_begin(self, index: int, text: str) -> None:
        """Announce a sentence."""
        if not self._over:
            self._index = index
            self._speaking = True
            self.touched = self._loop.time()
            self._outbox.add(self._protocol.sentence_begin(index, text))

    def on_audio(self, data: bytes) -> None:
        """Send audio: one announcement, one binary frame."""
        if not self._over:
            if self.first_audio is None:
                self.first_audio = self._loop.time()
            self.audio_bytes += len(data)
            self._outbox.add(self._protocol.sentence_synthesis(self._index), data)

    def on_sentence_end(self, index: int, text: str, words: Sequence[Word], characters: int) -> None:
        """Close a sentence."""
        if not self._over:
            self._spoken = characters
            self._speaking = False
            self.touched = self._loop.time()
            times = tuple(words) if self._words else ()
            self._outbox.add(self._protocol.sentence_end(index, text, times, characters))

    def on_finished(self, characters: int) -> None:
        """End the task well."""
        if not self._over:
            self._over = True
            self._spoken = characters
            self.confirm()
            self._finished()

    def on_failed(self, code: str, message: str) -> None:
        """End the task badly."""
        if not self._over:
            self._over = True
            self._failed(code, message)
