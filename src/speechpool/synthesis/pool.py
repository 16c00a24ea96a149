"""`AsyncSpeechPool`: warm connections to one endpoint, and the ways to speak over them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from speechpool.errors import PoolClosed, SettingsError
from speechpool.limits import ConnectionLimits
from speechpool.pool import Pool, PoolStats
from speechpool.protocol import Dialect, Voice
from speechpool.protocol.inference import Inference
from speechpool.settings import Deadlines, PoolSettings, with_overrides
from speechpool.telemetry import Listeners, PoolEvent, Report, Telemetry
from speechpool.transport.descriptors import check_descriptors

from .connector import Dial, SpeechConnection, SpeechConnector
from .core import TaskCore
from .delivery import Sink
from .endpoint import Endpoint
from .host import TaskHost
from .lease import SpeechLease, synthesize
from .speech import Speech
from .stream import SpeechStream, Text
from .task import SpeechTask

if TYPE_CHECKING:
    from speechpool.limits import Priority, Quota

__all__ = ["AsyncSpeechPool"]


class AsyncSpeechPool:
    """A pool of warm connections to one endpoint, for asyncio. It belongs to the event loop that enters it.

        async with AsyncSpeechPool(Endpoint.local()) as pool:
            speech = await pool.synthesize("Hello.", Voice("cosyvoice-v3-flash", "longanyang"))

    Entering returns when one connection is open, and raises at once where trying again cannot help (401, 403, a wrong
    host name). The others open meanwhile; `wait_ready` says when.

    Args:
        endpoint: Where to, and with which key.
        name: Names the pool in logs and metrics.
        settings: How many connections, how long they live, how long borrowers wait.
        deadlines: How long each part of a task may take.
        quota: Asked for a permit before each task; None: no limit but the pool's.
        dialect: The protocol; None: CosyVoice, or Sambert where a voice's model is one of its; both share connections.
        voice: For dialects whose connections serve one voice only: which one.
        limits: Bounds the connections of all pools that share it; None: what the environment says for the process
            (`ConnectionLimits.from_environment`), which usually is nothing. `ConnectionLimits()`: no bound at all.
        dial: Opens connections; None: a real socket. For tests.
        window: Whole seconds that `report()` looks back; 2 to 3600.
        overrides: Any field of `PoolSettings`.

    Raises:
        SettingsError: A setting is unknown, out of range or at odds with another one, or a variable of the environment
            holds no limit.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str = "default",
        settings: PoolSettings | None = None,
        deadlines: Deadlines | None = None,
        quota: Quota | None = None,
        dialect: Dialect | None = None,
        voice: Voice | None = None,
        limits: ConnectionLimits | None = None,
        dial: Dial | None = None,
        window: int = 60,
        **overrides: object,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.settings = with_overrides(settings or PoolSettings(), overrides)
        self.deadlines = deadlines or Deadlines()
        self._dialect = dialect or Inference()
        self._voice = voice
        self._quota = quota
        self._limits = ConnectionLimits.from_environment() if limits is None else limits
        if not 2 <= window <= 3600:
            raise SettingsError(f"window = {window!r} must be 2 to 3600 whole seconds; 60 is the default.")
        self._dial = dial
        self._window = window
        self._listeners = Listeners()
        self._host: TaskHost | None = None
        self._pool: Pool[SpeechConnection] | None = None
        self._telemetry: Telemetry | None = None

    # ---------------------------------------------------------------------------------- open and close
    async def __aenter__(self) -> Self:
        if self._pool is not None:
            raise PoolClosed("a pool is entered once; make another one.")
        self._check_descriptors(self.settings.max_size)
        connector = SpeechConnector(
            self.endpoint,
            self._dialect,
            voice=self._voice,
            timeout=self.deadlines.connect,
            heartbeat=self.settings.heartbeat,
            dial=self._dial,
        )
        self._telemetry = telemetry = Telemetry(self.name, clock=asyncio.get_running_loop().time, window=self._window)
        self._pool = Pool(
            connector,
            self.settings,
            name=self.name,
            connect_timeout=self.deadlines.connect,
            on_borrowed=telemetry.utilisation.changed,
            listeners=self._listeners,
            limits=self._limits,
            host=self.endpoint.host,
            profile=self._dialect.lifetime,
        )
        self._host = TaskHost(
            pool=self._pool,
            endpoint=self.endpoint,
            dialect=self._dialect,
            settings=self.settings,
            deadlines=self.deadlines,
            quota=self._quota,
            telemetry=telemetry,
            listeners=self._listeners,
            voice=self._voice,
        )
        await self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_ready(self, min_ready: int | None = None) -> None:
        """Wait until `min_ready` connections are open; None: all of `min_size`.

        Cancellation: the pool opens them all the same.

        Raises:
            EndpointDown: The endpoint is away; the pool goes on trying.
            PoolClosed: The pool was closed meanwhile.
        """
        await self._opened().wait_ready(min_ready)

    async def resize(self, max_size: int, min_size: int | None = None) -> None:
        """Change the size at run time. Connections in use live on; the number converges as they come back.

        Raises:
            SettingsError: A size is out of range, or this process may not open so many descriptors.
        """
        self._check_descriptors(max_size, held=self.stats.size)
        await self._opened().resize(max_size, min_size)

    async def drain(self) -> None:
        """Take no new tasks, let the running ones end, and close. Returns when the last one has ended."""
        await self._opened().drain()

    async def close(self, drain: float | None = None) -> None:
        """Close every connection.

        `drain` gives running tasks so many seconds to end; whatever still runs then fails with its connection. Without
        it running tasks are cancelled on the server, and their callers get `PoolClosed`. A second call waits for the
        first.

        Cancellation: the closing goes on.
        """
        if self._pool is None or self._host is None:
            return
        if drain is None:
            for task in self._host.ticker.watched:
                task.abandon(PoolClosed(f"pool {self.name!r} was closed while the task ran."))
            # A cancelled task holds its connection until the server has confirmed, or this has passed.
            drain = self.settings.close_timeout
        await self._pool.close(drain)
        self._host.ticker.stop()

    # ---------------------------------------------------------------------------------- speak
    async def synthesize(self, text: str, voice: Voice, *, priority: Priority = "interactive") -> Speech:
        """Return the whole speech of a text.

        Cancellation: the task is cancelled on the server, and its connection goes back warm.

        Raises:
            SpeechPoolError: Its kinds; see `speechpool.errors`.
        """
        return await synthesize(TaskCore(self._hosted(), voice, priority=priority, bounded=False), text)

    def stream(
        self, text: Text, voice: Voice, *, priority: Priority = "interactive", bridge: bool = True
    ) -> SpeechStream:
        """Return a stream of audio for a text, or for its pieces as they come; see `SpeechStream`.

        Args:
            text: The text, or its pieces.
            voice: Who speaks, and how.
            priority: `interactive` is served before `bulk`.
            bridge: See `task`.

        Raises:
            InvalidText: A text given whole breaks a rule.
        """
        return SpeechStream(self._hosted(), voice, text, priority=priority, bridge=bridge)

    def task(
        self,
        voice: Voice,
        *,
        sink: Sink | None = None,
        priority: Priority = "interactive",
        bridge: bool = True,
    ) -> SpeechTask:
        """Return a task to control by hand; see `SpeechTask`.

        Args:
            voice: Who speaks, and how.
            sink: Gets each piece of audio as `bytes` and every other event as it is, by a plain call on the event loop:
                it must return soon. What it raises ends the task, and reaches whoever waits for it.
            priority: `interactive` is served before `bulk`.
            bridge: When no text has come for nearly as long as the server takes it (CosyVoice: 20 of 23 s), its part of
                the task is ended there, and the next text begins another part, on the same connection; its audio,
                events and sums go on as if nothing had happened. False: the task fails with `TextGap` instead.
        """
        return SpeechTask(self._hosted(), voice, priority=priority, sink=sink, wrap=sink is None, bridge=bridge)

    def borrow(self, *, timeout: float | None = None, priority: Priority = "interactive") -> SpeechLease:
        """Return a lease to enter with `async with`; see `SpeechLease`.

        Args:
            timeout: Seconds to wait for a connection; None: `borrow_timeout`.
            priority: `interactive` is served before `bulk`.
        """
        pool = self._opened()
        limit = self.settings.borrow_timeout if timeout is None else timeout
        return SpeechLease(lambda: pool.borrow(timeout=limit, priority=priority), self._hosted())

    def try_borrow(self) -> SpeechLease | None:
        """Return a lease that is entered already, on an idle connection; None where none is idle.

        Give it back with `leave()`, or use it with `async with`'s second half only.
        """
        pool = self._opened()
        held = pool.try_borrow(1)
        return None if held is None else SpeechLease(pool.borrow, self._hosted(), held)

    # ---------------------------------------------------------------------------------- see
    @property
    def stats(self) -> PoolStats:
        """The pool at this moment."""
        return self._opened().stats

    @property
    def telemetry(self) -> Telemetry:
        """What was counted since the pool was entered."""
        if self._telemetry is None:
            raise self._not_open()
        return self._telemetry

    def report(self) -> Report:
        """Return the five signals: value, target and verdict, for the window and since the start."""
        return self.telemetry.report()

    def explain(self) -> str:
        """Say in a few sentences what the pool does now, and why."""
        return self._opened().explain()

    def on(self, listener: Callable[[PoolEvent], object]) -> Callable[[], None]:
        """Call `listener` with everything that happens here from now on; the function that is returned ends that.

        It is called on the pool's event loop and must return soon. What it raises is logged once and changes nothing.
        The events are those of `speechpool.telemetry`: `TaskStarted`, `TaskEnded`, `ConnectionOpened`,
        `ConnectionClosed`, `EndpointAway`, `EndpointBack`.
        """
        return self._listeners.add(listener)

    # ---------------------------------------------------------------------------------- own
    def _check_descriptors(self, max_size: int, *, held: int = 0) -> None:
        if self._dial is None:  # somebody else's may need none
            replacing = self.settings.max_replacing
            what = f"max_size = {max_size} (and max_replacing = {replacing})"
            check_descriptors(max_size + replacing, what, held=held)

    def _opened(self) -> Pool[SpeechConnection]:
        if self._pool is None:
            raise self._not_open()
        return self._pool

    def _hosted(self) -> TaskHost:
        if self._host is None:
            raise self._not_open()
        return self._host

    def _not_open(self) -> PoolClosed:
        return PoolClosed(f"pool {self.name!r} is not open; enter it with `async with`.")
