"""The slowest tasks of the last minutes, with their phases, and the id under which a trace knows a task."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["KEPT", "SECONDS", "SlowTask", "Slowest", "current_trace_id", "trace_id"]

KEPT = 10
"""Tasks that are kept."""
SECONDS = 300.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowTask:
    """One task that took long. Seconds; None where the moment did not come. It holds no text.

    Attributes:
        ended: When it ended, in the clock of the pool.
        seconds: From entering to its end.
        text_wait: From entering to its first text; `queue`, `connect`, `start` and `synthesis` follow up to the first
            audio, and `rest` to the end.
        outcome: `completed`, `failed`, `cancelled` or `shed`.
        request_id: The wire id of its last segment.
        trace_id: See `trace_id`.
        error: Code or class of its error.
    """

    ended: float
    seconds: float
    text_wait: float
    queue: float | None
    connect: float | None
    start: float | None
    synthesis: float | None
    rest: float | None
    outcome: str
    request_id: str | None
    trace_id: str | None
    error: str | None


class Slowest:
    """A short list. What comes in is compared with one number as long as it is not slow."""

    __slots__ = ("_bar", "_looked", "_tasks")

    def __init__(self) -> None:
        self._tasks: list[SlowTask] = []
        self._bar = 0.0  # what a task has to exceed
        self._looked = 0.0  # when the old ones were let go

    def wants(self, seconds: float, now: float) -> bool:
        """Whether a task that took so long belongs here."""
        if now - self._looked >= 1.0:
            self._expire(now)
        return seconds > self._bar

    def add(self, task: SlowTask) -> None:
        """Take in a task that `wants` has said yes to."""
        self._tasks.append(task)
        self._tasks.sort(key=_seconds, reverse=True)
        del self._tasks[KEPT:]
        self._raise_bar()

    def tasks(self, now: float) -> list[dict[str, Any]]:
        """Return them, slowest first, with their `age` in place of `ended`."""
        self._expire(now)
        return [{"age": now - task.ended, **_without_end(task)} for task in self._tasks]

    def _expire(self, now: float) -> None:
        self._looked = now
        self._tasks = [task for task in self._tasks if now - task.ended < SECONDS]
        self._raise_bar()

    def _raise_bar(self) -> None:
        self._bar = self._tasks[-1].seconds if len(self._tasks) == KEPT else 0.0


def _seconds(task: SlowTask) -> float:
    return task.seconds


def _without_end(task: SlowTask) -> dict[str, Any]:
    fields = asdict(task)
    del fields["ended"]
    return fields
