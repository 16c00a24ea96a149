"""The payloads of Sambert's events. Headers and instructions have the shapes of CosyVoice's."""

from __future__ import annotations

from typing import Final

import msgspec

from speechpool.protocol.cosyvoice.frames import UNREADABLE, ReplyHeader, Usage, unreadable
from speechpool.protocol.events import Phoneme

__all__ = ["Reply", "Span", "TimedWord", "decode_reply"]


class TimedWord(msgspec.Struct, frozen=True, gc=False):
    """One word, in milliseconds from the start of the audio; `phonemes` is there only where they were asked for."""

    text: str = ""
    begin_time: float = 0
    end_time: float = 0
    phonemes: tuple[Phoneme, ...] | msgspec.UnsetType | None = msgspec.UNSET


class Span(msgspec.Struct, frozen=True):
    """`output.sentence`: when a sentence is heard, as far as it is known. It may come again with a later end."""

    begin_time: float = 0
    end_time: float = 0
    words: tuple[TimedWord, ...] | None = ()


class Output(msgspec.Struct):
    """`payload.output` of `result-generated`; null in `task-finished`."""

    sentence: Span | None = None


class Payload(msgspec.Struct):
    """`payload` of an event. `usage` comes with every event on one page, and with the end only on another."""

    output: Output | None = None
    usage: Usage | None = None


class Reply(msgspec.Struct):
    """One event."""

    header: ReplyHeader
    payload: Payload | None = None


_reply: Final = msgspec.json.Decoder(Reply).decode


def decode_reply(data: bytes) -> Reply:
    """Read one event.

    Raises:
        ProtocolViolation: It is no JSON, or not of this shape.
    """
    try:
        return _reply(data)
    except UNREADABLE as error:
        raise unreadable(data, error) from None
