"""What the tasks of one pool share, and how they come by a connection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from speechpool.errors import ConnectionLost, ProtocolViolation, RateLimited, SettingsError, SpeechPoolError, TaskFailed
from speechpool.limits import Backoff, Permit, Priority, Quota, RetryBudget
from speechpool.pool import Lease, Pool
from speechpool.protocol import Dialect, Voice
from speechpool.settings import Deadlines, PoolSettings
from speechpool.telemetry import Listeners, TaskEnded, TaskStarted, Telemetry

from .announced import Habit
from .bridge import patience
from .connector import SpeechConnection
from .endpoint import Endpoint
from .ticker import Ticker

if TYPE_CHECKING:
    from .core import TaskCore
    from .timing import Timing

__all__ = ["TaskHost", "TaskLease"]

log = logging.getLogger("speechpool.synthesis")

_OURS = 3
"""Frames of this floor between a user and `Pool.try_borrow`: what a leak report need not show."""


class TaskLease(Protocol):
    """A connection for the time of one task: a lease of the pool, or a turn on a lease of the caller."""

    @property
    def connection(self) -> SpeechConnection:
        """The connection."""

    @property
    def reused(self) -> bool:
        """The connection was open before it was borrowed."""

    @property
    def connect_time(self) -> float:
        """Seconds that the borrower waited for the dial of this connection."""

    @property
    def usable(self) -> bool:
        """The connection may carry another segment; otherwise `renew` first."""

    async def renew(self, *, timeout: None, deadline: float | None) -> None:  # noqa: ASYNC109  # see `Lease.renew`
        """Give up the connection for another one, ahead of everybody who waits.

        Cancellation: the lease holds no connection.
        """

    def return_(self, healthy: bool = True, reason: str = "") -> None:
        """Give it back, healthy or to be closed."""


class TaskHost:
    """The pool as a task sees it."""

    __slots__ = (
        "_account",
        "_budgets",
        "_pool",
        "_settings",
        "_voice",
        "announcing",
        "clock",
        "deadlines",
        "dialect",
        "endpoint",
        "listeners",
        "loop",
        "quota",
        "retry",
        "telemetry",
        "ticker",
    )

    def __init__(
        self,
        *,
        pool: Pool[SpeechConnection],
        endpoint: Endpoint,
        dialect: Dialect,
        settings: PoolSettings,
        deadlines: Deadlines,
        quota: Quota | None,
        telemetry: Telemetry,
        listeners: Listeners | None = None,
        voice: Voice | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        # uvloop's time stands still within a turn and counts whole milliseconds: too coarse for delays. Both count from
        # the same moment, so that they may be compared. Any other loop, a virtual one too, is asked itself.
        self.clock: Callable[[], float] = (
            time.monotonic if type(self.loop).__module__.startswith("uvloop") else self.loop.time
        )
        self.dialect = dialect
        self.deadlines = deadlines
        self.quota = quota
        self.telemetry = telemetry
        self.listeners = listeners
        self.endpoint = endpoint.display
        self.retry = settings.retry
        self.ticker = Ticker(self.loop, deadlines, patience(dialect), on_lag=telemetry.loop_lag.observe)
        self.announcing = Habit()
        self._account = endpoint.account
        self._budgets: dict[str, RetryBudget] = {}
        self._pool = pool
        self._settings = settings
        self._voice = voice

    def dialect_for(self, voice: Voice) -> Dialect:
        """Return the dialect that a task of `voice` speaks.

        Raises:
            SettingsError: The connections of this pool serve another voice only.
        """
        own, dialect = self._voice, self.dialect
        if own is not None and dialect.sharing(voice) != dialect.sharing(own):
            raise SettingsError(
                f"the connections of pool {self._pool.name!r} serve {own.voice!r} only, not {voice.voice!r}; "
                "make a pool for each voice."
            )
        return dialect.for_voice(voice)

    # ---------------------------------------------------------------------------------- connections
    def borrow_deadline(self, timing: Timing | None) -> float | None:
        """Return the loop time until which permit and connection may take."""
        timeout, total = self._settings.borrow_timeout, self.deadlines.total
        limits = [] if timeout is None else [self.loop.time() + timeout]
        if total is not None and timing is not None:
            limits.append(timing.entered + total)
        return min(limits, default=None)

    def try_borrow(self) -> TaskLease | None:
        """Return a warm connection, if one is idle and nobody waits."""
        return self._pool.try_borrow(_OURS)

    async def borrow(self, deadline: float | None, priority: Priority, *, fresh: bool) -> TaskLease:
        """Wait for a connection; `fresh`: for one that is opened from now on.

        Cancellation: nothing is lost.
        """
        lease: Lease[SpeechConnection] = await self._pool.borrow(
            timeout=None, deadline=deadline, priority=priority, fresh=fresh
        )
        return lease

    # ---------------------------------------------------------------------------------- limits
    def request_permit(
        self, quota: Quota, voice: Voice, characters: int, priority: Priority, deadline: float | None
    ) -> Permit:
        """Ask the quota on behalf of this account."""
        return quota.request(self._account, voice.model, characters, priority, deadline)

    def budget(self, model: str) -> RetryBudget:
        """Return what the tasks of a model may spend on retries: those of all pools that share the quota, if any."""
        budget = self._budgets.get(model)
        if budget is None:
            budget = RetryBudget() if self.quota is None else self.quota.retry_budget(self._account, model)
            self._budgets[model] = budget
        return budget

    @staticmethod
    def settle(permit: Permit, outcome: str, error: SpeechPoolError | None) -> None:
        """Tell the quota how the submission ended, so that its rate can adapt."""
        if isinstance(error, TaskFailed) and error.throttled:
            permit.settle("throttled")
        elif outcome == "completed":
            permit.settle("completed")
        else:
            permit.settle("cancelled" if outcome == "cancelled" else "failed")

    @staticmethod
    def retry_pause(attempt: int, cause: SpeechPoolError) -> float:
        """Return the seconds before attempt number `attempt`: none where its connection was at fault, else jittered."""
        if attempt == 1 and isinstance(cause, ConnectionLost | ProtocolViolation):
            return 0.0
        if isinstance(cause, RateLimited) and cause.retry_after is not None:
            return cause.retry_after
        backoff = Backoff(0.1, 2.0)
        for _ in range(attempt - 1):
            backoff.next()
        return backoff.next()

    # ---------------------------------------------------------------------------------- telemetry
    def begin(self, task: TaskCore, trace_id: str | None) -> None:
        """Count the begin of one task; `record` follows at its end."""
        self.telemetry.task_started()
        if self.listeners:
            voice = task.voice
            self.listeners.tell(
                TaskStarted(
                    pool=self._pool.name, number=id(task), model=voice.model, voice=voice.voice, trace_id=trace_id
                )
            )

    def record(self, task: TaskCore, timing: Timing) -> None:
        """Count one task at its end, and log it in one line without its text."""
        parts = timing.parts() or (None, None, None, None)
        ended = timing.ended or 0.0
        error = task._error
        code = None if error is None else error.code if isinstance(error, TaskFailed) else type(error).__name__
        self.telemetry.task_ended(
            task.outcome or "failed",
            ended,
            first_packet_delay=timing.first_packet_delay,
            queue=parts[0],
            connect=parts[1],
            start=parts[2],
            synthesis=parts[3],
            text_wait=timing.text_wait,
            end_to_end=None if timing.first_text is None else ended - timing.first_text,
            audio_seconds=task._audio_seconds(),
            connected=timing.connected is not None,
            reused=task._reused,
            characters=task.characters or task._script.characters,
            audio_bytes=task.audio_bytes,
            retries=task._retries,
            error=code,
            trace_id=timing.trace_id,
        )
        seconds = ended - timing.entered
        slow = self.telemetry.slowest.wants(seconds, ended)
        if slow or self.listeners:
            event = self._event(task, timing, code, seconds)
            if slow:
                self.telemetry.slowest.add(event, ended)
            if self.listeners:
                self.listeners.tell(event)
        if log.isEnabledFor(logging.INFO):
            delay = timing.first_packet_delay
            log.info(
                "task %s outcome=%s first_packet=%s bytes=%d retries=%d error=%s",
                task.request_id,
                task.outcome,
                "-" if delay is None else f"{delay:.3f}s",
                task.audio_bytes,
                task._retries,
                type(error).__name__ if error else "-",
                extra={
                    "speechpool": {
                        "pool": self._pool.name,
                        "outcome": task.outcome,
                        "request_id": task.request_id,
                        "trace_id": timing.trace_id,
                        "first_packet_delay": delay,
                        "end_to_end": None if timing.first_text is None else ended - timing.first_text,
                        "audio_bytes": task.audio_bytes,
                        "retries": task._retries,
                        "error": code,
                    }
                },
            )

    def _event(self, task: TaskCore, timing: Timing, error: str | None, seconds: float) -> TaskEnded:
        report = task.report
        return TaskEnded(
            pool=self._pool.name,
            number=id(task),
            model=task.voice.model,
            voice=task.voice.voice,
            trace_id=timing.trace_id,
            outcome=task.outcome or "failed",
            request_id=report.request_id,
            error=error,
            seconds=seconds,
            text_wait=report.text_wait,
            queue=report.queue,
            connect=report.connect,
            start=report.start,
            synthesis=report.synthesis,
            first_packet_delay=report.first_packet_delay,
            end_to_end=report.end_to_end,
            audio_seconds=report.audio_seconds,
            audio_bytes=report.audio_bytes,
            characters=report.characters,
            retries=report.retries,
            reused=report.reused,
        )
