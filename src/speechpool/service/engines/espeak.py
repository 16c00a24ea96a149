"""The voice for every other language: espeak-ng, about a hundred of them, robotic, hundreds of times real time.

It is an extra (`pip install 'speechpool[espeak]'`), because espeak-ng is under the GPL, and this project is not.

A sentence is spoken in pieces of one language (`espeak_text`), none of which takes longer than some tens of
milliseconds. Volume is exact, pitch to 1 Hz of the lowest, the rate within two percent as far as the library can: its
own is up to 30 % off, so a piece is spoken at the usual rate first, and again until its length is right.
Pronunciations in pinyin become phonemes.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from speechpool.errors import SettingsError
from speechpool.service.sentences import is_speakable
from speechpool.service.voices import VOICES, VoiceProfile

from . import Chunk, Sentence
from .espeak_text import pieces, syllables, with_phonemes, word_times
from .scripts import unread_script

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .libespeak import Library, Spoken

__all__ = ["EspeakEngine"]

_ALIASES: Final = {"zh": "cmn", "en": "en-us", "fil": "id", "no": "nb"}
"""Languages under another name; and Filipino, which it has not, by one that is written and sounds much alike."""
_MANDARIN, _PINYIN, _ENGLISH = "cmn", "cmn-latn-pinyin", "en-us"
_USUAL: Final = 175  # words per minute
_SPEEDS: Final = (80, 449)  # from 450 on it works in another way
_TOLERANCE: Final = 0.01
_ATTEMPTS: Final = 4
_UNSPEAKABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # C would stop at a NUL
_AUDIBLE: Final = 30  # of 32768
# The library's voice is a man's: raised and with a shorter throat, it is as high and as bright as "heart".
_ZERO, _LOW, _HIGH = 9, 82, 118  # hertz; the library counts from 9
_HEART_PITCH: Final = 1.9
_HEART_FORMANT: Final = 1.16
_GAIN: Final = 1.35  # as loud as hibari


class EspeakEngine:
    """Speaks whatever is written in a script that espeak-ng has a language for.

    Japanese is read from kana only: espeak-ng would say "Chinese letter" for each kanji, so kanji among kana are
    refused, and Han without kana is read in Chinese.

    Args:
        profile: None; there is only one.
        seed: Not used; nothing is drawn.

    Raises:
        SettingsError: A profile is asked for.
    """

    name = "espeak"
    profile = None
    sample_rate = 22050

    def __init__(self, *, profile: str | None = None, seed: int = 0) -> None:
        if profile is not None:
            raise SettingsError(f"engine 'espeak' has no profile {profile!r}; leave it out.")
        self._loaded: Library | None = None
        self._voices = {name: replace(voice, origin=_origin(voice)) for name, voice in VOICES.items()}

    def load(self) -> None:
        """Load the library: some milliseconds, 30 MB.

        Raises:
            SettingsError: It is not installed, or cannot be used.
        """
        try:
            from .libespeak import library
        except ImportError as error:
            raise SettingsError(
                f"engine 'espeak' needs the package {error.name!r}; install it with: pip install 'speechpool[service]'."
            ) from error
        self._loaded = library()

    def voices(self) -> Mapping[str, VoiceProfile]:
        """Return all voices."""
        return self._voices

    def speaks(self, text: str) -> bool:
        """Whether there is something to say, and a language for each of its scripts."""
        return is_speakable(text) and unread_script(text) is None

    def synthesize(self, sentence: Sentence) -> Iterator[Chunk]:
        """Yield the sentence in chunks of at most a second. Nothing at all, if it has no sound."""
        text = _plain(sentence.text)
        # The library gets louder the higher it speaks.
        gain = _GAIN * (sentence.volume / 50) / math.sqrt(sentence.voice.pitch * sentence.pitch)
        marks: list[tuple[int, float]] = []
        length = 0
        held: Chunk | None = None  # until it is known whether it is the last one, which has the words
        for piece in pieces(text, sentence.language):
            spoken = self._speak(sentence, text[piece.begin : piece.end], piece.language, last=piece.end == len(text))
            marks += [(piece.begin + place, _milliseconds(length + sample)) for place, sample in spoken.marks]
            marks.append((piece.end, _milliseconds(length + _voiced(spoken))))
            length += len(spoken.samples)
            for samples in _chunks(spoken.samples, gain):
                if held is not None:
                    yield held
                held = Chunk(samples)
        if held is not None:
            yield Chunk(held.samples, word_times(text, marks))

    def _speak(self, sentence: Sentence, text: str, language: str | None, *, last: bool) -> Spoken:
        from .libespeak import Manner, Spoken

        name = self._name(language)
        phonemes = self._phonemes(sentence.pronunciations) if name == _MANDARIN else {}
        marked, places = with_phonemes(text, phonemes)
        pitch = _HEART_PITCH * sentence.voice.pitch * sentence.pitch
        low = round(_ZERO + (_LOW - _ZERO) * pitch)
        high = low + round((_HIGH - _LOW) * pitch)
        formant = _HEART_FORMANT * sentence.voice.formant
        pause = last or not text.rstrip()[-1:].isalnum()

        def speak(speed: int) -> Spoken:
            return self._library.speak(
                marked, Manner(name, low, high, formant, speed), pause=pause, phonemes=bool(phonemes)
            )

        spoken = _paced(speak, sentence.rate)
        last_place = len(places) - 1
        return Spoken(spoken.samples, tuple((places[min(at, last_place)], sample) for at, sample in spoken.marks))

    @property
    def _library(self) -> Library:
        assert self._loaded is not None  # noqa: S101  # made by load
        return self._loaded

    def _name(self, language: str | None) -> str:
        """Return the library's name of a language; a Latin one that it has not is read as English."""
        name = _ALIASES.get(language or "", language or "")
        return name if name in self._library.languages else _ENGLISH

    def _phonemes(self, pronunciations: tuple[tuple[str, str], ...]) -> dict[str, str]:
        """Return the phonemes of the words whose pinyin can be read; others are spoken as they are written."""
        found = {word: _phonemes(self._library, pinyin) for word, pinyin in pronunciations}
        return {word: phonemes for word, phonemes in found.items() if word and phonemes}


