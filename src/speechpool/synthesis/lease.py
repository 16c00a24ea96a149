"""`pool.borrow()`: one connection for any number of consecutive tasks."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from speechpool.errors import LeaseError, PoolTimeout
from speechpool.protocol import Voice

from .core import TaskCore
from .delivery import Sink
from .host import TaskHost, TaskLease
from .speech import Speech, speech_of
from .stream import SpeechStream, Text
from .task import SpeechTask

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from speechpool.limits import Priority
    from speechpool.pool import Lease

    from .connector import SpeechConnection

__all__ = ["SpeechLease", "synthesize"]

_Core = TypeVar("_Core", bound=TaskCore)


class _Turn:
    """The time of one task on a lease of the caller; what a task knows of a lease."""

    __slots__ = ("_lease", "connect_time", "connection", "reused")

    def __init__(self, lease: SpeechLease, connection: SpeechConnection, *, reused: bool) -> None:
        self._lease = lease
        self.connection = connection
        self.reused = reused
        self.connect_time = 0.0  # the dial, if there was one, was waited for before the task

    @property
    def usable(self) -> bool:
        return self._lease._fit

    async def renew(self, *, timeout: None, deadline: float | None) -> None:  # noqa: ASYNC109  # see `Lease.renew`
        self.connection = await self._lease._renewed(deadline)

    def return_(self, healthy: bool = True, reason: str = "") -> None:
        self._lease._turn_over(healthy, reason)


class _LeaseHost(TaskHost):
    """The pool as a task on a lease sees it: its connection is the lease's."""

    __slots__ = ("_lease",)

    def __init__(self, host: TaskHost, lease: SpeechLease) -> None:
        for name in TaskHost.__slots__:
            setattr(self, name, getattr(host, name))
        self._lease = lease

    def try_borrow(self) -> TaskLease | None:
        return self._lease._try_turn()

    async def borrow(self, deadline: float | None, priority: Priority, *, fresh: bool) -> TaskLease:
        return await self._lease._take_turn(deadline, fresh=fresh)


