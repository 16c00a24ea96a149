"""The voices that the service answers to, and what each really is.

One voice is bundled with the default engine: "heart" (English, female). The provider's names are answered by voices
derived from it, by its height and by its formants (the length of the throat), so that programs written for the
provider run unchanged, speakers can be told apart, and who is a man there is a man here. They do not sound like the
provider's voices, and `origin` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["VOICES", "VoiceProfile"]


@dataclass(frozen=True, slots=True)
class VoiceProfile:
    """One voice.

    Attributes:
        name: What clients ask for.
        pitch: Factor on the fundamental frequency of the bundled voice.
        formant: Factor on the frequencies of its formants.
        origin: Where it comes from; for people.
    """

    name: str
    pitch: float
    formant: float
    origin: str


_DERIVED: Final[Mapping[tuple[str, float, float], tuple[str, ...]]] = {
    ("a man, deep", 0.52, 0.84): (
        "longlaotie", "longshuo", "longshuo_v2", "longsanshu", "longxiu_v2", "longanzhi",
    ),
    ("a man", 0.58, 0.86): (
        "longanyang", "longcheng", "longcheng_v2", "longfei", "longfei_v2", "longhan_v2", "longshu", "longshu_v2",
        "longxiang", "longyichen", "longze_v2", "longzhe_v2", "longanlang", "longanshuo", "Ethan",
    ),
    ("a young man", 0.66, 0.89): (
        "longhao_v2", "longnan_v2", "longtian_v2", "longxiaocheng", "longxiaocheng_v2",
    ),
    ("a woman, low", 0.8, 0.97): (
        "longyuan", "longyuan_v2", "longjing", "longyue", "longyue_v2", "loongstella", "loongstella_v2", "Serena",
    ),
    ("a woman, calm", 0.92, 1.0): ("longwan", "longwan_v2", "longqiang_v2", "longanwen", "longyingcui"),
    ("a woman", 1.0, 1.0): ("longxiaochun", "longxiaochun_v2", "longmiao", "longmiao_v2"),
    ("a woman, bright", 1.08, 1.0): (
        "longanhuan", "longxiaoxia", "longxiaoxia_v2", "longhua", "longhua_v2", "longfeifei_v2", "Cherry",
    ),
    ("a girl", 1.2, 1.04): (
        "longyumi_v2", "longxiaobai", "longxiaobai_v2", "loongbella", "loongbella_v2", "longyan_v2", "longxian_v2",
        "Chelsie",
    ),
    ("a child", 1.4, 1.08): (
        "longtong", "longtong_v2", "longjielidou", "longjielidou_v2", "longling_v2", "longke_v2", "longhuhu",
    ),
}  # fmt: skip


def _profiles() -> Mapping[str, VoiceProfile]:
    profiles = {"heart": VoiceProfile("heart", 1.0, 1.0, "the bundled voice of hibari-tts: English, female")}
    for (person, pitch, formant), names in _DERIVED.items():
        origin = f"{person}, derived from heart: {pitch:g} times as high, formants {formant:g} times"
        for name in names:
            profiles[name] = VoiceProfile(name, pitch, formant, origin)
    return MappingProxyType(profiles)


VOICES: Final = _profiles()
"""All voices by name."""
