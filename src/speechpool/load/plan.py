"""When which task begins: stages, and arrivals that follow from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from speechpool.errors import SettingsError

__all__ = ["Arrival", "Arrivals", "Stage", "parse_stages", "plan", "preset", "soak"]

Arrivals = Literal["poisson", "constant"]

_PRESET: Final = (
    ("warm-up", 0.5, 10.0), ("0.5x", 0.5, 15.0), ("1x", 1.0, 25.0), ("1.5x", 1.5, 20.0), ("2x", 2.0, 30.0),
    ("2x hold", 2.0, 30.0), ("1x again", 1.0, 20.0),
)  # fmt: skip
"""Name, multiple of the peak, and seconds: 150 in all."""
SOAK_PARTS: Final = 6
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a run with one rate.

    Attributes:
        name: As reports and expectations call it.
        seconds: How long tasks begin in it.
        rate: Task starts a second, on average; 0: nobody comes.
        judged: Whether it counts; warm-up does not.
    """

    name: str
    seconds: float
    rate: float
    judged: bool = True


@dataclass(frozen=True, slots=True)
class Arrival:
    """One task: `at` seconds after the start of the run, in stage number `stage`."""

    at: float
    stage: int


def preset(peak: int, duration: float, scale: float = 1.0) -> tuple[Stage, ...]:
    """Return the stages of `--peak`: up to twice the peak, and back.

    Args:
        peak: Tasks at once that are expected at the busiest time.
        duration: Mean seconds of a task; the rate is `peak / duration` at 1x (Little's law).
        scale: 1: 150 s in all.
    """
    return tuple(
        Stage(name, seconds * scale, factor * peak / duration, judged=name != "warm-up")
        for name, factor, seconds in _PRESET
    )


def soak(peak: int, duration: float, seconds: float) -> tuple[Stage, ...]:
    """Return the stages of `--soak`: the peak for `seconds`, in parts, so that one sees whether anything changes."""
    warm_up = Stage("warm-up", min(10.0, seconds / 4), 0.5 * peak / duration, judged=False)
    parts = range(1, SOAK_PARTS + 1)
    return warm_up, *(Stage(f"part {n} of {SOAK_PARTS}", seconds / SOAK_PARTS, peak / duration) for n in parts)


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Read `30s:10,70s:0,2m:100`: for how long, and how many tasks a second; 0 is a pause.

    Raises:
        SettingsError: It cannot be read; the message shows how it should look.
    """
    stages = []
    for part in text.split(","):
        span, _, rate = part.strip().partition(":")
        try:
            stage = Stage(part.strip(), _seconds(span), float(rate))
        except ValueError:
            raise SettingsError(f"--stages: {part!r} is no stage; write e.g. 30s:10,2m:100.") from None
        if stage.seconds <= 0 or not 0 <= stage.rate < 1e5:
            raise SettingsError(f"--stages: {part!r} needs a time above 0 and a rate of 0 to 100,000 tasks a second.")
        stages.append(stage)
    if not any(stage.rate for stage in stages):
        raise SettingsError(f"--stages {text!r} has pauses only; write e.g. 30s:10,70s:0,30s:10.")
    return tuple(stages)


def _seconds(text: str) -> float:
    unit = text.lstrip("0123456789.")
    if unit not in _UNITS:
        raise ValueError(text)
    return float(text.removesuffix(unit)) * _UNITS[unit]


def plan(stages: Sequence[Stage], seed: int, kind: Arrivals = "poisson") -> tuple[Arrival, ...]:
    """Return every arrival; the same seed gives the same ones."""
    gaps = random.Random(seed)
    arrivals, begin = [], 0.0
    for number, stage in enumerate(stages):
        at = begin
        while stage.rate:
            at += gaps.expovariate(stage.rate) if kind == "poisson" else 1 / stage.rate
            if at >= begin + stage.seconds:
                break
            arrivals.append(Arrival(at, number))
        begin += stage.seconds
    return tuple(arrivals)
