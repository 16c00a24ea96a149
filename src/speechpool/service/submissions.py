"""Who may start a task now: so many a second of one key and model, so many at once of one key.

The rate is a token bucket, kept as one time for each key and model: when its bucket will be full again. A bucket that
is full is the same as one that never was, so it can be forgotten; that, and a cap, bound the memory however many keys
and models there are.

Source: the rate limits page (submissions a second, by account and model). A limit of tasks at once is not documented
for CosyVoice, but its error code is.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from speechpool.protocol.cosyvoice import FAILURES, Refused

__all__ = ["Submissions"]

_SLACK: Final = 0.05
"""Seconds that a submission may come early, at most half a token: the way here must not make an offender of one who
keeps to the rate."""
_BUCKETS: Final = 10_000
"""Beyond so many, the one that was used longest ago is taken for full."""


class Submissions:
    """The tasks of all connections of a service, by key and model. Has no clock: every method is told what time it is.

    Args:
        rate: Task starts a second of one key and model; as many, or one, may come at once after a pause. None: any.
        max_running: Tasks of one key at once; None: any.
    """

    def __init__(self, rate: float | None = None, max_running: int | None = None) -> None:
        self._rate = rate
        self._max_running = max_running
        self._depth = 0.0 if rate is None else (max(1.0, rate) - 1.0) / rate + min(_SLACK, 0.5 / rate)
        # Keyed by a hash, as a model's name is whatever the client says, up to a megabyte. Those used last come last.
        self._full_at: dict[int, float] = {}
        self._running: dict[str, int] = {}

    def start(self, client: str, model: str, now: float) -> None:
        """Count one task of `client` in; `end` counts it out. A refused task is not counted, and costs no token.

        Args:
            client: Stands for the key; never the key itself.
            model: The model.
            now: Seconds, on a clock that never goes back.

        Raises:
            Refused: `Throttling.Concurrency` or `Throttling.RateQuota`, in the provider's words.
        """
        running = self._running.get(client, 0)
        if self._max_running is not None and running >= self._max_running:
            raise Refused(*FAILURES["Throttling.Concurrency"])
        if self._rate is not None:
            self._take(hash((client, model)), 1.0 / self._rate, now)
        self._running[client] = running + 1

    def end(self, client: str) -> None:
        """Count one task of `client` out."""
        running = self._running[client] - 1
        if running:
            self._running[client] = running
        else:
            del self._running[client]

    def _take(self, bucket: int, cost: float, now: float) -> None:
        full_at = max(now, self._full_at.get(bucket, now))
        if full_at - now > self._depth:
            raise Refused(*FAILURES["Throttling.RateQuota"])
        self._full_at.pop(bucket, None)  # it moves to the end
        self._full_at[bucket] = full_at + cost
        self._forget(now)

    def _forget(self, now: float) -> None:
        # Two for each that comes: the full ones go faster than new ones can follow.
        for bucket in tuple(islice(self._full_at, 2)):
            if self._full_at[bucket] > now and len(self._full_at) <= _BUCKETS:
                return
            del self._full_at[bucket]
