"""The client's end: the dialect, and one segment."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from typing import Final

import msgspec

from speechpool.errors import ProtocolViolation
from speechpool.protocol.dialect import Dialect
from speechpool.protocol.events import Event, Finished, SentenceBegin, SentenceEnd
from speechpool.protocol.voice import Voice
from speechpool.text import STREAMED_TEXT

from .frames import Input, Parameters, Reply, RequestPayload, decode_reply, encode
from .handshake import LIFETIME, PATH, handshake_headers
from .segment import NOTHING, InferenceSegment, server_request_id
from .states import State, Step

__all__ = ["TEXT_GAP", "CosyVoice", "CosyVoiceSegment"]

TEXT_GAP: Final = 23.0
"""Seconds without new text after which the server gives a task up (API reference). Whether that clock stands still
while audio flows is told in two ways, so nobody should count on it."""


class CosyVoice:
    """The dialect of CosyVoice and Qwen-Audio-TTS: any voice and format follows any other on one connection.

    Args:
        text_gap: Seconds without new text after which the server gives a task up, where it is not the provider's.
    """

    name = "cosyvoice"
    tasks_per_connection: int | None = None
    begins_with_text = False
    text_may_follow = True
    can_cancel = True
    text_rules = STREAMED_TEXT
    lifetime = LIFETIME

    def __init__(self, *, text_gap: float | None = TEXT_GAP) -> None:
        self.text_gap = text_gap

    def path(self, voice: Voice | None = None) -> str:
        """Return the path of the URL; it is the same for all voices."""
        return PATH

    def headers(self, api_key: str, workspace: str | None = None) -> Mapping[str, str]:
        """Return the headers of the handshake."""
        return handshake_headers(api_key, workspace)

    def sharing(self, voice: Voice) -> Hashable:
        """Return one key for all voices."""
        return None

    def for_voice(self, voice: Voice) -> Dialect:
        """Return itself."""
        return self

    def segment(self, voice: Voice, segment_id: str) -> CosyVoiceSegment:
        """Return a new segment."""
        return CosyVoiceSegment(segment_id, _run_payload(voice))


@functools.lru_cache(256)  # everything of run-task but the id is the same for each task of a voice
def _run_payload(voice: Voice) -> bytes:
    parameters = Parameters(
        text_type="PlainText",
        voice=voice.voice,
        format=voice.format,
        sample_rate=voice.effective_sample_rate,
        volume=voice.volume,
        rate=voice.rate,
        pitch=voice.pitch,
        bit_rate=voice.bit_rate,
        seed=voice.seed or None,
        enable_ssml=voice.ssml or None,
        word_timestamp_enabled=voice.word_timestamps or None,
        instruction=voice.instruction,
        language_hints=list(voice.language_hints) or None,
        hot_fix=dict(voice.hot_fix) if voice.hot_fix is not None else None,
    )
    payload = RequestPayload(
        model=voice.model, task_group="audio", task="tts", function="SpeechSynthesizer", input=Input()
    )
    fields = msgspec.to_builtins(payload)
    fields["parameters"] = {**msgspec.to_builtins(parameters), **voice.extra}
    return encode(fields)


class CosyVoiceSegment(InferenceSegment[Reply]):
    """One task on the wire, seen from the client. See `speechpool.protocol.Segment`."""

    __slots__ = ("_payload", "_sentence")

    def __init__(self, segment_id: str, payload: bytes) -> None:
        super().__init__(segment_id)
        self._payload = payload
        self._sentence = -1

    # ---------------------------------------------------------------------------------- instructions
    def begin(self, text: str | None = None) -> bytes:
        """Return `run-task`."""
        if text is not None:
            raise ProtocolViolation("run-task carries no text in this protocol.")
        self._step(Step.RUN)
        return self._frame(b"run-task", self._payload)

    def text(self, text: str) -> bytes:
        """Return `continue-task` with one piece of text."""
        self._step(Step.TEXT)
        return self._frame(b"continue-task", b'{"input":{"text":%b}}' % encode(text))

    def flush(self) -> bytes:
        """Return the `continue-task` that asks to speak what is buffered."""
        self._step(Step.FLUSH)
        return self._frame(b"continue-task", b'{"input":{"flush":true}}')

    def finish(self) -> bytes:
        """Return `finish-task`."""
        self._step(Step.FINISH)
        return self._frame(b"finish-task", b'{"input":{}}')

    def cancel(self) -> bytes:
        """Return the `finish-task` that ends the task at once."""
        self._step(Step.CANCEL)
        return self._frame(b"finish-task", b'{"input":{"directive":"cancel"}}')

    def _frame(self, action: bytes, payload: bytes) -> bytes:
        return b'{"header":{"action":"%b","task_id":"%b","streaming":"duplex"},"payload":%b}' % (
            action, self.id.encode(), payload,
        )  # fmt: skip

    # ---------------------------------------------------------------------------------- events
    def _read(self, data: bytes) -> Reply:
        return decode_reply(data)

    def _generated(self, reply: Reply) -> tuple[Event, ...]:
        payload = reply.payload
        output = payload.output if payload is not None else None
        if output is None or payload is None:
            return NOTHING
        kind = output.type
        # The common one first. The older form has no type, and announces nothing.
        if kind == "sentence-synthesis":
            self.announced += 1
            return NOTHING
        if (kind != "sentence-begin" and kind != "sentence-end") or self.state is State.CANCELLING:  # noqa: PLR1714
            return NOTHING
        sentence = output.sentence
        index = sentence.index if sentence is not None and sentence.index is not None else self._sentence
        if kind == "sentence-end":
            words = sentence.words if sentence is not None else None
            characters = payload.usage.characters if payload.usage is not None else None
            return (SentenceEnd(index, output.original_text, words or (), characters),)
        self._sentence = index
        return (SentenceBegin(index, output.original_text),)

    def _finished(self, reply: Reply) -> tuple[Event, ...]:
        payload = reply.payload
        output = payload.output if payload is not None else None
        usage = payload.usage if payload is not None else None
        words = output.sentence.words if output is not None and output.sentence is not None else None
        characters = usage.characters if usage is not None else None
        return (Finished(characters, words or (), server_request_id(reply.header)),)
