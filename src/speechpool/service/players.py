"""Who turns the sentences of one task into audio: on worker threads, or at the pace of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from speechpool.text import count_characters

from .admission import Admission, Claim
from .encoding import Encoder, new_encoder
from .engines import PacedEngine, Sentence, SynthesisEngine, Take, Track
from .pacing import Pacer
from .passages import Passage
from .scheduler import Job, QueueFull, Scheduler, Step
from .voices import VoiceProfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .backend import SpeechParameters

__all__ = ["PacedPlayer", "Performance", "Player", "ThreadedPlayer", "sentence_seed"]

Hear = Callable[[Step], None]
End = Callable[[Exception | None], None]


class Performance(Protocol):
    """One sentence that is being spoken. Every method is called on the event loop."""

    def cancel(self) -> None:
        """Say nothing more, not even that it ended."""

    def pause(self) -> None:
        """Make no more audio; what is being made now may still come."""

    def resume(self) -> None:
        """Go on after `pause`."""


class Player(Protocol):
    """Speaks the sentences of one task, one at a time."""

    def expect(self, characters: int, *, last: bool = False) -> None:
        """Note text that came and will be played, as the provider counts it; `last`: no more will come."""

    def play(self, passage: Passage, *, first: bool, hear: Hear, end: End) -> Performance:
        """Begin a passage of at most one sentence. Nothing is called before this returns.

        Raises:
            QueueFull: It is a first one, and cannot be served in time.
        """

    def flush(self) -> bytes:
        """End the stream, and return its last bytes."""

    def close(self) -> None:
        """Nothing will be played any more."""


def sentence_seed(text: str, parameters: SpeechParameters) -> int:
    """Return the seed of a sentence: the same for the same text, voice and parameters, on every machine."""
    key = (text, parameters.voice, float(parameters.rate), float(parameters.pitch), parameters.seed)
    digest = hashlib.blake2b(repr(key).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class ThreadedPlayer:
    """Synthesises and encodes on the workers of a scheduler.

    Args:
        scheduler: Whose workers.
        admission: Who may use them.
        claim: The task's place there.
        engine: Makes the samples.
        voice: Of the task.
        parameters: What the task asks for.
    """

    def __init__(  # noqa: PLR0917  # called once, by the backend
        self,
        scheduler: Scheduler,
        admission: Admission,
        claim: Claim,
        engine: SynthesisEngine,
        voice: VoiceProfile,
        parameters: SpeechParameters,
    ) -> None:
        self._scheduler = scheduler
        self._admission = admission
        self._claim = claim
        self._engine = engine
        self._voice = voice
        self._parameters = parameters
        # Made by the first step. Steps of a task follow each other, so no two threads ever hold it at once.
        self._encoder: Encoder | None = None

    def expect(self, characters: int, *, last: bool = False) -> None:
        """Claim the time that the text will take."""
        self._claim.expect(characters, last=last)

    def play(self, passage: Passage, *, first: bool, hear: Hear, end: End) -> Performance:
        """Queue the sentence at the moment when its listener runs out of audio."""
        admission, claim, characters = self._admission, self._claim, count_characters(passage.text)
        made = 0.0

        def heard(step: Step) -> None:
            nonlocal made
            made += step.seconds
            claim.deadline = job.deadline
            admission.step(claim, step.seconds, step.cost)
            hear(step)

        def ended(error: Exception | None) -> None:
            admission.sentence_over(claim, characters, made)
            end(error)

        if first and not admission.begin(claim, self._scheduler.now):
            raise QueueFull
        silent = admission.sentence(claim, characters, self._scheduler.now)
        job = Job(
            self._steps(passage), deadline=claim.deadline, first=first, silent=silent, on_step=heard, on_end=ended
        )
        self._scheduler.submit(job)
        return _Scheduled(self._scheduler, job, claim)

    def close(self) -> None:
        """Give the claim back."""
        self._admission.close(self._claim)

    def flush(self) -> bytes:
        """Return the encoder's last bytes; too little work for a thread."""
        return b"" if self._encoder is None else self._encoder.flush()

    def _steps(self, passage: Passage) -> Iterator[Step]:
        wanted, engine = self._parameters, self._engine
        if self._encoder is None:
            self._encoder = new_encoder(
                wanted.format, wanted.sample_rate, source_rate=engine.sample_rate, bit_rate=wanted.bit_rate
            )
        if passage.text:
            for chunk in engine.synthesize(self._sentence(passage)):
                yield Step(self._encoder.encode(chunk.samples), len(chunk.samples) / engine.sample_rate, chunk.words)
        for samples in _silence(passage.pause, engine.sample_rate):
            yield Step(self._encoder.encode(samples), len(samples) / engine.sample_rate)

    def _sentence(self, passage: Passage) -> Sentence:
        wanted = self._parameters
        return Sentence(
            text=passage.text,
            voice=self._voice,
            rate=_within(wanted.rate * passage.rate, 0.5, 2.0),
            pitch=_within(wanted.pitch * passage.pitch, 0.5, 2.0),
            volume=_within(wanted.volume * passage.volume, 0.0, 100.0),
            seed=sentence_seed(passage.text, wanted),
            language=passage.language or (wanted.language_hints[0] if wanted.language_hints else None),
            pronunciations=(*passage.pronunciations, *wanted.pronunciations),
        )


