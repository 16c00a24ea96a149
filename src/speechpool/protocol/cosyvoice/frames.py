"""The JSON frames as typed structs. Unknown fields are ignored on both ends: providers add some every few months."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from speechpool.errors import ProtocolViolation
from speechpool.protocol.events import Word

__all__ = [
    "UNREADABLE",
    "Parameters",
    "Reply",
    "ReplyHeader",
    "Request",
    "Usage",
    "decode_reply",
    "decode_request",
    "encode",
    "input_members",
    "unreadable",
]

encode: Final = msgspec.json.Encoder().encode


# ------------------------------------------------------------------------------------- client to server
class Parameters(msgspec.Struct, omit_defaults=True):
    """`payload.parameters` of run-task. Unset ones are left to the server's defaults."""

    text_type: str | None = None
    voice: str | None = None
    format: str | None = None
    sample_rate: int | None = None
    volume: float | None = None
    rate: float | None = None
    pitch: float | None = None
    bit_rate: int | None = None
    seed: int | None = None
    enable_ssml: bool | None = None
    word_timestamp_enabled: bool | None = None
    phoneme_timestamp_enabled: bool | None = None
    instruction: str | None = None
    language_hints: list[str] | None = None
    hot_fix: dict[str, Any] | None = None
    type: int | None = None


class Input(msgspec.Struct, omit_defaults=True):
    """`payload.input`: empty, a text, a flush or a directive."""

    text: str | None = None
    flush: bool | None = None
    directive: str | None = None


class RequestHeader(msgspec.Struct):
    """`header` of an instruction."""

    action: str
    task_id: str
    streaming: str = "duplex"


class RequestPayload(msgspec.Struct, omit_defaults=True):
    """`payload` of an instruction. The official SDK repeats model and function in every frame; both forms are read."""

    model: str | None = None
    task_group: str | None = None
    task: str | None = None
    function: str | None = None
    parameters: Parameters | None = None
    input: Input | None = None


class Request(msgspec.Struct):
    """One instruction."""

    header: RequestHeader
    payload: RequestPayload


class _Payload(msgspec.Struct):
    input: dict[str, msgspec.Raw] = {}


class _Frame(msgspec.Struct):
    payload: _Payload


# ------------------------------------------------------------------------------------- server to client
class ReplyHeader(msgspec.Struct, omit_defaults=True):
    """`header` of an event."""

    event: str
    task_id: str = ""
    error_code: str | None = None
    error_message: str | None = None
    request_id: str | None = None
    attributes: dict[str, Any] | None = None


class Sentence(msgspec.Struct, omit_defaults=True):
    """`output.sentence`. Word times come with the sentence's end on some pages and with the task's end on others."""

    index: int | None = None
    words: tuple[Word, ...] | None = None


class Output(msgspec.Struct, omit_defaults=True):
    """`payload.output`. The older form of the protocol has no `type`."""

    type: str | None = None
    original_text: str | None = None
    sentence: Sentence | None = None


class Usage(msgspec.Struct, omit_defaults=True):
    """`payload.usage`: characters so far."""

    characters: int | None = None


class ReplyPayload(msgspec.Struct, omit_defaults=True):
    """`payload` of an event."""

    output: Output | None = None
    usage: Usage | None = None


class Reply(msgspec.Struct):
    """One event."""

    header: ReplyHeader
    payload: ReplyPayload | None = None


_request: Final = msgspec.json.Decoder(Request).decode
_reply: Final = msgspec.json.Decoder(Reply).decode
_members: Final = msgspec.json.Decoder(_Frame).decode
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading a frame can raise."""


def decode_request(data: bytes) -> Request:
    """Read one instruction.

    Raises:
        ProtocolViolation: It is no JSON, or not of this shape.
    """
    try:
        if not data.isascii():
            data.decode()  # msgspec does not look at what it skips, but a text message is UTF-8 as a whole
        return _request(data)
    except UNREADABLE as error:
        raise unreadable(data, error) from None


def input_members(data: bytes) -> list[str]:
    """Return the names in `payload.input` of an instruction that `decode_request` has read."""
    return list(_members(data).payload.input)


def decode_reply(data: bytes) -> Reply:
    """Read one event.

    Raises:
        ProtocolViolation: It is no JSON, or not of this shape.
    """
    try:
        return _reply(data)
    except UNREADABLE as error:
        raise unreadable(data, error) from None


def unreadable(data: bytes, error: Exception) -> ProtocolViolation:
    """Return what to raise for a frame that cannot be read."""
    # The text of the error names the field and the kind, never a value: spoken text stays out of logs.
    return ProtocolViolation(f"a text frame of {len(data)} bytes cannot be read: {error}")
