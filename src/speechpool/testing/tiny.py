"""A second dialect, to keep the seam honest: one text frame in, base64 audio out, one task a connection.

client: {"id": "…", "voice": "…", "text": "…"}
server: {"id": "…", "audio": "<base64>"} … {"id": "…", "done": true}     or     {"id": "…", "error": "…"}
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Hashable, Mapping

import msgspec

from speechpool.errors import ProtocolViolation
from speechpool.protocol import Audio, Dialect, Event, Failed, Finished, Started, Voice
from speechpool.settings import LifetimeProfile
from speechpool.text import STREAMED_TEXT

__all__ = ["Tiny", "TinySegment"]


class _Reply(msgspec.Struct):
    id: str
    audio: str | None = None
    done: bool = False
    error: str | None = None


_decode = msgspec.json.Decoder(_Reply).decode


class Tiny:
    """See the module."""

    name = "tiny"
    tasks_per_connection: int | None = 1
    begins_with_text = True
    text_may_follow = False
    can_cancel = False
    text_gap: float | None = None
    text_rules = STREAMED_TEXT
    lifetime = LifetimeProfile()

    def path(self, voice: Voice | None) -> str:
        """Return the path, which names the voice where there is one."""
        return f"/tiny?voice={voice.voice}" if voice else "/tiny"

    def headers(self, api_key: str, workspace: str | None) -> Mapping[str, str]:
        """Return the headers of the handshake."""
        return {"X-Tiny-Key": api_key}

    def sharing(self, voice: Voice) -> Hashable:
        """Return the voice's name: a connection speaks with one voice."""
        return voice.voice

    def for_voice(self, voice: Voice) -> Dialect:
        """Return itself."""
        return self

    def segment(self, voice: Voice, segment_id: str) -> TinySegment:
        """Return a new segment."""
        return TinySegment(voice, segment_id)


class TinySegment:
    """One task; see `speechpool.protocol.Segment`."""

    takes_audio = False  # audio comes inside the text frames

    def __init__(self, voice: Voice, segment_id: str) -> None:
        self.id, self.ended, self.stray = segment_id, False, False
        self.announced = 0
        self.before: str | None = None
        self.mixed_up = False  # each piece of audio says whose it is
        self._voice, self._begun, self._started = voice, False, False

    def begin(self, text: str | None = None) -> bytes:
        """Return the one frame of the client."""
        if text is None or self._begun:
            raise ProtocolViolation("a task begins once, with its whole text.")
        self._begun = True
        return msgspec.json.encode({"id": self.id, "voice": self._voice.voice, "text": text})

    def text(self, text: str) -> bytes:
        """Refuse: the text came with `begin`."""
        raise ProtocolViolation("this dialect takes its text in one piece.")

    def flush(self) -> None:
        """Need nothing: the whole text is there."""

    def finish(self) -> None:
        """Need nothing: the whole text is there."""

    def cancel(self) -> None:
        """Need to close: there is no cancel."""

    def feed(self, data: bytes) -> tuple[Event, ...]:
        """Take one frame of the server."""
        try:
            reply = _decode(data)
            audio = base64.b64decode(reply.audio, validate=True) if reply.audio is not None else None
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
            RecursionError,
            binascii.Error,
            ValueError,
        ) as error:
            raise ProtocolViolation(f"a frame of {len(data)} bytes cannot be read: {error}") from None
        if reply.id != self.id:
            self.stray = True
            return ()
        if not self._begun or self.ended:
            raise ProtocolViolation("the server spoke outside of a task.")
        events: tuple[Event, ...] = () if self._started else (Started(),)
        self._started = True
        if reply.error is not None:
            self.ended = True
            return (*events, Failed(reply.error, "", retryable=False))
        if audio is not None:
            events = (*events, Audio(audio))
        if reply.done:
            self.ended = True
            events = (*events, Finished())
        return events
