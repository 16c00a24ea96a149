import hashlib
import os
import sys
import threading
from importlib.util import find_spec

import numpy as np
import pytest

from speechpool.errors import SettingsError
from speechpool.service.engines import Sentence, load_engine
from speechpool.service.engines.espeak import EspeakEngine, _paced
from speechpool.service.engines.espeak_text import pieces, syllables, with_phonemes, word_times
from speechpool.service.engines.libespeak import Spoken
from speechpool.service.engines.scripts import LANGUAGES
from speechpool.service.voices import VOICES

CHINESE = "今天天气很好，我们一起去公园散步吧，然后再去吃晚饭。"
HINTS = ["zh", "en", "fr", "de", "ja", "ko", "ru", "pt", "th", "id", "vi", "es", "it", "ms", "fil", "ar"]
RUSSIAN = "Сегодня очень хорошая погода, и мы идём гулять в парк."


@pytest.fixture(scope="module")
def engine():
    if not find_spec("espeakng_loader"):
        if os.environ.get("CI") == "true":
            pytest.fail("the extra 'espeak' is not installed", pytrace=False)
        pytest.skip("the extra 'espeak' is not installed")
    engine = load_engine("espeak")
    engine.load()
    return engine


def speak(engine, text, **changes):
    chunks = list(engine.synthesize(Sentence(text=text, **{"voice": VOICES["heart"], **changes})))
    samples = np.concatenate([chunk.samples for chunk in chunks]) if chunks else np.zeros(0, np.int16)
    return samples, tuple(word for chunk in chunks for word in chunk.words), chunks


def voiced(samples):
    """Return how many samples there are before the pause at the end."""
    return int(np.flatnonzero(np.abs(samples) > 30)[-1])


def fundamental(samples, rate=22050):
    """Return the median fundamental frequency of the louder parts, by autocorrelation."""
    found = []
    window = rate // 20
    for begin in range(0, len(samples) - window, window // 2):
        part = samples[begin : begin + window].astype(float)
        if np.abs(part).max() < 0.3 * np.abs(samples).max():
            continue
        correlation = np.correlate(part, part, "full")[window - 1 :] / np.arange(window, 0, -1)
        lags = correlation[rate // 800 : rate // 50]
        at = int(np.argmax(lags > 0.85 * lags.max()))  # the first of the multiples of a period
        while at + 1 < len(lags) and lags[at + 1] > lags[at]:
            at += 1
        found.append(rate / (rate // 800 + at))
    return float(np.median(found))


# ------------------------------------------------------------------------------------------ what is heard
@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("第一句话。", 0.7, 2),
        ("我在用 Python 写 WebSocket 程序。", 2, 5),
        (RUSSIAN, 2, 5),
        ("こんにちは、おげんきですか。", 1.2, 3),
        ("안녕하세요 세계", 0.9, 2.5),
        ("مرحبا بالعالم", 0.9, 2.5),
        ("שלום עולם", 0.7, 2),
        ("Γειά σου Κόσμε", 0.7, 2),
        ("नमस्ते दुनिया", 0.7, 2),
        ("สวัสดีครับ", 0.7, 2),
        ("你好 Привет 안녕 hello", 1.5, 4),
        ("2024年5月", 1, 4),
    ],
)
def test_it_speaks_every_script(engine, text, least, most):
    assert engine.speaks(text)
    samples, words, chunks = speak(engine, text)
    assert least < voiced(samples) / engine.sample_rate < most
    assert 5000 < np.abs(samples).max() < 32767
    assert all(0 < len(chunk.samples) <= engine.sample_rate for chunk in chunks)
    assert words
    assert not any(chunk.words for chunk in chunks[:-1])


@pytest.mark.parametrize("language", sorted({each for many in LANGUAGES.values() for each in many}))
def test_every_language_of_a_script_is_one_that_it_has(engine, language):
    assert engine._name(language) != "en-us"


@pytest.mark.parametrize("hint", HINTS)
def test_every_language_hint_of_the_provider_is_known(engine, hint):
    assert hint == "en" or engine._name(hint) != "en-us"


def test_a_hint_decides_among_the_languages_of_a_script(engine):
    english, german, unknown = (speak(engine, "Die Maus", language=hint)[0] for hint in (None, "de", "xx"))
    assert not np.array_equal(english, german)
    assert np.array_equal(english, unknown)


def test_the_same_sentence_has_the_same_samples_whatever_came_before(engine):
    def sound(text, **changes):
        return hashlib.sha256(speak(engine, text, **changes)[0]).hexdigest()

    texts = [CHINESE, RUSSIAN, "مرحبا بالعالم", "Zwischen den Zeilen", "Hello there"]
    before = [sound(text) for text in texts]
    sound("Rrrr shhh zzz", rate=1.7, pitch=1.9)  # leaves counters, gain and parameters elsewhere
    assert [sound(text) for text in reversed(texts)][::-1] == before


def test_threads_share_the_one_library(engine):
    expected = {text: speak(engine, text)[0] for text in (CHINESE, RUSSIAN)}
    wrong = []

    def work(text):
        for _ in range(5):
            if not np.array_equal(speak(engine, text)[0], expected[text]):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(text,)) for text in expected for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_text_that_hardly_obeys_its_speed_is_spoken_all_the_same():
    def speak(speed):
        return Spoken(np.full(100_000 - (speed != 175), 1000, np.int16), ())

    assert len(_paced(speak, 0.5).samples) == 99_999


@pytest.mark.parametrize("text", [CHINESE, "Hello there, how are you today?"])
@pytest.mark.parametrize("rate", [0.5, 0.75, 1.25, 2.0])
def test_the_rate_divides_the_length(engine, text, rate):
    normal, other = voiced(speak(engine, text)[0]), voiced(speak(engine, text, rate=rate)[0])
    assert normal / other == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("voice", "pitch"), [("heart", 0.5), ("heart", 1.5), ("longanyang", 1.0), ("longtong", 1.0)])
