"""Joins several streams of one format into one that decodes as a whole.

The streams are segments of one speech: each is complete, with headers of its own. Bytes go in as they come, cut
anywhere, and come out as soon as a decoder could make something of them.

    wav    the header of every segment but the first one is dropped, whatever chunks stand in it
    mp3    whole frames only, so that segments join at a frame's border; dropped are the frames that tell the length of
           one segment (Xing, Info, VBRI), later ID3 tags, and what stands between frames. A frame of a later segment
           whose main data would begin before its segment is muted: a decoder mutes it, too, where a stream begins with
           it, but in the middle of a stream it would take the data of the segment before and make a noise of them.
           Encoders begin a stream without such frames; one that is cut at its front has them.
    opus   whole pages only; every segment is a link of a chained Ogg stream (RFC 7845, section 4), so nothing is
           dropped. The serial numbers of links must differ; a segment that repeats one gets another, and new checksums.

Keeping incomplete frames and pages back costs no delay: no decoder can use them before they are complete. A stream that
does not begin as its format should is passed on as it is, for its listener to judge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from . import mp3, ogg
from .formats import wav_payload_offset

__all__ = ["Joiner", "new_joiner"]

_LONGEST_HEADER: Final = 65536
"""Bytes of a WAV header; one that goes on is no header."""


class Joiner(Protocol):
    """Joins the segments of one speech."""

    plain: bool
    """What comes is passed on as it is until the next segment begins, so it need not be fed any more."""
    seconds: float | None
    """Duration of what was handed out; None where this joiner does not know."""

    def begin(self, *, first: bool) -> None:
        """Begin a segment; `first`: nothing was handed out before. What is kept back is dropped: it was incomplete."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the segment, and return what of the joined stream is complete, which may be none."""


def new_joiner(audio_format: str) -> Joiner | None:
    """Return a joiner for a stream of `wav`, `mp3` or `opus`; None for pcm, which needs none. Call `begin` first."""
    makers: dict[str, Callable[[], Joiner]] = {"wav": _WavJoiner, "mp3": _Mp3Joiner, "opus": _OpusJoiner}
    return makers[audio_format]() if audio_format in makers else None


class _WavJoiner:
    def __init__(self) -> None:
        self.seconds: float | None = None
        self.plain = False
        self._held = b""

    def begin(self, *, first: bool) -> None:
        self.plain, self._held = first, b""

    def feed(self, data: bytes) -> bytes:
        if self.plain:
            return data
        held = self._held = self._held + data
        try:
            offset = wav_payload_offset(held)
        except ValueError:
            offset = 0
        if offset is None:
            if len(held) <= _LONGEST_HEADER:
                return b""
            offset = 0
        self.plain, self._held = True, b""
        return held[offset:]


class _FramedJoiner:
    """What is common to formats that consist of frames: bytes are kept until the frame is complete."""

    def __init__(self) -> None:
        self.plain = False
        self.seconds: float | None = 0.0
        self._held = b""
        self._first = True
        self._begun = False  # something of the segment was recognised

    def begin(self, *, first: bool) -> None:
        self.plain, self._begun, self._held = False, False, b""
        self._first = first

    def feed(self, data: bytes) -> bytes:
        if self.plain:
            return data
        held, at, complete = self._held + data, 0, []
        while at < len(held):
            length = self._length(held, at)
            if length is None or at + length > len(held):
                break
            if length:
                self._begun = True
                complete.append(self._take(held, at, length))
                at += length
            elif self._begun:
                at = self._next(held, at + 1)
            else:
                self.plain, self.seconds, self._held = True, None, b""
                return held
        self._held = held[at:]
        return b"".join(complete)

    def _length(self, data: bytes, at: int) -> int | None:
        """Return the length of the frame at `at`: None while that is not known, 0 where there is none."""
        raise NotImplementedError

    def _next(self, data: bytes, at: int) -> int:
        """Return where the next frame may begin."""
        raise NotImplementedError

    def _take(self, data: bytes, at: int, length: int) -> bytes:
        """Return what is handed out of a complete frame."""
        raise NotImplementedError

    def _heard(self, seconds: float) -> None:
        if self.seconds is not None:
            self.seconds += seconds