@lru_cache(maxsize=1024)
def _phonemes(library: Library, pinyin: str) -> str:
    each = [library.phonemes(syllable, _PINYIN).removesuffix("_|") for syllable in syllables(pinyin)]
    # What it cannot read it spells in English, and says so.
    return "" if any("(" in one or "]]" in one for one in each) else " ".join(each)


def _plain(text: str) -> str:
    """Replace what is no text, and letters of another width, which the library does not know, one for one."""
    return "".join(map(_plain_letter, _UNSPEAKABLE.sub(" ", text)))


@lru_cache(maxsize=4096)
def _plain_letter(letter: str) -> str:
    if not "\uff10" <= letter <= "\uff9f" or not letter.isalnum():
        return letter
    return unicodedata.normalize("NFKC", letter)


def _paced(speak: Callable[[int], Spoken], rate: float) -> Spoken:
    """Speak `rate` times as fast as usual: a step too far or too short says where the next one goes."""
    if rate == 1.0:
        return speak(_USUAL)
    usual = _voiced(speak(_USUAL))
    before, speed, slope = (float(_USUAL), 1.0), _USUAL * rate, 1.0
    tries: list[tuple[float, int, Spoken]] = []
    while True:
        spoken = speak(round(speed))
        reached = usual / max(_voiced(spoken), 1)
        tries.append((abs(reached / rate - 1), len(tries), spoken))
        if tries[-1][0] <= _TOLERANCE or len(tries) == _ATTEMPTS or not usual:
            return min(tries)[2]
        if reached != before[1]:
            # Near a limit of the library a step may do next to nothing, or go the other way.
            slope = min(max(math.log(speed / before[0]) / math.log(reached / before[1]), 0.25), 4.0)
        before = speed, reached
        speed = min(max(speed * (rate / reached) ** slope, _SPEEDS[0]), _SPEEDS[1])


def _voiced(spoken: Spoken) -> int:
    """Return how many samples there are before the pause at the end."""
    (loud,) = (abs(spoken.samples) > _AUDIBLE).nonzero()
    return int(loud[-1]) + 1 if len(loud) else 0


def _chunks(samples: NDArray[np.int16], gain: float) -> Iterator[NDArray[np.int16]]:
    import numpy as np

    from .postprocess import to_int16

    for begin in range(0, len(samples), EspeakEngine.sample_rate):
        part = samples[begin : begin + EspeakEngine.sample_rate].astype(np.float32) / np.float32(32768)
        yield to_int16(part, gain=gain)


def _milliseconds(samples: int) -> float:
    return 1000 * samples / EspeakEngine.sample_rate


def _origin(voice: VoiceProfile) -> str:
    return f"espeak-ng: {voice.pitch:g} times as high as its woman, formants {voice.formant:g} times"
