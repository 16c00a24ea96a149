"""The client's end: the dialect, and one segment."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping

import msgspec

from speechpool.errors import ProtocolViolation
from speechpool.protocol.cosyvoice.frames import Parameters, RequestPayload, encode
from speechpool.protocol.cosyvoice.handshake import LIFETIME, PATH, handshake_headers
from speechpool.protocol.cosyvoice.segment import NOTHING, InferenceSegment, server_request_id
from speechpool.protocol.cosyvoice.states import Step
from speechpool.protocol.dialect import Dialect
from speechpool.protocol.events import Event, Finished, PronouncedWord, SentenceBegin, SentenceEnd, Word
from speechpool.protocol.voice import Voice
from speechpool.text import ONE_TEXT

from .frames import Reply, Span, TimedWord, decode_reply

__all__ = ["Sambert", "SambertSegment"]


class Sambert:
    """The dialect of Sambert: any voice follows any other on one connection, and a cancel costs the connection."""

    name = "sambert"
    tasks_per_connection: int | None = None
    begins_with_text = True
    text_may_follow = False
    can_cancel = False  # none is documented
    text_gap: float | None = None  # the whole text is there
    text_rules = ONE_TEXT
    lifetime = LIFETIME

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

    def segment(self, voice: Voice, segment_id: str) -> SambertSegment:
        """Return a new segment."""
        return SambertSegment(segment_id, _run_payload(voice))


@functools.lru_cache(256)  # everything of run-task but id and text is the same for each task of a voice
def _run_payload(voice: Voice) -> bytes:
    """Return the payload up to its input, which comes last."""
    parameters = Parameters(
        text_type="SSML" if voice.ssml else "PlainText",
        format=voice.format,
        # Left out where it was left open: one page promises 16,000 Hz then, another the model's best.
        sample_rate=voice.sample_rate,
        volume=voice.volume,
        rate=voice.rate,
        pitch=voice.pitch,
        word_timestamp_enabled=voice.word_timestamps or None,
    )
    payload = RequestPayload(model=voice.model, task_group="audio", task="tts", function="SpeechSynthesizer")
    fields = msgspec.to_builtins(payload)
    fields["parameters"] = {**msgspec.to_builtins(parameters), **voice.extra}
    return encode(fields)[:-1]


class SambertSegment(InferenceSegment[Reply]):
    """One task on the wire, seen from the client. See `speechpool.protocol.Segment`.

    The events have no index and no end of a sentence: one begins with the first event of its begin time, and ends when
    the next one begins, or with the task. What came last about it counts.
    """

    __slots__ = ("_index", "_payload", "_sentence")

    def __init__(self, segment_id: str, payload: bytes) -> None:
        super().__init__(segment_id)
        self._payload = payload
        self._index = -1
        self._sentence: Span | None = None

    # ---------------------------------------------------------------------------------- instructions
    def begin(self, text: str | None = None) -> bytes:
        """Return `run-task` with the whole text."""
        if text is None:
            raise ProtocolViolation("run-task carries the whole text in this protocol.")
        self._step(Step.RUN)
        header = b'{"action":"run-task","task_id":"%b","streaming":"out"}' % self.id.encode()
        return b'{"header":%b,"payload":%b,"input":{"text":%b}}}' % (header, self._payload, encode(text))

    def text(self, text: str) -> bytes:
        """Refuse: the text came with `begin`."""
        raise ProtocolViolation("this protocol takes its text in one piece.")

    def flush(self) -> None:
        """Need nothing: the whole text is there."""

    def finish(self) -> None:
        """Need nothing: the whole text is there."""

    def cancel(self) -> None:
        """Need to close the connection: there is no cancel."""

    # ---------------------------------------------------------------------------------- events
    def _read(self, data: bytes) -> Reply:
        return decode_reply(data)

    def _accepted(self) -> None:
        self._step(Step.FINISH)  # there never was more text to come

    def _generated(self, reply: Reply) -> tuple[Event, ...]:
        payload = reply.payload
        sentence = payload.output.sentence if payload is not None and payload.output is not None else None
        if sentence is None:
            return NOTHING
        last, self._sentence = self._sentence, sentence
        if last is not None and last.begin_time == sentence.begin_time:
            return NOTHING
        ended = self._ended(last)
        self._index += 1
        return (*ended, SentenceBegin(self._index))

    def _finished(self, reply: Reply) -> tuple[Event, ...]:
        payload = reply.payload
        usage = payload.usage if payload is not None else None
        characters = usage.characters if usage is not None else None
        last, self._sentence = self._sentence, None
        return (
            *self._ended(last),
            Finished(characters, server_request_id=server_request_id(reply.header)),
        )

    def _ended(self, sentence: Span | None) -> tuple[Event, ...]:
        if sentence is None:
            return NOTHING
        words = tuple(_word(word) for word in sentence.words or ())
        return (SentenceEnd(self._index, None, words, None, sentence.begin_time, sentence.end_time),)


def _word(word: TimedWord) -> Word:
    if not word.phonemes:
        return Word(word.text, begin_time=word.begin_time, end_time=word.end_time)
    return PronouncedWord(word.text, begin_time=word.begin_time, end_time=word.end_time, phonemes=word.phonemes)
