import importlib.metadata
import inspect
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import hibari
import numpy as np
import onnxruntime
import pytest
from hibari import dsp, tts
from hibari.g2p import G2P
from hibari.g2p.token import Tok

from speechpool.errors import SettingsError
from speechpool.service.engines import Sentence
from speechpool.service.engines.graph import FLOAT, INT64, Tensor, cut
from speechpool.service.engines.hibari import (
    DURATIONS,
    FEATURES,
    HIBARI_VERSION,
    SPECTRA,
    HibariEngine,
    _borders,
)
from speechpool.service.engines.phonemes import word_times
from speechpool.service.engines.postprocess import to_int16
from speechpool.service.engines.vocoder import Vocoder
from speechpool.service.voices import VOICES

HEART = VOICES["heart"]
SHORT = "Hello there, how are you?"
MEDIUM = "The quick brown fox jumps over the lazy dog while the old farmer watches quietly from the porch of his house."


@pytest.fixture(scope="module")
def engine():
    engine = HibariEngine()
    engine.load()
    return engine


def speak(engine, text, **changes):
    chunks = list(engine.synthesize(Sentence(text=text, **{"voice": HEART, **changes})))
    samples = np.concatenate([chunk.samples for chunk in chunks]) if chunks else np.zeros(0, np.int16)
    return samples, tuple(word for chunk in chunks for word in chunk.words), chunks


# ------------------------------------------------------------------------------------------ its inside
def test_the_version_is_the_one_that_the_adapter_knows():
    assert importlib.metadata.version("hibari-tts") == hibari.__version__ == HIBARI_VERSION


def test_the_model_has_the_inputs_and_outputs_that_the_adapter_knows():
    model = (Path(tts.ASSETS) / "hibari.onnx").read_bytes()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [(each.name, each.type) for each in session.get_inputs()] == [
        ("ids", "tensor(int64)"),
        ("speed", "tensor(float)"),
    ]
    assert [each.name for each in session.get_outputs()] == [*SPECTRA, "f0"]


def test_the_parts_of_hibari_that_the_adapter_calls_are_there():
    assert list(inspect.signature(dsp.synth).parameters) == ["lh", "th", "ln", "lr", "phi", "f0", "rng"]
    assert list(inspect.signature(dsp.pulses).parameters)[:1] == ["f0"]
    assert list(inspect.signature(dsp.rfft).parameters) == ["x", "axis"]
    assert list(inspect.signature(dsp.irfft).parameters) == ["x", "n", "axis"]
    assert {"n_fft": dsp.N_FFT, "hop": dsp.HOP, "rate": dsp.SR} == {"n_fft": 1200, "hop": 300, "rate": 24000}
    assert HibariEngine.sample_rate == 24000
    assert {"text", "whitespace", "phonemes"} <= set(Tok.__slots__)
    assert {"tokenize", "phonemize_tokens"} <= set(vars(G2P))


def test_both_halves_of_the_model_give_what_the_whole_gives(engine):
    whole = tts.Hibari()
    [run] = engine._phonemizer.runs(MEDIUM)
    assert run.ids == whole.ids(whole.phonemize(MEDIUM)[0])
    feeds = {"ids": np.asarray([run.ids], np.int64), "speed": np.ones(1, np.float32)}
    f0, features, durations = engine._front.run(None, feeds)
    *spectra, expected_f0 = whole.sess.run(None, feeds)
    assert np.allclose(f0, expected_f0, rtol=1e-3)
    assert features.shape[2] == 2 * durations.sum() == f0.shape[1]
    for ours, theirs in zip(engine._decoder.run(None, {FEATURES: features}), spectra, strict=True):
        # Rounding inside of the two programs differs; 8-bit weights make more of it than floats would.
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


def test_a_graph_cannot_be_cut_where_it_does_not_come_apart():
    model = (Path(tts.ASSETS) / "hibari.onnx").read_bytes()
    with pytest.raises(ValueError, match="nothing gives"):
        cut(model, inputs=(Tensor("ids", INT64, (1, "L")),), outputs=(DURATIONS,))
    with pytest.raises(ValueError, match="nothing gives"):
        cut(model, inputs=(Tensor(FEATURES, FLOAT, (1, 130, "F")),), outputs=("renamed",))
    with pytest.raises(ValueError, match="ONNX"):
        cut(model[:-100], inputs=(), outputs=("f0",))


@pytest.mark.parametrize("windows", [(61,), (4, 57), (3, 1, 1, 56), (24, 37), (1, 1, 59), (1, 60)])
def test_windows_sound_like_the_whole(windows):
    random = np.random.default_rng(3)
    frames = sum(windows)
    spectra = [random.standard_normal((601, frames)).astype(np.float32) for _ in range(5)]
    spectra[2] -= 60  # no noise: its numbers are drawn in another order
    f0 = (np.abs(random.standard_normal(frames)) * 100 + 50).astype(np.float32)
    whole = dsp.synth(*spectra, f0, np.random.default_rng(1))
    vocoder, at, parts = Vocoder(f0, seed=1), 0, []
    for window in windows:
        parts.append(vocoder.add([each[:, at : at + window] for each in spectra]))
        at += window
    joined = np.concatenate(parts)
    assert joined.shape == whole.shape
    assert np.abs(joined - whole).max() < 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize("total", [1, 23, 24, 39, 40, 150, 542, 2000])
def test_windows_cover_the_sentence_and_none_is_tiny(total):
    borders = list(_borders(total))
    assert borders[0][0] == 0
    assert borders[-1][1] == total
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(borders))
    assert len(borders) == 1 or min(end - begin for begin, end in borders) >= 16


