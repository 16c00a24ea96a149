import pytest

from speechpool.errors import SettingsError
from speechpool.service.engines import Engine, PacedEngine, SynthesisEngine, engine_names, load_engine
from speechpool.service.engines.scripts import foreign_script
from speechpool.service.voices import VOICES


def test_the_names_of_the_provider_are_answered():
    for name in ("longanyang", "longxiaochun_v2", "longanhuan", "longyumi_v2", "longwan_v2", "heart"):
        assert VOICES[name].name == name


def test_derived_voices_say_what_they_are():
    for voice in VOICES.values():
        assert "heart" in voice.origin or "hibari" in voice.origin
        assert 0.5 <= voice.pitch <= 1.5
        assert 0.8 <= voice.formant <= 1.2


def test_who_is_a_man_at_the_provider_is_one_here():
    for name in ("longanyang", "longcheng", "longcheng_v2", "longshu_v2", "longanlang", "Ethan"):
        assert VOICES[name].pitch < 0.7
        assert VOICES[name].formant < 0.9
        assert "a man" in VOICES[name].origin or "a young man" in VOICES[name].origin
    for name in ("longxiaochun_v2", "longanhuan", "longwan", "Cherry"):
        assert VOICES[name].pitch > 0.75


def test_all_engines_are_found_by_name():
    kinds = {
        "auto": SynthesisEngine,
        "espeak": SynthesisEngine,
        "hibari": SynthesisEngine,
        "marker": PacedEngine,
        "replay": PacedEngine,
    }
    assert kinds.keys() <= set(engine_names())
    for name, kind in kinds.items():
        engine: Engine = load_engine(name)
        assert name in {engine.name, "auto"}
        assert isinstance(engine, kind)


def test_only_one_kind_each():
    assert not isinstance(load_engine("hibari"), PacedEngine)
    assert not isinstance(load_engine("marker"), SynthesisEngine)


def test_an_unknown_engine_is_answered_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"'kokoro' is unknown; installed are .*hibari.*marker.*replay"):
        load_engine("kokoro")


@pytest.mark.parametrize("name", ["auto", "espeak", "hibari", "marker", "replay"])
def test_an_unknown_profile_is_refused(name):
    with pytest.raises(SettingsError, match="warp"):
        load_engine(name, profile="warp")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello, café naïve Ōsaka №5 — 😀 “ok” 30 °C, 5 µm!", None),
        ("你好", "Han"),
        ("Hello 你好", "Han"),
        ("Привет", "Cyrillic"),
        ("こんにちは", "Hiragana"),
        ("안녕", "Hangul"),
        ("مرحبا", "Arabic"),
        ("", None),
    ],
)
def test_scripts_are_told_apart(text, script):
    assert foreign_script(text) == script
