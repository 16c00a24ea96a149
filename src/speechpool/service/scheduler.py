"""Shares the cores among sentences: whose listener runs out of audio first is served first.

A job is one sentence, cut into steps of some tens of milliseconds by its generator. A worker takes the job with the
earliest deadline, runs one step, and hands the result to the event loop. A deadline is the moment when the audio
delivered so far will have been played, so that first packets stay quick while long texts keep playing, and a text
read ahead waits.

Results of all workers go through one outbox: only the first one of a batch wakes the loop. Everything that is public
here is called on the loop; the lock guards the heap and the state of jobs, never a step.
"""

from __future__ import annotations

import asyncio
import atexit
import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Final

from speechpool.protocol.events import Word

__all__ = ["Job", "QueueFull", "Scheduler", "Step"]

logger: Final = logging.getLogger(__name__)

_UNDELIVERED: Final = 2
"""Results of one job that may wait for the loop: one, while the next is made. A quick engine would fill the memory with
what a slow listener has to pause for (tests/service/test_backpressure.py)."""


class QueueFull(Exception):
    """As many listeners as allowed already wait for their first audio."""


class Step:
    """What one step made.

    Attributes:
        data: Encoded bytes, maybe none.
        seconds: Of audio.
        words: Those of the sentence, with its last step.
        cost: Seconds that it took a worker, by the scheduler's clock.
    """

    __slots__ = ("cost", "data", "seconds", "words")

    def __init__(self, data: bytes, seconds: float, words: tuple[Word, ...] = ()) -> None:
        self.data = data
        self.seconds = seconds
        self.words = words
        self.cost = 0.0


class _State(Enum):
    NEW = auto()
    READY = auto()
    RUNNING = auto()
    PARKED = auto()  # paused, and no worker holds it
    AHEAD = auto()  # the loop has yet to deliver what it made
    GONE = auto()


class Job:
    """One sentence to make.

    Args:
        steps: Makes it; each `next()` is one bounded piece of work on a worker thread.
        deadline: When its listener runs out of audio, by the scheduler's clock, or when it shall hear something, if it
            hears nothing now. Moved on with each step.
        silent: It hears nothing now.
        first: Its listener waits for the first audio of a task: counts against the limit.
        on_step: Called on the loop with each step.
        on_end: Called on the loop once after the last step, with the error if one ended it.
    """

    __slots__ = (
        "_paused",
        "_silent",
        "_state",
        "_undelivered",
        "_waiting",
        "deadline",
        "first",
        "on_end",
        "on_step",
        "steps",
    )

    def __init__(
        self,
        steps: Iterator[Step],
        *,
        deadline: float,
        first: bool,
        silent: bool = False,
        on_step: Callable[[Step], None],
        on_end: Callable[[Exception | None], None],
    ) -> None:
        self.steps = steps
        self.deadline = deadline
        self.first = first
        self.on_step = on_step
        self.on_end = on_end
        self._state = _State.NEW
        self._paused = False
        self._silent = silent
        self._undelivered = 0
        self._waiting = False


_Result = tuple[Job, Step | None, Exception | None]


