"""The C library of espeak-ng, one text at a time, with the same samples for the same text.

The library has one state for the whole process, and much of it lives on from call to call. So there is one
`Library`, behind a lock, and each call sets everything anew. Three things cannot be set and are switched off instead,
by a voice file of our own for each call: flutter (its place in a table), roughness (a count of all cycles so far; the
value 8 is out of its table, which 0 is not), and the gain control (never needed at half the volume). Then the same
text has the same samples, whatever was spoken before (tests/service/test_espeak.py::
test_the_same_sentence_has_the_same_samples_whatever_came_before). Somebody else in the process who speaks with the
same library on another thread would disturb that.

Signatures and constants are those of espeak-ng's `speak_lib.h`.
"""

from __future__ import annotations

import ctypes
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from speechpool.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SAMPLE_RATE", "Library", "Manner", "Spoken", "library"]

SAMPLE_RATE: Final = 22050
"""Of all its voices, in hertz."""

_SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_DEFAULTS: Final = {_VOLUME: 50, _PITCH: 50, _RANGE: 50}
_UTF8, _PHONEMES, _PAUSE = 0x0001, 0x0100, 0x1000
_CHARACTERS: Final = 1  # positions count characters
_WORD: Final = 1
_FORMANTS: Final = 9


@dataclass(frozen=True, slots=True)
class Manner:
    """How to speak.

    Attributes:
        language: One of `Library.languages`.
        low: The voice's lower pitch, in hertz.
        high: Its higher one.
        formant: Factor on the frequencies of the formants.
        words_per_minute: 80 to 450.
    """

    language: str
    low: int
    high: int
    formant: float
    words_per_minute: int


@dataclass(frozen=True, slots=True)
class Spoken:
    """What came of it.

    Attributes:
        samples: 16-bit, mono.
        marks: For each word the place of its first character, from 0, and of its first sample.
    """

    samples: NDArray[np.int16]
    marks: tuple[tuple[int, int], ...]


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Library:
    """The library and its data. Use `library()`: there can be one in a process.

    Attributes:
        languages: The names of its languages in lower case ("cmn", "pt-br"), and the files that describe them.
    """

    languages: Mapping[str, Path]

    def __init__(self, path: str, data: str) -> None:
        self._lock = threading.Lock()
        self._samples: list[bytes] = []
        self._marks: list[tuple[int, int]] = []
        self._hear = _Callback(self._on_samples)  # kept, or C would call what is gone
        self._espeak: Any = ctypes.CDLL(path)
        self._espeak.espeak_TextToPhonemes.restype = ctypes.c_char_p
        if self._espeak.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DO_NOT_EXIT) != SAMPLE_RATE:
            raise SettingsError(
                f"espeak-ng cannot read its data in {data!r}; install the package espeakng-loader again."
            )
        files = (each for each in Path(data, "lang").rglob("*") if each.is_file())
        self.languages = MappingProxyType({each.name.lower(): each for each in files})

    def speak(self, text: str, manner: Manner, *, pause: bool, phonemes: bool = False) -> Spoken:
        """Speak a text. Runs without the GIL for about two milliseconds per second of speech.

        Args:
            text: Without NUL and half surrogates.
            manner: How.
            pause: Whether the pause that its punctuation asks for follows.
            phonemes: Whether `[[...]]` in it holds phonemes.
        """
        flags = _UTF8 | (_PAUSE if pause else 0) | (_PHONEMES if phonemes else 0)
        data = text.encode() + b"\0"
        with self._lock:
            self._samples, self._marks = [], []
            self._prepare(manner)
            self._espeak.espeak_Synth(data, len(data), 0, _CHARACTERS, 0, flags, None, None)
            return Spoken(np.frombuffer(b"".join(self._samples), np.int16), tuple(self._marks))

    def phonemes(self, text: str, language: str) -> str:
        """Return the library's own names of the phonemes of a text."""
        buffer = ctypes.create_string_buffer(text.encode())
        rest = ctypes.c_void_p(ctypes.addressof(buffer))
        found: list[str] = []
        with self._lock:
            self._prepare(Manner(language, 82, 118, 1.0, 175))
            while rest.value:  # a clause at a time
                found.append(self._espeak.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, 0).decode())
        return " ".join(found)

    def _prepare(self, manner: Manner) -> None:
        self._espeak.espeak_SetSynthCallback(self._hear)
        # What stands last in a voice file counts.
        lines = [f"pitch {manner.low} {manner.high}", "flutter 0", "roughness 8"]
        lines += [f"formant {number} {round(100 * manner.formant)} 100 100" for number in range(_FORMANTS)]
        with tempfile.NamedTemporaryFile(prefix="speechpool-voice-") as file:
            file.write(self.languages[manner.language].read_bytes() + "\n".join(["", *lines, ""]).encode())
            file.flush()
            self._espeak.espeak_ng_SetVoiceByFile(file.name.encode())
        for name, value in {_RATE: manner.words_per_minute, **_DEFAULTS}.items():
            self._espeak.espeak_SetParameter(name, value, 0)
        self._espeak.espeak_ng_SetRandSeed(ctypes.c_long(0))

    def _on_samples(self, samples: Any, count: int, events: Any) -> int:
        index = 0
        while events[index].type:
            if events[index].type == _WORD:
                self._marks.append((events[index].text_position - 1, events[index].sample))
            index += 1
        if samples and count:
            self._samples.append(ctypes.string_at(samples, 2 * count))
        return 0


@cache
def library() -> Library:
    """Return the one library of this process; loading it takes some milliseconds.

    Raises:
        SettingsError: It is not installed, or cannot be used.
    """
    try:
        import espeakng_loader

        return Library(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())
    except ImportError as error:
        raise SettingsError(
            f"engine 'espeak' needs the package {error.name!r}; install it with: pip install 'speechpool[espeak]'."
        ) from error
    except (OSError, RuntimeError) as error:
        raise SettingsError(f"espeak-ng cannot be loaded on this machine: {error}.") from error
