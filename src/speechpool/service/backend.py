"""Who speaks: the interface that the service stands on, and the backend that speaks on this machine.

    session ──text, flush, finish, cancel──▶ Speech
    session ◀──sentence begin, audio, sentence end, finished | failed── Listener

Everything here runs on one event loop; engines work elsewhere (`players`, `scheduler`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Protocol

from speechpool.audio import FORMATS, check_sample_rate
from speechpool.errors import SettingsError
from speechpool.protocol.events import Word

from .admission import Admission
from .engines import Engine, PacedEngine, SynthesisEngine, load_engine
from .engines.routing import RoutingEngine
from .engines.scripts import foreign_script, unread_script
from .pacing import Pacer
from .passages import Passage
from .players import PacedPlayer, Player, ThreadedPlayer
from .scheduler import Scheduler
from .speaking import INVALID_PARAMETER, THROTTLED, LocalSpeech
from .voices import VoiceProfile

__all__ = [
    "Backend",
    "BackendRefusal",
    "Listener",
    "LocalBackend",
    "Speech",
    "SpeechParameters",
    "Word",
]


class BackendRefusal(Exception):
    """The backend does not take a task.

    Attributes:
        code: The provider's error code.
        message: The provider's words, or ours where it documents none.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechParameters:
    """What a task asks for, read from the wire by the session.

    Attributes:
        model: Any name; the local backend takes all.
        voice: A name of `Backend.voices`.
        format: one of `speechpool.audio.FORMATS`.
        sample_rate: Hertz, one of `speechpool.audio.sample_rates(format)`.
        bit_rate: kbit/s for mp3 and opus, 6 to 510; brought into what the format allows. None leaves it to the backend.
        volume: 0 (silent) to 100, linear; 50 is the voice as it is.
        rate: 0.5 to 2.
        pitch: 0.5 to 2.
        seed: 0 to 65,535.
        word_timestamps: The client wants word times. The local backend always gives them.
        language_hints: ISO 639-1 codes; the first one decides where the script alone does not.
        pronunciations: Pairs of a word and how it is read, in pinyin with tone numbers ("ci2").
        replacements: Pairs of a text and what is spoken in its place.
    """

    model: str = ""
    voice: str
    format: str
    sample_rate: int
    bit_rate: int | None = None
    volume: float = 50
    rate: float = 1.0
    pitch: float = 1.0
    seed: int = 0
    word_timestamps: bool = False
    language_hints: tuple[str, ...] = ()
    pronunciations: tuple[tuple[str, str], ...] = ()
    replacements: tuple[tuple[str, str], ...] = ()


class Listener(Protocol):
    """Whom a speech tells. Every call comes on the event loop, and none from inside `Backend.open`."""

    def on_sentence_begin(self, index: int, text: str) -> None:
        """Sentence `index`, from 0, begins."""

    def on_audio(self, data: bytes) -> None:
        """Take the next bytes of the stream. The very last may come after the last sentence's end."""

    def on_sentence_end(self, index: int, text: str, words: tuple[Word, ...], characters: int) -> None:
        """Sentence `index` ends; `characters` is the running total of the task, by the provider's counting."""

    def on_finished(self, characters: int) -> None:
        """Everything was spoken. The last call, unless the task fails."""

    def on_failed(self, code: str, message: str) -> None:
        """The task cannot go on. The last call."""


class Speech(Protocol):
    """One task that is being spoken. Every method is called on the event loop, and returns at once."""

    def text(self, text: str) -> None:
        """Take more text. Complete sentences are spoken at once; may call `on_failed` before it returns."""

    def passages(self, passages: Sequence[Passage]) -> None:
        """Take text that is complete, in manners of its own. All of it is spoken at once."""

    def flush(self) -> None:
        """Speak what is there, complete or not."""

    def finish(self) -> None:
        """Speak what is there, then end with `on_finished`."""

    def cancel(self) -> None:
        """End now; the listener is not called any more."""

    def pause(self) -> None:
        """The listener's socket is full: make no more audio. What is being made (two seconds at most) still comes."""

    def resume(self) -> None:
        """Go on after `pause`."""


class Backend(Protocol):
    """Who speaks.

    Attributes:
        name: Of the kind of backend.
        engine: Who makes the speech.
        profile: The engine's profile, where it has several.
    """

    @property
    def name(self) -> str:
        """The kind of backend."""

    @property
    def engine(self) -> str:
        """Who makes the speech."""

    @property
    def profile(self) -> str | None:
        """The engine's profile, where it has several."""

    def open(self, task_id: str, parameters: SpeechParameters, listener: Listener, *, client: str = "") -> Speech:
        """Begin a task.

        Args:
            task_id: The id on the wire.
            parameters: What is asked for.
            listener: Who is told.
            client: Who asks. Clients share the backend fairly, however many tasks one of them has.

        Raises:
            BackendRefusal: It is not taken; the code says why.
        """

    def voices(self) -> Sequence[VoiceProfile]:
        """Return the voices, by name."""

    async def start(self) -> None:
        """Get ready; may take seconds.

        Cancellation: call `close`.
        """

    async def close(self) -> None:
        """Stop. Speeches that run are dropped, without a word to their listeners.

        Cancellation: the work stops all the same.
        """


_RANGES: Final = {"volume": (0, 100), "rate": (0.5, 2.0), "pitch": (0.5, 2.0), "seed": (0, 65535), "bit_rate": (6, 510)}
_UNKNOWN_VOICE: Final = "[tts:]Engine return error code: 418"


