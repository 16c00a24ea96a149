"""Another height and another throat for a voice, between the model and the vocoder.

The model's harmonic spectrum is right at the harmonics of its own pitch only; what lies between them was never heard in
its training, and is up to 20 dB too loud. So for a voice of another height the envelope is read where the model's
harmonics are, and laid under the new ones. A factor on the formants moves where it is read. Noise has no harmonics:
its spectra are only moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Rows = NDArray[np.intp]

__all__ = ["BIN", "VOICED", "Timbre"]

BIN: Final = 20.0
"""Hertz between two rows of a spectrum."""
VOICED: Final = 40.0
"""Hertz below which the vocoder takes a frame for one without voice."""

_ANY_PITCH: Final = 200.0  # of a sentence without a single voiced frame
_SILENT: Final = np.float32(-60.0)


class Timbre:
    """The voice of one sentence.

    Args:
        f0: The model's fundamental frequency of every frame, in hertz.
        pitch: Factor on it.
        formant: Factor on the frequency of the formants; below 1 the throat is longer. With 0.86 the band ends at
            10.3 kHz instead of 12.

    Attributes:
        f0: The fundamental frequency to speak with.
    """

    def __init__(self, f0: Floats, *, pitch: float, formant: float) -> None:
        self._pitch = pitch
        self._formant = formant
        self._own = _without_gaps(f0)
        raised = f0 * np.float32(pitch)
        # A voice stays one, and none becomes one: a low voice would begin to whisper, a high one to buzz.
        voiced = np.where(f0 > VOICED, np.maximum(raised, VOICED + 1), np.minimum(raised, VOICED))
        self.f0: Floats = voiced.astype(np.float32)

    def shape(self, begin: int, spectra: Sequence[Floats]) -> Sequence[Floats]:
        """Return the five spectra of the frames from `begin` on as this voice has them."""
        if self._pitch == self._formant == 1.0:
            return spectra
        harmonic, theta, noise, rest, phase = spectra
        f0 = self._own[begin : begin + harmonic.shape[1]]
        return [*self._harmonics(f0, harmonic, theta), *self._moved((noise, rest), phase)]

    def _harmonics(self, f0: Floats, size: Floats, angle: Floats) -> tuple[Floats, Floats]:
        raised = f0 * np.float32(self._pitch)
        # The nearest new harmonic of each row: all rows around one take what is there.
        nearest = np.rint(np.arange(len(size), dtype=np.float32)[:, None] * (np.float32(BIN) / raised))
        nearest = np.maximum(nearest, 1).astype(np.intp)
        # Where each of them lies among the model's own.
        number = np.arange(nearest.max() + 1, dtype=np.float32) * np.float32(self._pitch / self._formant)
        below = np.floor(np.maximum(number, 1))[:, None]
        low, high = _at(size, below * f0), _at(size, (below + 1) * f0)
        moved = low + (high - low) * np.maximum(number[:, None] - below, 0)
        # Half as many harmonics have half the power.
        moved += np.float32(np.log(self._pitch) / 2)
        moved[number[:, None] * f0 > BIN * (len(size) - 1)] = _SILENT
        turned = _at(angle, np.maximum(np.rint(number), 1)[:, None] * f0)
        places = _places(nearest)
        return moved.take(places), turned.take(places)

    def _moved(self, sizes: Sequence[Floats], angle: Floats) -> list[Floats]:
        rows = np.rint(np.arange(len(angle)) / self._formant).astype(np.intp)
        last = len(angle) - 1
        inside = np.minimum(rows, last)
        moved = [each[inside] for each in sizes]
        for each in moved:
            each[rows > last] = _SILENT
        return [*moved, angle[inside]]


def _at(spectrum: Floats, hertz: Floats) -> Floats:
    rows = np.rint(hertz / np.float32(BIN)).astype(np.intp)
    taken: Floats = spectrum.take(_places(np.minimum(rows, len(spectrum) - 1)))
    return taken


def _places(rows: Rows) -> Rows:
    """Return where other rows are, of each column its own, in a spectrum laid out flat."""
    columns = rows.shape[1]
    places: Rows = rows * columns + np.arange(columns)
    return places


def _without_gaps(f0: Floats) -> Floats:
    """Draw the pitch through the frames that have none: a voice is heard a little into them."""
    (voiced,) = np.nonzero(f0 > VOICED)
    if not len(voiced):
        return np.full_like(f0, _ANY_PITCH)
    return np.interp(np.arange(len(f0)), voiced, f0[voiced]).astype(np.float32)
