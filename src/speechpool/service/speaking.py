"""One task of the local backend: text in, sentences cut, spoken in order, told to the listener."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from speechpool.protocol.events import Word
from speechpool.text import count_characters

from .passages import Passage, sentences_of
from .readings import Replacements, spoken_text, words_as_written
from .scheduler import QueueFull, Step
from .sentences import Sentences, is_speakable

if TYPE_CHECKING:
    from .backend import Listener, SpeechParameters
    from .players import Performance, Player

__all__ = ["INTERNAL_ERROR", "INVALID_PARAMETER", "THROTTLED", "LocalSpeech"]

logger: Final = logging.getLogger(__name__)

INVALID_PARAMETER: Final = "InvalidParameter"
INTERNAL_ERROR: Final = "InternalError"
THROTTLED: Final = ("Throttling.RateQuota", "Requests rate limit exceeded, please try again later.")

_SETTLE: Final = 0.5
"""Seconds after which a tail that may be a whole sentence ("Dr.", "It costs 30.", "Note:") is spoken as one."""


class LocalSpeech:
    """Speaks one task, and tells its listener. Lives on the event loop.

    A pause stops the making of audio. At most one window of it (two seconds) that is being made right then still comes.

    The listener is told the sentences as they were sent. What is spoken in their place (`Passage.readings`, the task's
    replacements) is between this and the player. The silence around a sentence belongs to it.

    Args:
        player: Makes the audio.
        listener: Learns everything; nothing after `cancel` or a failure.
        parameters: What the task asks for: its language, and what is to be replaced.
        refusal: Says why a sentence cannot be spoken, or None.
        on_over: Called once, when nothing will come any more.
    """

    def __init__(
        self,
        player: Player,
        listener: Listener,
        *,
        parameters: SpeechParameters,
        refusal: Callable[[str], str | None],
        on_over: Callable[[LocalSpeech], None],
    ) -> None:
        self._player = player
        self._listener = listener
        self._refusal = refusal
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self._language = parameters.language_hints[0] if parameters.language_hints else "en"
        self._replacements = Replacements(parameters.replacements)
        self._sentences = Sentences(self._language)
        self._pending: deque[tuple[str, Passage]] = deque()  # with the space around it, and without
        self._performance: Performance | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._finishing = self._paused = self._over = False
        self._index = -1  # of the sentence that is spoken
        self._sentence = Passage()  # as it was sent
        self._parts: deque[Passage] = deque()  # of the sentence: its words, and the silences around them
        self._words: tuple[Word, ...] = ()
        self._begun = False  # the listener knows of the sentence
        self._heard = 0.0  # seconds of audio so far
        self._part_began = 0.0  # what was heard before the part that is played
        self._characters = 0
        self._ended = False  # the stream has its last bytes

    # ---------------------------------------------------------------------------------- instructions
    def text(self, text: str) -> None:
        """Take more text; complete sentences are spoken at once."""
        if self._over or self._finishing:
            return
        self._player.expect(count_characters(text))
        self._add(self._sentences.feed(text))
        self._wait_for_more()
        self._next()

    def passages(self, passages: Sequence[Passage]) -> None:
        """Take text that is complete, in manners of its own; spoken at once."""
        if self._over or self._finishing:
            return
        self._player.expect(sum(count_characters(spoken_text(each)) for each in passages))
        for each in passages:
            self._pending += sentences_of(each, self._language)
            if each.pause:
                self._pending.append(("", Passage(pause=each.pause)))
        self._next()

    def flush(self) -> None:
        """Speak what is there, complete or not."""
        if not self._over:
            self._stop_waiting()
            self._add(self._sentences.flush())
            self._next()

    def finish(self) -> None:
        """Speak what is there, then end."""
        self._finishing = True
        self._player.expect(0, last=True)
        self.flush()

    def cancel(self) -> None:
        """End now. The listener is not called any more, not even about that."""
        self._end()

    def pause(self) -> None:
        """Stop making audio, until `resume`."""
        self._paused = True
        if self._performance is not None:
            self._performance.pause()

    def resume(self) -> None:
        """Go on making audio."""
        self._paused = False
        if self._performance is not None:
            self._performance.resume()

    # ---------------------------------------------------------------------------------- a tail that may be complete
    def _wait_for_more(self) -> None:
        self._stop_waiting()
        if self._sentences.undecided:
            self._settling = self._loop.call_later(_SETTLE, self.flush)

    def _stop_waiting(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None

    # ---------------------------------------------------------------------------------- sentences
    def _add(self, pieces: Iterable[str]) -> None:
        self._pending += ((piece, Passage(text=piece.strip())) for piece in pieces)

    def _next(self) -> None:
        if self._performance is not None or self._over:
            return
        silences = self._skip()
        if self._pending:
            piece, passage = self._pending.popleft()
            self._characters += count_characters(piece)
            self._begin(self._replaced(passage), silences)
        elif self._finishing:
            self._finish()

    def _skip(self) -> list[Passage]:
        """Take what is not spoken from the head of the queue, count it, and return its silences."""
        silences = []
        while self._pending:
            piece, passage = self._pending[0]
            if is_speakable(spoken_text(self._replaced(passage))):
                break
            self._pending.popleft()
            self._characters += count_characters(piece)
            if passage.pause:
                silences.append(passage)
        return silences

    def _replaced(self, passage: Passage) -> Passage:
        return replace(passage, readings=self._replacements.add(passage.text, passage.readings))

    def _begin(self, sentence: Passage, before: list[Passage]) -> None:
        spoken = spoken_text(sentence)
        reason = self._refusal(spoken)
        if reason is not None:
            self._fail(INVALID_PARAMETER, reason)
            return
        self._sentence, self._words, self._begun = sentence, (), False
        self._index += 1
        self._parts = deque((*before, replace(sentence, text=spoken, readings=())))
        self._play()

    def _play(self) -> None:
        part = self._parts[0]
        self._part_began = self._heard
        try:
            self._performance = self._player.play(
                part, first=not self._heard, hear=self._on_step, end=self._on_part_end
            )
        except QueueFull:
            self._fail(*THROTTLED)
            return
        if self._paused:
            self._performance.pause()

    def _on_step(self, step: Step) -> None:
        offset = round(self._part_began * 1000)
        self._words += tuple(_later(word, offset) for word in step.words)
        self._heard += step.seconds
        if not self._begun:
            self._begun = True
            self._listener.on_sentence_begin(self._index, self._sentence.text)
        # The listener may have cancelled: it is asked anew before each call.
        if step.data and not self._over:
            self._listener.on_audio(step.data)

    def _on_part_end(self, error: Exception | None) -> None:
        self._performance = None
        part = self._parts.popleft()
        if error is not None:
            self._report(error)
        elif part.text and self._heard == self._part_began:
            self._fail(INVALID_PARAMETER, "Nothing of a sentence can be spoken; send words or numbers.")
        else:
            self._parts += self._skip()
            if self._parts:
                self._play()
                return
            self._close_sentence()
            self._next()

    def _close_sentence(self) -> None:
        if self._finishing and not self._pending:
            self._send_tail()
        if not self._over:
            words = words_as_written(self._sentence, self._words)
            self._listener.on_sentence_end(self._index, self._sentence.text, words, self._characters)

    # ---------------------------------------------------------------------------------- the end
    def _finish(self) -> None:
        if self._characters and not self._heard:
            self._fail(INVALID_PARAMETER, "The text holds nothing that can be spoken; send words or numbers.")
            return
        self._send_tail()
        if not self._over:
            self._end()
            self._listener.on_finished(self._characters)

    def _send_tail(self) -> None:
        """End the stream. If the finish comes after the last sentence, its last bytes follow that one's end."""
        if self._ended:
            return
        self._ended = True
        tail = self._player.flush()
        if tail:
            self._listener.on_audio(tail)

    def _report(self, error: Exception) -> None:
        # Its message may hold what was to be spoken, which belongs in no log; the traceback shows only code.
        logger.error("The engine failed with %s.", type(error).__name__)
        logger.debug("The engine failed.", exc_info=error)
        self._fail(INTERNAL_ERROR, "The engine failed; try again.")

    def _fail(self, code: str, message: str) -> None:
        if not self._over:
            self._end()
            self._listener.on_failed(code, message)

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._stop_waiting()
        self._pending.clear()
        performance, self._performance = self._performance, None
        if performance is not None:
            performance.cancel()
        self._on_over(self)


def _later(word: Word, milliseconds: int) -> Word:
    return Word(
        word.text, word.begin_index, word.end_index, word.begin_time + milliseconds, word.end_time + milliseconds
    )
