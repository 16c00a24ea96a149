"""The life of one task, as the faces above it (`task`, `stream`, `speech`) share it.

The path of one frame: the transport calls `on_binary` by a plain call; it appends to a deque and wakes the consumer
only if that waits. The path of one text: it is added to the script, and leaves at once when the segment runs, else
from the `task-started` callback itself. The connection goes back in the callback of `task-finished`, not when the
consumer has read the rest.

A task has one outcome. On the wire it may be several segments (`segments`): one that breaks before its audio is
replayed from the script, on a fresh connection, with a new id; one that would wait too long for text is ended, and
another one follows (`bridge`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from speechpool.audio import carries_audio, stream_seconds
from speechpool.errors import (
    ConnectionLost,
    FirstAudioTimeout,
    LeaseError,
    PoolFull,
    ProtocolViolation,
    Shed,
    SpeechPoolError,
    TaskFailed,
    TextGap,
)
from speechpool.protocol import Audio, Event, Failed, Finished, SentenceBegin, SentenceEnd, Started, Voice, Word
from speechpool.telemetry import current_trace_id

from .bridge import patience
from .delivery import Sink
from .progress import Phase
from .segments import Outcome, Segments, drop, reason_of
from .timing import TaskReport, Timing

if TYPE_CHECKING:
    from speechpool.limits import Priority
    from speechpool.transport import Closed

    from .host import TaskHost

__all__ = ["Outcome", "TaskCore"]

log = logging.getLogger("speechpool.synthesis")


class TaskCore(Segments):
    """One task. The methods with a leading underscore are for the faces in this package.

    Owner of its connection while a segment runs: see `speechpool.transport.Owner`.
    """

    __slots__ = ("_audio_head", "_cancel_deadline", "characters", "server_request_id", "words")

    def __init__(
        self,
        host: TaskHost,
        voice: Voice,
        *,
        priority: Priority = "interactive",
        sink: Sink | None = None,
        bounded: bool = True,
        wrap: bool = False,
        bridge: bool = True,
    ) -> None:
        super().__init__(host, voice, priority=priority, sink=sink, bounded=bounded, wrap=wrap, bridge=bridge)
        self.server_request_id: str | None = None
        self.words: tuple[Word, ...] = ()
        self.characters = 0
        self._audio_head = b""  # the beginning of the audio
        self._cancel_deadline: float | None = None

    # ------------------------------------------------------------------------------------ what is known
    @property
    def first_packet_delay(self) -> float | None:
        """Seconds from the first text to the first audio; None before it."""
        return None if self._timing is None else self._timing.first_packet_delay

    @property
    def report(self) -> TaskReport:
        """How the task went, or goes."""
        timing = self._timing or Timing(0.0)
        queue, connect, start, synthesis = timing.parts() or (None, None, None, None)
        ended, text = timing.ended, timing.first_text
        return TaskReport(
            outcome=self.outcome,
            request_id=self.request_id,
            request_ids=self.request_ids,
            reused=self._reused,
            first_packet_delay=timing.first_packet_delay,
            queue=queue,
            connect=connect,
            start=start,
            synthesis=synthesis,
            text_wait=timing.text_wait,
            end_to_end=None if ended is None or text is None else ended - text,
            audio_seconds=self._audio_seconds(),
            audio_bytes=self.audio_bytes,
            characters=self.characters or self._script.characters,
            retries=self._retries,
        )

    def _audio_seconds(self) -> float | None:
        voice, joiner = self.voice, self._joiner
        if joiner is not None and joiner.seconds is not None:
            return joiner.seconds
        return stream_seconds(voice.format, voice.effective_sample_rate, self._audio_head, self.audio_bytes)

    # ------------------------------------------------------------------------------------ start
    async def _start(self) -> None:
        """Take a permit and a connection and send the first frame; does not wait for the server's answer.

        Cancellation: the task ends as cancelled, and what it held goes back.
        """
        host = self._host
        if self._timing is not None or self.outcome is not None:
            raise LeaseError("a task begins once; make another one.")
        self._timing = timing = Timing(host.clock(), current_trace_id())
        if self._script.characters:
            timing.first_text = timing.entered
        host.begin(self, timing.trace_id)
        host.budget(self.voice.model).deposit()
        host.ticker.watch(self)
        try:
            lease = host.try_borrow() if host.quota is None else None
            if lease is not None:
                self._begin(lease)  # warm and free: there is nothing to wait for
            else:
                await self._attempt(fresh=False)
        except (Shed, PoolFull) as error:
            self._end("shed", error)
            raise
        except asyncio.CancelledError:
            self._end("cancelled")
            raise
        except BaseException as error:
            if self._ended and self._error is not None:
                raise self._error from error  # ended meanwhile, because the pool closes
            self._end("failed", error)
            raise

    # ------------------------------------------------------------------------------------ text
    def _say(self, text: str) -> None:
        """Check one piece of text and send it, or keep it until the segment runs."""
        self._check_open()
        self._script.say(text)
        timing = self._timing
        if timing is not None and timing.first_text is None:
            timing.first_text = self._host.clock()
        if self._progress.started:
            self._progress.text_at = self._host.loop.time()
        if self._script.at_border:
            self._owe()
        self._pump()

    def _flush(self) -> None:
        self._check_open()
        self._script.flush()
        self._owe()
        self._pump()

    def _finish(self) -> None:
        if self._script.finished:
            return
        self._check_open()
        self._script.finish()
        self._progress.finishing = True
        self._owe()
        self._pump()

    def _check_open(self) -> None:
        if self._script.finished:
            raise LeaseError("the task is finished: no text can follow; start another task.")
        if self.outcome is not None:
            raise (
                self._error if isinstance(self._error, SpeechPoolError) else LeaseError(f"the task is {self.outcome}.")
            )

    def _owe(self) -> None:
        self._progress.owe(self._host.loop.time(), self._script.visible, self.audio_bytes)

    def _pump(self) -> None:
        """Send everything of the script that may leave now."""
        segment, connection = self._segment, self._connection
        if self.outcome is not None or self._closing:
            return
        if segment is None or connection is None:
            if self._between:
                self._go_on()
            return
        try:
            if self._progress.started:
                # What was queued while the server had not answered leaves in one write.
                frames = self._script.frames(segment)
                if len(frames) > 1:
                    connection.transport.send_all(frames)
                elif frames:
                    connection.transport.send(frames[0][1])
            elif not self._segment_begun:
                opening = self._script.opening(self._dialect)
                if opening is not None:
                    self._segment_begun = True
                    self._progress.open(self._host.loop.time())
                    connection.transport.send(segment.begin(opening))
        except (ConnectionLost, ProtocolViolation) as error:
            self._broken(error)

    async def _drain(self) -> None:
        """Wait until the peer has taken enough text. A connection that ends meanwhile is the callback's affair."""
        if self._progress.started and self._connection is not None:
            with contextlib.suppress(ConnectionLost):
                await self._connection.transport.drain()

    # ------------------------------------------------------------------------------------ frames
    # `on_binary` is an attribute: what a binary frame means at this moment. So the hot path asks nothing for a frame:
    # `drop` outside of a segment and after a cancel, `_stray` before the server has accepted, then `_join` where
    # several segments become one stream, else `_first_audio`, and from there on what `_hand_over` names. On a
    # connection that carried a cancelled task a guard stands before it (announced.py).

    @property
    def _hand_over(self) -> Callable[[bytes], None]:
        return self._to_reader if self._sink is None else self._to_sink

    def _stray(self, data: bytes) -> None:
        """Nobody asked for this audio."""
        if self._segment is not None:
            self._segment.stray = True
            self._mixed_up()

    def _mixed_up(self) -> None:
        """Leave the connection: it brings frames of another task, and binary frames do not say whose they are."""
        self._broken(ProtocolViolation("the server sent frames of another task on the connection of this one."))

    def _first_audio(self, data: bytes) -> None:
        """Look at the first frames: a container's header is no audio."""
        if not data:
            return
        if not self._audio_head:
            self._audio_head = data[:64]
            # No retry from here on, so what was sent need not be kept.
            self._script.forget_sent()
        timing = self._timing
        if timing is not None and timing.first_audio is None and carries_audio(self.voice.format, data):
            timing.first_audio = self._host.clock()
        if timing is not None and timing.first_audio is not None and (self._joiner is None or self._joiner.plain):
            self._listen_by(self._hand_over)
        self._hand_over(data)

    def _join(self, data: bytes) -> None:
        """Hand over what makes one stream of the segments."""
        joiner = self._joiner
        if joiner is not None:
            data = joiner.feed(data)
            if joiner.plain:
                self._listen_by(self._first_audio)
        self._first_audio(data)

    def _listen_by(self, listener: Callable[[bytes], None]) -> None:
        """Take binary frames as audio, where that is how audio comes."""
        if self._segment is not None and self._segment.takes_audio:
            self.on_binary = listener if self._guard is None else self._guard.before(listener)

    def on_text(self, data: bytes) -> None:
        """Take one text frame."""
        segment = self._segment
        if segment is None:
            return
        try:
            events = segment.feed(data)
        except ProtocolViolation as error:
            self._broken(error)
            return
        if segment.mixed_up:
            self._mixed_up()
            return
        for event in events:
            if self._segment is segment:
                self._on_event(event)

    def _on_event(self, event: Event) -> None:
        self._progress.events += 1
        kind = type(event)
        if kind is Audio:
            if self.outcome is None:
                (self._first_audio if self._joiner is None else self._join)(cast("Audio", event).data)
        elif kind is Started:
            self._on_started(cast("Started", event))
        elif kind is SentenceBegin:
            self._progress.enter_sentence()
            self._put(event if self._past is None else self._past.begin(cast("SentenceBegin", event)))
        elif kind is SentenceEnd:
            self._on_sentence_end(cast("SentenceEnd", event))
        elif kind is Finished:
            self._on_finished(cast("Finished", event))
        else:
            failed = cast("Failed", event)
            self._broken(TaskFailed(failed.code, failed.message, retryable=failed.retryable))

    def _on_started(self, event: Started) -> None:
        self._progress.accept(self._host.loop.time())
        self.server_request_id = event.server_request_id or self.server_request_id
        if self.outcome is not None:
            self._send_cancel()  # cancelled before the server had answered
            return
        if self._timing is not None:
            self._timing.started = self._host.clock()
        self._listen_by(self._first_audio if self._joiner is None else self._join)
        self._pump()

    def _on_sentence_end(self, event: SentenceEnd) -> None:
        self._progress.leave_sentence(event.characters)
        if self._past is not None:
            event = self._past.end(event)
        if event.words:
            self.words += event.words
        if event.characters is not None:
            self.characters = event.characters
        self._put(event)

    def _on_finished(self, event: Finished) -> None:
        past, goes_on = self._past, self._closing and self.outcome is None
        told = event if past is None else past.finished(event)
        if told.characters is not None:
            self.characters = told.characters
        if told.words and len(self.words) == (0 if past is None else past.words):
            self.words += told.words  # some servers send them only at the end
        self.server_request_id = event.server_request_id or self.server_request_id
        if self._guard is not None and self.outcome is None:
            self._guard.completed()
        self._give_back("completed", keep=goes_on)
        if goes_on:
            self._bridged(event, self.characters, len(self.words), self._heard_seconds())
        elif self.outcome is None:
            self._complete(told)

    def _heard_seconds(self) -> float:
        """Seconds of audio so far; where its format does not tell, those of the words."""
        seconds = self._audio_seconds()
        return self.words[-1].end_time / 1000 if seconds is None and self.words else seconds or 0.0

    def _complete(self, event: Finished | None) -> None:
        """End the task well; `event` is None where no segment runs."""
        if not self.audio_bytes:
            self._retry_or_fail(TaskFailed("NoAudio", "the server finished the task without any audio."))
            return
        self._put(self._past.finished(None) if event is None and self._past is not None else event or Finished())
        self._end("completed")

    def _sink_failed(self, error: Exception) -> None:
        self._fail(error)

    # ------------------------------------------------------------------------------------ the end
    def on_closed(self, closed: Closed) -> None:
        """Learn that the connection ended in the middle of the segment."""
        connection = self._connection
        self._broken(ConnectionLost(f"the connection ended during the task: {closed}.", close_code=closed.code))
        if connection is not None:
            connection.on_closed(closed)

    def _broken(self, error: SpeechPoolError) -> None:
        """The segment ended badly: its connection is of no further use."""
        if self._segment is None:
            return
        self._give_back("failed", healthy=False, reason=reason_of(error), error=error)
        if self.outcome is None:
            self._retry_or_fail(error)

    def _cancel(self) -> None:
        """End the task now. The connection goes back when the server confirms, or is discarded."""
        if self.outcome is not None:
            return
        self._queue.clear()
        self._end("cancelled")
        if self._restart is not None:
            self._restart.cancel()
        self._cancel_segment()

    def abandon(self, error: SpeechPoolError) -> None:
        """End the task with `error`, and cancel it on the server. Does nothing to a task that has ended."""
        if self.outcome is None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End the task for a reason of this side: the server is told to stop."""
        self._end("failed", error)
        if self._restart is not None:
            self._restart.cancel()
        self._cancel_segment()

    def _cancel_segment(self) -> None:
        if self._segment is None:
            return
        self._resume()  # a socket that is not read would never bring the confirmation
        if not self._segment_begun:
            self._give_back("cancelled")
        elif not self._dialect.can_cancel:
            self._give_back("cancelled", healthy=False, reason="cancelled")
        else:
            limit = self._host.deadlines.cancel
            self._cancel_deadline = None if limit is None else self._host.loop.time() + limit
            self._host.ticker.watch(self)
            if self._progress.started:
                self._send_cancel()

    def _send_cancel(self) -> None:
        segment, connection = self._segment, self._connection
        if segment is None or connection is None or (self._closing and self._speechless):
            return  # there is none, or it is told already
        try:
            frame = segment.cancel()
            if frame is not None:
                connection.transport.send(frame)
                connection.cancelled = True
        except (ConnectionLost, ProtocolViolation) as error:
            self._broken(error)

    def _end(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Give the task its one outcome."""
        if self.outcome is not None:
            return
        host, timing = self._host, self._timing
        self.outcome, self._error = outcome, error
        self.on_binary = drop  # late audio reaches nobody
        if isinstance(error, SpeechPoolError):
            error.audio_delivered, error.request_id = self.audio_bytes, self.request_id
            error.endpoint = error.endpoint or host.endpoint
        if self._segment is None:
            host.ticker.unwatch(self)
            if self._lease is not None or self._permit is not None:
                self._leave_lease()
        if timing is not None:
            timing.ended = host.clock()
            host.record(self, timing)
        self._close()

    # ------------------------------------------------------------------------------------ deadlines
    def on_tick(self, now: float) -> None:
        """Compare the deadlines; called a few times a second by the ticker."""
        if self.outcome is not None:
            if self._cancel_deadline is not None and now >= self._cancel_deadline:
                self._give_back("cancelled", healthy=False, reason="cancel not confirmed")
            return
        deadlines, timing = self._host.deadlines, self._timing
        if not self.request_ids:
            return  # it waits for its first connection, which has a deadline of its own
        if timing is not None and deadlines.total is not None and now - timing.entered >= deadlines.total:
            self._overdue("total", deadlines.total)
        elif self._segment is not None and self._segment_begun:
            overdue = self._progress.overdue(now, self.audio_bytes, deadlines, paused=self._paused)
            if overdue is not None:
                self._overdue(*overdue)
            elif self._progress.started and not self._script.finished and not self._closing:
                limit = patience(self._dialect)
                if limit is not None and now - self._progress.text_at >= limit:
                    self._thinks(limit)

    def _overdue(self, phase: Phase, limit: float) -> None:
        what = {
            "start": "accepted the task",
            "first_audio": "sent audio",
            "gap": "sent more audio",
            "total": "completed the task",
        }[phase]
        error = FirstAudioTimeout(
            f"the server has not {what} within {limit:g} s (deadline {phase!r}); raise it in Deadlines, or look at the "
            "server.",
            phase=phase,
            limit=limit,
        )
        if phase == "total":
            error.retryable = False
            self._fail(error)
        else:
            self._broken(error)

    def _thinks(self, limit: float) -> None:
        """No text has come for as long as a server takes it."""
        if not self._bridge:
            words = (
                f"no text came for {limit:g} s, and the server gives a task up after {self._dialect.text_gap:g} s; "
                "send in time, finish the task, or leave `bridge` on."
            )
            self._fail(TextGap(words, limit=limit))
            return
        where = "at a sentence's end" if self._script.at_border else "in the middle of a sentence"
        log.debug("task %s: no text for %g s; its segment is ended, %s", self.request_id, limit, where)
        self._cut()
