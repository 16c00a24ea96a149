"""One task of a connection: its text on the way in, its frames on the way out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from speechpool.errors import InvalidText
from speechpool.protocol import Word
from speechpool.protocol.cosyvoice import Refused, RunTask, ServerSession
from speechpool.text import check_text, count_characters, ends_sentence

from .backend import Backend, Speech
from .markup import is_markup, spoken_text
from .outbox import Outbox
from .speaking import INVALID_PARAMETER
from .wishes import speech_parameters

__all__ = ["ServedTask"]


class ServedTask:
    """The listener of one speech, and who sends its frames.

    Args:
        backend: Who speaks.
        protocol: The state of the connection; it makes the frames.
        outbox: Where the frames go.
        run: What is asked for.
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
        on_finished: Callable[[], None],
        on_failed: Callable[[str, str], None],
    ) -> None:
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
        self._loop = asyncio.get_running_loop()
        self._speech: Speech = backend.open(run.task_id, speech_parameters(run), self)

    @property
    def owes_audio(self) -> bool:
        """Whether it is the speech's turn: it is in a sentence, or has a whole one that waits, or the end."""
        return self._speaking or self._spoken < self._owed

    # ---------------------------------------------------------------------------------- instructions
    def text(self, text: str) -> None:
        """Take one piece of text.

        Raises:
            Refused: It is too long, empty of words, or one piece too many.
        """
        if self._single and self._sent:
            raise Refused(INVALID_PARAMETER, "Text request limit violated, expected 1.")
        markup = self._single and is_markup(text)
        try:
            self._sent += check_text(text, sent=self._sent, ssml=markup)
        except InvalidText as error:
            raise Refused(INVALID_PARAMETER, str(error)) from None
        if markup:
            text = spoken_text(text)
            if not text:
                raise Refused(INVALID_PARAMETER, "Please ensure input text is valid.")
        self._given += count_characters(text)
        if ends_sentence(text):
            self._owed = self._given
        self._speech.text(text)

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
