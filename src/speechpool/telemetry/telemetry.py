"""What one pool measures of itself: plain integers on the loop thread, read whenever somebody asks.

No event object, no lock, no label look-up, and nothing for a frame: a task is counted once, at its end.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable

from .histogram import FACTOR_EDGES, FIRST_PACKET_EDGES, LAG_EDGES, WAIT_EDGES, Histogram
from .judge import judge
from .report import Report
from .slowest import Slowest
from .totals import PARTS, Totals, Window, count_label
from .utilisation import Utilisation

__all__ = ["Telemetry"]


class Telemetry:
    """The counters of one pool. For its event loop thread only.

    Args:
        name: The pool's name.
        clock: Seconds; the clock of the event loop.
        window: Length of the window, in whole seconds.
    """

    def __init__(self, name: str = "default", clock: Callable[[], float] = time.monotonic, *, window: int = 60) -> None:
        self.name = name
        self._clock = clock
        self._started = now = clock()
        self._window = Window(window, now)
        self.utilisation = Utilisation(now, window)
        """The pool tells it every change of `borrowed`."""
        self.tasks_started = 0
        """Tasks that have started since the beginning."""
        self.tasks_running = 0
        """Tasks that have started and not ended."""
        self.stages = tuple(Histogram(WAIT_EDGES) for _ in PARTS)
        """The parts of the first packet delay since the start, in the order of `PARTS`."""
        self.real_time_factor = Histogram(FACTOR_EDGES)
        """End-to-end seconds / seconds of audio of completed tasks, since the start."""
        self.loop_lag = Histogram(LAG_EDGES)
        """Seconds by which the event loop was late, at each look at the deadlines of running tasks."""
        self.exemplars: dict[float, tuple[str, float]] = {}
        """The latest trace id and first packet delay in each published bucket, by its upper edge."""
        self.slowest = Slowest()

    def task_started(self) -> None:
        """Count the start of a task; its one `task_ended` follows."""
        self.tasks_started += 1
        self.tasks_running += 1

    def task_ended(
        self,
        outcome: str,
        now: float,
        *,
        first_packet_delay: float | None = None,
        queue: float | None = None,
        connect: float | None = None,
        start: float | None = None,
        synthesis: float | None = None,
        text_wait: float | None = None,
        end_to_end: float | None = None,
        audio_seconds: float | None = None,
        connected: bool = False,
        reused: bool = False,
        characters: int = 0,
        audio_bytes: int = 0,
        retries: int = 0,
        error: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        """Count the end of a task. Times in seconds, None where the moment did not come.

        Args:
            outcome: `completed`, `failed`, `cancelled` or `shed`.
            now: The time.
            first_packet_delay: From the first text to the first audio; counted for every outcome.
            queue: Its first part; `connect`, `start` and `synthesis` follow, and the four sum to it.
            connect: Waiting for the dial of the task's own connection; 0 on reuse.
            start: Waiting for the server to accept the task.
            synthesis: From there to the first audio.
            text_wait: The time before the first text.
            end_to_end: From the first text to the last byte; counted where the task completed.
            audio_seconds: Length of the audio, where the format tells it.
            connected: The task got a connection.
            reused: That connection was open before it was borrowed.
            characters: Characters of its text.
            audio_bytes: Bytes of its audio.
            retries: Attempts after the first.
            error: Code or class of the error of a failed task.
            trace_id: Under which a trace knows it.

        Raises:
            ValueError: `outcome` is none of the four.
        """
        totals = self._window.current(now)
        if outcome == "completed":
            totals.completed += 1
            totals.finished(end_to_end, audio_seconds)
            if end_to_end is not None and audio_seconds:
                self.real_time_factor.observe(end_to_end / audio_seconds)
        else:
            _count_unfinished(totals, outcome, error)
        self.tasks_running -= 1
        if first_packet_delay is not None:
            parts = (queue or 0.0, connect or 0.0, start or 0.0, synthesis or 0.0)
            totals.first_packet(first_packet_delay, parts, text_wait or 0.0)
            for stage, seconds in zip(self.stages, parts, strict=True):
                stage.observe(seconds)
            if trace_id is not None:
                edge = bisect_left(FIRST_PACKET_EDGES, first_packet_delay)
                bucket = FIRST_PACKET_EDGES[edge] if edge < len(FIRST_PACKET_EDGES) else math.inf
                self.exemplars[bucket] = (trace_id, first_packet_delay)
        if connected:
            totals.connected += 1
            if reused:
                totals.reused += 1
        if audio_seconds:
            totals.audio_seconds += audio_seconds
        totals.characters += characters
        totals.audio_bytes += audio_bytes
        totals.retries += retries

    def segment_retried(self, reason: str) -> None:
        """Count one retried segment by its reason."""
        count_label(self._window.current(self._clock()).retried, reason)

    def recent(self, now: float | None = None) -> Totals:
        """Return the counts of the window, as a copy."""
        return self._window.recent(self._clock() if now is None else now)

    def lifetime(self, now: float | None = None) -> Totals:
        """Return the counts since the start, as a copy: what an exporter of counters reads."""
        return self._window.lifetime(self._clock() if now is None else now)

    @property
    def error_codes(self) -> dict[str, int]:
        """Failed tasks since the start, by error code or class."""
        return self.lifetime().errors

    def report(self, now: float | None = None) -> Report:
        """Return the five signals, over the window and since the start."""
        now = self._clock() if now is None else now
        used = self.utilisation
        known = used.max_size > 0
        return Report(
            name=self.name,
            window=judge(self.recent(now), used.mean(now) if known else None, used.peak(now), used.max_size),
            lifetime=judge(
                self.lifetime(now), used.lifetime_mean(now) if known else None, used.lifetime_peak(now), used.max_size
            ),
            window_seconds=min(self._window.seconds, now - self._started),
            lifetime_seconds=now - self._started,
            tasks_running=self.tasks_running,
        )


def _count_unfinished(totals: Totals, outcome: str, error: str | None) -> None:
    if outcome == "cancelled":
        totals.cancelled += 1
    elif outcome == "failed":
        totals.failed += 1
        count_label(totals.errors, error or "unknown")
    elif outcome == "shed":
        totals.shed += 1
    else:
        raise ValueError(f"outcome {outcome!r} is unknown; it is completed, failed, cancelled or shed.")
