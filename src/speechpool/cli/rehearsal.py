"""How fast a service speaks, and a Poisson stream planned from it: its rate, its arrivals, the size of its pool."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from speechpool.protocol import Voice
    from speechpool.synthesis import Endpoint

__all__ = ["Pace", "Plan", "measure", "plan"]

SHARE: Final = 0.5
"""Share of the measured rate that the stream asks for."""
HEADROOM: Final = 1.6
"""`max_size` / tasks expected at once: 62.5 % used."""
_ROUNDS: Final = 2
"""Tasks that are measured alone, and that each connection carries while the rate is measured."""
_SPAN: Final = 11.0
"""Seconds that the stream should last: a peak is the highest ten-second mean."""
_MOST_SENTENCES: Final = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """What a service manages.

    Attributes:
        rate: Tasks a second, when it has more to do than it can.
        duration: Seconds that a task takes when it is alone.
    """

    rate: float
    duration: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A Poisson stream.

    Attributes:
        sentences: Sentences in each task.
        rate: Tasks a second, on average.
        expected: Tasks at once, on average: rate x duration (Little's law).
        max_size: Connections for them.
        arrivals: Seconds from the start, one a task.
    """

    sentences: int
    rate: float
    expected: float
    max_size: int
    arrivals: tuple[float, ...]


async def measure(endpoint: Endpoint, voice: Voice, texts: Sequence[str]) -> Pace:
    """Measure what a service manages with such texts; takes a few tasks a core.

    Raises:
        SpeechPoolError: A task failed.
    """
    from .endpoints import opened_pool

    at_once = 2 * (os.cpu_count() or 1)
    some = itertools.cycle(texts)
    async with opened_pool(endpoint, name="rehearsal", max_size=at_once) as pool:
        await pool.wait_ready()

        async def elapsed(lanes: int) -> float:
            """Return the seconds that `lanes` connections take, each for some tasks one after the other."""
            turns = [[next(some) for _ in range(_ROUNDS)] for _ in range(lanes)]
            begun = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for turn in turns:
                    group.create_task(speak(turn))
            return time.monotonic() - begun

        async def speak(turn: Sequence[str]) -> None:
            for text in turn:
                await pool.synthesize(text, voice)

        await pool.synthesize("Ready.", voice)  # what is slow only once
        alone = await elapsed(1)
        together = await elapsed(at_once)
    return Pace(rate=at_once * _ROUNDS / together, duration=alone / _ROUNDS)


def plan(pace: Pace, requests: int, seed: int = 0) -> Plan:
    """Plan a stream at half of what the service manages.

    Args:
        pace: Measured with one sentence a task. Where the stream would be over too soon to be judged, a task gets more.
        requests: Tasks.
        seed: The same one gives the same arrivals, in units of the rate.
    """
    needed = math.ceil(_SPAN * SHARE * pace.rate / requests)
    sentences = min(max(1, needed), _MOST_SENTENCES)
    rate = SHARE * pace.rate / sentences
    expected = rate * pace.duration * sentences
    gaps = random.Random(seed)
    arrivals = itertools.accumulate(gaps.expovariate(rate) for _ in range(requests))
    return Plan(sentences, rate, expected, max(2, round(HEADROOM * expected)), tuple(arrivals))
