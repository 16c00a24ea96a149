"""The client's end: the dialect, and one segment."""

from __future__ import annotations

import functools
import platform
from collections.abc import Hashable, Mapping
from typing import Final

import msgspec

from speechpool.errors import ProtocolViolation
from speechpool.protocol.events import Event, Failed, Finished, SentenceBegin, SentenceEnd, Started
from speechpool.protocol.voice import Voice

from .failures import is_retryable
from .frames import Input, Parameters, Reply, RequestPayload, decode_reply, encode
from .states import TABLE, State, Step

__all__ = ["CosyVoice", "CosyVoiceSegment"]

PATH: Final = "/api-ws/v1/inference"
_EVENTS: Final = {step.value: step for step in (Step.STARTED, Step.GENERATED, Step.FINISHED, Step.FAILED)}
_TAKES_AUDIO: Final = frozenset({State.RUNNING, State.FINISHING})
_NOTHING: Final[tuple[Event, ...]] = ()
_VOICES_KEPT: Final = 256


class CosyVoice:
    """The dialect of CosyVoice and Qwen-Audio-TTS: any voice and format follows any other on one connection."""

    name = "cosyvoice"
    tasks_per_connection: int | None = None
    begins_with_text = False
    text_may_follow = True
    can_cancel = True
    # The server closes an idle connection after 60 s (API reference); the margin covers its clock and the way.
    idle_timeout: float | None = 50.0

    def __init__(self) -> None:
        # Everything of run-task but the id is the same for each task of a voice.
        self._payloads: dict[Voice, bytes] = {}

    def path(self, voice: Voice | None = None) -> str:
        """Return the path of the URL; it is the same for all voices."""
        return PATH

    def headers(self, api_key: str, workspace: str | None = None) -> Mapping[str, str]:
        """Return the headers of the handshake (API reference, "request headers")."""
        headers = {
            "Authorization": f"Bearer {api_key}",
            "User-Agent": _user_agent(),
        }
        if workspace:
            headers["X-DashScope-WorkSpace"] = workspace
        return headers

    def sharing(self, voice: Voice) -> Hashable:
        """Return one key for all voices."""
        return None

    def segment(self, voice: Voice, segment_id: str) -> CosyVoiceSegment:
        """Return a new segment."""
        payload = self._payloads.get(voice)
        if payload is None:
            if len(self._payloads) >= _VOICES_KEPT:
                self._payloads.clear()
            payload = self._payloads[voice] = _run_payload(voice)
        return CosyVoiceSegment(segment_id, payload)


@functools.cache
def _user_agent() -> str:
    from importlib.metadata import version  # slow to import, and not needed before the first dial

    return f"speechpool/{version('speechpool')}; python/{platform.python_version()}"


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


class CosyVoiceSegment:
    """One task on the wire, seen from the client. See `speechpool.protocol.Segment`."""

    __slots__ = ("_payload", "_sentence", "ended", "id", "state", "stray", "takes_audio")

    def __init__(self, segment_id: str, payload: bytes) -> None:
        self.id = segment_id
        self.state = State.IDLE
        self.takes_audio = False
        self.ended = False
        self.stray = False
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
    def feed(self, data: bytes) -> tuple[Event, ...]:
        """Take one text frame and return its events; see `Segment.feed`."""
        reply = decode_reply(data)
        header = reply.header
        if header.task_id != self.id:
            # A late event of an earlier task. It means nothing to this one, but the connection is not in order.
            self.stray = True
            return _NOTHING
        step = _EVENTS.get(header.event)
        if step is None:
            return _NOTHING  # an event that a later version of the protocol has
        if TABLE[self.state].get(step) is not self.state or self.ended:
            self._step(step)
        if step is Step.GENERATED:
            return self._generated(reply)
        if step is Step.STARTED:
            return (Started(_server_request_id(reply)),)
        self.ended = True
        if step is Step.FINISHED:
            return (_finished(reply),)
        code, message = header.error_code or "Unknown", header.error_message or ""
        return (Failed(code, message, is_retryable(code, message)),)

    def _step(self, step: Step) -> None:
        state = TABLE[self.state].get(step)
        # An ended segment is back in IDLE, where the connection may start the next task, but this id may not.
        if state is None or self.ended:
            name = "after its end" if self.ended else f"in state {self.state.name}"
            raise ProtocolViolation(f"{step.value} is not allowed {name} (segment {self.id}).")
        self.state = state
        self.takes_audio = state in _TAKES_AUDIO

    def _generated(self, reply: Reply) -> tuple[Event, ...]:
        payload = reply.payload
        output = payload.output if payload is not None else None
        if output is None or payload is None:
            return _NOTHING
        kind = output.type
        # The common one first: sentence-synthesis announces one binary frame, and the older form has no type.
        if (kind != "sentence-begin" and kind != "sentence-end") or self.state is State.CANCELLING:  # noqa: PLR1714
            return _NOTHING
        sentence = output.sentence
        index = sentence.index if sentence is not None and sentence.index is not None else self._sentence
        if kind == "sentence-end":
            words = sentence.words if sentence is not None else None
            characters = payload.usage.characters if payload.usage is not None else None
            return (SentenceEnd(index, output.original_text, words or (), characters),)
        self._sentence = index
        return (SentenceBegin(index, output.original_text),)


def _finished(reply: Reply) -> Finished:
    payload = reply.payload
    output = payload.output if payload is not None else None
    usage = payload.usage if payload is not None else None
    words = output.sentence.words if output is not None and output.sentence is not None else None
    return Finished(
        characters=usage.characters if usage is not None else None,
        words=words or (),
        server_request_id=_server_request_id(reply),
    )


def _server_request_id(reply: Reply) -> str | None:
    attributes = reply.header.attributes
    value = attributes.get("request_uuid") if attributes else None
    return value if isinstance(value, str) else reply.header.request_id
