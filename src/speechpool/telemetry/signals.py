"""The five signals: one definition each, its target beside it, and in one sentence why the target was missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "ConnectionReuse",
    "EndToEndLatency",
    "ErrorRate",
    "FirstPacketDelay",
    "PoolUtilisation",
    "Signal",
    "Signals",
    "Verdict",
    "as_percent",
    "as_seconds",
]

Verdict = Literal["ok", "missed", "no data", "too few tasks", "shown"]
"""What became of a target; `shown` where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What the five have in common.

    Attributes:
        name: As everywhere in docs, tools and metrics.
        target: For people; empty where the value is only shown.
        verdict: What became of the target.
        reason: Why it was missed or cannot be judged; else empty.
    """

    name: str
    target: str
    verdict: Verdict
    reason: str = ""

    @property
    def value(self) -> str:
        """The value in a few words, for people."""
        return "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstPacketDelay(Signal):
    """From the first text to the first audio byte handed over. Seconds; None without data.

    Attributes:
        p50: Median; `p95` and `p99` likewise.
        tasks: Tasks that got audio.
        queue: Mean wait for permit and connection; first of the four parts that sum to `mean`.
        connect: Mean wait for the dial of the task's own connection; 0 on reuse.
        start: Mean time from there until the server had accepted the task.
        synthesis: Mean time from there to the first audio.
        mean: Mean delay.
        text_wait: Mean time before the first text; not part of the delay.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    tasks: int
    mean: float | None
    queue: float | None
    connect: float | None
    start: float | None
    synthesis: float | None
    text_wait: float | None

    @property
    def value(self) -> str:
        """The three quantiles."""
        return " / ".join(as_seconds(quantile) for quantile in (self.p50, self.p95, self.p99))


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEndLatency(Signal):
    """From the first text to the last byte, of completed tasks. Seconds; None without data.

    Attributes:
        p50: Median; `p95` and `p99` likewise.
        tasks: Completed tasks.
        real_time_factor: End-to-end seconds / seconds of audio, where the length of the audio is known.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    tasks: int
    real_time_factor: float | None

    @property
    def value(self) -> str:
        """The three quantiles and the real-time factor."""
        quantiles = " / ".join(as_seconds(quantile) for quantile in (self.p50, self.p95, self.p99))
        return quantiles if self.real_time_factor is None else f"{quantiles}, rtf {self.real_time_factor:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRate(Signal):
    """Failed / (completed + failed).

    Attributes:
        rate: The ratio; None without data.
        completed: Tasks with this outcome; `failed`, `cancelled` and `shed` likewise. The last two do not count.
        errors: Failed tasks by error code or class.
    """

    rate: float | None
    completed: int
    failed: int
    cancelled: int
    shed: int
    errors: Mapping[str, int]

    @property
    def value(self) -> str:
        """The rate and its fraction."""
        if self.rate is None:
            return "-"
        return f"{as_percent(self.rate)} ({self.failed:,} of {self.completed + self.failed:,})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUtilisation(Signal):
    """Time-weighted borrowed / max_size.

    Attributes:
        mean: Mean ratio; None without a pool.
        peak: Highest ten-second mean; None within the first ten seconds.
        max_size: Size of the pool now.
    """

    mean: float | None
    peak: float | None
    max_size: int

    @property
    def value(self) -> str:
        """Mean and peak."""
        if self.mean is None:
            return "-"
        peak = "-" if self.peak is None else as_percent(self.peak)
        return f"mean {as_percent(self.mean)}, peak {peak}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionReuse(Signal):
    """Tasks on a reused connection / tasks that got one.

    Attributes:
        ratio: The ratio; None without data.
        reused: Tasks whose connection was open before it was borrowed.
        connected: Tasks that got a connection.
    """

    ratio: float | None
    reused: int
    connected: int

    @property
    def value(self) -> str:
        """The ratio and its fraction."""
        if self.ratio is None:
            return "-"
        return f"{as_percent(self.ratio)} ({self.reused:,} of {self.connected:,})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """The five signals over one span of time; iterating yields them in this order.

    Attributes:
        first_packet_delay: The first signal; the other four follow.
        tasks: Tasks that ended, whatever their outcome.
        characters: Characters of their texts.
        audio_seconds: Seconds of audio, where the format tells it; `audio_bytes` always.
        retries: Attempts after the first.
        retried: Retried segments by reason.
    """

    first_packet_delay: FirstPacketDelay
    end_to_end_latency: EndToEndLatency
    error_rate: ErrorRate
    pool_utilisation: PoolUtilisation
    connection_reuse: ConnectionReuse
    tasks: int
    characters: int
    audio_seconds: float
    audio_bytes: int
    retries: int
    retried: Mapping[str, int]

    def __iter__(self) -> Iterator[Signal]:
        yield self.first_packet_delay
        yield self.end_to_end_latency
        yield self.error_rate
        yield self.pool_utilisation
        yield self.connection_reuse

    @property
    def missed(self) -> list[Signal]:
        """The signals that missed their target."""
        return [signal for signal in self if signal.verdict == "missed"]


def as_seconds(value: float | None) -> str:
    """Return a time for people: `181 ms`, `2.35 s`."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.2f} s"


def as_percent(ratio: float) -> str:
    """Return a ratio for people, with three digits: `97.3 %`, `0.05 %`."""
    return f"{100 * ratio:.3g} %" if ratio < 0.9995 else f"{100 * ratio:.0f} %"
