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
    _shortened,
)
from speechpool.service.engines.phonemes import word_times
from speechpool.service.engines.postprocess import to_int16
from speechpool.service.engines.timbre import Timbre
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
    f0, features, durations, _ = engine._front.run(None, feeds)
    *spectra, expected_f0 = whole.sess.run(None, feeds)
    assert np.allclose(f0, expected_f0, rtol=1e-3)
    assert features.shape[2] == 2 * durations.sum() == f0.shape[1]
    for ours, theirs in zip(engine._decoder.run(None, {FEATURES: features}), spectra, strict=True):
        # Rounding inside of the two programs differs; 8-bit weights make more of it than floats would.
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


def test_lengths_divided_by_the_speed_and_rounded_are_the_models_durations(engine):
    [run] = engine._phonemizer.runs(MEDIUM)
    ids = np.asarray([run.ids], np.int64)
    for speed in (0.5, 1.0, 1.3, 2.0):
        _, _, durations, lengths = engine._front.run(None, {"ids": ids, "speed": np.asarray([speed], np.float32)})
        assert np.array_equal(np.maximum(np.rint(lengths / np.float32(speed)), 1), durations)


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


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.25, 2.0])
def test_the_rate_divides_the_length(engine, rate):
    for text, tolerance in ((MEDIUM, 0.01), (SHORT, 0.02)):
        normal, other = (len(speak(engine, text, rate=each)[0]) for each in (1.0, rate))
        assert normal / other == pytest.approx(rate, rel=tolerance)


def test_frames_are_taken_closer_together():
    f0 = np.array([0, 0, 100, 200, 200, 200], np.float32)
    features = np.arange(6, dtype=np.float32).reshape(1, 1, 6)
    unchanged = _shortened(f0, features, 1.0)
    assert unchanged[0] is f0
    assert unchanged[1] is features
    shorter, frames = _shortened(f0, features, 2.0)
    assert shorter.tolist() == [0, 100, 200]
    assert frames.ravel().tolist() == [0.5, 2.5, 4.5]
    longer, frames = _shortened(f0, features, 0.5)
    assert set(longer.tolist()) == {0, 100, 200}  # no height between a voice and none
    assert (len(longer), frames.shape, frames.dtype) == (12, (1, 1, 12), np.float32)


@pytest.mark.parametrize(
    ("voice", "pitch"),
    [("heart", 0.5), ("heart", 1.5), ("heart", 2.0), ("longanyang", 1.0), ("longyuan", 1.0), ("longtong", 1.0)],
)
def test_the_pitch_raises_the_voice_and_neither_speed_nor_loudness(engine, heart_samples, voice, pitch):
    samples, _, _ = speak(engine, MEDIUM, voice=VOICES[voice], pitch=pitch)
    assert len(samples) == len(heart_samples)
    raised = VOICES[voice].pitch * pitch
    assert fundamental(samples) / fundamental(heart_samples) == pytest.approx(raised, rel=0.05)
    # Between the harmonics of its own pitch the model is up to 20 dB too loud, and the limiter would have to bend it.
    assert power(samples) / power(heart_samples) == pytest.approx(1.0, rel=0.25)
    assert np.abs(samples).max() < 32000


def test_a_longer_throat_lowers_the_formants_and_leaves_the_height_alone(engine, heart_samples):
    long, short = (speak(engine, MEDIUM, voice=replace(HEART, formant=formant))[0] for formant in (0.86, 1.15))
    assert len(long) == len(short) == len(heart_samples)
    for samples, factor in ((long, 0.86), (short, 1.15)):
        assert fundamental(samples) / fundamental(heart_samples) == pytest.approx(1.0, rel=0.05)
        assert stretch(heart_samples, samples) == pytest.approx(factor, abs=0.03)
    frequency = np.fft.rfftfreq(len(long), 1 / 24000)
    spectrum = np.abs(np.fft.rfft(long.astype(float))) ** 2
    assert spectrum[frequency > 10500].sum() < 1e-6 * spectrum.sum()  # nothing comes from above the band


def test_a_voice_of_its_own_height_is_untouched():
    random = np.random.default_rng(1)
    spectra = [random.standard_normal((601, 10)).astype(np.float32) for _ in range(5)]
    timbre = Timbre(np.full(10, 150, np.float32), pitch=1.0, formant=1.0)
    assert timbre.shape(0, spectra) is spectra


def test_no_voice_begins_to_whisper_and_no_noise_to_buzz():
    f0 = np.array([-1, 0, 30, 60, 200], np.float32)
    assert Timbre(f0, pitch=0.5, formant=1.0).f0.tolist() == [-0.5, 0, 15, 41, 100]
    assert Timbre(f0, pitch=2.0, formant=1.0).f0.tolist() == [-2, 0, 40, 120, 400]


