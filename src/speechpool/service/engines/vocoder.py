"""From hibari's spectra to samples, one window of frames after the other.

`hibari.dsp.synth` wants a whole sentence; this gives the same sound in pieces, whatever their size (tests/service/
test_hibari.py::test_windows_sound_like_the_whole). A frame is 300 samples (12.5 ms), its spectrum covers 1200
samples, so four frames overlap and the last two of a window wait for their neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from hibari import dsp

from .timbre import Timbre

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["HOP", "Vocoder"]

HOP: Final = dsp.HOP
_OVERLAP: Final = dsp.N_FFT // HOP
_HALF: Final = dsp.N_FFT // 2
_WEIGHTS: Final = (dsp.WIN * dsp.WIN).reshape(_OVERLAP, HOP)


class Vocoder:
    """The sound of one sentence.

    Args:
        f0: Fundamental frequency of every frame of the sentence, in hertz.
        seed: Of its noise.
        pitch: Factor on the frequency.
        formant: Factor on the frequencies of the formants.
    """

    def __init__(self, f0: Floats, *, seed: int, pitch: float = 1.0, formant: float = 1.0) -> None:
        self._timbre = Timbre(f0, pitch=pitch, formant=formant)
        self._f0 = self._timbre.f0
        self._frames = len(f0)
        self._done = 0
        self._random = np.random.default_rng(seed)
        self._pulses: Floats = np.zeros(0, np.float32)
        self._carry = np.zeros((_OVERLAP - 1, HOP), np.float32)

    def add(self, spectra: Sequence[Floats]) -> Floats:
        """Take the five spectra of the next frames, and return the samples that are final with them."""
        begin, end = self._done, self._done + spectra[0].shape[1]
        self._done = end
        spectra = self._timbre.shape(begin, spectra)
        frames = dsp.irfft(self._spectrum(begin, end, spectra).T, dsp.N_FFT, 1)
        frames *= dsp.WIN
        return self._overlap(begin, end, frames.reshape(end - begin, _OVERLAP, HOP))

    def _spectrum(self, begin: int, end: int, spectra: Sequence[Floats]) -> Any:
        harmonic, theta, noise, rest, phase = spectra
        spectrum = np.ascontiguousarray(dsp.rfft(self._source(begin, end), 1).T)
        spectrum *= _polar(dsp.ex(harmonic), np.tanh(theta) * np.float32(np.pi))
        hiss = self._random.standard_normal((harmonic.shape[0], 2 * harmonic.shape[1]), dtype=np.float32)
        spectrum += hiss.view(np.complex64) * dsp.ex(noise)
        spectrum += _polar(dsp.ex(rest), phase)
        return spectrum

    def _source(self, begin: int, end: int) -> Floats:
        """Return the pulse train under each frame, mirrored at the ends of the sentence."""
        first, last, total = begin * HOP - _HALF, (end - 1) * HOP + _HALF, self._frames * HOP
        pulses = self._train(min(last, total))
        inner = pulses[max(first, 0) : min(last, total)]
        before = pulses[1 : 1 - first][::-1] if first < 0 else inner[:0]
        after = pulses[total - 1 - (last - total) : total - 1][::-1] if last > total else inner[:0]
        padded = np.concatenate((before, inner, after))
        views = np.lib.stride_tricks.sliding_window_view(padded, dsp.N_FFT)[::HOP]
        windowed: Floats = views * dsp.WIN_SRC
        return windowed

    def _train(self, samples: int) -> Floats:
        # A pulse depends on all frequencies before it and on the next: a prefix is right but for its last frame.
        # Each new prefix is at least twice as long: the first window stays cheap, and the whole costs twice at most.
        if len(self._pulses) < samples:
            frames = min(self._frames, 2 * (samples // HOP + 2))
            self._pulses = dsp.pulses(self._f0[:frames])
            if frames < self._frames:
                self._pulses = self._pulses[:-HOP]
        return self._pulses

    def _overlap(self, begin: int, end: int, frames: Floats) -> Floats:
        count = end - begin
        rows = np.zeros((count + _OVERLAP - 1, HOP), np.float32)
        rows[: _OVERLAP - 1] = self._carry
        for part in range(_OVERLAP):
            rows[part : part + count] += frames[:, part]
        final = count + (2 if end == self._frames else 0)
        self._carry = rows[count : count + _OVERLAP - 1].copy()
        skip = min(final, max(0, 2 - begin))  # the first two rows lie before the sentence
        samples: Floats = np.divide(rows[skip:final], self._weight(begin + skip, begin + final), dtype=np.float32)
        return samples.ravel()

    def _weight(self, begin: int, end: int) -> Floats:
        weight = np.zeros((end - begin, HOP), np.float32)
        row = np.arange(begin, end)
        for part in range(_OVERLAP):
            weight[(row >= part) & (row - part < self._frames)] += _WEIGHTS[part]
        floored: Floats = np.maximum(weight, np.float32(1e-11))
        return floored


def _polar(size: Floats, angle: Floats) -> Any:
    turned = np.empty(size.shape, np.complex64)
    np.cos(angle, out=turned.real)
    np.sin(angle, out=turned.imag)
    turned *= size
    return turned
