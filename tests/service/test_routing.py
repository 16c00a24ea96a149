import os
from importlib.util import find_spec

import numpy as np
import pytest

from speechpool.errors import SettingsError
from speechpool.service.engines import Sentence, SynthesisEngine, load_engine, routing
from speechpool.service.engines.routing import RoutingEngine
from speechpool.service.engines.scripts import LANGUAGES, language_runs, unread_script
from speechpool.service.voices import VOICES

HEART = VOICES["heart"]


@pytest.fixture(scope="module")
def engine():
    if not find_spec("espeakng_loader"):
        if os.environ.get("CI") == "true":
            pytest.fail("the extra 'espeak' is not installed", pytrace=False)
        pytest.skip("the extra 'espeak' is not installed")
    engine = load_engine("auto")
    engine.load()
    return engine


def speak(engine, text, **changes):
    chunks = list(engine.synthesize(Sentence(text=text, voice=HEART, **changes)))
    return np.concatenate([chunk.samples for chunk in chunks]), [word for chunk in chunks for word in chunk.words]


def loudness(samples, rate=24000):
    """Return the mean power of what is no pause, relative to full scale."""
    frame = rate // 50
    parts = samples[: len(samples) // frame * frame].reshape(-1, frame).astype(float) / 32768
    sizes = np.sqrt((parts**2).mean(axis=1))
    return float(np.sqrt((sizes[sizes > sizes.max() / 10] ** 2).mean()))


def test_it_is_an_engine_like_others(engine):
    assert isinstance(engine, SynthesisEngine)
    assert (engine.name, engine.profile, engine.sample_rate) == ("hibari+espeak", None, 24000)
    assert engine.voices() == VOICES
    with pytest.raises(SettingsError, match="no profile 'fast'"):
        load_engine("auto", profile="fast")


@pytest.mark.parametrize(
    ("text", "language", "neural"),
    [
        ("Hello there.", None, True),
        ("Hello there.", "en", True),
        ("Hello there.", "en-GB", True),
        ("Hello there.", "zh", True),
        ("Bonjour.", "fr", False),
        ("25", None, True),
        ("25", "zh", False),
        ("你好", None, False),
        ("我在用 Python", "zh", False),
        ("Hello мир", None, False),
    ],
)
def test_the_sentence_decides_who_speaks(engine, text, language, neural):
    sentence = Sentence(text=text, voice=HEART, language=language)
    assert engine._is_for_hibari(sentence) is neural
    if neural:
        expected = np.concatenate([chunk.samples for chunk in engine._hibari.synthesize(sentence)])
        assert np.array_equal(speak(engine, text, language=language)[0], expected)


def test_the_programs_chinese_sentences_are_spoken(engine):
    for text, least, most in (
        ("第一句话。", 0.9, 2.5),
        ("第二句话，稍微长一点。", 1.5, 4),
        ("我在用 Python 写 WebSocket 程序。", 2, 5),
    ):
        samples, words = speak(engine, text)
        assert least < len(samples) / 24000 < most
        assert loudness(samples) > 0.05
        assert "".join(word.text for word in words) == "".join(filter(str.isalnum, text))


def test_a_resampled_sentence_is_as_long_and_always_the_same(engine):
    text = "今天天气很好，我们一起去公园散步吧。"
    low = sum(len(chunk.samples) for chunk in engine._espeak.synthesize(Sentence(text=text, voice=HEART)))
    first, second = speak(engine, text)[0], speak(engine, text)[0]
    assert len(first) == pytest.approx(low * 24000 / 22050, abs=2)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("voice", ["heart", "longanyang", "longtong"])
def test_both_engines_are_about_as_loud(engine, voice):
    english, chinese = (
        np.concatenate([chunk.samples for chunk in engine.synthesize(Sentence(text=text, voice=VOICES[voice]))])
        for text in ("The weather is fine, so we go to the park.", "今天天气很好，我们一起去公园散步吧。")
    )
    assert 0.7 < loudness(chinese) / loudness(english) < 1.4


def test_it_speaks_what_one_of_them_speaks(engine):
    for text in ("Hello", "你好", "Hello 你好 Привет"):
        assert engine.speaks(text)
    for text in ("…!", "日本語を話します", "ខ្មែរ"):
        assert not engine.speaks(text)


def test_without_the_extra_it_is_hibari_alone(monkeypatch):
    monkeypatch.setattr(routing, "find_spec", lambda name: None)
    engine = RoutingEngine()
    assert engine.name == "hibari"
    assert engine.speaks("Hello")
    assert not engine.speaks("你好")
    engine.load()
    samples, _ = speak(engine, "Bonjour.", language="fr")  # read as English: there is nobody else
    assert len(samples) > 12000


# ------------------------------------------------------------------------------------------ scripts
@pytest.mark.parametrize(
    ("text", "hint", "runs"),
    [
        ("Hello", None, [("Hello", "en")]),
        ("", None, [("", "en")]),
        ("12:30", None, [("12:30", "en")]),
        ("12:30", "zh", [("12:30", "zh")]),
        ("Hola", "es", [("Hola", "es")]),
        ("Hola", "pt-BR", [("Hola", "pt")]),
        ("Hello", "zh", [("Hello", "en")]),
        ("你好", None, [("你好", "zh")]),
        ("你好", "yue", [("你好", "yue")]),
        ("你好", "fr", [("你好", "zh")]),
        ("3月 (March)", None, [("3月 (March)", "zh")]),
        ("我在用 Python 写", "zh", [("我在用 Python 写", "zh")]),
        ("Привет 你好!", None, [("Привет ", "ru"), ("你好!", "zh")]),
        ("Привіт", "uk", [("Привіт", "uk")]),
        ("Sag «Привет» bitte", "de", [("Sag «", "de"), ("Привет» ", "ru"), ("bitte", "de")]),
        ("こんにちは world", None, [("こんにちは ", "ja"), ("world", "en")]),
        ("日本語です", None, [("日本語", None), ("です", "ja")]),
        ("ខ្មែរ", None, [("ខ្មែរ", None)]),
    ],
)
def test_text_is_cut_where_its_language_changes(text, hint, runs):
    assert [(text[run.begin : run.end], run.language) for run in language_runs(text, hint)] == runs


def test_scripts_that_nobody_reads_are_named():
    assert unread_script("你好 こんにちは") == "Kanji"
    assert unread_script("ខ្មែរ") == "Khmer"
    assert unread_script("Hello Привет 你好 5 µm ﾊﾝｶｸ") is not None  # Han beside kana of any width
    assert unread_script("Hello Привет 你好 5 µm") is None


def test_each_language_is_written_in_one_script():
    languages = [language for many in LANGUAGES.values() for language in many]
    assert len(languages) == len(set(languages))
