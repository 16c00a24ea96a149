"""Telemetry: counters, histograms, the five signals and their targets."""

from .histogram import Histogram
from .report import Report
from .signals import Signal, Signals, Verdict
from .slowest import Slowest, SlowTask, current_trace_id, trace_id
from .telemetry import Telemetry
from .totals import Totals
from .utilisation import Utilisation

__all__ = [
    "Histogram",
    "Report",
    "Signal",
    "Signals",
    "SlowTask",
    "Slowest",
    "Telemetry",
    "Totals",
    "Utilisation",
    "Verdict",
    "current_trace_id",
    "trace_id",
]