def test_the_pitch_raises_the_voice_and_not_the_speed(engine, voice, pitch):
    normal, other = speak(engine, CHINESE)[0], speak(engine, CHINESE, voice=VOICES[voice], pitch=pitch)[0]
    assert fundamental(other) / fundamental(normal) == pytest.approx(pitch * VOICES[voice].pitch, rel=0.06)
    assert len(other) == pytest.approx(len(normal), rel=0.03)


def test_a_man_has_lower_formants(engine):
    woman, man = (speak(engine, CHINESE, voice=VOICES[name])[0] for name in ("heart", "longanyang"))
    assert centroid(man) < 0.95 * centroid(woman)


def centroid(samples):
    power = np.abs(np.fft.rfft(samples.astype(float))) ** 2
    return float((np.fft.rfftfreq(len(samples), 1 / 22050) * power).sum() / power.sum())


def test_the_volume_is_linear_until_the_limiter_bends_it(engine):
    normal, half, silent = (speak(engine, CHINESE, volume=volume)[0] for volume in (50, 25, 0))
    quiet = np.abs(normal) < 0.8 * 32767
    assert np.abs(half[quiet] * 2.0 - normal[quiet]).max() <= 2
    assert not silent.any()
    assert len(silent) == len(normal)


def test_words_are_timed_in_order(engine):
    text = "你好，我在用 Python 写 WebSocket 程序。"
    samples, words, _ = speak(engine, text)
    assert [word.text for word in words] == ["你", "好", "我", "在", "用", "Python", "写", "WebSocket", "程", "序"]
    assert all(text[word.begin_index : word.end_index] == word.text for word in words)
    times = [time for word in words for time in (word.begin_time, word.end_time)]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] <= 1000 * len(samples) / engine.sample_rate


# ------------------------------------------------------------------------------------------ pronunciations
def test_pinyin_changes_how_a_word_is_read(engine):
    text = "这个行长很好"
    plain, _, _ = speak(engine, text)
    bank, words, _ = speak(engine, text, pronunciations=(("行长", "hang2 zhang3"),))
    assert not np.array_equal(plain, bank)
    assert [word.text for word in words] == list(text)
    for unread in (("行长", "nonsense"), ("行长", ""), ("长行", "hang2")):
        assert np.array_equal(speak(engine, text, pronunciations=(unread,))[0], plain)


def test_brackets_of_the_text_are_no_phonemes(engine):
    text = "好 [[a]] 行"
    assert len(speak(engine, text)[0]) > 0
    marked, places = with_phonemes(text, {"行": "X'A35N"})
    assert marked == "好   a]] [[X'A35N]]"
    assert len(places) == len(marked)
    assert [places[marked.index(each)] for each in ("好", "a", "X")] == [0, 4, 8]


