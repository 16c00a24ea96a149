"""Sambert's models, and which voice of the service answers to each.

A model is a voice there. Here it is answered by one of the derived voices: a man by a man, a child by a child. Where
the model speaks one foreign language, that stands in for the language hint, which Sambert does not have.

Source: DashScope's list of Sambert models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["SAMBERT_VOICES", "SambertVoice"]


@dataclass(frozen=True, slots=True)
class SambertVoice:
    """Who answers to a model.

    Attributes:
        voice: A name of `speechpool.service.voices.VOICES`.
        language: ISO 639-1 code, where the model speaks one language only; None: Chinese and English.
    """

    voice: str
    language: str | None = None


_BILINGUAL: Final = {
    "longlaotie": "zhiming zhilun",
    "longanyang": "zhinan zhichu zhide zhixiang zhihao zhimo zhishu zhifei zhida",
    "longxiaocheng": "zhiye zhishuo",
    "longyuan": "zhijing zhistella zhiting zhiyuan",
    "longwan": "zhiqi zhiya zhiyue",
    "longxiaochun": "zhijia zhiru zhiqian zhina zhixiao zhimiao-emo",
    "longanhuan": "zhigui zhimao",
    "longxiaobai": "zhiwei",
    "longtong": "zhiying",
}
_OF_ONE_LANGUAGE: Final = {
    "es": "camila", "it": "perla", "id": "indah", "fr": "clara", "de": "hanna", "th": "waan",
    "en": "beth betty cally cindy eva donna brian",
}  # fmt: skip
_MEN: Final = frozenset({"brian"})


def _voices() -> Mapping[str, SambertVoice]:
    voices = {
        f"sambert-{name}-v1": SambertVoice(voice) for voice, names in _BILINGUAL.items() for name in names.split()
    }
    for language, names in _OF_ONE_LANGUAGE.items():
        for name in names.split():
            voice = "longanyang" if name in _MEN else "longxiaochun"
            voices[f"sambert-{name}-v1"] = SambertVoice(voice, language)
    return MappingProxyType(voices)


SAMBERT_VOICES: Final = _voices()
"""All models by name."""
