"""The voices that the service answers to, and what each really is.

One voice is bundled with the default engine: "heart" (English, female). The provider's names are answered by voices
derived from it, by the height of the voice alone, so that programs written for the provider run unchanged and
speakers can be told apart. They do not sound like the provider's voices, and `origin` says so.
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
        origin: Where it comes from; for people.
    """

    name: str
    pitch: float
    origin: str


_DERIVED: Final[Mapping[float, tuple[str, ...]]] = {
    0.72: ("longlaotie", "longshuo", "longshuo_v2", "loongstella_v2", "longsanshu", "longxiu_v2", "Ethan"),
    0.8: (
        "longanyang", "longcheng", "longcheng_v2", "longfei", "longfei_v2", "longhan_v2", "longhao_v2", "longjielidou",
        "longnan_v2", "longshu", "longshu_v2", "longtian_v2", "longxiang", "longxiaocheng", "longxiaocheng_v2",
        "longyichen", "longyuan_v2", "longze_v2", "longzhe_v2", "longanzhi", "longanlang", "longanshuo",
    ),
    0.92: ("longwan", "longwan_v2", "longyuan", "longjing", "longyue", "longyue_v2", "longqiang_v2", "Serena"),
    1.0: ("longxiaochun", "longxiaochun_v2", "longmiao", "longmiao_v2", "loongstella", "longyingcui", "longanwen"),
    1.08: ("longanhuan", "longxiaoxia", "longxiaoxia_v2", "longhua", "longhua_v2", "longfeifei_v2", "Cherry"),
    1.2: ("longyumi_v2", "longxiaobai", "longxiaobai_v2", "loongbella", "loongbella_v2", "longyan_v2", "Chelsie"),
    1.4: ("longtong", "longtong_v2", "longjielidou_v2", "longling_v2", "longke_v2", "longxian_v2", "longhuhu"),
}  # fmt: skip


def _profiles() -> Mapping[str, VoiceProfile]:
    profiles = {"heart": VoiceProfile("heart", 1.0, "the bundled voice of hibari-tts: English, female")}
    for pitch, names in _DERIVED.items():
        for name in names:
            profiles[name] = VoiceProfile(name, pitch, f"derived from heart, {pitch:g} times as high")
    return MappingProxyType(profiles)


VOICES: Final = _profiles()
"""All voices by name."""
