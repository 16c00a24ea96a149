"""Where the frames of a WebSocket begin: a cursor that follows one direction of a connection.

Each pipe keeps one at its end, from the first byte on, so that `no-pong` can be added in the middle of a frame. It
reads the HTTP head of the handshake and then the headers of frames, and skips payloads; it keeps no byte of either.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["OPCODES", "FrameCursor"]

OPCODES: Final = {"ping": 9, "pong": 10}

_UPGRADE: Final = re.compile(rb"\r\nupgrade:[ \t]*websocket", re.IGNORECASE)
_NO_FRAME: Final = -1
_HEAD_END: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 65_536
_LONGEST_HEADER: Final = 14
_TLS_HANDSHAKE: Final = 0x16
"""The first byte of every TLS connection, in both directions (RFC 8446, section 5.1)."""


class FrameCursor:
    """A position in one direction of a connection that may be a WebSocket.

    Attributes:
        kind: `undecided` until the HTTP head has passed, then `websocket`; or `tls` or `other`, where it gave up.
        begun: Frames that began so far, by opcode.
    """

    __slots__ = ("_head", "_header", "_left", "_opcode", "begun", "kind")

    def __init__(self) -> None:
        self.kind = "undecided"
        self._head = bytearray()
        self._header = bytearray()
        self._left = 0
        self._opcode = _NO_FRAME
        self.begun = [0] * 16

    def copy(self) -> FrameCursor:
        """Return a cursor at the same position, which moves by itself."""
        twin = FrameCursor()
        twin.kind, twin._left, twin._opcode = self.kind, self._left, self._opcode
        twin._head, twin._header = self._head[:], self._header[:]
        return twin

    @property
    def lost(self) -> bool:
        """Whether it has given up: there are no frames that it could read."""
        return self.kind in {"tls", "other"}

    def advance(self, data: bytes) -> None:
        """Move over `data`."""
        if self._left > len(data):  # inside a payload, as most bytes are
            self._left -= len(data)
        else:
            self.pieces(data)

    def pieces(self, data: bytes) -> list[tuple[int, int, int]]:
        """Move over `data`, and return (opcode, begin, end) of each part of it; the opcode is -1 outside of frames."""
        found: list[tuple[int, int, int]] = []
        position = 0 if self.kind == "websocket" else self._read_head(data)
        if position:
            found.append((_NO_FRAME, 0, position))
        while position < len(data):
            begin = position
            position = self._skip(data, position) if self._left else self._read_header(data, position)
            found.append((self._opcode, begin, position))
        return found

    def _skip(self, data: bytes, position: int) -> int:
        step = min(self._left, len(data) - position)
        self._left -= step
        return position + step

    def _read_header(self, data: bytes, position: int) -> int:
        header, had = self._header, len(self._header)
        header += data[position : position + _LONGEST_HEADER - had]
        self._opcode = header[0] & 0x0F
        if len(header) < 2 or len(header) < (size := _header_size(header[1])):
            return len(data)
        length = header[1] & 0x7F
        extended = {126: 4, 127: 10}.get(length)
        self._left = int.from_bytes(header[2:extended]) if extended else length
        header.clear()
        self.begun[self._opcode] += 1
        return position + size - had

    # -------------------------------------------------------------------------------------- the handshake
    def _read_head(self, data: bytes) -> int:
        """Read on in the HTTP head, and return where it ends in `data`."""
        if self.lost:
            return len(data)
        head, had = self._head, len(self._head)
        head += data
        end = head.find(_HEAD_END, max(0, had - 3))
        self.kind = _kind_of(bytes(head[:end]) if end >= 0 else None, head)
        if self.kind == "undecided":
            return len(data)
        head.clear()
        return end + len(_HEAD_END) - had if self.kind == "websocket" else len(data)


def _header_size(second: int) -> int:
    extended = {126: 2, 127: 8}.get(second & 0x7F, 0)
    return 2 + extended + (4 if second & 0x80 else 0)


def _kind_of(head: bytes | None, so_far: bytearray) -> str:
    """Return what a connection is by its first bytes; `head` is the whole HTTP head once it is there."""
    if not so_far or so_far[0] == _TLS_HANDSHAKE:
        return "tls" if so_far else "undecided"
    if not any(word.startswith(bytes(so_far[: len(word)])) for word in (b"GET ", b"HTTP/")):
        return "other"
    if head is None:
        return "undecided" if len(so_far) < _LONGEST_HEAD else "other"
    upgraded = _UPGRADE.search(head)
    accepted = not head.startswith(b"HTTP/") or head.split(b" ", 2)[1:2] == [b"101"]
    return "websocket" if upgraded and accepted else "other"