def test_a_timbre_does_not_depend_on_the_windows():
    random = np.random.default_rng(1)
    spectra = [random.standard_normal((601, 60)).astype(np.float32) for _ in range(5)]
    f0 = np.where(np.arange(60) % 20 < 5, 0, 180).astype(np.float32)
    timbre = Timbre(f0, pitch=0.6, formant=0.86)
    whole = timbre.shape(0, spectra)
    parts = [timbre.shape(begin, [each[:, begin:end] for each in spectra]) for begin, end in ((0, 7), (7, 60))]
    for index, each in enumerate(whole):
        assert np.array_equal(each, np.concatenate([part[index] for part in parts], axis=1))
    assert Timbre(np.zeros(60, np.float32), pitch=0.6, formant=1.2).shape(0, spectra)[0].shape == (601, 60)


@pytest.fixture(scope="module")
def heart_samples(engine):
    return speak(engine, MEDIUM)[0]


def fundamental(samples):
    """Return the median fundamental frequency of the louder parts, by autocorrelation."""
    found = []
    for begin in range(0, len(samples) - 1200, 600):
        part = samples[begin : begin + 1200].astype(float)
        if np.abs(part).max() < 6000:
            continue
        correlation = np.correlate(part, part, "full")[1199:] / np.arange(1200, 0, -1)
        lags = correlation[24000 // 800 : 24000 // 50]
        at = int(np.argmax(lags > 0.85 * lags.max()))  # the first of the multiples of a period
        while at + 1 < len(lags) and lags[at + 1] > lags[at]:
            at += 1
        found.append(24000 / (24000 // 800 + at))
    return float(np.median(found))


def power(samples):
    """Return the mean power of what is no pause."""
    frames = samples[: len(samples) // 480 * 480].reshape(-1, 480).astype(float)
    sizes = np.sqrt((frames**2).mean(axis=1))
    return float(np.sqrt((sizes[sizes > sizes.max() / 10] ** 2).mean()))


def stretch(before, after):
    """Return the factor on frequency that lays the mean spectrum of one sound on that of another."""
    factors = np.arange(0.7, 1.4, 0.01)
    grid = np.geomspace(500, 6000, 400)
    wanted = envelope(after, grid)
    found = [float(np.corrcoef(envelope(before, grid / factor), wanted)[0, 1]) for factor in factors]
    return float(factors[int(np.argmax(found))])


def envelope(samples, frequencies):
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(float), 1200)[::600] * np.hanning(1200)
    mean = (np.abs(np.fft.rfft(frames)) ** 2).mean(axis=0)
    smooth = np.convolve(mean, np.ones(15) / 15, "same")  # 300 Hz: wider than the harmonics are apart
    return np.interp(frequencies, np.arange(601) * 20, np.log(smooth))


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a-b-c-d-" * 120, 40),  # in one piece it would take minutes, and nobody else could speak
        ("a1" * 400, 34),
        ("1" * 400, 17),
        ("$" + "1" * 40, 2),
        ("12345678901234567890," * 10, 10),
        ("antidisestablishmentarianism" * 10, 5),
    ],
)
def test_what_is_written_without_a_space_is_read_in_pieces(engine, text, words):
    assert sum(len(run.words) for run in engine._phonemizer.runs(text)) == words


def test_addresses_and_numbers_of_a_usual_length_are_left_in_one_piece(engine):
    for text in ("https://www.example.com/a/b", "mother-in-law's", "1,234,567,890,123,456,789"):
        [run] = engine._phonemizer.runs(text)
        assert run.words == [text]


def test_what_is_read_for_one_sentence_may_be_much_longer_and_its_words_keep_their_places(engine):
    text = "Well, " * 90 + "no. " + "2 " * 40 + "end"  # two pieces
    samples, words = 0, ()
    for chunk in engine.synthesize(Sentence(text=text, voice=HEART)):
        assert not words
        samples, words = samples + len(chunk.samples), chunk.words
    assert [text[word.begin_index : word.end_index] for word in words] == text.split()
    times = [time for word in words for time in (word.begin_time, word.end_time)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= samples / 24


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "hibari.tts", None)
    with pytest.raises(SettingsError, match=r"'hibari\.tts'.*pip install"):
        HibariEngine().load()


def test_there_is_one_profile():
    with pytest.raises(SettingsError, match="no profile 'fast'"):
        HibariEngine(profile="fast")
