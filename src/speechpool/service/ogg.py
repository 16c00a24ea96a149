"""Opus packets in an Ogg stream: pages by RFC 3533, what they hold for Opus by RFC 7845.

Every packet holds 20 ms. Positions count samples at 48,000 Hz, whatever the sample rate of the sound was:

    page 0       OpusHead: one channel, how much a decoder drops at the front (the pre-skip)
    page 1       OpusTags
    page 2 ...   packets, and the position behind them, the pre-skip included
    last page    packets, and the position where the sound ends: what a decoder has beyond it is padding
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

from speechpool.audio.ogg import HEADER, MAGIC, checksum

__all__ = ["CLOCK", "PACKET", "OpusPages"]

CLOCK: Final = 48000
"""Samples a second of every position in an Ogg Opus stream."""
PACKET: Final = 960
"""Samples of a packet by that clock."""

_CRC_AT: Final = 22
_BEGIN, _END = 2, 4  # flags of a page
_VENDOR: Final = b"speechpool"


class OpusPages:
    """Makes the pages of one mono stream. The headers come with the first page of packets, never alone.

    Args:
        sample_rate: Of the sound, in hertz. A decoder is free to choose another.
        pre_skip: Samples by the 48,000 Hz clock that a decoder drops at the front: the encoder's delay.
    """

    def __init__(self, *, sample_rate: int, pre_skip: int) -> None:
        self._sample_rate = sample_rate
        self._pre_skip = pre_skip
        self._packets = 0
        self._pages = 0
        self._serial = 0

    @property
    def begun(self) -> bool:
        """Whether there was a page."""
        return self._pages > 0

    def page(self, packets: Sequence[bytes]) -> bytes:
        """Return a page with `packets`, 42 at most."""
        self._packets += len(packets)
        return self._headers(packets) + self._page(packets, self._packets * PACKET)

    def last_page(self, packets: Sequence[bytes], samples: int) -> bytes:
        """Return the page that ends the stream, so that `samples` by the 48,000 Hz clock are heard in all of it.

        At least one of `packets` must reach beyond that end; the last one may only fill it up.
        """
        return self._headers(packets) + self._page(packets, self._pre_skip + samples, flags=_END)

    def _headers(self, packets: Sequence[bytes]) -> bytes:
        if self._pages:
            return b""
        # Of the sound, not by lot: the same sound has the same bytes, and two streams put together differ.
        self._serial = zlib.crc32(b"".join(packets))
        head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, self._pre_skip, self._sample_rate, 0, 0)
        tags = struct.pack(f"<8sI{len(_VENDOR)}sI", b"OpusTags", len(_VENDOR), _VENDOR, 0)
        return self._page([head], 0, flags=_BEGIN) + self._page([tags], 0)

    def _page(self, packets: Sequence[bytes], position: int, *, flags: int = 0) -> bytes:
        # A packet is a row of segments of 255 bytes, and ends with the first shorter one, which may be empty.
        lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets)
        header = HEADER.pack(MAGIC, 0, flags, position, self._serial, self._pages, 0, len(lacing))
        page = bytearray(b"".join((header, lacing, *packets)))
        struct.pack_into("<I", page, _CRC_AT, checksum(page))
        self._pages += 1
        return bytes(page)
