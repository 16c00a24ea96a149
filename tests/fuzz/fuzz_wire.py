"""WebSocket frames as bytes, right ones and wrong ones: no library stands between a test and the wire."""

from __future__ import annotations

import asyncio
import struct

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
OPCODES = (TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = bytes(4),
    claimed: int | None = None,
    width: int | None = None,
) -> bytes:
    """One frame of a client. `claimed`: the length in its header; `width`: bits of that length, 7, 16 or 64.

    The mask is one that changes nothing, so that a failure can be read."""
    size = len(payload) if claimed is None else claimed
    masked = 0x80 if mask else 0
    if width is None:
        width = 7 if size < 126 else 16 if size < 65536 else 64
    if width == 7:
        head = struct.pack("!B", masked | size)
    elif width == 16:
        head = struct.pack("!BH", masked | 126, size)
    else:
        head = struct.pack("!BQ", masked | 127, size)
    return bytes((fin << 7 | rsv << 4 | opcode,)) + head + (mask + masked_by(mask, payload) if mask else payload)


def masked_by(mask: bytes, payload: bytes) -> bytes:
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes] | None:
    """The next frame of the server as (opcode, payload), or None at the end of the stream; it must be a right one."""
    try:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await reader.readexactly(8))
        payload = await reader.readexactly(size)
    except (asyncio.IncompleteReadError, OSError):
        return None
    opcode = first & 0x0F
    assert first & 0xF0 == 0x80, f"the service sent a fragment or a reserved bit: {first:#x}"
    assert opcode in OPCODES, f"the service sent opcode {opcode}"
    assert second & 0x80 == 0, "the service sent a masked frame"
    assert opcode < CLOSE or size < 126, f"the service sent a control frame of {size} bytes"
    return opcode, payload
