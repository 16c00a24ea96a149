"""OpenTelemetry: a span for each task with its phases inside, and the metrics of the catalogue; extra `[otel]`.

Names of generative AI follow the semantic conventions as of 1.41, which are in development: hence behind a switch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from speechpool.telemetry import PoolEvent, TaskEnded, TaskStarted

from .catalogue import METRICS, Metric
from .prometheus import taken
from .snapshot import BUILD, Buckets, Snapshot, Source

if TYPE_CHECKING:
    from speechpool.synthesis.blocking import SpeechPool
    from speechpool.synthesis.pool import AsyncSpeechPool

__all__ = ["instrument"]

_SCOPE: Final = "speechpool"
_FRESH: Final = 0.5
"""Seconds for which one snapshot answers all instruments of an export."""
_PHASES: Final = ("text_wait", "queue", "connect", "start", "synthesis")


def instrument(
    pool: AsyncSpeechPool | SpeechPool,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    genai: bool = False,
) -> Callable[[], None]:
    """Make spans of the tasks of `pool`, and show its numbers; the function that is returned ends the spans.

    A span `speech` begins with its task, below the span that is current there, and has one inside for each phase. The
    first packet delay and the end-to-end latency are recorded as histograms.

    Args:
        pool: An entered pool.
        tracer_provider: None: the global one.
        meter_provider: None: the global one.
        genai: Also use the names of the conventions for generative AI, for spans and two histograms.

    Raises:
        PoolClosed: The pool was never entered.
    """
    tracer = trace.get_tracer(_SCOPE, BUILD["version"], tracer_provider)
    meter = metrics.get_meter(_SCOPE, BUILD["version"], meter_provider)
    _observe(meter, _Cache(Source(pool)))
    return pool.on(_Tasks(tracer, meter, genai=genai))


# ------------------------------------------------------------------------------------ tasks
class _Tasks:
    """Listens to a pool. All calls come on its loop."""

    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter, *, genai: bool) -> None:
        self._tracer, self._genai = tracer, genai
        self._open: dict[int, tuple[Span, int]] = {}
        self._delay = meter.create_histogram(
            "speechpool.first_packet_delay", "s", "From the first text to the first audio byte."
        )
        self._whole = meter.create_histogram("speechpool.end_to_end", "s", "From the first text to the last byte.")
        if genai:
            self._first = meter.create_histogram("gen_ai.client.operation.time_to_first_chunk", "s")
            self._operation = meter.create_histogram("gen_ai.client.operation.duration", "s")

    def __call__(self, event: PoolEvent) -> None:
        if isinstance(event, TaskEnded):
            self._ended(event)
        elif isinstance(event, TaskStarted):
            self._started(event)

    def _started(self, event: TaskStarted) -> None:
        attributes = {"speechpool.pool": event.pool, "speechpool.model": event.model, "speechpool.voice": event.voice}
        if self._genai:
            attributes |= _genai(event)
        began = time.time_ns()
        span = self._tracer.start_span("speech", kind=SpanKind.CLIENT, attributes=attributes, start_time=began)
        self._open[event.number] = span, began

    def _ended(self, event: TaskEnded) -> None:
        span, began = self._open.pop(event.number, (None, 0))
        labels = {"speechpool.pool": event.pool, "speechpool.outcome": event.outcome}
        if event.first_packet_delay is not None:
            self._delay.record(event.first_packet_delay, labels)
        if event.end_to_end is not None and event.outcome == "completed":
            self._whole.record(event.end_to_end, labels)
        if self._genai:
            self._record_genai(event)
        if span is not None:
            self._finish(span, began, event)

    def _record_genai(self, event: TaskEnded) -> None:
        labels = _genai(event) | ({"error.type": event.error} if event.error else {})
        self._operation.record(event.seconds, labels)
        if event.first_packet_delay is not None:
            self._first.record(event.first_packet_delay, labels)

    def _finish(self, span: Span, began: int, event: TaskEnded) -> None:
        told: dict[str, Any] = {
            "speechpool.outcome": event.outcome,
            "speechpool.request_id": event.request_id,
            "speechpool.reused": event.reused,
            "speechpool.retries": event.retries,
            "speechpool.characters": event.characters,
            "speechpool.audio_bytes": event.audio_bytes,
            "speechpool.first_packet_delay": event.first_packet_delay,
            "error.type": event.error,
        }
        span.set_attributes({name: value for name, value in told.items() if value is not None})
        if event.outcome in {"failed", "shed"}:
            span.set_status(Status(StatusCode.ERROR, event.error))
        end = began + int(event.seconds * 1e9)
        inside, at = trace.set_span_in_context(span), began
        phases = [(name, getattr(event, name)) for name in _PHASES]
        if event.first_packet_delay is not None:
            for name, seconds in phases:
                until = min(end, at + int(seconds * 1e9))
                if until > at:
                    self._tracer.start_span(name, inside, start_time=at).end(until)
                at = until
            self._tracer.start_span("rest", inside, start_time=at).end(end)
        span.end(end)


def _genai(event: TaskStarted) -> dict[str, str]:
    return {
        "gen_ai.operation.name": "text_to_speech",
        "gen_ai.provider.name": "dashscope",
        "gen_ai.request.model": event.model,
        "gen_ai.output.type": "speech",
    }


# ------------------------------------------------------------------------------------ counters and gauges
class _Cache:
    """One snapshot for all instruments that are asked together; exporters ask in threads of their own."""

    def __init__(self, source: Source) -> None:
        self._source, self._lock = source, threading.Lock()
        self._newest: Snapshot | None = None
        self._until = 0.0

    def take(self) -> Snapshot | None:
        with self._lock:
            if time.monotonic() >= self._until:
                self._newest = next(taken([self._source]), None)
                self._until = time.monotonic() + _FRESH
            return self._newest


def _observe(meter: metrics.Meter, cache: _Cache) -> None:
    for metric in METRICS:
        if metric.kind != "histogram":
            make = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            make(_name(metric), [_callback(metric, cache)], _unit(metric), metric.help)


def _callback(metric: Metric, cache: _Cache) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        snapshot = cache.take()
        if snapshot is None:
            return
        for labels, value in metric.read(snapshot):
            if not isinstance(value, Buckets):
                pairs = zip(("pool", *metric.labels), (snapshot.stats.name, *labels), strict=True)
                yield Observation(value, {f"speechpool.{name}": label for name, label in pairs})

    return observe


def _name(metric: Metric) -> str:
    bare = metric.name.removesuffix("_total").removesuffix(f"_{metric.unit}" if metric.unit else "")
    return (
        bare.replace("speechpool_pool_", "speechpool.pool.")
        .replace("speechpool_quota_", "speechpool.quota.")
        .replace("speechpool_", "speechpool.", 1)
    )


def _unit(metric: Metric) -> str:
    return {"seconds": "s", "bytes": "By"}.get(metric.unit, "1")
