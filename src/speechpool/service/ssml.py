"""SSML documents: from markup to passages.

Understood are `<speak>` with rate, pitch and volume, which stand in for the task's (DashScope's form), `<prosody>` on
top of what is around it (W3C's form), `<break>`, `<p>`, `<s>`, `<lang>`, `<say-as>`, `<sub>`, and `<phoneme>` in
pinyin. Everything else is refused by name: a client must not believe in an effect that nobody hears.

The parser is expat, without a tree: a position is known for every error, and time and memory grow with the length of
the document only. A document type is refused before anything is parsed; without one XML knows no entities but its own
five.

Source: DashScope's SSML reference for CosyVoice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from xml.parsers import expat

from speechpool.errors import InvalidText

from .manners import LONGEST_PAUSE, Manner, check_attributes, pause_seconds, shortened
from .passages import Passage, Reading
from .readings import spoken_text
from .say_as import KINDS, say_as
from .sentences import is_speakable

__all__ = ["is_ssml", "parse_ssml"]

_BEGIN: Final = re.compile(r"[\s\ufeff]*<(?:speak[\s/>]|\?xml\s|!--|!doctype\s)", re.IGNORECASE)
_MAX_ELEMENTS: Final = 1000  # reading them takes some 10 ms of the event loop, and cutting their texts as much
_MAX_DEPTH: Final = 20
_MAX_READING: Final = 400  # characters of what is read as one, and of what is read in its place
_MAX_SILENCE: Final = 600.0  # seconds of all pauses
# A line break is a space in markup. Control characters say nothing, and the cutting of sentences would drop them.
_SPACES: Final = dict.fromkeys((*b"\t\n\r", *range(0x7F, 0xA0)), " ")
_ELEMENTS: Final = ("speak", "p", "s", "lang", "prosody", "break", "say-as", "sub", "phoneme")
_READ: Final = frozenset({"say-as", "sub", "phoneme"})  # these may stand in the middle of a sentence
_PINYIN: Final = "py"


def is_ssml(text: str) -> bool:
    """Whether `text` wants to be an SSML document rather than plain text."""
    return _BEGIN.match(text) is not None


def parse_ssml(
    document: str, *, voice: str, rate: float = 1.0, pitch: float = 1.0, volume: float = 50, language: str | None = None
) -> list[Passage]:
    """Read a document.

    Args:
        document: The markup.
        voice: The task's voice; a document may name it, but no other.
        rate: The task's rate, which that of the document stands in for.
        pitch: The same for the pitch.
        volume: The same for the volume. A silent task (0) stays silent.
        language: The task's language, for what the document leaves open.

    Returns:
        Its passages. Their texts joined are the document's without its tags, so their characters are those that count.

    Raises:
        InvalidText: It cannot be read, asks for what the service cannot do, or says nothing. The message tells where.
    """
    if "<!DOCTYPE" in document:
        raise InvalidText("a document type is not taken in SSML, nor entities; leave <!DOCTYPE out.")
    reader = _Reader(voice, Manner(rate, pitch, volume), language, ascii_only=document.isascii())
    passages = reader.read(document.lstrip("\ufeff \t\r\n"))
    if not any(is_speakable(spoken_text(each)) for each in passages):
        raise InvalidText("Please ensure input text is valid.")
    return passages


@dataclass(slots=True)
class _Leaf:
    """An open element that holds no others: a break, or text that is read in a way of its own.

    Attributes:
        name: Of the element.
        attributes: Its attributes.
        begin: Where it begins in the text of its passage.
        part: Where it begins in the list of parts of that text.
    """

    name: str
    attributes: dict[str, str]
    begin: int
    part: int


class _Reader:
    """Walks through one document. A passage ends where the manner changes, and at pauses and paragraphs."""

    def __init__(self, voice: str, base: Manner, language: str | None, *, ascii_only: bool) -> None:
        self._voice = voice
        self._base = base
        self._language = language
        self._ascii_only = ascii_only
        self._manners: list[Manner] = []  # of the open elements
        self._leaf: _Leaf | None = None
        self._elements = 0
        self._silence = 0.0
        self._passages: list[Passage] = []
        self._text: list[str] = []
        self._length = 0
        self._readings: list[Reading] = []
        self._words: list[tuple[str, str]] = []
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._placed(self._start)
        self._parser.EndElementHandler = self._placed(self._end)
        self._parser.ProcessingInstructionHandler = self._placed(self._instruction)
        self._parser.CharacterDataHandler = self._characters

    def read(self, document: str) -> list[Passage]:
        """Return the passages of the whole document."""
        try:
            self._parser.Parse(document, True)  # noqa: FBT003  # expat takes no keywords
        except expat.ExpatError as error:
            raise InvalidText(
                f"the SSML is not well-formed: {expat.ErrorString(error.code)} at line {error.lineno}, column "
                f"{error.offset + 1}; close every tag, and write & as &amp; and < as &lt;."
            ) from None
        return self._passages

    def _placed(self, handler: Callable[..., None]) -> Callable[..., None]:
        """Let the errors of a handler tell their place; expat has gone on to the end when `Parse` raises them."""

        def call(*event: object) -> None:
            try:
                handler(*event)
            except InvalidText as error:
                line, column = self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber
                raise InvalidText(f"{error} (SSML, line {line}, column {column + 1})") from None

        return call

    # ---------------------------------------------------------------------------------- what expat tells
    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > _MAX_ELEMENTS or len(self._manners) >= _MAX_DEPTH:
            raise InvalidText(f"SSML may have {_MAX_ELEMENTS:,} elements, {_MAX_DEPTH} inside each other; use fewer.")
        if self._leaf is not None:
            raise InvalidText(f"<{self._leaf.name}> holds no elements; move <{shortened(name)}> out of it.")
        if not self._manners and name != "speak":
            raise InvalidText(f"SSML begins with <speak>, not <{shortened(name)}>; put everything into it.")
        manner = self._manners[-1] if self._manners else self._base
        if name not in _READ:
            self._border()
        self._manners.append(self._open(name, attributes, manner))

    def _open(self, name: str, attributes: dict[str, str], manner: Manner) -> Manner:
        """Return the manner inside an element."""
        if name == "speak" and not self._manners:
            return manner.of_document(attributes, self._voice)
        if name in {"p", "s", "lang"}:
            check_attributes(name, attributes, "xml:lang", required=name == "lang")
            return manner.in_language(attributes)
        if name == "prosody":
            return manner.with_prosody(attributes)
        if name == "break":
            check_attributes(name, attributes, "time", "strength")
            self._pause(pause_seconds(attributes))
        elif name == "say-as":
            check_attributes(name, attributes, "interpret-as", required=True)
            kind = attributes["interpret-as"]
            if kind not in KINDS:
                raise InvalidText(f"interpret-as={shortened(kind)!r} is unknown; choose one of {', '.join(KINDS)}.")
        elif name == "sub":
            check_attributes(name, attributes, "alias", required=True)
        elif name == "phoneme":
            check_attributes(name, attributes, "alphabet", "ph", required=True)
            if attributes["alphabet"] != _PINYIN:
                raise InvalidText(f"<phoneme> is taken in the alphabet {_PINYIN!r} (pinyin) only; use <sub> instead.")
        else:
            raise InvalidText(f"<{shortened(name)}> is not supported here; supported are {', '.join(_ELEMENTS)}.")
        self._leaf = _Leaf(name, attributes, self._length, len(self._text))
        return manner

    def _characters(self, text: str) -> None:
        text = text.translate(_SPACES)
        self._text.append(text)
        self._length += len(text)

    def _end(self, name: str) -> None:
        leaf, self._leaf = self._leaf, None
        if leaf is None:
            self._border()
        else:
            self._read(leaf, "".join(self._text[leaf.part :]))
        self._manners.pop()

    def _instruction(self, target: str, data: str) -> None:
        raise InvalidText(f"the processing instruction <?{shortened(target)}?> is not taken; leave it out.")

    # ---------------------------------------------------------------------------------- passages
    def _border(self) -> None:
        """End the passage that is being written. Space alone goes to the one before, so that pauses meet."""
        text = "".join(self._text)
        if text.isspace() and self._passages:
            last = self._passages[-1]
            self._passages[-1] = replace(last, text=last.text + text)
        elif text:
            self._passages.append(self._passage(text))
        self._text.clear()
        self._readings.clear()
        self._words.clear()
        self._length = 0

    def _passage(self, text: str) -> Passage:
        manner, base = self._manners[-1], self._base
        return Passage(
            text=text,
            rate=_factor(manner.rate, base.rate),
            pitch=_factor(manner.pitch, base.pitch),
            volume=_factor(manner.volume, base.volume),
            language=manner.language,
            readings=tuple(self._readings),
            pronunciations=tuple(self._words),
        )

    def _pause(self, seconds: float) -> None:
        if not self._passages:
            self._passages.append(Passage())
        last = self._passages[-1]
        pause = min(LONGEST_PAUSE, last.pause + seconds)
        self._silence += pause - last.pause
        if self._silence > _MAX_SILENCE:
            raise InvalidText(f"the pauses of one text may last {_MAX_SILENCE:g} s together; send several texts.")
        self._passages[-1] = replace(last, pause=pause)

    def _read(self, leaf: _Leaf, written: str) -> None:
        """Note how the text of an element is read."""
        text = written.strip()
        if leaf.name == "break":
            if text:
                raise InvalidText("<break> holds no text; close it at once.")
            return
        spoken = self._spoken(leaf, text)
        if not text or not spoken.strip() or max(len(text), len(spoken)) > _MAX_READING:
            raise InvalidText(
                f"<{leaf.name}> must hold text and say what is read, each in 1 to {_MAX_READING} characters."
            )
        if spoken != text:
            begin = leaf.begin + len(written) - len(written.lstrip())
            self._readings.append(Reading(begin, begin + len(text), spoken))

    def _spoken(self, leaf: _Leaf, text: str) -> str:
        if leaf.name == "sub":
            return leaf.attributes["alias"].translate(_SPACES).strip()
        if leaf.name == "say-as":
            language = self._manners[-1].language or self._language
            english = language == "en" or (language is None and self._ascii_only)
            return say_as(leaf.attributes["interpret-as"], text, english=english)
        self._words.append((text, " ".join(leaf.attributes["ph"].split())))
        return text


def _factor(value: float, base: float) -> float:
    return value / base if base else 1.0