def _within(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


def _silence(seconds: float, sample_rate: int) -> Iterator[NDArray[np.int16]]:
    left = round(seconds * sample_rate)
    while left > 0:
        length = min(left, sample_rate)
        yield np.zeros(length, np.int16)
        left -= length


@dataclass(slots=True)
class _Scheduled:
    scheduler: Scheduler
    job: Job
    claim: Claim

    def cancel(self) -> None:
        self.scheduler.drop(self.job)

    def pause(self) -> None:
        self.claim.paused = True
        self.scheduler.pause(self.job)

    def resume(self) -> None:
        self.claim.paused = False
        self.scheduler.resume(self.job)


class PacedPlayer:
    """Delivers what a paced engine gives, when it is due."""

    def __init__(self, pacer: Pacer, engine: PacedEngine, task_id: str, parameters: SpeechParameters) -> None:
        self._pacer = pacer
        self._track: Track = engine.open(
            task_id,
            audio_format=parameters.format,
            sample_rate=parameters.sample_rate,
            bit_rate=parameters.bit_rate,
            rate=parameters.rate,
            volume=parameters.volume,
        )
        self._next_due = 0.0

    def expect(self, characters: int, *, last: bool = False) -> None:
        """Do nothing: it costs no time."""

    def play(self, passage: Passage, *, first: bool, hear: Hear, end: End) -> Performance:
        """Begin after the engine's delay, or where the sentence before left off."""
        awaited = first or self._next_due < self._pacer.now
        take = self._track.take(passage.text, awaited=awaited) if passage.text else Take(0.0, 0.0, ())
        due = self._pacer.now + take.delay if awaited else self._next_due

        def ended(due: float) -> None:
            self._next_due = due
            end(None)

        return _Paced(self._pacer, take, due, hear, ended)

    def flush(self) -> bytes:
        """Return the last bytes of a format that needs an end."""
        return self._track.flush()

    def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Paced:
    """Takes its chunks out of the hands of the pacer, one at a time."""

    pacer: Pacer
    take: Take
    due: float
    hear: Hear
    end: Callable[[float], None]
    _chunks: Iterator[tuple[bytes, float]] = field(init=False)
    _cancelled: bool = field(default=False, init=False)
    _paused: bool = field(default=False, init=False)
    _parked: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._chunks = iter(self.take.chunks)
        self.pacer.at(self.due, self._chunk)

    def cancel(self) -> None:
        self._cancelled = True

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._parked:
            self._parked = False
            self.due = self.pacer.now
            self.pacer.at(self.due, self._chunk)

    def _chunk(self) -> None:
        if self._cancelled:
            return
        if self._paused:
            self._parked = True
            return
        chunk = next(self._chunks, None)
        if chunk is None:
            # Words come with the end: the last chunk is not known to be the last one before.
            self.hear(Step(b"", 0.0, self.take.words))
            self.end(self.due)
            return
        self.due += self.take.interval
        # Set before the listener is called, which may pause or cancel.
        self.pacer.at(self.due, self._chunk)
        self.hear(Step(*chunk))
