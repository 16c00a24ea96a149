"""An event loop whose time passes only when nothing else is left to do.

A test that waits for a minute takes no time at all, and always sees the same order of events:

    def test_something():
        async def main():
            await asyncio.sleep(60)

        run(main())

Sockets work, but time jumps while their bytes are on the way: use in-memory connections with this loop.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualClockLoop", "run"]

_T = TypeVar("_T")

START = 1000.0
"""The time when a loop begins, in seconds: not 0, so that nobody takes it for "never"."""
PATIENCE = 2.0
"""Real seconds that a thread or a socket may take while no timer is set."""


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that moves the clock where another one would wait."""

    loop: VirtualClockLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.loop.jump():
            return []
        ready = super().select(PATIENCE)
        if not ready:
            raise RuntimeError(
                "nothing will ever happen: every task waits, and neither a timer nor a socket can wake one. "
                f"Tasks: {', '.join(sorted(task.get_name() for task in asyncio.all_tasks(self.loop)))}."
            )
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """A selector event loop with a virtual `time()`, which jumps to the next timer when nothing is ready.

    Raises:
        RuntimeError: Out of the run, where every task waits and no timer is set: the test would hang.
    """

    def __init__(self) -> None:
        self._virtual_now = START
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._virtual_now

    def jump(self) -> bool:
        """Move to the next timer, and say whether there is one."""
        # Exactly to the timer: a sum of waits would miss it by a rounding error.
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # kept by BaseEventLoop
        if not scheduled:
            return False
        self._virtual_now = max(self._virtual_now, scheduled[0].when())
        return True


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end on a new virtual loop, like `asyncio.run`."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)
