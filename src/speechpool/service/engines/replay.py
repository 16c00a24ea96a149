"""Speech made once and replayed, with the delay and pace of a modelled service.

It is for loads beyond what a CPU can synthesise. What is heard is not what was sent, but lasts about as long. At load
time the default engine speaks a few sentences (a tone stands in where it is not installed), and they are encoded in
every format. A stream then costs a slice of bytes for each chunk (and for opus a page around it, since that tells its
position in the stream), and one shared timer paces all of them.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from speechpool.audio import FORMATS, sample_rates, wav_header
from speechpool.errors import SettingsError
from speechpool.protocol.events import Word
from speechpool.service.ogg import PACKET, OpusPages
from speechpool.service.sentences import is_speakable
from speechpool.service.voices import VOICES, VoiceProfile
from speechpool.text import count_characters

from . import Sentence, Take
from .hibari import HibariEngine
from .recordings import SOURCE_RATE, Recording, kilobits, record

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PROFILES", "ReplayEngine", "spoken_seconds"]

logger: Final = logging.getLogger(__name__)

_TEXTS: Final = (
    "The birch canoe slid on the smooth planks, and the crew cheered from the shore.",
    "Glue the sheet to the dark blue background before the paint is dry.",
    "It is easy to tell the depth of a well, if you have a stone and some patience.",
)
_TICK: Final = 0.1  # seconds between the chunks of a paced stream
_UNPACED_CHUNK: Final = 0.333  # seconds of audio in a chunk where nothing is paced
_PAGE: Final = 10  # packets of an opus page at most, 200 ms


@dataclass(frozen=True, slots=True)
class Pace:
    """How one task behaves: seconds to the first audio, and seconds for making one second of audio."""

    delay: float
    factor: float


def _healthy(draw: random.Random) -> Pace:
    # Median 180 ms; 350 ms is the 99th percentile, 2.326 standard deviations away.
    return Pace(draw.lognormvariate(math.log(0.18), math.log(350 / 180) / 2.326), 0.3)


def _documented(draw: random.Random) -> Pace:
    # The provider's documents: 200 to 800 ms, about 500 typical; real-time factor 0.1 to 0.5.
    return Pace(draw.triangular(0.2, 0.8, 0.5), draw.uniform(0.1, 0.5))


def _unpaced(_: random.Random) -> Pace:
    return Pace(0.0, 0.0)


PROFILES: Final[Mapping[str, Callable[[random.Random], Pace]]] = {
    "healthy": _healthy,
    "documented": _documented,
    "unpaced": _unpaced,
}
"""What a task's delay and pace are drawn from."""


def spoken_seconds(text: str, rate: float = 1.0) -> float:
    """Return about how long the default engine speaks `text`: 60 ms a character, and the silence around it."""
    return (0.3 + 0.06 * count_characters(text)) / rate


class ReplayEngine:
    """Replays speech.

    Args:
        profile: `healthy` (default), `documented` or `unpaced`.
        seed: Of the delays and paces; they are drawn in the order of the tasks.

    Raises:
        SettingsError: The profile is unknown.
    """

    name = "replay"
    formats = FORMATS

    def __init__(self, *, profile: str | None = None, seed: int = 0) -> None:
        self.profile: str | None = profile or "healthy"
        if self.profile not in PROFILES:
            raise SettingsError(f"engine 'replay' has no profile {profile!r}; choose one of {', '.join(PROFILES)}.")
        self._pace = PROFILES[self.profile]
        self._draw = random.Random(seed)
        self._speech: NDArray[np.int16] | None = None
        self._recordings: dict[tuple[str, int, int], Recording] = {}

    def load(self) -> None:
        """Make the speech and encode it: about two seconds."""
        if self._speech is None:
            self._speech = _speech()
            for audio_format in ("pcm", "mp3", "opus"):
                for sample_rate in sample_rates(audio_format):
                    self._recording(audio_format, sample_rate, None)

    def voices(self) -> Mapping[str, VoiceProfile]:
        """Return all voices; they sound alike here."""
        return VOICES

    def speaks(self, text: str) -> bool:
        """Whether there is something to say, in any script."""
        return is_speakable(text)

    def open(
        self, task_id: str, *, audio_format: str, sample_rate: int, bit_rate: int | None, rate: float, volume: float
    ) -> ReplayTrack:
        """Begin a task with a delay and a pace of its own."""
        recording = self._recording("pcm" if audio_format == "wav" else audio_format, sample_rate, bit_rate)
        return ReplayTrack(
            recording,
            self._pace(self._draw),
            header=wav_header(sample_rate) if audio_format == "wav" else b"",
            pages=OpusPages(sample_rate=sample_rate, pre_skip=recording.pre_skip) if audio_format == "opus" else None,
            rate=rate,
        )

    def _recording(self, audio_format: str, sample_rate: int, bit_rate: int | None) -> Recording:
        key = (audio_format, sample_rate, kilobits(audio_format, sample_rate, bit_rate))
        if key not in self._recordings:
            assert self._speech is not None  # noqa: S101  # a backend loads before it opens
            self._recordings[key] = record(self._speech, *key)
        return self._recordings[key]


