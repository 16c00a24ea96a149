"""The slowest tasks of the last minutes, with their phases, and the id under which a trace knows a task."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any, Final

from .events import TaskEnded

__all__ = ["KEPT", "SECONDS", "Slowest", "current_trace_id", "trace_id"]

KEPT: Final = 10
"""Tasks that are kept."""
SECONDS: Final = 300.0
"""How long each is kept."""

trace_id: ContextVar[str | None] = ContextVar("speechpool_trace_id", default=None)
"""Id that logs, exemplars and the slowest tasks show for the tasks that begin in this context."""


def current_trace_id() -> str | None:
    """Return `trace_id`, or that of OpenTelemetry's span where the program uses it; None without either."""
    own = trace_id.get()
    if own is not None or "opentelemetry.trace" not in sys.modules:
        return own
    context = sys.modules["opentelemetry.trace"].get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


class Slowest:
    """A short list. What comes in is compared with one number as long as it is not slow."""

    __slots__ = ("_bar", "_looked", "_tasks")

    def __init__(self) -> None:
        self._tasks: list[tuple[float, TaskEnded]] = []  # when each ended, slowest first
        self._bar = 0.0  # what a task has to exceed
        self._looked = 0.0  # when the old ones were let go

    def wants(self, seconds: float, now: float) -> bool:
        """Whether a task that took so long belongs here."""
        if now - self._looked >= 1.0:
            self._expire(now)
        return seconds > self._bar

    def add(self, task: TaskEnded, now: float) -> None:
        """Take in a task that `wants` has said yes to."""
        self._tasks.append((now, task))
        self._tasks.sort(key=_seconds, reverse=True)
        del self._tasks[KEPT:]
        self._raise_bar()

    def tasks(self, now: float) -> list[dict[str, Any]]:
        """Return them, slowest first: their phases in seconds, `rest` being what follows the first audio, and `age`."""
        self._expire(now)
        return [{"age": now - ended, **_told(task)} for ended, task in self._tasks]

    def _expire(self, now: float) -> None:
        self._looked = now
        self._tasks = [(ended, task) for ended, task in self._tasks if now - ended < SECONDS]
        self._raise_bar()

    def _raise_bar(self) -> None:
        self._bar = self._tasks[-1][1].seconds if len(self._tasks) == KEPT else 0.0


_SHOWN: Final = (
    "seconds", "text_wait", "queue", "connect", "start", "synthesis", "outcome", "request_id", "trace_id", "error",
)  # fmt: skip


def _seconds(kept: tuple[float, TaskEnded]) -> float:
    return kept[1].seconds


def _told(task: TaskEnded) -> dict[str, Any]:
    delay = task.first_packet_delay
    rest = None if delay is None else task.seconds - task.text_wait - delay
    return {**{name: getattr(task, name) for name in _SHOWN}, "rest": rest}
