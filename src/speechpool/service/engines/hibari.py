"""The real voice: `hibari-tts`, English, bundled with its package, thirty times faster than real time on one core.

The model as it is shipped speaks a sentence at once, and its listener would wait for the end of a long one. Its graph
has two halves: the first reads the phonemes and decides durations, pitch and frame features (a quarter of the time),
the second turns frame features into spectra and sees no further than 27 frames. So the graph is cut between them
(`graph.cut`), the second half runs in windows with some frames of context, and `Vocoder` joins their sound. The first
window is small. Window sizes depend on the position in the sentence only, so the same sentence has the same samples
under any load.

Everything here that knows hibari's inside is checked by tests/service/test_hibari.py, and its version is pinned.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from speechpool.errors import SettingsError
from speechpool.protocol.events import Word
from speechpool.service.sentences import is_speakable
from speechpool.service.voices import VOICES, VoiceProfile

from . import Chunk, Sentence
from .graph import FLOAT, INT64, Tensor, cut
from .postprocess import to_int16
from .scripts import foreign_script

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .phonemes import Run
    from .vocoder import Vocoder

    Floats = NDArray[np.float32]

__all__ = ["HIBARI_VERSION", "HibariEngine"]

HIBARI_VERSION: Final = "0.2.1"
"""The version whose inside this module knows."""

FEATURES: Final = "/Concat_43_output_0"
DURATIONS: Final = "/Cast_32_output_0"
LENGTHS: Final = "/Sub_output_0"
"""The durations before they are divided by the speed and rounded to whole ones, at least one."""
SPECTRA: Final = ("lh", "theta", "ln", "lr", "phi")

# What is read in place of one sentence may be a hundred times as long. It is read a piece at a time, so that nobody
# waits for all of it; and finding its words again takes time with the cube of their number.
_PIECE: Final = re.compile(r".{1,500}(?:\s|\Z)|.{1,500}", re.DOTALL)
_CHANNELS: Final = 130
_DURATION_MS: Final = 25.0  # unit of the durations
_WINDOWS: Final = (24, 48, 96)  # frames of the first windows of a sentence: 0.3, 0.6 and 1.2 s
_WINDOW: Final = 144  # frames of all others: 1.8 s
_CONTEXT: Final = 16  # frames on either side; the seams are below the noise of the 8-bit weights from 10 on
_GAIN: Final = 2.0  # the model peaks at 0.34


class HibariEngine:
    """Speaks English with the bundled voice and those derived from it.

    Args:
        profile: None; there is only one.
        seed: Not used; a sentence brings its own.

    Raises:
        SettingsError: A profile is asked for.
    """

    name = "hibari"
    profile = None
    sample_rate = 24000

    def __init__(self, *, profile: str | None = None, seed: int = 0) -> None:
        if profile is not None:
            raise SettingsError(f"engine 'hibari' has no profile {profile!r}; leave it out.")
        self._front: Any = None
        self._decoder: Any = None
        self._phonemizer: Any = None

    def load(self) -> None:
        """Read the model and the lexicons: about a second, 150 MB.

        Raises:
            SettingsError: A package is not installed.
        """
        if self._phonemizer is not None:
            return
        try:
            from hibari.tts import ASSETS

            from .phonemes import Phonemizer
        except ImportError as error:
            raise SettingsError(
                f"engine 'hibari' needs the package {error.name!r}; install it with: pip install 'speechpool[service]'."
            ) from error
        model = (Path(ASSETS) / "hibari.onnx").read_bytes()
        ids, speed = Tensor("ids", INT64, (1, "L")), Tensor("speed", FLOAT, (1,))
        features = Tensor(FEATURES, FLOAT, (1, _CHANNELS, "F"))
        self._front = _session(cut(model, inputs=(ids, speed), outputs=("f0", FEATURES, DURATIONS, LENGTHS)))
        self._decoder = _session(cut(model, inputs=(features,), outputs=SPECTRA))
        phonemizer = Phonemizer(json.loads((Path(ASSETS) / "vocab.json").read_text(encoding="utf-8")))
        phonemizer.runs("Warm zyxlophic up.")  # the word is in no lexicon: its network is loaded now, too
        self._phonemizer = phonemizer

    def voices(self) -> Mapping[str, VoiceProfile]:
        """Return all voices."""
        return VOICES

    def speaks(self, text: str) -> bool:
        """Whether all letters are Latin and there is something to say."""
        return is_speakable(text) and foreign_script(text) is None

    def synthesize(self, sentence: Sentence) -> Iterator[Chunk]:
        """Yield the sentence in windows. Nothing at all, if it cannot be read."""
        from .vocoder import Vocoder

        words: tuple[Word, ...] = ()
        spoken: list[tuple[str, float, float]] = []
        begin = 0.0
        for index, (piece, run, whole, last) in enumerate(_with_ends(self._runs(sentence.text))):
            f0, features, durations, lengths = self._front.run(
                None,
                {"ids": np.asarray([run.ids], np.int64), "speed": np.asarray([sentence.rate], np.float32)},
            )
            excess = sentence.rate * float(durations.sum() / np.maximum(np.rint(lengths), 1).sum())
            f0, features = _shortened(f0[0], features, excess)
            durations = durations / excess
            spoken += _times(run, durations, begin)
            begin += float(durations.sum()) * _DURATION_MS
            vocoder = Vocoder(
                f0,
                seed=sentence.seed + index,
                pitch=sentence.pitch * sentence.voice.pitch,
                formant=sentence.voice.formant,
            )
            if whole:
                words, spoken = (*words, *_words(piece, spoken)), []
            for samples, end in self._windows(features, vocoder):
                yield Chunk(
                    to_int16(samples, gain=_GAIN * sentence.volume / 50),
                    words if last and end else (),
                )

    def _runs(self, text: str) -> Iterator[tuple[re.Match[str], Run]]:
        for piece in _PIECE.finditer(text):
            for run in self._phonemizer.runs(piece.group()):
                yield piece, run

    def _windows(self, features: NDArray[np.float32], vocoder: Vocoder) -> Iterator[tuple[NDArray[np.float32], bool]]:
        total = features.shape[2]
        for begin, end in _borders(total):
            first, last = max(0, begin - _CONTEXT), min(total, end + _CONTEXT)
            spectra = self._decoder.run(None, {FEATURES: np.ascontiguousarray(features[:, :, first:last])})
            wanted = slice(begin - first, end - first)
            yield vocoder.add([each[0][:, wanted] for each in spectra]), end == total


def _with_ends(
    runs: Iterator[tuple[re.Match[str], Run]],
) -> Iterator[tuple[re.Match[str], Run, bool, bool]]:
    """Tell of each run whether its piece ends with it, and whether everything does."""
    following = next(runs, None)
    while following is not None:
        (piece, run), following = following, next(runs, None)
        yield piece, run, following is None or following[0] is not piece, following is None


def _borders(total: int) -> Iterator[tuple[int, int]]:
    """Cut `total` frames into windows; what would remain shorter than the context joins the last one."""
    begin, index = 0, 0
    while begin < total:
        end = begin + (_WINDOWS[index] if index < len(_WINDOWS) else _WINDOW)
        if total - end < _CONTEXT:
            end = total
        yield begin, end
        begin, index = end, index + 1


def _shortened(f0: Floats, features: Floats, factor: float) -> tuple[Floats, Floats]:
    """Take the frames of a sentence closer together, or further apart.

    The model rounds the duration of each phoneme to 25 ms, so with a speed other than 1 it is up to 10 % off. (With
    another speed that it rounds to the right length, or by this function alone, it is understood less well.)
    """
    if factor == 1.0:
        return f0, features
    last = len(f0) - 1
    at = np.clip((np.arange(max(1, round(len(f0) / factor))) + 0.5) * factor - 0.5, 0, last)
    left = at.astype(np.intp)
    part = (at - left).astype(np.float32)
    low, high = features[:, :, left], features[:, :, np.minimum(left + 1, last)]
    # There is no height half-way between a voice and none.
    return f0[np.rint(at).astype(np.intp)], low + (high - low) * part


def _times(run: Run, durations: NDArray[np.floating[Any]], begin: float) -> list[tuple[str, float, float]]:
    """Return the words that were read, with their times in milliseconds."""
    ends = (np.cumsum(durations) * _DURATION_MS + begin).tolist()
    starts = [begin, *ends[:-1]]
    spans: dict[int, tuple[float, float]] = {}
    for owner, start, end in zip(run.owners, starts, ends, strict=True):
        if owner >= 0:
            spans[owner] = (spans.get(owner, (start,))[0], end)
    return [(run.words[owner], *span) for owner, span in sorted(spans.items())]


def _words(piece: re.Match[str], spoken: Sequence[tuple[str, float, float]]) -> Iterator[Word]:
    from .phonemes import word_times

    at = piece.start()
    for word in word_times(piece.group(), spoken):
        yield Word(word.text, at + word.begin_index, at + word.end_index, word.begin_time, word.end_time)


def _session(model: bytes) -> Any:
    """One thread a call: workers are threads, and each has a core of its own. The result depends on this number."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
