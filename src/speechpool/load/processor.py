"""What this process got of a processor, and for how long it had to wait for one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

__all__ = ["Processor"]

_SCHEDULER: Final = Path("/proc/self/schedstat")
"""Linux: nanoseconds on a processor, nanoseconds of waiting for one, and turns, of the main thread."""


class Processor:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._used, self._waited = time.process_time(), _waited()

    def used(self) -> float:
        """Seconds on a processor."""
        return time.process_time() - self._used

    def starved(self) -> float | None:
        """Seconds in which the main thread could have gone on, but others had the processors; None: unknown here."""
        now = _waited()
        return None if now is None or self._waited is None else now - self._waited


def _waited() -> float | None:
    try:
        return int(_SCHEDULER.read_text("ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None
