"""Whether an endpoint is away: then nobody waits for it any more, and one attempt at a time is enough.

    CLOSED ──attempts failed for `patience`, none succeeded──▶ OPEN ──one attempt succeeded──▶ CLOSED

Open, it lets one probe through at a time; how long to pause between probes says the `Backoff`. Nothing stops the probes
for good.
"""

from __future__ import annotations

import math

from speechpool.errors import SettingsError

__all__ = ["Breaker"]


class Breaker:
    """Tells an outage from a failure. Has no clock: the caller passes the time.

    One failure is no outage: a server of many may be ill, a network may stutter. An outage is a time in which attempts
    failed and none succeeded, however many there were: of ten dials that hang for ten seconds each nobody needs to see
    the eleventh.

    Args:
        patience: Seconds of failures after which it opens, above 0; None: never.

    Attributes:
        open: The endpoint is away.
        since: When the first attempt began that failed, since the last success; infinity: none has failed.

    Raises:
        SettingsError: `patience` is not above 0.
    """

    __slots__ = ("_failures", "_patience", "_succeeded_at", "open", "since")

    def __init__(self, patience: float | None) -> None:
        if patience is not None and not patience > 0:
            raise SettingsError(f"Breaker needs a patience above 0 s, got {patience!r}; None turns it off.")
        self._patience = math.inf if patience is None else patience
        self._failures = 0
        self._succeeded_at = -math.inf
        self.open = False
        self.since = math.inf

    def failed(self, begun: float, now: float, *, last_hope: bool = False) -> None:
        """Learn that an attempt failed.

        Args:
            begun: When the attempt began.
            now: The time.
            last_hope: Nothing else of the endpoint works, so that one long failure is enough.
        """
        if not self._failures:
            self.since = max(begun, self._succeeded_at)
        self._failures += 1
        if now - self.since >= self._patience and (last_hope or self._failures > 1):
            self.open = True

    def succeeded(self, now: float) -> None:
        """Learn that an attempt succeeded."""
        self._failures = 0
        self._succeeded_at = now
        self.open = False
        self.since = math.inf
