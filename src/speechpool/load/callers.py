"""Who calls: what a caller says, how quickly the text comes, and whether the caller listens to the end."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .plan import Arrival

__all__ = ["Behaviour", "Call", "Caller", "calls"]

# A word with the space before it, or one letter of a script without spaces: about what a language model writes at once.
_TOKEN: Final = re.compile("\\s*(?:[\u2e80-\u9fff\uac00-\ud7af]|[^\\s\u2e80-\u9fff\uac00-\ud7af]+)")


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller.

    Attributes:
        text: What shall be spoken.
        leaves: Breaks the task off after its first audio.
        slow: Takes audio no faster than it plays, so that the server has to wait.
        tokens_per_second: How quickly the text comes; None: at once.
    """

    text: str
    leaves: bool = False
    slow: bool = False
    tokens_per_second: float | None = None

    def pieces(self) -> Sequence[str]:
        """Return the text as it is sent: whole, or word by word."""
        return (self.text,) if self.tokens_per_second is None else _TOKEN.findall(self.text) or (self.text,)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What callers are like.

    Attributes:
        texts: They say one of these.
        barge_in: Share of them that break off.
        slow: Share of them that are slow.
        tokens_per_second: How quickly their text comes; None: at once.
    """

    texts: tuple[str, ...]
    barge_in: float = 0.0
    slow: float = 0.0
    tokens_per_second: float | None = None

    def callers(self, seed: int) -> Iterator[Caller]:
        """Yield one after the other, for ever; the same seed gives the same ones."""
        chance = random.Random(seed)
        while True:
            leaves, slow = chance.random() < self.barge_in, chance.random() < self.slow
            yield Caller(chance.choice(self.texts), leaves, slow, self.tokens_per_second)


@dataclass(frozen=True, slots=True)
class Call:
    """One task of a plan: `at` seconds after the start of the run, in stage number `stage`."""

    at: float
    stage: int
    caller: Caller


def calls(arrivals: Sequence[Arrival], behaviour: Behaviour, seed: int) -> tuple[Call, ...]:
    """Return who calls when."""
    callers = behaviour.callers(seed)
    return tuple(Call(arrival.at, arrival.stage, next(callers)) for arrival in arrivals)
