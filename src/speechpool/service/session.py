"""One connection of the service: instructions in, a speech at a time, frames out.

    on_text ─▶ InferenceSession (order, shapes) ─▶ ServedTask | SambertTask (text rules) ─▶ Speech of the backend
                                                        │ listener
    connection ◀── Outbox (one write a turn) ◀──────────┘

Tasks of CosyVoice and of Sambert may follow one another on a connection. What only one of them knows is in its task and
in its part of the protocol.

Every way out of a task goes through `_end`, which forgets the task first: what a speech says later goes nowhere.

A run-task passes `Submissions` first (rate and tasks of its key), then the parameters are looked at, then the backend.

Close codes: 1000 a moment after `task-failed` and at the idle limit, 1001 while the service drains, 1003 after a binary
frame, 1007 after a frame that cannot be read. The provider documents only the last one.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from speechpool.protocol.cosyvoice import (
    CancelTask,
    ContinueTask,
    FinishTask,
    FlushTask,
    Instruction,
    LateCancel,
    Malformed,
    Refused,
    RunTask,
    State,
)
from speechpool.protocol.inference import InferenceSession
from speechpool.protocol.sambert import RunSambert

from .backend import Backend, BackendRefusal
from .counts import Counts, Outcome
from .outbox import Outbox, Wire
from .sambert import SambertTask
from .speaking import INTERNAL_ERROR
from .submissions import Submissions
from .task import ServedTask
from .watch import Watch

if TYPE_CHECKING:
    from speechpool.transport import Closed

    from .limits import ServiceSettings

__all__ = ["SpeechSession"]

logger = logging.getLogger("speechpool.service")

CLIENT_ERROR = "CLIENT_ERROR"
INTERNAL_TIMEOUT = "InternalError.Timeout"

NORMAL, GOING_AWAY, UNSUPPORTED, MALFORMED = 1000, 1001, 1003, 1007


class SpeechSession:
    """The owner of one accepted connection.

    Args:
        backend: Who speaks.
        settings: Limits.
        counts: Where to count.
        sessions: The open sessions of the service; this one is a member while its connection is open.
        submissions: Who may start a task now, over all sessions of the service; None: everybody.
        client: Stands for the key in limits; never the key itself.
        watch: Measures the tasks of all sessions; None: its own.
    """

    _connection: Wire
    _outbox: Outbox

    def __init__(
        self,
        backend: Backend,
        settings: ServiceSettings,
        counts: Counts,
        sessions: set[SpeechSession],
        *,
        submissions: Submissions | None = None,
        client: str = "",
        watch: Watch | None = None,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._counts = counts
        self._sessions = sessions
        self._submissions = submissions or Submissions()
        self._client = client
        self._protocol = InferenceSession(older_events=settings.older_events)
        self._task: ServedTask | SambertTask | None = None
        self._draining = False
        self._dead = False  # failed: nothing is taken any more, and the close is near
        self._loop = asyncio.get_running_loop()
        self._watch = watch or Watch(self._loop.time)
        self._tasks = 0  # that were taken on this connection
        self._began = 0.0  # the one that runs
        self._request_id = ""
        self._timer: asyncio.TimerHandle | None = None
        self._touched = 0.0  # when the present silence began

    @property
    def busy(self) -> bool:
        """Whether a task runs."""
        return self._task is not None

    def drain(self) -> None:
        """Close the connection as soon as no task runs on it."""
        self._draining = True
        if self._task is None:
            self._close(GOING_AWAY, "the service is going away")

    def stop(self) -> None:
        """Give up the task, if one runs, and close the connection."""
        if self._task is not None:
            self.fail(INTERNAL_ERROR, "The service is shutting down; send the task to another one.")
        self._close(GOING_AWAY, "the service is going away")

    # ---------------------------------------------------------------------------------- the connection
    def on_connected(self, connection: Wire) -> None:
        """Take the connection."""
        self._connection = connection
        self._outbox = Outbox(connection, self._on_full, self._on_taken)
        self._sessions.add(self)
        self._counts.connections += 1
        self._touched = self._loop.time()
        self._tick()

    def on_text(self, data: bytes) -> None:
        """Take one instruction."""
        if self._dead:
            return
        try:
            self._obey(self._protocol.feed(data))
        except Malformed as error:
            logger.info("A connection sent a frame that is no instruction: %s", error)
            self._end("failed", "Malformed")
            self._close(MALFORMED, "the frame is no instruction")
        except (Refused, BackendRefusal) as error:
            self.fail(error.code, error.message)

    def on_binary(self, data: bytes) -> None:
        """Refuse: clients send text frames only."""
        if self._dead:
            return
        self._end("failed", "Malformed")
        self._close(UNSUPPORTED, "binary frames are not taken")

    def on_closed(self, closed: Closed) -> None:
        """Free what the connection held; a task that still runs is heard by nobody."""
        self._sessions.discard(self)
        self._end("cancelled")
        self._outbox.close()
        self._stop_timer()

    # ---------------------------------------------------------------------------------- instructions
    def _obey(self, instruction: Instruction | RunSambert) -> None:
        self._touched = self._loop.time()
        if isinstance(instruction, RunTask | RunSambert):
            self._run(instruction)
            return
        if isinstance(instruction, LateCancel):
            return
        task = self._task
        assert isinstance(task, ServedTask)  # noqa: S101  # the protocol lets nothing through but for such a task
        if isinstance(instruction, ContinueTask):
            task.text(instruction.text)
        elif isinstance(instruction, FlushTask):
            task.flush()
        elif isinstance(instruction, FinishTask):
            task.finish()
        elif isinstance(instruction, CancelTask):
            self._end("cancelled")
            task.confirm()
            self._rest()

    def _run(self, run: RunTask | RunSambert) -> None:
        try:
            self._submissions.start(self._client, run.model, self._loop.time())
            try:
                self._task = self._served(run)
            except BaseException:
                self._submissions.end(self._client)
                raise
        except (Refused, BackendRefusal) as error:
            self._counts.tasks[_outcome(error.code)] += 1
            self._counts.errors[error.code] += 1
            self._watch.refused(_outcome(error.code), error.code)
            raise
        self._counts.running += 1
        self._tasks += 1
        self._began, self._request_id = self._watch.began(), run.task_id
        if self._settings.early_text:
            self._start(self._task)
        else:
            # What came in the same breath as run-task was sent without a look at task-started: it meets STARTING.
            self._loop.call_soon(self._start, self._task)

    def _start(self, task: ServedTask | SambertTask) -> None:
        if self._task is not task:
            return  # failed, or its connection is gone
        self._outbox.add(self._protocol.started())
        self._outbox.flush()
        if self._outbox.full_since is not None:
            task.pause()  # the peer has not taken the audio of its last task yet
        task.begin()

    def _served(self, run: RunTask | RunSambert) -> ServedTask | SambertTask:
        if isinstance(run, RunSambert):
            return SambertTask(
                self._backend,
                self._protocol.sambert,
                self._outbox,
                run,
                client=self._client,
                on_finished=self._on_finished,
                on_failed=self.fail,
            )
        return ServedTask(
            self._backend,
            self._protocol.cosyvoice,
            self._outbox,
            run,
            settings=self._settings,
            client=self._client,
            on_finished=self._on_finished,
            on_failed=self.fail,
        )

    # ---------------------------------------------------------------------------------- the end of a task
    def _on_finished(self) -> None:
        self._end("completed")
        self._rest()

    def fail(self, code: str, message: str) -> None:
        """Send `task-failed`, give up the task if one runs, and close the connection a moment later."""
        if self._dead:
            return
        if self._task is not None:
            self._counts.errors[code] += 1
        self._end(_outcome(code), code)
        self._dead = True
        self._outbox.add(self._protocol.order.failed(code, message))
        # The official SDK sends text and finish-task without a look at what came in between. On a closed socket it says
        # just that, and never the reason (tests/conformance/test_official_sdk.py, the text that is too long).
        self._stop_timer()
        self._timer = self._loop.call_later(self._settings.linger or 0, self._close, NORMAL, "the task failed")

    def _end(self, outcome: Outcome, code: str | None = None) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.close()
            self._counts.running -= 1
            self._counts.tasks[outcome] += 1
            self._watch.ended(
                task, outcome, self._began, reused=self._tasks > 1, request_id=self._request_id, code=code
            )
            self._submissions.end(self._client)

    def _rest(self) -> None:
        """Wait for the next task, unless the service drains."""
        self._touched = self._loop.time()
        if self._draining:
            self._close(GOING_AWAY, "the service is going away")

    def _close(self, code: int, reason: str) -> None:
        self._outbox.flush()
        self._connection.close(code, reason)

    # ---------------------------------------------------------------------------------- a slow peer
    def _on_full(self) -> None:
        # Nothing more is read, too: each instruction of a peer that reads nothing would add its answer to the heap.
        self._connection.pause()
        if self._task is not None:
            self._task.pause()

    def _on_taken(self) -> None:
        self._touched = self._loop.time()
        self._connection.resume()
        if self._task is not None:
            self._task.resume()

    # ---------------------------------------------------------------------------------- silences
    def _tick(self) -> None:
        # One timer a connection, which looks at what goes on when it fires: none is set or cancelled for a frame or a
        # task. It fires at least once in the shortest limit, so that it is never late.
        if self._connection.closed is not None or self._dead:
            return
        now = self._loop.time()
        since, limit = self._silence()
        if limit is None or now < since + limit:
            wait = self._settings.shortest_limit
            if limit is not None:
                wait = min(wait, since + limit - now)
            if wait != math.inf:
                self._timer = self._loop.call_later(wait, self._tick)
        else:
            self._silent_too_long(limit)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _silence(self) -> tuple[float, float | None]:
        """Since when, and how long, the present silence may last; None: for ever."""
        if self._outbox.full_since is not None:
            return self._outbox.full_since, self._settings.stall_timeout
        if self._task is None:
            return self._touched, self._settings.idle_timeout
        since = max(self._touched, self._task.touched)
        return since, self._settings.stall_timeout if self._owes() else self._settings.text_gap

    def _owes(self) -> bool:
        """Whether the next move is ours and not the client's."""
        return self._task is not None and (self._task.owes_audio or self._protocol.order.state is not State.RUNNING)

    def _silent_too_long(self, limit: float) -> None:
        if self._outbox.full_since is not None:
            logger.info("A peer took nothing for %g s; dropping it.", limit)
            self._connection.abort()
        elif self._task is None:
            self._close(NORMAL, f"idle for {limit:g} seconds")
        elif self._owes():
            logger.warning("A speech made no progress for %g s; giving its task up.", limit)
            self.fail(INTERNAL_TIMEOUT, f"no audio for {limit:g} seconds.")
        else:
            self.fail(CLIENT_ERROR, f"request timeout after {limit:g} seconds.")


def _outcome(code: str) -> Outcome:
    return "shed" if code.startswith("Throttling") else "failed"
