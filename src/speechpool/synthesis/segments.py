"""The segments of a task, one at a time: how each comes by a permit and a connection, begins, and parts from them.

A base class rather than a part, as `Delivery` is: the transport's owner is the task itself.

              first, or replayed after a break                       text, after a bridge
    nothing ─────── permit, borrow ───────▶ segment ── task-finished ──▶ between ── permit ──▶ segment ...
                                               │                            │  (renew, where the connection has ended)
                                               └── the end, or a break ─────┴──▶ the lease is returned
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from speechpool.audio import Joiner, new_joiner
from speechpool.errors import ConnectionLost, PoolFull, ProtocolViolation, Shed, SpeechPoolError, TaskFailed
from speechpool.protocol import Finished, Segment, Voice
from speechpool.telemetry import current_trace_id

from .announced import Guard
from .bridge import Past
from .delivery import Delivery, Sink
from .progress import Progress
from .script import Script
from .timing import Timing

if TYPE_CHECKING:
    from speechpool.limits import Permit, Priority, Quota
    from speechpool.transport import Closed

    from .host import TaskHost, TaskLease

__all__ = ["Outcome", "Segments", "drop", "reason_of"]

Outcome = Literal["completed", "failed", "cancelled", "shed"]


class Segments(Delivery):
    """What a task has on the wire. See `speechpool.transport.Owner` for what its connection calls."""

    on_binary: Callable[[bytes], None]

    __slots__ = (
        "__weakref__",
        "_between",
        "_bridge",
        "_closing",
        "_dialect",
        "_guard",
        "_host",
        "_joiner",
        "_lease",
        "_past",
        "_permit",
        "_priority",
        "_progress",
        "_restart",
        "_retries",
        "_retries_before",
        "_reused",
        "_script",
        "_segment",
        "_segment_begun",
        "_timing",
        "on_binary",
        "outcome",
        "request_ids",
        "voice",
    )

    def __init__(
        self,
        host: TaskHost,
        voice: Voice,
        *,
        priority: Priority,
        sink: Sink | None,
        bounded: bool,
        wrap: bool,
        bridge: bool,
    ) -> None:
        super().__init__(host.loop, sink=sink, bounded=bounded, wrap=wrap)
        self.voice = voice
        self.outcome: Outcome | None = None
        self.request_ids: tuple[str, ...] = ()
        """The wire ids of all segments, in order."""
        self._host = host
        self._priority: Priority = priority
        self._timing: Timing | None = None
        self._dialect = host.dialect_for(voice)
        self._script = Script(self._dialect, voice)
        self._progress = Progress(0.0)
        # The running segment.
        self._segment: Segment | None = None
        self._segment_begun = False
        self._guard: Guard | None = None
        self._lease: TaskLease | None = None
        self._permit: Permit | None = None
        self._reused = False
        self._restart: asyncio.Task[None] | None = None
        self._retries = 0
        self._retries_before = 0  # those of earlier segments
        self.on_binary = drop
        # The bridge.
        self._bridge = bridge
        self._closing = False  # the segment is ended by us, and the text is not at its end
        self._between = False  # it has ended, and the next one waits for text
        self._past: Past | None = None
        self._joiner: Joiner | None = None

    @property
    def request_id(self) -> str | None:
        """The wire id of the last segment."""
        return self.request_ids[-1] if self.request_ids else None

    # ------------------------------------------------------------------------------------ the beginning
    async def _attempt(self, *, fresh: bool) -> None:
        """Take a permit and a connection and begin a segment.

        Args:
            fresh: The connection must be opened from now on.
        """
        host = self._host
        # The waits for the permit and for the connection share one deadline, and stay inside that of the whole task.
        deadline = host.borrow_deadline(self._timing)
        if host.quota is not None:
            await self._take_permit(host.quota, deadline)
        lease = self._lease
        kept = lease is not None and lease.usable  # from the segment before
        if lease is not None:
            if not kept:
                await lease.renew(timeout=None, deadline=deadline)
        else:
            lease = None if fresh else host.try_borrow()
            if lease is None:
                lease = await host.borrow(deadline, self._priority, fresh=fresh)
        # From here on nothing awaits: a cancellation cannot fall between the hand-over and the first frame.
        self._begin(lease, kept=kept)

    async def _take_permit(self, quota: Quota, deadline: float | None) -> None:
        permit = self._permit = self._host.request_permit(
            quota, self.voice, self._script.waiting, self._priority, deadline
        )
        if not permit.granted:
            await permit.wait()

    def _begin(self, lease: TaskLease, *, kept: bool = False) -> None:
        """Begin a segment on the connection of `lease`; `kept`: which is that of the segment before."""
        host = self._host
        if self.outcome is not None:
            lease.return_()  # ended while it waited, for instance because the pool closes
            return
        timing = self._timing = self._timing or Timing(host.clock(), current_trace_id())
        connection = lease.connection
        # Of several segments the first one counts: whether the caller's task found a warm connection.
        if not self.request_ids:
            self._reused = lease.reused
        now = host.clock()
        if timing.first_audio is None:
            timing.connected, timing.started = now, None
            timing.connect_time = 0.0 if kept else lease.connect_time
        self._lease, self._connection = lease, connection
        self._progress.begin(now)
        if self._between or self._closing:  # it follows another segment, or replays one that was being ended
            script = self._script
            self._progress.follow(self.audio_bytes, owed=script.due, finishing=script.finished)
            self._closing = self._between = False
        # A task whose text is complete before its first segment has but one.
        if not self._script.finished or self._past is not None:
            self._begin_joining()
        segment_id = self._new_id()
        self.request_ids += (segment_id,)
        self._segment_begun = False
        self.on_binary = self._stray
        connection.transport.owner = self
        try:
            self._segment = segment = self._dialect.segment(self.voice, segment_id)
            segment.before, connection.last_id = connection.last_id, segment_id
            habit = host.announcing
            guarded = connection.cancelled if habit.known else self._dialect.can_cancel
            self._guard = Guard(habit, segment, self._stray) if guarded else None
            if not self._dialect.begins_with_text:
                connection.transport.send(self._segment.begin())
                self._segment_begun = True
            else:
                self._pump()
        except ConnectionLost as error:
            self._broken(error)
        except BaseException:
            self._give_back("failed")  # nothing was sent on it
            raise

    def _begin_joining(self) -> None:
        """Let what follows be joined with what was heard, and the first segment be ready for that."""
        if self._joiner is None and self._bridge and self._dialect.text_gap is not None:
            self._joiner = new_joiner(self.voice.format)
        if self._joiner is not None:
            self._joiner.begin(first=not self.audio_bytes)

    def _new_id(self) -> str:
        """Return the wire id of the next segment."""
        return os.urandom(16).hex()

    # ------------------------------------------------------------------------------------ the end
    def _give_back(
        self,
        outcome: str,
        *,
        healthy: bool = True,
        reason: str = "",
        error: SpeechPoolError | None = None,
        keep: bool = False,
    ) -> None:
        """Part from the connection: back to the pool, or discarded. With `keep` a healthy one waits for a segment."""
        segment, connection, lease = self._segment, self._connection, self._lease
        self.on_binary = drop
        self._resume()  # whoever gets the connection next reads it from the start
        self._segment = self._connection = self._lease = None
        if self._permit is not None:
            self._host.settle(self._permit, self.outcome or outcome, error)
            self._permit = None
        if connection is not None and lease is not None:
            if segment is not None and segment.stray:
                healthy, reason = False, "stray frames"
            connection.carried += self._segment_begun
            if healthy and connection.carried == self._dialect.tasks_per_connection:
                healthy, reason = False, "spent"
            # The idle owner first: giving back may hand the connection to the next borrower in the same call.
            connection.transport.owner = connection
            if keep and healthy:
                self._lease = lease
            else:
                lease.return_(healthy=healthy, reason=reason)
        if self.outcome is not None:
            self._host.ticker.unwatch(self)

    def _leave_lease(self) -> None:
        """Give back what is held while no segment runs, because none follows."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.return_()
        if self._permit is not None:
            self._permit.settle("shed")  # nothing was submitted with it
            self._permit = None

    # ------------------------------------------------------------------------------------ the next one
    def _bridged(self, event: Finished, characters: int, words: int, seconds: float) -> None:
        """The segment has ended so that another one may follow."""
        past = self._past = self._past or Past()
        past.add(event, characters=characters, words=words, sentences=self._progress.sentences, seconds=seconds)
        self._retries_before = self._retries
        self._closing, self._between = False, True
        self._go_on()

    def _go_on(self) -> None:
        """Begin the next segment if there is text for it, or end the task if none can come."""
        if self._restart is not None:
            return
        self._script.cut()
        if self._script.waiting:
            if self._host.quota is None and self._lease is not None and self._lease.usable:
                self._begin(self._lease, kept=True)
            else:
                self._restart = self._host.loop.create_task(self._again(None))
        elif self._script.finished:
            self._complete(None)

    def _retry_or_fail(self, error: SpeechPoolError) -> None:
        host = self._host
        attempt = self._retries - self._retries_before + 1
        heard = self._progress.heard(self.audio_bytes)
        if error.retryable and not heard and attempt <= host.retry and host.budget(self.voice.model).withdraw():
            self._retries += 1
            self._script.rewind()
            host.telemetry.segment_retried(reason_of(error))
            self._restart = host.loop.create_task(self._again(error))
            return
        self._end("failed", error)

    async def _again(self, cause: SpeechPoolError | None) -> None:
        """Run the next attempt, after the break that was `cause`, or the next segment.

        A task of the loop, because a callback has noticed that it is time.
        """
        try:
            if cause is not None:
                await asyncio.sleep(self._host.retry_pause(self._retries - self._retries_before, cause))
            await self._attempt(fresh=cause is not None)
        except asyncio.CancelledError:
            if self.outcome is None:
                self._end("cancelled")
            raise
        except Exception as error:  # noqa: BLE001  # any failure of an attempt is the outcome of the task
            error.__cause__ = error.__cause__ or cause
            self._end(self._outcome_of(error), error)
        finally:
            # An attempt that broke at once has set up the next one already.
            if self._restart is asyncio.current_task():
                self._restart = None

    def _outcome_of(self, error: Exception) -> Outcome:
        """Return `shed` where a task was refused before anything of it was heard or broke."""
        early = not self.audio_bytes and not self._retries
        return "shed" if early and isinstance(error, Shed | PoolFull) else "failed"

    def _cut(self) -> None:
        """End the segment, before the server would give it up. What is said from now on waits for the next one."""
        segment, connection = self._segment, self._connection
        if segment is None or connection is None:
            return
        self._closing = self._progress.finishing = True
        self._progress.owe(self._host.loop.time(), self._script.visible, self.audio_bytes)
        try:
            frame = segment.cancel() if self._speechless else segment.finish()
            if frame is not None:
                connection.transport.send(frame)
        except (ConnectionLost, ProtocolViolation) as error:
            self._broken(error)

    @property
    def _speechless(self) -> bool:
        """The segment has no text. Then it is cancelled, if it can be."""
        return self._dialect.can_cancel and not self._script.sent

    # ------------------------------------------------------------------------------------ what the task adds
    def on_text(self, data: bytes) -> None:
        """Take one text frame."""
        raise NotImplementedError

    def on_closed(self, closed: Closed) -> None:
        """Learn that the connection ended."""
        raise NotImplementedError

    def on_tick(self, now: float) -> None:
        """Compare the deadlines."""
        raise NotImplementedError

    def abandon(self, error: SpeechPoolError) -> None:
        """End the task with `error`."""
        raise NotImplementedError

    def _pump(self) -> None:
        raise NotImplementedError

    def _stray(self, data: bytes) -> None:
        raise NotImplementedError

    def _broken(self, error: SpeechPoolError) -> None:
        raise NotImplementedError

    def _complete(self, event: Finished | None) -> None:
        raise NotImplementedError

    def _end(self, outcome: Outcome, error: BaseException | None = None) -> None:
        raise NotImplementedError


def drop(data: bytes) -> None:
    """Take a frame that is nobody's. A function, because a method would tie an ended task into a cycle."""


def reason_of(error: SpeechPoolError) -> str:
    """Return a short word for counters: the provider's code, or the class of the error."""
    return error.code if isinstance(error, TaskFailed) else type(error).__name__
