"""What the service has done, as plain numbers of the loop thread."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Counts", "Outcome"]

Outcome = Literal["completed", "failed", "cancelled", "shed"]
"""How a task ended; `shed` is a task that was over a limit, or that the backend was too busy to take."""


@dataclass(slots=True)
class Counts:
    """Totals since the start.

    Attributes:
        connections: Connections accepted.
        refused: Handshakes refused: no key, wrong key, too many connections, draining.
        running: Tasks that run now.
        tasks: Tasks by outcome.
        errors: Tasks that were failed or shed, by the error code that their client got.
    """

    connections: int = 0
    refused: int = 0
    running: int = 0
    tasks: dict[Outcome, int] = field(default_factory=lambda: {"completed": 0, "failed": 0, "cancelled": 0, "shed": 0})
    errors: Counter[str] = field(default_factory=Counter)
