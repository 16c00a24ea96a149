"""Counting and checking text the way the provider does.

Source: DashScope's CosyVoice API reference: a Han character counts 2, everything else 1, SSML tags 0; at most 20,000 in
one send and 200,000 in one task. Its Sambert pages: every character counts 1, at most 10,000 in a task.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .errors import InvalidText

__all__ = [
    "MAX_SEND",
    "MAX_TASK",
    "ONE_TEXT",
    "STREAMED_TEXT",
    "TextRules",
    "check_text",
    "count_characters",
    "ends_sentence",
]

MAX_SEND = 20_000
"""Characters in one send, by the provider's counting."""
MAX_TASK = 200_000
"""Characters in one task, by the provider's counting."""


class TextRules(NamedTuple):
    """How much text a protocol takes, and how it counts.

    Attributes:
        max_send: Characters that one send may have.
        max_task: Characters that one task may have.
        han: What a Han character counts.
    """

    max_send: int = MAX_SEND
    max_task: int = MAX_TASK
    han: int = 2


STREAMED_TEXT: Final = TextRules()
"""CosyVoice's."""
ONE_TEXT: Final = TextRules(10_000, 10_000, han=1)
"""Sambert's."""

_HAN = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f\U00030000-\U000323af]",
)
_TAG = re.compile(r"<[^<>]*>")
_FINAL = frozenset(".!?\u2026;:\u3002\uff01\uff1f\uff1b\n")
_CLOSERS = "\"'\u2019\u201d)]\u300d\u300f\uff09"


def count_characters(text: str, *, ssml: bool = False, han: int = 2) -> int:
    """Return the length of `text` as the provider bills it; `han` is what a Han character counts."""
    if ssml:
        text = _TAG.sub("", text)
    return len(text) if han == 1 or text.isascii() else len(text) + (han - 1) * len(_HAN.findall(text))


def check_text(text: object, *, sent: int = 0, ssml: bool = False, rules: TextRules = STREAMED_TEXT) -> int:
    """Check one piece of text before it is sent, and return its characters.

    Args:
        text: The piece.
        sent: Characters that the task has sent before.
        ssml: Tags count nothing.
        rules: Of the protocol that will carry it.

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
    characters = count_characters(text, ssml=ssml, han=rules.han)
    if characters > rules.max_send:
        remedy = "send it in pieces" if rules.max_task > rules.max_send else "make several tasks of it"
        raise InvalidText(
            f"the text has {characters:,} characters{_counting(rules)}, the limit of one send is {rules.max_send:,}; "
            f"{remedy}."
        )
    if sent + characters > rules.max_task:
        raise InvalidText(
            f"the task would have {sent + characters:,} characters{_counting(rules)}, the limit of one task is "
            f"{rules.max_task:,}; start another task."
        )
    return characters


def _counting(rules: TextRules) -> str:
    return "" if rules.han == 1 else f" (a Han character counts {rules.han})"


def ends_sentence(text: str) -> bool:
    """Whether a server may be expected to speak at once, because `text` ends a sentence."""
    # Not by one pattern: a line break is a space, too, so a search would take a second for 20,000 of them.
    said = text.rstrip()
    return "\n" in text[len(said) :] or said.rstrip(_CLOSERS)[-1:] in _FINAL
