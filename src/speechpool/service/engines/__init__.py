"""Engines: who makes the speech. They are plug-ins, found by the entry points of the group `speechpool.engines`.

There are two kinds. A `SynthesisEngine` computes, and is run on worker threads, one bounded window at a time. A
`PacedEngine` replays or makes up its bytes at next to no cost, and is run on the event loop by one shared timer, for
thousands of streams. Both are made with the keywords `profile` and `seed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from speechpool.errors import SettingsError
from speechpool.protocol.events import Word
from speechpool.service.voices import VoiceProfile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "GROUP",
    "Chunk",
    "Engine",
    "PacedEngine",
    "Sentence",
    "SynthesisEngine",
    "Take",
    "Track",
    "engine_names",
    "load_engine",
]

GROUP: Final = "speechpool.engines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One sentence to speak, and how. The same sentence always gives the same samples.

    Attributes:
        text: The sentence.
        voice: Who speaks.
        rate: 0.5 to 2.
        pitch: 0.5 to 2, on top of the voice's own.
        volume: 0 to 100; 50 is the voice as it is.
        seed: Of the random part of the sound.
        language: ISO 639-1 code of the text, if somebody said so. An engine of one language ignores it.
        pronunciations: Pairs of a word and how it is read, in pinyin with tone numbers ("ci2"). An engine that cannot
            follow them ignores them.
    """

    text: str
    voice: VoiceProfile
    rate: float = 1.0
    pitch: float = 1.0
    volume: float = 50
    seed: int = 0
    language: str | None = None
    pronunciations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next samples of a sentence (16-bit, mono), and with the last of them its words, timed from its start."""

    samples: NDArray[np.int16]
    words: tuple[Word, ...] = ()


class Engine(Protocol):
    """What all engines tell.

    Attributes:
        name: As in the entry point.
        profile: Which of its ways, or None if it has only one.
    """

    name: str
    profile: str | None

    def load(self) -> None:
        """Get ready; may take seconds, and is called off the event loop. Calling it again does nothing."""

    def voices(self) -> Mapping[str, VoiceProfile]:
        """Return the voices by name."""

    def speaks(self, text: str) -> bool:
        """Whether it can speak all of `text`: an engine must never leave out what it cannot."""


@runtime_checkable
class SynthesisEngine(Engine, Protocol):
    """Computes samples. `synthesize` is called on several threads at once.

    Attributes:
        sample_rate: Of its samples, in hertz.
    """

    sample_rate: int

    def synthesize(self, sentence: Sentence) -> Iterator[Chunk]:
        """Yield the sentence in chunks; each `next()` is one bounded piece of work (some tens of milliseconds)."""


@dataclass(frozen=True, slots=True)
class Take:
    """How a paced engine speaks one sentence.

    Attributes:
        delay: Seconds to the first chunk.
        interval: Seconds between chunks; 0: each in a turn of the event loop of its own.
        chunks: The bytes, and the seconds of audio in them.
        words: Its words, timed from the sentence's start.
    """

    delay: float
    interval: float
    chunks: Iterable[tuple[bytes, float]]
    words: tuple[Word, ...] = ()


class Track(Protocol):
    """One task of a paced engine."""

    def take(self, text: str, *, awaited: bool) -> Take:
        """Return the next sentence; `awaited`: its listener hears nothing now, so the delay to first audio counts."""

    def flush(self) -> bytes:
        """End the stream, and return its last bytes."""


@runtime_checkable
class PacedEngine(Engine, Protocol):
    """Gives encoded bytes at once and for nothing."""

    formats: tuple[str, ...]

    def open(
        self, task_id: str, *, audio_format: str, sample_rate: int, bit_rate: int | None, rate: float, volume: float
    ) -> Track:
        """Begin a task. The first of its kind may encode its audio."""


def engine_names() -> list[str]:
    """Return the names of the installed engines."""
    return sorted({each.name for each in entry_points(group=GROUP)})


def load_engine(name: str, *, profile: str | None = None, seed: int = 0) -> Any:
    """Make the engine called `name`; it is not loaded yet.

    Raises:
        SettingsError: No such engine is installed, it lacks a package, or it does not know the profile.
    """
    found = {each.name: each for each in entry_points(group=GROUP)}
    if name not in found:
        raise SettingsError(f"engine {name!r} is unknown; installed are {', '.join(sorted(found)) or 'none'}.")
    try:
        factory = found[name].load()
    except ImportError as error:
        raise SettingsError(
            f"engine {name!r} needs the package {error.name!r}; install it with: pip install 'speechpool[service]'."
        ) from error
    return factory(profile=profile, seed=seed)
