"""What a load runs against: a warm pool, a fresh connection for each task, or the official SDK."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from speechpool.errors import SettingsError
from speechpool.protocol import Voice
from speechpool.synthesis import Endpoint

from .callers import Caller
from .record import Record

__all__ = ["TARGETS", "UNBOUNDED", "Setup", "Target", "opened", "size_for"]

TARGETS: Final[Mapping[str, str]] = {
    "pool": "a pool of speechpool, warm",
    "fresh": "speechpool without one: a connection for each task",
    "sdk": "the official SDK, a synthesizer for each task",
    "sdk-pool": "the official SDK's object pool, of at most 100",
}


UNBOUNDED: Final = 4
"""Times the size, for what keeps no connections: nobody waits for one there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every target has to know.

    Attributes:
        url: Where to.
        api_key: The key.
        model: Of the voice.
        voice: Its name.
        size: Connections of each target.
    """

    url: str
    api_key: str = field(repr=False)
    model: str
    voice: str
    size: int

    def endpoint(self) -> Endpoint:
        """Return where to connect."""
        return Endpoint(self.url, api_key=self.api_key)

    def pcm(self) -> Voice:
        """Return the voice; in PCM, which a listener can be simulated on."""
        return Voice(self.model, self.voice, format="pcm", sample_rate=24000)


class Target(Protocol):
    """One of them. Entering returns when it is warm."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def used(self) -> float | None:
        """Share of its connections that is borrowed now; None where it does not tell."""

    async def speak(self, record: Record, caller: Caller, start: float) -> None:
        """Run one task and write down what it was like.

        Args:
            record: To fill; `planned` and `late` stand in it.
            caller: What is said, and how.
            start: When the run began, by `time.monotonic()`.

        Cancellation: the record says what came of the task so far.
        """


def target_for(name: str, setup: Setup) -> Target:
    """Return a target, not yet entered.

    Raises:
        SettingsError: There is no such target, or it needs what is not installed.
    """
    from .pooled import PoolTarget
    from .sdk import SdkTarget

    if name not in TARGETS:
        raise SettingsError(f"target {name!r} is unknown; choose of {', '.join(TARGETS)}.")
    return PoolTarget(name, setup) if name in {"pool", "fresh"} else SdkTarget(setup, pooled=name == "sdk-pool")


@asynccontextmanager
async def opened(names: tuple[str, ...], setup: Setup) -> AsyncIterator[dict[str, Target]]:
    """Yield the targets by name, warm.

    Raises:
        SpeechPoolError: One of them cannot be had.
    """
    targets = {name: target_for(name, setup) for name in names}
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(target) for name, target in targets.items()}


def size_for(peak: int) -> int:
    """Return the connections for twice a peak: so many, and four standard deviations of a Poisson stream more."""
    return 2 * peak + math.ceil(4 * math.sqrt(2 * peak))
