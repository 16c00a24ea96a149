"""One pool at one moment, as everything that shows numbers reads it: they agree, because they are read in one go."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import speechpool
from speechpool.errors import PoolClosed
from speechpool.synthesis.blocking import SpeechPool
from speechpool.telemetry.histogram import DURATION_EDGES, FIRST_PACKET_EDGES, Histogram
from speechpool.telemetry.totals import PARTS

if TYPE_CHECKING:
    from speechpool.limits.quota import QuotaState
    from speechpool.pool import PoolStats
    from speechpool.pool.counters import Counters
    from speechpool.synthesis.pool import AsyncSpeechPool
    from speechpool.telemetry import Report, Telemetry, Totals

__all__ = ["VERSION", "Buckets", "Snapshot", "Snapshots", "Source", "histograms_of"]

VERSION: Final = 1
"""Of `Snapshot.to_dict`; it changes when a field changes its meaning or goes."""
PATIENCE: Final = 5.0
"""Seconds that another thread waits for the event loop of a pool."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram at one moment.

    Attributes:
        edges: Upper edges, ascending; one more bucket holds everything.
        at_most: Values up to each edge, and at last all of them.
        sum: Of all values.
        exemplars: Trace id and value of one task in a bucket, by its upper edge.
    """

    edges: tuple[float, ...]
    at_most: tuple[int, ...]
    sum: float
    exemplars: Mapping[float, tuple[str, float]]

    @classmethod
    def of(
        cls,
        histogram: Histogram,
        edges: Sequence[float] | None = None,
        *,
        zeros: int = 0,
        exemplars: Mapping[float, tuple[str, float]] | None = None,
    ) -> Buckets:
        """Read a histogram, with `zeros` more values of 0."""
        edges = tuple(edges or histogram.bounds)
        at_most = (*histogram.at_most(edges), histogram.count)
        return cls(edges, tuple(zeros + count for count in at_most), histogram.sum, dict(exemplars or {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One pool at one moment.

    Attributes:
        seq: Rises with each snapshot of a pool.
        time: Seconds since 1970.
        stats: Connections and borrowers.
        report: The five signals.
        totals: What was counted of tasks since the start.
        tasks_started: Tasks that have begun since the start.
        used_seconds: Time-weighted share of the pool that was borrowed, summed over its life: its rate is the mean.
        histograms: By name; since the start.
        quotas: Of every account and model that asked; empty without a quota.
        explained: What the pool does now, and why.
        slowest: The slowest tasks of the last minutes; see `Slowest`.
    """

    seq: int
    time: float
    stats: PoolStats
    report: Report
    totals: Totals
    tasks_started: int
    used_seconds: float
    histograms: Mapping[str, Buckets]
    quotas: Sequence[QuotaState]
    explained: str
    slowest: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON, as docs/monitoring.md describes it. No key and no spoken text is in it."""
        stats = {name: getattr(self.stats, name) for name in self.stats.__dataclass_fields__}
        error = stats["last_error"]
        stats |= {"discarded": dict(self.stats.discarded), "last_error": None if error is None else str(error)}
        return {
            "version": VERSION,
            "seq": self.seq,
            "time": self.time,
            "pool": self.stats.name,
            "endpoint": self.stats.endpoint,
            "stats": stats,
            "report": self.report.to_dict(),
            "values": {signal.name: [signal.value, whole.value] for signal, whole in self._signals()},
            "tasks_started": self.tasks_started,
            "used_seconds": self.used_seconds,
            "retried": dict(self.totals.retried),
            "histograms": {name: _plain(buckets) for name, buckets in self.histograms.items()},
            "quotas": [asdict(state) for state in self.quotas],
            "explained": self.explained,
            "slowest": list(self.slowest),
            "build": BUILD,
        }

    def _signals(self) -> Any:
        return zip(self.report.window, self.report.lifetime, strict=True)


BUILD: Final = {"version": speechpool.__version__, "python": platform.python_version()}
"""What runs."""


def _plain(buckets: Buckets) -> dict[str, Any]:
    return {"edges": list(buckets.edges), "at_most": list(buckets.at_most), "sum": buckets.sum}


class Snapshots(ABC):
    """Takes snapshots of what lives on an event loop, from any thread.

    Args:
        name: Under which it is shown.
        loop: Where it lives.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        """Under which it is shown."""
        self._loop = loop
        self._seq = itertools.count(1)
        self._waiting: set[concurrent.futures.Future[Snapshot]] = set()
        self._closed = False

    @abstractmethod
    def _take(self) -> Snapshot:
        """Take a snapshot, on the loop."""

    def take(self) -> Snapshot:
        """Take a snapshot; elsewhere than on the loop this waits until the loop has done it.

        Raises:
            PoolClosed: The loop has ended, or this source was closed.
            TimeoutError: The loop was busy for `PATIENCE` seconds.
        """
        if _running() is self._loop:
            return self._take()
        taken: concurrent.futures.Future[Snapshot] = concurrent.futures.Future()
        self._waiting.add(taken)
        try:
            return self._wait_for(taken)
        finally:
            self._waiting.discard(taken)
            taken.cancel()  # a loop that is busy need not do it once nobody waits

    def close(self) -> None:
        """Let go who waits for the loop, and nobody wait for it any more: it may itself wait for them to end."""
        self._closed = True
        for taken in tuple(self._waiting):
            taken.cancel()

    def _wait_for(self, taken: concurrent.futures.Future[Snapshot]) -> Snapshot:
        if self._closed:
            taken.cancel()
        try:
            self._loop.call_soon_threadsafe(self._fill, taken)
        except RuntimeError as error:
            raise PoolClosed(f"the event loop of {self.name!r} has ended.") from error
        try:
            return taken.result(PATIENCE)
        except concurrent.futures.CancelledError:
            raise PoolClosed(f"the monitor of {self.name!r} was closed.") from None

    def _fill(self, taken: concurrent.futures.Future[Snapshot]) -> None:
        if not taken.set_running_or_notify_cancel():
            return
        try:
            taken.set_result(self._take())
        except BaseException as error:  # noqa: BLE001  # whoever waits has to learn of it
            taken.set_exception(error)


