"""The highest load that holds, by bisection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

__all__ = ["knee"]

_SMALLEST: Final = 1 / 64
"""Of the first guess: what fails even there, fails."""
_LARGEST: Final = 1024


async def knee(
    holds: Callable[[float], Awaitable[bool]], first: float, *, precision: float = 0.05
) -> tuple[float | None, float | None]:
    """Return the highest rate that was seen to hold and the lowest that was seen to fail; None: there was none.

    Args:
        holds: Tries a rate.
        first: A guess.
        precision: The two differ by this share of the lower one at most.
    """
    lowest, highest = first * _SMALLEST, first * _LARGEST
    good: float | None = None
    bad: float | None = None
    rate = first
    while lowest <= rate <= highest:
        if await holds(rate):
            good = rate
        else:
            bad = rate
        if good is None:
            rate /= 2
        elif bad is None:
            rate *= 2
        elif bad - good <= precision * good:
            break
        else:
            rate = (good + bad) / 2
    return good, bad