class SpeechLease:
    """The right to one connection, for consecutive tasks, until it is left.

        async with pool.borrow(timeout=5.0) as lease:
            first = await lease.synthesize("One.", voice)
            async with lease.task(voice) as task:
                ...

    A lease whose connection ends between two tasks gets another one for the next, ahead of the queue. A task waits for
    the one before it to have ended on the wire; two at once are refused with `LeaseError`. A lease held longer than
    `leak_after` is reported in the log, with the stack that borrowed it.

    Raises:
        PoolTimeout, PoolFull, PoolClosed, ConnectFailed: While entering.
    """

    def __init__(
        self,
        borrow: Callable[[], Coroutine[None, None, Lease[SpeechConnection]]],
        host: TaskHost,
        held: Lease[SpeechConnection] | None = None,
    ) -> None:
        self._borrow = borrow
        self._host = _LeaseHost(host, self)
        self._lease = held
        self._busy = False
        self._entering = False
        self._left = False
        self._carried = 0
        self._free: asyncio.Future[None] | None = None
        self._healthy, self._reason = True, ""
        self._tasks: list[TaskCore] = []

    async def __aenter__(self) -> Self:
        self._check_new()
        self._entering = True
        try:
            self._lease = await self._borrow()
        finally:
            self._entering = False
        if self._left:
            self._return()
            raise LeaseError("the lease was left while it waited for its connection.")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self, *, discard: str = "") -> None:
        """Give the connection back, as leaving the `async with` block does. A second call does nothing.

        Args:
            discard: Why the connection is to be closed instead, in a word or two.
        """
        if self._left:
            return
        self._left = True
        if discard:
            self._healthy, self._reason = False, discard
        for task in self._tasks:
            task.abandon(LeaseError("the lease was left while the task ran."))
        self._let_go()
        if not self._busy:
            self._return()

    def discard(self, reason: str = "discarded") -> None:
        """Close the connection instead of giving it back, now or when the task that runs has ended. The lease is over.

        Args:
            reason: Why, in a word or two: it becomes a label of the statistics.
        """
        self.leave(discard=reason)

    @property
    def reused(self) -> bool:
        """The connection was open before it was borrowed."""
        return self._held().reused

    def task(self, voice: Voice, *, sink: Sink | None = None, bridge: bool = True) -> SpeechTask:
        """Return a task on this lease; see `AsyncSpeechPool.task`."""
        self._held()
        return self._remember(SpeechTask(self._host, voice, sink=sink, wrap=sink is None, bridge=bridge))

    def stream(self, text: Text, voice: Voice, *, bridge: bool = True) -> SpeechStream:
        """Return a stream on this lease; see `AsyncSpeechPool.stream`."""
        self._held()
        return self._remember(SpeechStream(self._host, voice, text, bridge=bridge))

    async def synthesize(self, text: str, voice: Voice) -> Speech:
        """Return the speech of a text; see `AsyncSpeechPool.synthesize`."""
        self._held()
        return await synthesize(self._remember(TaskCore(self._host, voice, bounded=False)), text)

    def _check_new(self) -> None:
        if self._lease is not None or self._entering or self._left:
            raise LeaseError("a lease is entered once; borrow another one.")

    # ---------------------------------------------------------------------------------- turns
    def _remember(self, task: _Core) -> _Core:
        self._tasks = [other for other in self._tasks if other.outcome is None]
        self._tasks.append(task)
        return task

    def _held(self) -> Lease[SpeechConnection]:
        if self._lease is None or self._left:
            raise LeaseError("the lease is not held: it was returned, or never entered (use `async with`).")
        return self._lease

    def _try_turn(self) -> TaskLease | None:
        lease = self._held()
        if self._busy or self._crowded or not self._fit:
            return None
        self._busy = True
        return self._turn(lease)

    async def _take_turn(self, deadline: float | None, *, fresh: bool) -> TaskLease:
        if not fresh and self._crowded:
            raise LeaseError("two tasks at once on one lease; borrow a second one, or let the first one end.")
        while self._busy:
            await self._wait_free(deadline)
        lease = self._held()
        self._busy = True  # before the wait below: nobody else may renew the lease meanwhile
        try:
            if fresh or not self._fit:
                await self._renewed(deadline, fresh=fresh)
        except BaseException:
            self._busy = False
            self._let_go()
            raise
        return self._turn(lease)

    @property
    def _fit(self) -> bool:
        """The connection may carry another task."""
        return self._healthy and self._held().usable

    async def _renewed(self, deadline: float | None, *, fresh: bool = False) -> SpeechConnection:
        """Give up the connection for another one, and return that."""
        lease = self._held()
        await lease.renew(timeout=None, deadline=deadline, fresh=fresh)
        self._carried, self._healthy = 0, True
        return lease.connection

    @property
    def _crowded(self) -> bool:
        """Another task of this lease has not ended."""
        return sum(task.outcome is None and task._timing is not None for task in self._tasks) > 1

    async def _wait_free(self, deadline: float | None) -> None:
        """Wait until the task before has ended on the wire, which a cancel takes a moment for."""
        self._free = self._free or asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(self._free)
        except TimeoutError:
            raise PoolTimeout("the task before on this lease has not ended on the wire in time.") from None

    def _turn(self, lease: Lease[SpeechConnection]) -> TaskLease:
        reused = lease.reused if self._carried == 0 else True
        self._carried += 1
        return _Turn(self, lease.connection, reused=reused)

    def _turn_over(self, healthy: bool, reason: str) -> None:
        self._busy = False
        if not healthy:
            self._healthy, self._reason = False, reason
        if self._left:
            self._return()
        self._let_go()

    def _let_go(self) -> None:
        """Let the task that waits for its turn look again: it finds the lease free, or gone."""
        if self._free is not None:
            self._free.set_result(None)
            self._free = None

    def _return(self) -> None:
        if self._lease is not None:
            self._lease.return_(healthy=self._healthy, reason=self._reason)
            self._lease = None


async def synthesize(task: TaskCore, text: str) -> Speech:
    """Run one whole task and return its speech.

    Cancellation: the task is cancelled.
    """
    task._say(text)
    task._finish()
    try:
        await task._start()
        await task._wait_ended()
    finally:
        task._cancel()
    return speech_of(task)
