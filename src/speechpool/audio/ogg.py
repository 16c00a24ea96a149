"""Pages of an Ogg stream, without looking into what they carry (RFC 3533)."""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

__all__ = ["HEADER", "MAGIC", "Page", "checksum", "page_length", "read_page", "with_serial"]

MAGIC: Final = b"OggS"
HEADER: Final = struct.Struct("<4sBBqIIIB")
"""Magic, version, flags, position, serial, number, checksum, count of segments: what a page begins with."""

_SERIAL_AT: Final = 14
_CRC_AT: Final = 22
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page(NamedTuple):
    """What the header of a page says.

    Attributes:
        begins: It is the first page of its logical stream.
        position: Samples up to its end; -1 where no packet ends in it.
        serial: Names its logical stream.
    """

    begins: bool
    position: int
    serial: int


def page_length(data: bytes, at: int) -> int | None:
    """Return how long the page at `at` is, or None while its header is not complete."""
    if len(data) < at + HEADER.size or len(data) < at + HEADER.size + data[at + HEADER.size - 1]:
        return None
    body = at + HEADER.size + data[at + HEADER.size - 1]
    return body - at + sum(data[at + HEADER.size : body])


def read_page(page: bytes) -> Page:
    """Return what the header of a page says."""
    _, _, flags, position, serial, *_ = HEADER.unpack_from(page)
    return Page(bool(flags & 2), position, serial)


def with_serial(page: bytes, serial: int) -> bytes:
    """Return the same page of another logical stream."""
    changed = bytearray(page)
    struct.pack_into("<I", changed, _SERIAL_AT, serial)
    struct.pack_into("<I", changed, _CRC_AT, 0)
    struct.pack_into("<I", changed, _CRC_AT, checksum(changed))
    return bytes(changed)


def checksum(page: bytearray) -> int:
    """Return the CRC of RFC 3533: zlib's polynomial, but highest bit first, and not inverted at either end."""
    turned = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(turned.to_bytes(4, "little").translate(_REVERSED), "big")
