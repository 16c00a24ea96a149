"""What a task was asked to say, and how much of it has left; kept until the first audio, so that a retry replays it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from speechpool.errors import LeaseError
from speechpool.protocol import Dialect, Segment, Voice
from speechpool.text import check_text

if TYPE_CHECKING:
    from speechpool.transport import Frame

__all__ = ["Script"]


class _Mark:
    """What a script holds besides texts."""

    __slots__ = ()


_FLUSH: Final = _Mark()
_FINISH: Final = _Mark()


class Script:
    """Texts, flushes and the finish, in order, and the position of the next one to send."""

    __slots__ = ("_items", "_position", "_rules", "_ssml", "_whole", "characters", "finished", "visible")

    def __init__(self, dialect: Dialect, voice: Voice) -> None:
        self._items: list[str | _Mark] = []
        self._position = 0
        self._ssml = voice.ssml
        self._rules = dialect.text_rules
        self._whole = voice.ssml or not dialect.text_may_follow
        self.characters = 0
        """Characters of all texts, by the provider's counting."""
        self.visible = 0
        """The same without blanks, which a server may count or not."""
        self.finished = False
        """No text can follow."""

    def say(self, text: str) -> None:
        """Add one piece of text.

        Raises:
            InvalidText: It breaks a rule; nothing was added.
            LeaseError: The task takes its text in one piece, and has it.
        """
        if self.characters and self._whole:
            raise LeaseError("this task takes its text in one piece; start another task for more.")
        characters = check_text(text, sent=self.characters, ssml=self._ssml, rules=self._rules)
        self.characters += characters
        self.visible += characters - (len(text) - len("".join(text.split())))
        self._items.append(text)

    def flush(self) -> None:
        """Add a flush."""
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

    def opening(self, dialect: Dialect) -> str | None:
        """Return the text that a segment begins with, where the dialect wants one, or None while it is not complete."""
        if not self._items or not (dialect.text_may_follow or self.finished):
            return None
        # A flush may stand before it; where the text comes whole there is nothing to flush.
        first = next((n for n, item in enumerate(self._items) if isinstance(item, str)), None)
        if first is None:
            return None
        self._position = first + 1
        return cast("str", self._items[first])

    def frames(self, segment: Segment) -> list[Frame]:
        """Return the frames that have not left yet."""
        frames: list[Frame] = []
        for item in self._items[self._position :]:
            if item is _FLUSH:
                frame = segment.flush()
            elif item is _FINISH:
                frame = segment.finish()
            else:
                frame = segment.text(cast("str", item))
            if frame is not None:
                frames.append((False, frame))
        self._position = len(self._items)
        return frames

    def rewind(self) -> None:
        """Send everything again, on the next segment."""
        self._position = 0

    def forget_sent(self) -> None:
        """Drop what has left: there will be no retry."""
        del self._items[: self._position]
        self._position = 0
