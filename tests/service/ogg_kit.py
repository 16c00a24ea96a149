"""Reads Ogg pages, independently of what writes them: as RFC 3533 and 7845 tell, slowly."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    flags: int
    position: int
    serial: int
    number: int
    packets: tuple[bytes, ...]


def checksum(data):
    """The CRC of RFC 3533, a bit at a time."""
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value


def pages(data):
    """Yield the pages; fail where one is not in order."""
    at = 0
    while at < len(data):
        magic, version, flags, position, serial, number, crc, count = struct.unpack_from("<4sBBqIIIB", data, at)
        assert (magic, version) == (b"OggS", 0)
        lacing = data[at + 27 : at + 27 + count]
        begin, end = at + 27 + count, at + 27 + count + sum(lacing)
        page = data[at:end]
        assert len(page) == end - at, "the last page is cut off"
        assert checksum(page[:22] + bytes(4) + page[26:]) == crc
        packets, length = [], 0
        for segment in lacing:
            length += segment
            if segment < 255:
                packets.append(data[begin : begin + length])
                begin, length = begin + length, 0
        assert not length, "a packet goes on in another page"
        yield Page(flags, position, serial, number, tuple(packets))
        at = end