# ------------------------------------------------------------------------------------------ what is heard
def test_it_speaks(engine):
    samples, words, chunks = speak(engine, SHORT)
    assert 1.2 < len(samples) / engine.sample_rate < 3.0
    assert 5000 < np.abs(samples).max() < 32767
    assert len(chunks) == 3
    assert [word.text for word in words] == ["Hello", "there,", "how", "are", "you?"]


def test_the_first_chunk_of_any_sentence_is_short(engine):
    for text in (SHORT, MEDIUM):
        first = next(engine.synthesize(Sentence(text=text, voice=HEART)))
        assert len(first.samples) <= 24 * dsp.HOP


def test_the_same_sentence_has_the_same_samples_and_another_seed_others(engine):
    once, again, other = (speak(engine, SHORT, seed=seed)[0] for seed in (7, 7, 8))
    assert np.array_equal(once, again)
    assert len(once) == len(other)
    assert not np.array_equal(once, other)


def test_the_rate_changes_the_length(engine):
    normal, fast, slow = (len(speak(engine, MEDIUM, rate=rate)[0]) for rate in (1.0, 2.0, 0.5))
    assert fast / normal == pytest.approx(0.5, abs=0.1)
    assert slow / normal == pytest.approx(2.0, abs=0.2)


def test_the_pitch_raises_the_voice_and_not_the_speed(engine):
    normal, _, _ = speak(engine, MEDIUM)
    high, _, _ = speak(engine, MEDIUM, pitch=1.5)
    low, _, _ = speak(engine, MEDIUM, voice=replace(HEART, pitch=0.8))
    assert len(normal) == len(high) == len(low)
    base = fundamental(normal)
    assert fundamental(high) / base == pytest.approx(1.5, rel=0.1)
    assert fundamental(low) / base == pytest.approx(0.8, rel=0.1)


def fundamental(samples):
    """Return the median fundamental frequency of the louder parts, by autocorrelation."""
    found = []
    for begin in range(0, len(samples) - 1200, 600):
        part = samples[begin : begin + 1200].astype(float)
        if np.abs(part).max() < 6000:
            continue
        correlation = np.correlate(part, part, "full")[1199:]
        lags = slice(24000 // 450, 24000 // 90)
        found.append(24000 / (lags.start + int(np.argmax(correlation[lags]))))
    return float(np.median(found))


def test_the_volume_is_linear_until_the_limiter_bends_it(engine):
    normal, half, loud, silent = (speak(engine, SHORT, volume=volume)[0] for volume in (50, 25, 100, 0))
    assert np.abs(half * 2.0 - normal).max() <= 2
    assert not silent.any()
    assert len(silent) == len(normal)
    assert np.abs(normal).max() < np.abs(loud.astype(int)).max() <= 32767


def test_the_limiter_never_clips_and_leaves_the_quiet_alone():
    samples = np.linspace(-3, 3, 1001, dtype=np.float32)
    limited = to_int16(samples, gain=1.0)
    quiet = np.abs(samples) < 0.8
    assert np.abs(limited[quiet] - samples[quiet] * 32767).max() <= 0.51
    assert np.abs(limited.astype(int)).max() <= 32767
    assert (np.diff(limited.astype(int)) >= 0).all()


def test_words_are_timed_in_order_and_lie_where_it_is_loud(engine):
    samples, words, _ = speak(engine, MEDIUM)
    assert [word.text for word in words] == MEDIUM.split()
    assert all(MEDIUM[word.begin_index : word.end_index] == word.text for word in words)
    times = [time for word in words for time in (word.begin_time, word.end_time)]
    assert times == sorted(times)
    assert all(time % 25 == 0 for time in times)
    assert times[-1] <= 1000 * len(samples) / engine.sample_rate
    loud = [np.abs(samples[int(w.begin_time * 24) : int(w.end_time * 24)].astype(int)).max() for w in words]
    assert min(loud) > 1500
    assert np.abs(samples[: int(words[0].begin_time * 24) - 1200].astype(int)).max() < 1000


def test_numbers_keep_their_place_among_the_words(engine):
    text = "It cost $25.50 on March 3rd, 2024 at 7:30 pm, Dr. Smith said — 😀 okay."
    _, words, _ = speak(engine, text)
    assert [word.text for word in words] == [each for each in text.split() if any(map(str.isalnum, each))]
    times = [time for word in words for time in (word.begin_time, word.end_time)]
    assert times == sorted(times)
    price = next(word for word in words if word.text == "$25.50")
    assert price.end_time - price.begin_time > 1000  # it is six words


def test_word_times_of_words_that_nothing_was_read_for():
    assert [
        (w.text, w.begin_time, w.end_time) for w in word_times("one xx two", [("one", 0, 100), ("two", 200, 300)])
    ] == [
        ("one", 0, 100),
        ("xx", 100, 100),
        ("two", 200, 300),
    ]
    assert word_times("…", []) == ()


def test_odd_texts_are_spoken_or_refused(engine):
    assert not engine.speaks("你好")
    assert not engine.speaks("Hello 你好")
    assert not engine.speaks("…!")
    assert engine.speaks("Hello 😀 5 µm café")
    assert len(speak(engine, "a" * 300)[0]) > 24000
    assert len(speak(engine, " ".join(["word"] * 130))[0]) > 24000 * 20  # two runs of the model
    assert speak(engine, "…!")[2] == []


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "hibari.tts", None)
    with pytest.raises(SettingsError, match=r"'hibari\.tts'.*pip install"):
        HibariEngine().load()


def test_there_is_one_profile():
    with pytest.raises(SettingsError, match="no profile 'fast'"):
        HibariEngine(profile="fast")
