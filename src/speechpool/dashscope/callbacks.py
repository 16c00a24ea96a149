"""Threads for the callbacks of programs: taken when there is something to call, reused, and none for what is idle.

A program's callback may take its time or wait for something, so it never runs on the event loop. A worker serves one
task as long as that has something ready; so there are never more of them than tasks whose callbacks run.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["Workers", "finish_at_exit", "workers"]

logger: Final = logging.getLogger("speechpool.dashscope")

KEEP: Final = 5.0
"""Seconds that a worker without work waits for more."""


class Workers:
    """Worker threads. They are daemons; `finish_at_exit` keeps the process for tasks that it has left behind.

    Attributes:
        started: How many there were.
        late: Jobs for which no thread could be had: Python 3.12 starts none while the process exits, and a system has a
            limit. The next worker that is through with its own job takes them, and at the exit the main thread.
        news: Set when a job is late, or a task has ended that the exit waits for.
    """

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._idle: list[_Worker] = []
        self.started = 0
        self.late: deque[Callable[[], object]] = deque()
        self.news = threading.Event()

    def run(self, job: Callable[[], object]) -> None:
        """Have `job` run on a worker: on the one that was used last, or on a new one. Never waits, never fails."""
        while self._idle:
            try:
                worker = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            worker.give(job)
            return
        try:
            _Worker(self, job, self.started + 1)
        except RuntimeError:
            self.late.append(job)
            self.news.set()
        else:
            self.started += 1

    def help(self) -> None:
        """Do what is late in this thread."""
        while self.late:
            try:
                job = self.late.popleft()
            except IndexError:  # a worker was quicker
                break
            _do(job)


class _Worker:
    """One thread. A bare lock wakes it: a condition costs five times as much."""

    __slots__ = ("_idle", "_job", "_late", "_wake")

    def __init__(self, workers: Workers, job: Callable[[], object], number: int) -> None:
        self._idle, self._late = workers._idle, workers.late
        self._job: Callable[[], object] | None = job
        self._wake = threading.Lock()
        self._wake.acquire()
        threading.Thread(target=self._work, name=f"speechpool-callback-{number}", daemon=True).start()

    def give(self, job: Callable[[], object]) -> None:
        """Wake it for `job`. Whoever has taken it out of the idle ones is the only one who may."""
        self._job = job
        self._wake.release()

    def _work(self) -> None:
        while True:
            job, self._job = self._job, None
            if job is not None:
                _do(job)
                job = None  # what it belongs to must not live as long as this thread waits
            if self._take_late():
                continue
            self._idle.append(self)
            if self._wake.acquire(timeout=KEEP):
                continue
            try:
                self._idle.remove(self)
            except ValueError:
                self._wake.acquire()  # taken in this very moment: the job is on its way
            else:
                if not self._take_late():  # late by a moment: it was not idle yet
                    return

    def _take_late(self) -> bool:
        try:
            self._job = self._late.popleft()
        except IndexError:
            return False
        return True


def _do(job: Callable[[], object]) -> None:
    try:
        job()
    except BaseException:  # a worker serves others, too
        logger.exception("A worker of the callbacks failed.")


workers: Final = Workers()


class Finishing(Protocol):
    """A task that its caller does not wait for."""

    over: threading.Event


class _AtExit:
    """Keeps the process until tasks have ended that were left to finish by themselves, as the official SDK does."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._registered = False  # what the parent registered comes after the end of the event loop of a child
        self._left: set[Finishing] = set()

    def __call__(self, task: Finishing) -> None:
        """Wait for `task` before the process exits; `ended` takes it back."""
        if not self._registered:
            # Registered after the event loop's own end, hence called before it.
            self._registered = True
            atexit.unregister(self._wait)
            atexit.register(self._wait)
        self._left.add(task)
        if task.over.is_set():
            self._left.discard(task)  # it has ended meanwhile, and will not do so again

    def ended(self, task: Finishing) -> None:
        """Wait for `task` no longer."""
        if task in self._left:
            self._left.discard(task)
            workers.news.set()

    def _wait(self) -> None:
        while self._left:  # not a list of them: a callback may begin another one
            workers.news.wait()
            workers.news.clear()
            workers.help()


finish_at_exit: Final = _AtExit()
