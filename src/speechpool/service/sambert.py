"""One Sambert task of a connection: its text came with the run-task, its sentences are told as times."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Final

from speechpool.audio import stream_seconds
from speechpool.errors import InvalidText
from speechpool.protocol import Word
from speechpool.protocol.cosyvoice import FAILURES, INVALID_PARAMETER, Refused
from speechpool.protocol.models import SAMBERT_FORMATS, SAMBERT_SAMPLE_RATE, SAMBERT_SAMPLE_RATES, sambert_voice
from speechpool.protocol.sambert import RunSambert, SambertSession, Span, TimedWord
from speechpool.text import ONE_TEXT, check_text

from .backend import Backend, Speech, SpeechParameters
from .outbox import Outbox
from .passages import Passage
from .sambert_voices import SAMBERT_VOICES
from .ssml import is_ssml, parse_ssml

__all__ = ["SambertTask"]

_TEXT_TYPES: Final = ("PlainText", "SSML")
_HEAD: Final = 64
"""Bytes of a stream that tell what its length in bytes is in seconds."""


class SambertTask:
    """The listener of one speech, and who sends its frames.

    A sentence is told when it begins, as one that is as long as nothing, and again when it has ended, with its real end
    and, where they were asked for, its words. Their phonemes are empty: no engine tells them.

    Args:
        backend: Who speaks.
        protocol: Makes the frames.
        outbox: Where the frames go.
        run: What is asked for.
        client: Who asks, for the backend to be fair; never a key.
        on_finished: Called when all was spoken and `task-finished` is in the outbox.
        on_failed: Called with code and message when the backend gave up. Nothing was sent about it.

    Raises:
        Refused: The model is unknown, or text or parameters cannot be served.
        BackendRefusal: The backend does not want the task.
    """

    def __init__(
        self,
        backend: Backend,
        protocol: SambertSession,
        outbox: Outbox,
        run: RunSambert,
        *,
        client: str = "",
        on_finished: Callable[[], None],
        on_failed: Callable[[str, str], None],
    ) -> None:
        self._protocol = protocol
        self._outbox = outbox
        self._finished = on_finished
        self._failed = on_failed
        self._over = False
        self._words = bool(run.parameters.word_timestamp_enabled)
        self._phonemes = bool(run.parameters.phoneme_timestamp_enabled)
        self._parameters = _parameters(run)
        self._text = run.text
        self._ssml = run.parameters.text_type == "SSML" and is_ssml(run.text)
        try:
            self._characters = check_text(run.text, ssml=self._ssml, rules=ONE_TEXT)
            self._passages = self._parsed(run.model) if self._ssml else None
        except InvalidText as error:
            raise Refused(INVALID_PARAMETER, str(error)) from None
        self._head, self.audio_bytes = b"", 0
        self._begin = self._end = 0  # of the present sentence, in milliseconds
        self.touched = 0.0
        self.first_text: float | None = None
        self.first_audio: float | None = None
        self._loop = asyncio.get_running_loop()
        self._speech: Speech = backend.open(run.task_id, self._parameters, self, client=client)

    @property
    def characters(self) -> int:
        """Characters that came in; each counts 1 here."""
        return self._characters

    @property
    def owes_audio(self) -> bool:
        """Always: the text is complete."""
        return True

    # ---------------------------------------------------------------------------------- instructions
    def begin(self) -> None:
        """Speak; `task-started` was sent."""
        self.first_text = self._loop.time()
        if self._passages is None:
            self._speech.text(self._text)
        else:
            self._speech.passages(self._passages)
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

    # ---------------------------------------------------------------------------------- what the speech says
    def on_sentence_begin(self, index: int, text: str) -> None:
        """Announce a sentence."""
        if not self._over:
            self.touched = self._loop.time()
            self._begin = self._end
            self._outbox.add(self._protocol.sentence(Span(self._begin, self._begin)))

    def on_audio(self, data: bytes) -> None:
        """Send audio."""
        if not self._over:
            if self.first_audio is None:
                self.first_audio = self._loop.time()
            self.audio_bytes += len(data)
            if len(self._head) < _HEAD:
                self._head += data[:_HEAD]
            self._outbox.add_audio(data)

    def on_sentence_end(self, index: int, text: str, words: Sequence[Word], characters: int) -> None:
        """Tell when the sentence is heard."""
        if not self._over:
            self.touched = self._loop.time()
            self._end = max(self._heard(), round(words[-1].end_time) if words else 0, self._begin + 1)
            times = tuple(self._timed(word) for word in words) if self._words else ()
            self._outbox.add(self._protocol.sentence(Span(self._begin, self._end, times)))

    def on_finished(self, characters: int) -> None:
        """End the task well. Every character counts 1 here, so the backend's count is none of it."""
        if not self._over:
            self._over = True
            self._outbox.add(self._protocol.finished(self._characters, {"request_uuid": os.urandom(16).hex()}))
            self._finished()

    def on_failed(self, code: str, message: str) -> None:
        """End the task badly."""
        if not self._over:
            self._over = True
            self._failed(code, message)

    # ---------------------------------------------------------------------------------- own
    def _parsed(self, model: str) -> Sequence[Passage]:
        wish = self._parameters
        return parse_ssml(
            self._text,
            voice=sambert_voice(model) or wish.voice,
            rate=wish.rate,
            pitch=wish.pitch,
            volume=wish.volume,
            language=wish.language_hints[0] if wish.language_hints else None,
        )

    def _heard(self) -> int:
        """Return how much audio was sent, in milliseconds."""
        wish = self._parameters
        return round(1000 * (stream_seconds(wish.format, wish.sample_rate, self._head, self.audio_bytes) or 0.0))

    def _timed(self, word: Word) -> TimedWord:
        times = (word.text, round(word.begin_time), round(word.end_time))
        return TimedWord(*times, ()) if self._phonemes else TimedWord(*times)


def _parameters(run: RunSambert) -> SpeechParameters:
    """Return what the backend is asked for; what a client left open gets the provider's default.

    Raises:
        Refused: The model, the text type, the format or the sample rate is none of Sambert's.
    """
    wanted = run.parameters
    speaker = SAMBERT_VOICES.get(run.model)
    if speaker is None:
        raise Refused(*FAILURES["ModelNotFound"])
    audio_format, sample_rate = (wanted.format or "wav").lower(), wanted.sample_rate or SAMBERT_SAMPLE_RATE
    for name, value, known in (
        ("text_type", wanted.text_type or "PlainText", _TEXT_TYPES),
        ("format", audio_format, SAMBERT_FORMATS),
        ("sample_rate", sample_rate, SAMBERT_SAMPLE_RATES),
    ):
        if value not in known:
            choice = ", ".join(map(str, known))
            raise Refused(INVALID_PARAMETER, f"{name} {str(value)[:20]!r} is unknown; choose one of {choice}.")
    return SpeechParameters(
        model=run.model,
        voice=speaker.voice,
        format=audio_format,
        sample_rate=sample_rate,
        volume=50 if wanted.volume is None else wanted.volume,
        rate=1.0 if wanted.rate is None else wanted.rate,
        pitch=1.0 if wanted.pitch is None else wanted.pitch,
        word_timestamps=bool(wanted.word_timestamp_enabled),
        language_hints=(speaker.language,) if speaker.language else (),
    )
