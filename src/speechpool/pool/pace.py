"""When the next dial may begin, and why not now.

One pause for the whole pool: after an outage it must not matter how many places are empty. This is where a rule belongs
that looks at the endpoint as a whole: in an outage one probe at a time is dialled, and only when it has succeeded the
others follow, `max_opening` at once.
"""

from __future__ import annotations

import math

from speechpool.errors import ConnectionLost
from speechpool.limits import Backoff, Breaker
from speechpool.settings import PoolSettings

from .slot import Slot

__all__ = ["SHORT_LIFE", "Pace"]

SHORT_LIFE = 2.0
"""A connection that the server ends within so many seconds of its opening counts as a failed dial: a server that
accepts and then closes (a bad key, a used-up quota) must not be dialled in a tight loop."""


class Pace:
    """The pause between dials, and the failure that it goes back to.

    Attributes:
        dial_after: No dial begins before; minus infinity: dials may begin.
        error: The last failure, if there was one since the last success.
        error_at: When it happened.
        refused: The failure, if it was permanent: waiting is pointless.
        round: How many failures there were; dials of one round began with the same number.
        doubtful: Connections open, but did not last the last time.
        proof_at: When one that has opened since will have lasted long enough.
        breaker: Knows whether the endpoint is away.
        down: What it says; a copy, because every borrower asks.
    """

    __slots__ = (
        "_backoff",
        "_cap",
        "_idle_cap",
        "_not_before",
        "_since",
        "breaker",
        "dial_after",
        "doubtful",
        "down",
        "error",
        "error_at",
        "proof_at",
        "refused",
        "round",
    )

    def __init__(self, settings: PoolSettings, backoff: Backoff) -> None:
        self._backoff = backoff
        self._cap = settings.open_backoff_cap
        self._idle_cap = settings.open_backoff_idle_cap
        self.breaker = Breaker(settings.outage_after)
        self.down = False
        self._since = self._not_before = self.dial_after = -math.inf
        self.error: BaseException | None = None
        self.error_at = -math.inf
        self.refused: BaseException | None = None
        self.round = 0
        self.doubtful = False
        self.proof_at = math.inf

    def dials(self, most: int) -> int:
        """Return how many dials may run at once, of `most`: in an outage one, which has to prove itself first."""
        if not self.down:
            return most
        return 0 if self.proof_at < math.inf else 1

    def failed(
        self,
        slot: Slot,
        error: BaseException,
        now: float,
        *,
        permanent: bool = False,
        pause: float = 0.0,
        awaited: bool,
        last_hope: bool,
    ) -> None:
        """Pause after a dial that failed.

        Args:
            slot: Whose dial it was.
            error: Why.
            now: The time.
            permanent: Trying again does not help until somebody changes something.
            pause: Seconds that the pause lasts at least.
            awaited: Somebody waits, so that the pause is kept short.
            last_hope: No connection of the pool lives.
        """
        self.error, self.error_at = error, now
        if not pause:  # a server that asks to wait is there
            self.breaker.failed(slot.dialled_at, now, last_hope=last_hope)
            self.down = self.breaker.open
        self.refused = error if permanent else None
        # What opens after a dial that failed is another story than what opened before.
        self.doubtful = False
        self.proof_at = math.inf
        if permanent:
            pause = max(pause, self._idle_cap)
        self._not_before = max(self._not_before, now + pause)
        # Dials of one round that fail are one failure, or eight at once would make the pause 256 times longer.
        if slot.round == self.round:
            self.round += 1
            self._since = now
            self.dial_after = now + self._backoff.next(self._cap if awaited else self._idle_cap)
        self.dial_after = max(self.dial_after, self._not_before)

    def died(self, slot: Slot, ended: float, now: float, *, awaited: bool, last_hope: bool) -> bool:
        """Look at a connection that the server ended: at once, it counts as a failed dial. Say whether it does."""
        age = ended - slot.opened_at
        if age >= SHORT_LIFE or slot.use > 1:
            return False
        error = ConnectionLost(f"the server ended a new connection after {age:.1f} s")
        self.failed(slot, error, now, awaited=awaited, last_hope=last_hope)
        self.doubtful = True
        return True

    def opened(self, now: float) -> None:
        """Go on after a dial that succeeded, unless the connection may not last."""
        if self.doubtful:
            self.proof_at = now + SHORT_LIFE
        else:
            self.proved(now)

    def proved(self, now: float) -> None:
        """Go on: all is well."""
        self.breaker.succeeded(now)
        self.down = False
        self._backoff.reset()
        self.error = self.refused = None
        self.dial_after = self._not_before = -math.inf
        self.doubtful = False
        self.proof_at = math.inf

    def hurry(self) -> None:
        """Shorten a pause that began while nobody waited, unless it has a reason of its own."""
        if self.dial_after > self._since + self._cap:
            self.dial_after = max(self._not_before, self._since + self._cap)