class _Mp3Joiner(_FramedJoiner):
    def __init__(self) -> None:
        super().__init__()
        self._reservoir = 0  # bytes of main data that the segment has had
        self._steady = False  # what follows are frames that are handed out as they are

    def begin(self, *, first: bool) -> None:
        super().begin(first=first)
        self._reservoir, self._steady = 0, False

    def _length(self, data: bytes, at: int) -> int | None:
        if self._steady and (length := self._run(data, at)):
            return length
        if not self._begun and data[at : at + 3] == b"ID3"[: len(data) - at]:
            return _id3_length(data, at)
        frame = mp3.read_header(data, at)
        if frame is not None:
            return frame.length
        return None if data[at] == 0xFF and len(data) < at + 4 else 0

    def _run(self, data: bytes, begin: int) -> int:
        """Return the length of all complete frames from `begin` on. Nearly every frame of a stream passes here."""
        at, seconds = begin, 0.0
        while (frame := mp3.read_header(data, at)) is not None and at + frame.length <= len(data):
            at += frame.length
            seconds += frame.samples / frame.sample_rate
        self._heard(seconds)
        return at - begin

    def _next(self, data: bytes, at: int) -> int:
        return mp3.find_header(data, at)

    def _take(self, data: bytes, at: int, length: int) -> bytes:
        whole = data[at : at + length]
        if self._steady:
            return whole
        frame = mp3.read_header(data, at)
        if frame is None:  # a tag
            return whole if self._first else b""
        if mp3.is_information(frame, data, at):
            return b""
        self._heard(frame.samples / frame.sample_rate)
        if not self._first and frame.reservoir(data, at) > self._reservoir:
            whole = mp3.muted(frame, whole)
        self._reservoir += length - frame.main
        self._steady = self._first or self._reservoir >= mp3.FARTHEST
        return whole


def _id3_length(data: bytes, at: int) -> int | None:
    """Return the length of the tag, whose header tells it in four bytes of seven bits each."""
    if len(data) < at + 10:
        return None
    a, b, c, d = data[at + 6 : at + 10]
    return 10 + (a << 21 | b << 14 | c << 7 | d)


class _OpusJoiner(_FramedJoiner):
    def __init__(self) -> None:
        super().__init__()
        self._serials: dict[int, int] = {}  # of the segment, to those that are handed out
        self._used: set[int] = set()
        self._position = 0  # samples of the segment so far, the pre-skip included

    def begin(self, *, first: bool) -> None:
        super().begin(first=first)
        self._serials.clear()
        self._position = 0

    def _length(self, data: bytes, at: int) -> int | None:
        if data[at : at + 4] != ogg.MAGIC[: len(data) - at]:
            return 0
        return ogg.page_length(data, at)

    def _next(self, data: bytes, at: int) -> int:
        at = data.find(b"O", at)
        return len(data) if at < 0 else at

    def _take(self, data: bytes, at: int, length: int) -> bytes:
        whole = data[at : at + length]
        page = ogg.read_page(whole)
        if page.begins:
            self._serials[page.serial] = self._unused(page.serial)
            self._position = _pre_skip(whole)
        if page.position > self._position:
            self._heard((page.position - self._position) / 48000)
            self._position = page.position
        serial = self._serials.get(page.serial, page.serial)
        return whole if serial == page.serial else ogg.with_serial(whole, serial)

    def _unused(self, serial: int) -> int:
        while serial in self._used:
            serial = (serial + 1) & 0xFFFFFFFF
        self._used.add(serial)
        return serial


def _pre_skip(page: bytes) -> int:
    """Return how many samples a decoder drops at the front of the stream (RFC 7845, section 5.1)."""
    head = page.find(b"OpusHead")
    return 0 if head < 0 else int.from_bytes(page[head + 10 : head + 12], "little")
