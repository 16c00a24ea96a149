"""The service on the live page and in the metrics, as if it were a pool. Needs the extra `[monitoring]`."""

from __future__ import annotations

import asyncio
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from speechpool.monitoring.serving import Monitor, listen, site
from speechpool.monitoring.snapshot import Snapshot, Snapshots, histograms_of
from speechpool.pool import PoolStats
from speechpool.pool.counters import Counters

if TYPE_CHECKING:
    from .server import SpeechService
    from .watch import Watch

__all__ = ["monitored"]


def monitored(service: SpeechService, port: int) -> Monitor:
    """Serve the live page of a service that listens, on this machine only. Called on its event loop.

    Raises:
        SettingsError: The port cannot be had.
    """
    watch = service.watch
    assert watch is not None  # noqa: S101  # it listens
    source = _Served(service, watch)
    app, feed = site(lambda: [source.take().to_dict()], [source])
    return listen(app, feed, port, "127.0.0.1", token=None)


class _Served(Snapshots):
    def __init__(self, service: SpeechService, watch: Watch) -> None:
        super().__init__(watch.telemetry.name, asyncio.get_running_loop())
        self._service, self._telemetry = service, watch.telemetry

    def _take(self) -> Snapshot:
        telemetry, now = self._telemetry, self._loop.time()
        totals = telemetry.lifetime(now)
        return Snapshot(
            seq=next(self._seq),
            time=time.time(),
            stats=self._stats(totals.connected, totals.reused),
            report=telemetry.report(now),
            totals=totals,
            tasks_started=telemetry.tasks_started,
            used_seconds=0.0,
            histograms=histograms_of(telemetry, totals, Counters()),
            quotas=(),
            explained=self._explained(),
            slowest=telemetry.slowest.tasks(now),
        )

    def _stats(self, connected: int, reused: int) -> PoolStats:
        """Its connections, seen from the other end: one with a task is borrowed, and nobody waits in line."""
        service = self._service
        counts, here = service.counts, service.connections
        running = counts.running
        gone = counts.connections - here
        return PoolStats(
            name=self.name, endpoint=service.url, phase="draining" if service.draining else "running",
            max_size=service.max_connections, min_size=0, size=here, idle=here - running, borrowed=running,
            opening=0, closing=0, overflow=0, replacing=0, waiting=0, oldest_wait=0.0, predicted_wait=None,
            opened=counts.connections, open_failed=counts.refused, borrows=connected, reused=reused,
            returned=sum(counts.tasks.values()), double_returns=0, timeouts=0, cancelled=0, full=0,
            shed=counts.tasks["shed"], refused=0, down=0, closed=gone,
            discarded=MappingProxyType({"left": gone} if gone else {}), last_error=None, last_error_age=None,
            retry_in=0.0, outage=None, idle_limit=None, age_limit=None, limited_by=None,
        )  # fmt: skip

    def _explained(self) -> str:
        service, counts = self._service, self._service.counts
        profile = f" ({service.profile})" if service.profile else ""
        ended = ", ".join(f"{number} {outcome}" for outcome, number in counts.tasks.items() if number) or "none"
        codes = ", ".join(f"{number} {code}" for code, number in counts.errors.most_common())
        here = f"{service.connections} of at most {service.max_connections} connections"
        sentences = [
            f"The service speaks with {service.engine}{profile}: {counts.running} tasks run on {here}.",
            f"Tasks so far: {ended}.",
            *([f"What their clients were told: {codes}."] if codes else []),
            *([f"{counts.refused} handshakes were refused."] if counts.refused else []),
            *(["It drains: no connection is let in."] if service.draining else []),
        ]
        return " ".join(sentences)
