"""Telemetry: counters, histograms, the five signals and their targets."""

from .events import (
    ConnectionClosed,
    ConnectionOpened,
    EndpointAway,
    EndpointBack,
    Listeners,
    PoolEvent,
    TaskEnded,
    TaskStarted,
)
from .histogram import Histogram
from .report import Report
from .signals import Signal, Signals, Verdict
from .slowest import Slowest, current_trace_id, trace_id
from .telemetry import Telemetry
from .totals import Totals
from .utilisation import Utilisation

__all__ = [
    "ConnectionClosed",
    "ConnectionOpened",
    "EndpointAway",
    "EndpointBack",
    "Histogram",
    "Listeners",
    "PoolEvent",
    "Report",
    "Signal",
    "Signals",
    "Slowest",
    "TaskEnded",
    "TaskStarted",
    "Telemetry",
    "Totals",
    "Utilisation",
    "Verdict",
    "current_trace_id",
    "trace_id",
]
