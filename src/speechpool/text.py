"""Counting and checking text the way the provider does.

Source: DashScope's CosyVoice API reference: a Han character counts 2, everything else 1, SSML tags 0; at most 20,000 in
one send and 200,000 in one task.
"""

from __future__ import annotations

import re

from .errors import InvalidText

__all__ = ["MAX_SEND", "MAX_TASK", "check_text", "count_characters", "ends_sentence"]

MAX_SEND = 20_000
"""Characters in one send, by the provider's counting."""
MAX_TASK = 200_000
"""Characters in one task, by the provider's counting."""

_HAN = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f\U00030000-\U000323af]",
)
_TAG = re.compile(r"<[^<>]*>")
_FINAL = frozenset(".!?\u2026;:\u3002\uff01\uff1f\uff1b\n")
_SENTENCE_END = re.compile("[.!?\u2026;:\u3002\uff01\uff1f\uff1b\n][\"'\u2019\u201d)\\]\u300d\u300f\uff09]*\\s*$")


def count_characters(text: str, *, ssml: bool = False) -> int:
    """Return the length of `text` as the provider bills it."""
    if ssml:
        text = _TAG.sub("", text)
    return len(text) if text.isascii() else len(text) + len(_HAN.findall(text))


def check_text(text: object, *, sent: int = 0, ssml: bool = False) -> int:
    """Check one piece of text before it is sent, and return its characters.

    Args:
        text: The piece.
        sent: Characters that the task has sent before.
        ssml: Tags count nothing.

    Raises:
        InvalidText: It is no text, is blank or cannot be encoded, or the piece or its task is too long.
    """
    if not isinstance(text, str):
        raise InvalidText(f"text must be a str, not {type(text).__name__}.")
    if not text or text.isspace():
        raise InvalidText("the text is empty; there is nothing to speak.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidText(
                f"the text holds half a character (U+{ord(text[error.start]):04X} at {error.start}); decode it again."
            ) from None
    characters = count_characters(text, ssml=ssml)
    if characters > MAX_SEND:
        raise InvalidText(
            f"the text has {characters:,} characters (a Han character counts 2), the limit of one send is "
            f"{MAX_SEND:,}; send it in pieces."
        )
    if sent + characters > MAX_TASK:
        raise InvalidText(
            f"the task would have {sent + characters:,} characters (a Han character counts 2), the limit of one task "
            f"is {MAX_TASK:,}; start another task."
        )
    return characters


def ends_sentence(text: str) -> bool:
    """Whether a server may be expected to speak at once, because `text` ends a sentence."""
    return text[-1:] in _FINAL or _SENTENCE_END.search(text) is not None
