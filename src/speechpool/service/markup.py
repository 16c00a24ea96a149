"""The words of an SSML document. Its tags are dropped: no engine here can follow them yet."""

from __future__ import annotations

import html
import re

__all__ = ["is_markup", "spoken_text"]

_BEGIN = re.compile(r"\s*(?:<\?xml[^<>]*>\s*)?<speak[\s>/]")
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# These stand between words; all others (phoneme, say-as, sub, ...) may stand inside one.
_PAUSE = re.compile(r"</?(?:speak|break|p|s|audio|soundevent)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")


def is_markup(text: str) -> bool:
    """Whether `text` is an SSML document rather than plain text."""
    return _BEGIN.match(text) is not None


def spoken_text(markup: str) -> str:
    """Return what is to be spoken of an SSML document; empty where it holds tags only."""
    markup = _COMMENT.sub("", markup)
    markup = _CDATA.sub(lambda match: html.escape(match[1], quote=False), markup)
    return html.unescape(_TAG.sub("", _PAUSE.sub(" ", markup))).strip()
