"""Speech made once and replayed, with the delay and pace of a modelled service.

It is for loads beyond what a CPU can synthesise. What is heard is not what was sent, but lasts about as long. At load
time the default engine speaks a few sentences (a tone stands in where it is not installed), and they are encoded in
every format. A stream then costs a slice of bytes for each chunk, and one shared timer paces all of them.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from speechpool.audio import SAMPLE_RATES, wav_header
from speechpool.errors import SettingsError
from speechpool.protocol.events import Word
from speechpool.service.encoding import mp3_bit_rate, new_encoder
from speechpool.service.sentences import is_speakable
from speechpool.service.voices import VOICES, VoiceProfile
from speechpool.text import count_characters

from . import Sentence, Take
from .hibari import HibariEngine

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PROFILES", "ReplayEngine", "spoken_seconds"]

logger: Final = logging.getLogger(__name__)

_SOURCE_RATE: Final = 24000
_TEXTS: Final = (
    "The birch canoe slid on the smooth planks, and the crew cheered from the shore.",
    "Glue the sheet to the dark blue background before the paint is dry.",
    "It is easy to tell the depth of a well, if you have a stone and some patience.",
)
_TICK: Final = 0.1  # seconds between the chunks of a paced stream
_UNPACED_CHUNK: Final = 0.333  # seconds of audio in a chunk where nothing is paced


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
    formats = ("pcm", "wav", "mp3")

    def __init__(self, *, profile: str | None = None, seed: int = 0) -> None:
        self.profile: str | None = profile or "healthy"
        if self.profile not in PROFILES:
            raise SettingsError(f"engine 'replay' has no profile {profile!r}; choose one of {', '.join(PROFILES)}.")
        self._pace = PROFILES[self.profile]
        self._draw = random.Random(seed)
        self._speech: NDArray[np.int16] | None = None
        self._recordings: dict[tuple[str, int, int], _Recording] = {}

    def load(self) -> None:
        """Make the speech and encode it: about two seconds."""
        if self._speech is None:
            self._speech = _speech()
            for sample_rate in SAMPLE_RATES:
                self._recording("pcm", sample_rate, None)
                self._recording("mp3", sample_rate, None)

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
        recording = self._recording("mp3" if audio_format == "mp3" else "pcm", sample_rate, bit_rate)
        header = wav_header(sample_rate) if audio_format == "wav" else b""
        return ReplayTrack(recording, self._pace(self._draw), header=header, rate=rate)

    def _recording(self, audio_format: str, sample_rate: int, bit_rate: int | None) -> _Recording:
        kbits = mp3_bit_rate(sample_rate, bit_rate) if audio_format == "mp3" else 0
        key = (audio_format, sample_rate, kbits)
        if key not in self._recordings:
            assert self._speech is not None  # noqa: S101  # a backend loads before it opens
            encoder = new_encoder(audio_format, sample_rate, source_rate=_SOURCE_RATE, bit_rate=kbits or None)
            data = encoder.encode(self._speech) + encoder.flush()
            make = _mp3_recording if kbits else _pcm_recording
            self._recordings[key] = make(data, sample_rate, kbits)
        return self._recordings[key]


@dataclass(frozen=True, slots=True)
class _Recording:
    """Encoded speech that can be cut at `borders`, `unit` seconds apart, and goes round and round."""

    data: bytes
    borders: Sequence[int]
    unit: float

    def cut(self, begin: int, count: int) -> bytes:
        """Return `count` units from `begin` on."""
        length = len(self.borders) - 1
        begin %= length
        end = begin + count
        parts = []
        while end > length:
            parts.append(self.data[self.borders[begin] :])
            begin, end = 0, end - length
        parts.append(self.data[self.borders[begin] : self.borders[end]])
        return b"".join(parts)


def _pcm_recording(data: bytes, sample_rate: int, _: int) -> _Recording:
    return _Recording(data, range(0, len(data) + 1, 2), 1 / sample_rate)


def _mp3_recording(data: bytes, sample_rate: int, kbits: int) -> _Recording:
    """Find the frames: at a constant bit rate only a padding bit makes some of them a byte longer."""
    samples = 1152 if sample_rate >= 32000 else 576
    size = samples // 8 * kbits * 1000 // sample_rate
    borders = [0]
    while borders[-1] + 4 <= len(data):
        end = borders[-1] + size + (data[borders[-1] + 2] >> 1 & 1)
        if end > len(data):
            break
        borders.append(end)
    return _Recording(data, borders, samples / sample_rate)


class ReplayTrack:
    """One task: goes on in the recording from sentence to sentence."""

    def __init__(self, recording: _Recording, pace: Pace, *, header: bytes, rate: float) -> None:
        self._recording = recording
        self._pace = pace
        self._header = header
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

    def _chunks(self, total: int, size: int) -> Iterator[tuple[bytes, float]]:
        for begin in range(0, total, size):
            count = min(size, total - begin)
            header, self._header = self._header, b""
            yield header + self._recording.cut(self._position, count), count * self._recording.unit
            self._position += count


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
    time = np.arange(int(seconds * _SOURCE_RATE)) / _SOURCE_RATE
    loudness = 0.5 - 0.5 * np.cos(2 * np.pi * 2 * time)
    return np.rint(9000 * loudness * np.sin(2 * np.pi * 220 * time)).astype(np.int16)
