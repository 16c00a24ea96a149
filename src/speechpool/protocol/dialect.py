"""The seam between synthesis and the protocols.

Synthesis never names a protocol. It asks a `Dialect` what a connection needs, and speaks to a `Segment`: one wire task,
from its first frame to its last. `speechpool.testing.tiny` is a second dialect of some fifty lines that keeps the seam
honest: text in one frame, base64 audio out, one task a connection.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Protocol

from speechpool.settings import LifetimeProfile
from speechpool.text import TextRules

from .events import Event
from .voice import Voice

__all__ = ["Dialect", "Segment"]


class Segment(Protocol):
    """One task on the wire, without I/O: its methods return the frames to send and the events that arrived.

    Every method raises `ProtocolViolation` where the order of the protocol forbids it.
    """

    id: str
    """The wire id."""

    takes_audio: bool
    """Binary frames count as audio now. A plain attribute, because it is read for each frame."""

    ended: bool
    """The server has ended the segment: nothing of it can follow, and the connection may carry the next one."""

    stray: bool
    """Something came that belonged to no running segment: the connection must not be used again."""

    announced: int
    """Binary frames that the server has said will come; 0 where the protocol does not say."""
    before: str | None
    """The id of the segment before it on the same connection, whose end some servers tell twice; the caller sets it."""

    mixed_up: bool
    """It may be followed by audio of which nobody could say that it is another task's: the connection is to be left."""

    def begin(self, text: str | None = None) -> bytes:
        """Return the first frame. `text` is the first text where the dialect begins with one, else None."""

    def text(self, text: str) -> bytes:
        """Return the frame that carries one more piece of text."""

    def flush(self) -> bytes | None:
        """Return the frame that asks to speak what is buffered, or None where the dialect has none."""

    def finish(self) -> bytes | None:
        """Return the frame that ends the text, or None where nothing needs to be said."""

    def cancel(self) -> bytes | None:
        """Return the frame that ends the segment now, or None where only closing the connection does."""

    def feed(self, data: bytes) -> tuple[Event, ...]:
        """Take one text frame from the server, and return what it means for this segment.

        Raises:
            ProtocolViolation: The frame cannot be read, or must not come now.
        """


class Dialect(Protocol):
    """What synthesis has to know of a protocol.

    A dialect may stand for several that share their connections; `for_voice` then says which of them a task speaks.
    """

    name: str
    tasks_per_connection: int | None
    """How many tasks a connection carries, one after another: None for any number, or 1."""
    begins_with_text: bool
    """A segment cannot begin before its first text is there."""
    text_may_follow: bool
    """Text may come in several pieces."""
    can_cancel: bool
    """A running segment can be ended without closing its connection."""
    text_gap: float | None
    """Seconds without new text after which the server gives a running segment up; None: it waits for any time."""
    text_rules: TextRules
    """How much text a task takes, and how it is counted."""
    lifetime: LifetimeProfile
    """How long the server is known to keep connections."""

    def path(self, voice: Voice | None) -> str:
        """Return path and query of the URL of a connection for `voice`."""

    def headers(self, api_key: str, workspace: str | None) -> Mapping[str, str]:
        """Return the headers of the handshake."""

    def sharing(self, voice: Voice) -> Hashable:
        """Return a key: voices of equal keys may follow each other on one connection."""

    def for_voice(self, voice: Voice) -> Dialect:
        """Return the dialect that the tasks of `voice` speak, over the connections of this one: mostly itself."""

    def segment(self, voice: Voice, segment_id: str) -> Segment:
        """Return a new segment, which has sent nothing yet."""