class LocalBackend:
    """Speaks on this machine.

    Args:
        engine: The name of an installed engine, or an engine.
        profile: One of the engine's profiles; None is its default.
        seed: Of what an engine draws by lot.
        workers: Threads that synthesise; None: one a core.
        max_queue: Tasks that may wait for their first audio; the next ones are refused with a throttling error.
        max_first_audio: Seconds. A task whose first audio would probably take longer, or whose listener or another one
            would run out of audio later, is refused with a throttling error at once. None: every task is taken, however
            late it will be. A task that is alone is always taken. Paced engines are never late.

    Raises:
        SettingsError: The engine or the profile is unknown, or a package is missing.
    """

    name = "local"

    def __init__(
        self,
        engine: str | Engine = "hibari",
        *,
        profile: str | None = None,
        seed: int = 0,
        workers: int | None = None,
        max_queue: int = 200,
        max_first_audio: float | None = 1.0,
    ) -> None:
        if max_queue < 1 or (workers is not None and workers < 1):
            raise SettingsError(f"max_queue = {max_queue} and workers = {workers} must be at least 1.")
        if max_first_audio is not None and not 0 < max_first_audio < math.inf:
            raise SettingsError(
                f"max_first_audio = {max_first_audio:g} must be above 0 (seconds); None: tasks may be late."
            )
        self._engine: Any = load_engine(engine, profile=profile, seed=seed) if isinstance(engine, str) else engine
        self._scheduler: Scheduler | None = None
        self._pacer: Pacer | None = None
        if isinstance(self._engine, SynthesisEngine):
            self._scheduler = Scheduler(workers=workers, max_queue=max_queue)
            self._admission = Admission(self._scheduler.workers, max_first_audio=max_first_audio)
        self._speeches: set[LocalSpeech] = set()
        self._started = False

    @property
    def engine(self) -> str:
        """The engine's name."""
        name: str = self._engine.name
        return name

    @property
    def profile(self) -> str | None:
        """The engine's profile, where it has several."""
        profile: str | None = self._engine.profile
        return profile

    @property
    def speaking(self) -> int:
        """Tasks that are open now."""
        return len(self._speeches)

    def voices(self) -> list[VoiceProfile]:
        """Return the voices, by name."""
        return sorted(self._engine.voices().values(), key=lambda voice: voice.name)

    async def start(self) -> None:
        """Load the engine off the event loop, and start the workers.

        Cancellation: call `close`.
        """
        await asyncio.to_thread(self._engine.load)
        if self._scheduler is not None:
            self._scheduler.start()
        else:
            self._pacer = Pacer()
        self._started = True

    async def close(self) -> None:
        """Drop the speeches that run, and stop the workers.

        Cancellation: the workers stop all the same.
        """
        self._started = False
        for speech in list(self._speeches):
            speech.cancel()
        if self._pacer is not None:
            self._pacer.close()
        if self._scheduler is not None:
            await self._scheduler.close()

    def open(self, task_id: str, parameters: SpeechParameters, listener: Listener, *, client: str = "") -> LocalSpeech:
        """Begin a task.

        Raises:
            BackendRefusal: A parameter is out of range, the voice is unknown, or it cannot be served in time.
        """
        if not self._started:
            raise BackendRefusal("ServiceUnavailable", "The service is not ready.")
        voice = self._check(parameters)
        player = self._player(task_id, parameters, voice, client)

        def over(speech: LocalSpeech) -> None:
            self._speeches.discard(speech)
            player.close()

        speech = LocalSpeech(player, listener, parameters=parameters, refusal=self._refusal, on_over=over)
        self._speeches.add(speech)
        return speech

    def _player(self, task_id: str, parameters: SpeechParameters, voice: VoiceProfile, client: str) -> Player:
        scheduler = self._scheduler
        if scheduler is not None:
            claim = None if scheduler.full else self._admission.open(client, scheduler.now, pace=parameters.rate)
            if claim is None:
                raise BackendRefusal(*THROTTLED)
            return ThreadedPlayer(scheduler, self._admission, claim, self._engine, voice, parameters)
        assert self._pacer is not None  # noqa: S101  # made by start
        return PacedPlayer(self._pacer, self._engine, task_id, parameters)

    def _check(self, parameters: SpeechParameters) -> VoiceProfile:
        """Return the voice that is asked for, if everything else is in order, too."""
        for name, (low, high) in _RANGES.items():
            value = getattr(parameters, name)
            if value is not None and not low <= value <= high:
                raise _invalid(f"{name} {value:g} is out of range; it goes from {low:g} to {high:g}.")
        formats = self._engine.formats if isinstance(self._engine, PacedEngine) else FORMATS
        if parameters.format not in formats:
            raise _invalid(
                f"format {parameters.format!r} is not offered by engine {self.engine!r}; ask for "
                f"{' or '.join(formats)}."
            )
        try:
            check_sample_rate(parameters.sample_rate, parameters.format)
        except SettingsError as error:
            raise _invalid(str(error)) from None
        voice: VoiceProfile | None = self._engine.voices().get(parameters.voice)
        if voice is None:
            raise _invalid(_UNKNOWN_VOICE)
        return voice

    def _refusal(self, text: str) -> str | None:
        if self._engine.speaks(text):
            return None
        nobodys = unread_script(text)
        script = nobodys or foreign_script(text)
        what = f"{script} text" if script else "this text"
        remedy = "" if nobodys else self._remedy()
        return f"No loaded engine speaks {what}; engine {self.engine!r} would have to leave it out.{remedy}"

    def _remedy(self) -> str:
        """Say how to get an engine that speaks more, if there is one."""
        start = "" if isinstance(self._engine, RoutingEngine) else " Start the service with --engine auto."
        if find_spec("espeakng_loader") is None:
            return f" Run: pip install 'speechpool[espeak]'.{start}"
        return start


def _invalid(message: str) -> BackendRefusal:
    return BackendRefusal(INVALID_PARAMETER, message)