class Scheduler:
    """Worker threads under one queue.

    Args:
        workers: Threads; None: one a core.
        max_queue: Listeners that may wait for their first audio.
        clock: Seconds, for deadlines.
    """

    def __init__(
        self, *, workers: int | None = None, max_queue: int = 200, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.workers = workers or _cores()
        self.max_queue = max_queue
        self._clock = clock
        self._wake = threading.Condition()
        self._heap: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._waiting = 0
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._outbox: list[_Result] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def now(self) -> float:
        """The time that deadlines go by."""
        return self._clock()

    @property
    def waiting(self) -> int:
        """Listeners that wait for their first audio."""
        return self._waiting

    @property
    def full(self) -> bool:
        """Whether one more would have to be refused."""
        return self._waiting >= self.max_queue

    # ---------------------------------------------------------------------------------- on the loop
    def start(self) -> None:
        """Start the workers; results go to the running event loop. After `close` it may be started again."""
        self._loop = asyncio.get_running_loop()
        # What a closed loop has never taken would keep the first result of the new one from waking it.
        for left in (self._threads, self._outbox, self._heap):
            left.clear()
        self._stopped, self._waiting = False, 0
        for number in range(self.workers):
            # Daemons, so that a forgotten service does not keep its program alive; stopped at exit, because a thread
            # inside an engine's C++ aborts the program when the interpreter goes away under it (tests/service/
            # test_backend.py::test_a_forgotten_backend_lets_its_program_end).
            thread = threading.Thread(target=self._work, name=f"speechpool-voice-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        atexit.register(self._stop_and_join)

    async def close(self) -> None:
        """Stop after the steps that run now. No job is called any more.

        Cancellation: the workers stop all the same; they are only not waited for.
        """
        with self._wake:
            self._stopped = True
            jobs = [job for _, _, job in self._heap]
            self._heap.clear()
        for job in jobs:
            self.drop(job)
        await asyncio.to_thread(self._stop_and_join)
        atexit.unregister(self._stop_and_join)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            QueueFull: It is a first one, and too many wait already.
        """
        if job.first and self.full:
            raise QueueFull
        with self._wake:
            job._waiting = job.first
            self._waiting += job.first
            self._enqueue(job)

    def drop(self, job: Job) -> None:
        """Forget a job: nothing of it is called any more.

        A step that runs now is lost (tests/service/test_scheduler.py::test_drop_while_a_step_runs).
        """
        with self._wake:
            running = job._state is _State.RUNNING
            job._state = _State.GONE
            self._begun(job)
        if not running:  # else its worker closes it: a generator cannot be closed while it runs
            _close(job)

    def pause(self, job: Job) -> None:
        """Make no further step. One that runs now is still delivered. A first one waits for us no more."""
        with self._wake:
            job._paused = True
            self._begun(job)  # else readers that do not read would fill the queue

    def resume(self, job: Job) -> None:
        """Go on after `pause`."""
        with self._wake:
            job._paused = False
            if job._state is _State.PARKED:
                self._enqueue(job)

    def _stop_and_join(self) -> None:
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _deliver(self) -> None:
        with self._wake:
            results, self._outbox = self._outbox, []
        for job, step, error in results:
            # Looked at for each: what one listener does may drop the job of the next.
            if job._state is _State.GONE or self._stopped:
                continue
            try:
                if step is not None:
                    job.on_step(step)
                else:
                    job._state = _State.GONE
                    job.on_end(error)
            except Exception:
                logger.exception("A listener of a speech failed.")
        with self._wake:
            for job, *_ in results:
                job._undelivered -= 1
                if job._state is _State.AHEAD:
                    self._enqueue(job)

    # ---------------------------------------------------------------------------------- on the workers
    def _work(self) -> None:
        while (job := self._take()) is not None:
            step, error = self._run(job)
            with self._wake:
                # Dropped while it ran: `drop` left the closing to this thread. Dropped from here on, it closes itself.
                dropped = job._state is _State.GONE
                self._put_back(job, step)
                first_of_batch = not self._outbox
                self._outbox.append((job, step, error))
            if dropped:
                _close(job)
            if first_of_batch:
                self._wake_loop()

    def _run(self, job: Job) -> tuple[Step | None, Exception | None]:
        begun = self._clock()
        try:
            step = next(job.steps, None)
        except Exception as error:  # noqa: BLE001  # an engine may raise anything; its job ends, the worker does not
            return None, error
        if step is not None:
            # Not CPU time: what the event loop and other programs take from the cores, a listener waits for as well.
            step.cost = self._clock() - begun
        return step, None

    def _take(self) -> Job | None:
        with self._wake:
            while not self._stopped:
                while self._heap:
                    job = heapq.heappop(self._heap)[2]
                    if job._state is not _State.READY:
                        continue
                    if job._paused:
                        job._state = _State.PARKED
                        continue
                    job._state = _State.RUNNING
                    return job
                self._wake.wait()
        return None

    def _put_back(self, job: Job, step: Step | None) -> None:
        if job._state is _State.GONE:
            return
        if step is None:
            self._begun(job)
            return  # stays RUNNING, so that nothing queues it, until the loop has delivered its end
        job._undelivered += 1
        if step.seconds:
            self._begun(job)
            now = self._clock()
            # What comes before it was due plays from now on, and so ends the earlier.
            job.deadline = (now if job._silent else max(job.deadline, now)) + step.seconds
            job._silent = False
        if job._undelivered < _UNDELIVERED:
            self._enqueue(job)
        else:
            job._state = _State.AHEAD

    def _enqueue(self, job: Job) -> None:
        if job._state is not _State.GONE:
            job._state = _State.READY
            heapq.heappush(self._heap, (job.deadline, next(self._order), job))
            self._wake.notify()

    def _begun(self, job: Job) -> None:
        self._waiting -= job._waiting
        job._waiting = False

    def _wake_loop(self) -> None:
        assert self._loop is not None  # noqa: S101  # workers are started with it
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            # The loop was closed without closing the service: nobody listens, so the workers end.
            with self._wake:
                self._stopped = True
                self._wake.notify_all()


def _close(job: Job) -> None:
    close = getattr(job.steps, "close", None)
    if close is not None:
        close()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
