"""The default engine: the neural voice for what it speaks, and espeak-ng, where it is installed, for everything else.

Which of them speaks is decided by the sentence alone: by its scripts and by the language that was named for it. A
sentence that mixes scripts is spoken as a whole by the engine that speaks all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Final

from speechpool.errors import SettingsError
from speechpool.protocol.events import Word
from speechpool.service.voices import VoiceProfile

from . import Chunk, Sentence
from .espeak import EspeakEngine
from .hibari import HibariEngine
from .scripts import language_runs

__all__ = ["RoutingEngine"]

_HIBARI_SPEAKS: Final = "en"


class RoutingEngine:
    """Speaks with hibari, or with espeak.

    Args:
        profile: None; there is only one.
        seed: Passed on.

    Attributes:
        name: "hibari+espeak", or "hibari" where the extra `espeak` is not installed.

    Raises:
        SettingsError: A profile is asked for.
    """

    profile = None
    sample_rate = HibariEngine.sample_rate

    def __init__(self, *, profile: str | None = None, seed: int = 0) -> None:
        if profile is not None:
            raise SettingsError(f"engine 'auto' has no profile {profile!r}; leave it out.")
        self._hibari = HibariEngine(seed=seed)
        self._espeak = EspeakEngine(seed=seed) if find_spec("espeakng_loader") else None
        self.name = "hibari" if self._espeak is None else "hibari+espeak"

    def load(self) -> None:
        """Load both.

        Raises:
            SettingsError: A package is not installed, or cannot be used.
        """
        self._hibari.load()
        if self._espeak is not None:
            self._espeak.load()

    def voices(self) -> Mapping[str, VoiceProfile]:
        """Return all voices; both engines have the same."""
        return self._hibari.voices()

    def speaks(self, text: str) -> bool:
        """Whether one of them speaks all of it."""
        return self._hibari.speaks(text) or (self._espeak is not None and self._espeak.speaks(text))

    def synthesize(self, sentence: Sentence) -> Iterator[Chunk]:
        """Yield the sentence, all of it by one of them."""
        if self._espeak is None or self._is_for_hibari(sentence):
            return self._hibari.synthesize(sentence)
        return _resampled(self._espeak.synthesize(sentence))

    def _is_for_hibari(self, sentence: Sentence) -> bool:
        languages = {run.language for run in language_runs(sentence.text, sentence.language)}
        return languages == {_HIBARI_SPEAKS} and self._hibari.speaks(sentence.text)


def _resampled(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Bring a sentence to the common sample rate. Its chunks are cut by position, so the result is always the same."""
    import numpy as np
    import soxr

    stream = soxr.ResampleStream(EspeakEngine.sample_rate, RoutingEngine.sample_rate, 1, dtype="int16", quality="MQ")
    words: tuple[Word, ...] = ()
    for chunk in chunks:
        words = chunk.words
        yield Chunk(stream.resample_chunk(chunk.samples))
    yield Chunk(stream.resample_chunk(np.zeros(0, np.int16), last=True), words)
