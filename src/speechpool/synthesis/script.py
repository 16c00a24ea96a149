"""What a task was asked to say, and how much of it has left; kept until the first audio, so that a retry replays it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from speechpool.errors import LeaseError
from speechpool.protocol import Dialect, Segment, Voice
from speechpool.text import check_text, ends_sentence

if TYPE_CHECKING:
    from speechpool.transport import Frame

__all__ = ["Script"]


class _Mark:
    """What a script holds besides texts."""

    __slots__ = ()


class _Piece(NamedTuple):
    """One text, its characters by the provider's counting, and those without blanks."""

    text: str
    characters: int
    visible: int


_FLUSH: Final = _Mark()
_FINISH: Final = _Mark()


class Script:
    """Texts, flushes and the finish, in order, and the position of the next one to send."""

    __slots__ = (
        "_items",
        "_position",
        "_rules",
        "_ssml",
        "_whole",
        "at_border",
        "characters",
        "finished",
        "sent",
        "visible",
    )

    def __init__(self, dialect: Dialect, voice: Voice) -> None:
        self._items: list[_Piece | _Mark] = []
        self._position = 0
        self._ssml = voice.ssml
        self._rules = dialect.text_rules
        self._whole = voice.ssml or not dialect.text_may_follow
        self.characters = 0
        """Characters of all texts, by the provider's counting."""
        self.visible = 0
        """Those of the present segment, without blanks, which a server may count or not."""
        self.at_border = True
        """The last text ended a sentence, or a flush makes the server take it for one."""
        self.finished = False
        """No text can follow."""
        self.sent = False
        """The present segment has got text."""

    def say(self, text: str) -> None:
        """Add one piece of text.

        Raises:
            InvalidText: It breaks a rule; nothing was added.
            LeaseError: The task takes its text in one piece, and has it.
        """
        if self.characters and self._whole:
            raise LeaseError("this task takes its text in one piece; start another task for more.")
        characters = check_text(text, sent=self.characters, ssml=self._ssml, rules=self._rules)
        visible = characters - (len(text) - len("".join(text.split())))
        self.characters += characters
        self.visible += visible
        self.at_border = ends_sentence(text)
        self._items.append(_Piece(text, characters, visible))

    def flush(self) -> None:
        """Add a flush."""
        self.at_border = True
        self._items.append(_FLUSH)

    def finish(self) -> None:
        """Add the finish.

        Raises:
            InvalidText: There is no text.
        """
        if not self.characters:
            check_text("")
        self.finished = True
        self._items.append(_FINISH)

    @property
    def waiting(self) -> int:
        """Characters that have not left."""
        return sum(item.characters for item in self._items[self._position :] if isinstance(item, _Piece))

    @property
    def due(self) -> int:
        """How many of the visible characters a server has to speak without being told more. For a new segment."""
        due = visible = 0
        for item in self._items:
            if not isinstance(item, _Piece):
                due = visible
                continue
            visible += item.visible
            if ends_sentence(item.text):
                due = visible
        return due

    def opening(self, dialect: Dialect) -> str | None:
        """Return the text that a segment begins with, where the dialect wants one, or None while it is not complete."""
        if not self._items or not (dialect.text_may_follow or self.finished):
            return None
        # A flush may stand before it; where the text comes whole there is nothing to flush.
        for position, item in enumerate(self._items):
            if isinstance(item, _Piece):
                self._position, self.sent = position + 1, True
                return item.text
        return None

    def frames(self, segment: Segment) -> list[Frame]:
        """Return the frames that have not left yet."""
        frames: list[Frame] = []
        for item in self._items[self._position :]:
            if item is _FLUSH:
                frame = segment.flush()
            elif item is _FINISH:
                frame = segment.finish()
            else:
                frame = segment.text(item[0])  # type: ignore[index]  # the rest are pieces
                self.sent = True
            if frame is not None:
                frames.append((False, frame))
        self._position = len(self._items)
        return frames

    def rewind(self) -> None:
        """Send everything again, on the next segment."""
        self._position, self.sent = 0, False

    def forget_sent(self) -> None:
        """Drop what has left: there will be no retry."""
        del self._items[: self._position]
        self._position = 0

    def cut(self) -> None:
        """Let a new segment begin with what has not left. What has left is spoken."""
        self.forget_sent()
        self.sent = False
        while self._items and self._items[0] is _FLUSH:
            del self._items[0]  # nothing is left to flush
        self.visible = sum(item.visible for item in self._items if isinstance(item, _Piece))