class ReplayTrack:
    """One task: goes on in the recording from sentence to sentence."""

    def __init__(
        self, recording: Recording, pace: Pace, *, header: bytes, pages: OpusPages | None, rate: float
    ) -> None:
        self._recording = recording
        self._pace = pace
        self._header = header
        self._pages = pages
        self._rate = rate
        self._position = 0

    def take(self, text: str, *, awaited: bool) -> Take:
        """Return as much of the recording as `text` would last."""
        unit = self._recording.unit
        total = max(1, round(spoken_seconds(text, self._rate) / unit))
        size = max(1, round((_TICK / self._pace.factor if self._pace.factor else _UNPACED_CHUNK) / unit))
        return Take(
            delay=self._pace.delay,
            interval=size * unit * self._pace.factor,
            chunks=self._chunks(total, size),
            words=_words(text, total * unit),
        )

    def flush(self) -> bytes:
        """End an opus stream: its sound lags behind its packets, so the end takes one more of them."""
        if self._pages is None or not self._position:
            return b""
        return self._pages.last_page(self._recording.packets(self._position, 1), self._position * PACKET)

    def _chunks(self, total: int, size: int) -> Iterator[tuple[bytes, float]]:
        for begin in range(0, total, size):
            count = min(size, total - begin)
            header, self._header = self._header, b""
            yield header + self._sound(count), count * self._recording.unit
            self._position += count

    def _sound(self, count: int) -> bytes:
        if self._pages is None:
            return self._recording.cut(self._position, count)
        packets = self._recording.packets(self._position, count)
        return b"".join(self._pages.page(packets[at : at + _PAGE]) for at in range(0, count, _PAGE))


def _words(text: str, seconds: float) -> tuple[Word, ...]:
    """Share the time out by the number of letters."""
    words, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        end = at + len(word)
        words.append(Word(word, at, end, _milliseconds(at, text, seconds), _milliseconds(end, text, seconds)))
        at = end
    return tuple(words)


def _milliseconds(at: int, text: str, seconds: float) -> int:
    return round(1000 * seconds * at / len(text))


def _speech() -> NDArray[np.int16]:
    engine = HibariEngine()
    try:
        engine.load()
    except SettingsError as error:
        logger.warning("A tone is replayed instead of speech: %s", error)
        return _tone(8.0)
    voice = VOICES["heart"]
    chunks = [chunk.samples for text in _TEXTS for chunk in engine.synthesize(Sentence(text=text, voice=voice))]
    return np.concatenate(chunks)


def _tone(seconds: float) -> NDArray[np.int16]:
    time = np.arange(int(seconds * SOURCE_RATE)) / SOURCE_RATE
    loudness = 0.5 - 0.5 * np.cos(2 * np.pi * 2 * time)
    return np.rint(9000 * loudness * np.sin(2 * np.pi * 220 * time)).astype(np.int16)