class Source(Snapshots):
    """Takes the snapshots of one pool, from any thread.

    Args:
        pool: One that is entered.

    Raises:
        PoolClosed: It was never entered.
    """

    def __init__(self, pool: AsyncSpeechPool | SpeechPool) -> None:
        self._pool = pool._pool if isinstance(pool, SpeechPool) else pool
        self._host = self._pool._hosted()
        super().__init__(self._pool.name, self._host.loop)

    def _take(self) -> Snapshot:
        pool, telemetry = self._pool, self._pool.telemetry
        now = self._loop.time()
        totals = telemetry.lifetime(now)
        report = telemetry.report(now)
        states = getattr(self._host.quota, "states", None)
        return Snapshot(
            seq=next(self._seq),
            time=time.time(),
            stats=pool.stats,
            report=report,
            totals=totals,
            tasks_started=telemetry.tasks_started,
            used_seconds=telemetry.utilisation.area(now),
            histograms=histograms_of(telemetry, totals, pool._opened().counters),
            quotas=() if states is None else tuple(states()),
            explained=pool.explain(),
            slowest=telemetry.slowest.tasks(self._host.clock()),
        )


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def histograms_of(telemetry: Telemetry, totals: Totals, counters: Counters) -> dict[str, Buckets]:
    """Return all histograms, by name."""
    found = {
        "first_packet_delay": Buckets.of(totals.first_packet_delay, FIRST_PACKET_EDGES, exemplars=telemetry.exemplars),
        "end_to_end": Buckets.of(totals.end_to_end, DURATION_EDGES),
        "real_time_factor": Buckets.of(telemetry.real_time_factor),
        "wait": Buckets.of(counters.waits, zeros=counters.borrowed - counters.waits.count),
        "dial": Buckets.of(counters.dials),
        "use": Buckets.of(counters.uses),
        "borrows_per_connection": Buckets.of(counters.borrows_per_connection),
        "loop_lag": Buckets.of(telemetry.loop_lag),
    }
    return found | {f"stage_{part}": Buckets.of(stage) for part, stage in zip(PARTS, telemetry.stages, strict=True)}