def test_longer_words_go_first():
    assert with_phonemes("行长行", {"行": "1", "行长": "2"})[0] == "[[2]][[1]]"
    assert with_phonemes("a [b", {})[0] == "a [b"


@pytest.mark.parametrize(
    ("pinyin", "found"),
    [
        ("ci2", ["ci2"]),
        ("chong2 qing4", ["chong2", "qing4"]),
        ("Chong2Qing4", ["chong2", "qing4"]),
        ("nü3 lu:4", ["nv3", "lv4"]),
        ("ci", []),
        ("ci9", []),
        ("", []),
        ("2", []),
    ],
)
def test_syllables_need_their_tones(pinyin, found):
    assert syllables(pinyin) == found


# ------------------------------------------------------------------------------------------ pieces
@pytest.mark.parametrize(
    "text",
    [
        CHINESE * 8,
        "word " * 400,
        "a" * 1000,
        "中" * 1000,
        "x",
        " ",
        "One, two; " * 60,
        "你好 Привет こんにちは hello " * 20,
    ],
)
def test_pieces_are_bounded_and_cover_the_text(text):
    cut = list(pieces(text, None))
    assert "".join(text[piece.begin : piece.end] for piece in cut) == text
    assert max(piece.end - piece.begin for piece in cut) <= 300


def test_long_text_is_cut_at_clauses():
    cut = [(CHINESE * 8)[piece.begin : piece.end] for piece in pieces(CHINESE * 8, None)]
    assert len(cut) > 1
    assert all(piece[-1] in "，。" for piece in cut)


def test_times_between_marks_are_shared_out():
    assert [(w.text, w.begin_time, w.end_time) for w in word_times("一二 three!", [(0, 0), (3, 200), (9, 700)])] == [
        ("一", 0, 67),
        ("二", 67, 133),
        ("three!", 200, 700),
    ]
    assert word_times("…", [(0, 0)]) == ()
    assert [(w.begin_time, w.end_time) for w in word_times("一二", [])] == [(0, 0), (0, 0)]


# ------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    "text",
    [
        "a" * 300,
        "a#b",
        "5 😀 cats",
        "a\0b",
        "half \ud800 surrogate",
        "<speak>hi <break time='1s'/></speak>",
        "[[hello]]",
        "Ｆｕｌｌ width ﾊﾝｶｸ",
        "$5 & 30 % @ \\ / \x01",
        "naïve e\u0301 ﬁ ß",
    ],
)
def test_odd_texts_are_spoken(engine, text):
    assert engine.speaks(text)
    samples, words, _ = speak(engine, text)
    assert 0.2 < voiced(samples) / engine.sample_rate < 20
    assert words


def test_what_comes_behind_a_nul_is_spoken_too(engine):
    assert len(speak(engine, "one\0two three four")[0]) > 1.5 * len(speak(engine, "one")[0])


def test_letters_of_another_width_sound_like_their_like(engine):
    assert np.array_equal(speak(engine, "Ｆｕｌｌ ５")[0], speak(engine, "Full 5")[0])


@pytest.mark.parametrize("text", ["…!", "", "😀", "日本語を話します", "ខ្មែរ", "Hello ᠮᠣᠩᠭᠣᠯ"])
def test_what_it_cannot_read_it_says_so(engine, text):
    assert not engine.speaks(text)


# ------------------------------------------------------------------------------------------ set-up
def test_there_is_one_profile():
    with pytest.raises(SettingsError, match="no profile 'fast'"):
        EspeakEngine(profile="fast")


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    from speechpool.service.engines import libespeak

    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(libespeak, "library", libespeak.library.__wrapped__)
    with pytest.raises(SettingsError, match=r"'espeakng_loader'.*pip install 'speechpool\[espeak\]'"):
        EspeakEngine().load()


def test_a_library_that_cannot_be_loaded_is_an_error_of_the_settings(monkeypatch, tmp_path):
    from speechpool.service.engines import libespeak

    loader = pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(libespeak, "library", libespeak.library.__wrapped__)
    monkeypatch.setattr(loader, "get_library_path", lambda: str(tmp_path / "none.so"))
    with pytest.raises(SettingsError, match="cannot be loaded"):
        EspeakEngine().load()


def test_voices_are_those_of_the_service_and_say_who_speaks():
    voices = EspeakEngine().voices()
    assert voices.keys() == VOICES.keys()
    assert all("espeak-ng" in voice.origin for voice in voices.values())
