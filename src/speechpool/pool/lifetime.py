"""How long connections live: what the provider is known to allow, and what was seen since.

A connection is *due* when it has been idle, or has lived, for most of what is allowed; then another one is opened
first and takes its place. Two shares leave time for that, and keep it from happening to all at once: a connection is
due after `1 - LEAD - JITTER * x` of the limit, with x drawn once at its birth, and after the whole limit it goes in
any case.

The limits learn (`Limit`). A server that ends idle connections earlier shortens the limit. To find out whether it
keeps them longer, now and then one idle connection, the *scout*, stays beyond the limit; where it lives for twice as
long, the server evidently keeps what is pinged, and nothing idle is replaced any more, until one dies and teaches
otherwise.
"""

from __future__ import annotations

import math

from speechpool.settings import LifetimeProfile, PoolSettings

from .pace import SHORT_LIFE
from .slot import Slot, SlotState

__all__ = ["JITTER", "LEAD", "Lifetimes", "Limit"]

LEAD = 0.1
"""The last share of a limit, in which the connection is replaced."""
JITTER = 0.1
"""Share of a limit over which connections of one age become due: those warmed up in one burst must not end in one."""
MARGIN = 0.8
"""Of the time after which a server was seen to end connections, how much is used."""
IDLE_TOLERANCE, AGE_TOLERANCE = 0.2, 0.05
"""How far two times may be apart to confirm each other. Ages must agree better, since connections of one warm-up have
the same age at whatever moment their server crashes."""
SCOUT_REACH = 2.0
"""How many times the limit a scout has to live."""
SCOUT_PAUSE = 20.0
"""After a scout died: how many times the limit passes before the next one is sent."""


class Limit:
    """How long something may last, in seconds, as far as is known.

    Args:
        seconds: What is known at the start; None: nothing, so it may last for ever.
        fixed: Somebody has set it, so that nothing makes it longer.

    Attributes:
        seconds: What is known now; infinity: for ever.
        fixed: Nothing makes it longer.
    """

    __slots__ = ("_profile", "_seen", "_seen_at", "_tolerance", "fixed", "seconds")

    def __init__(self, seconds: float | None, *, fixed: bool = False, tolerance: float = IDLE_TOLERANCE) -> None:
        self.seconds = self._profile = math.inf if seconds is None else seconds
        self.fixed = fixed
        self._tolerance = tolerance
        self._seen = self._seen_at = -math.inf

    @property
    def learned(self) -> bool:
        """It is not what was known at the start."""
        return self.seconds != self._profile

    def ended(self, lasted: float, now: float) -> bool:
        """Learn that the server ended something that had lasted so long; say whether the limit became shorter.

        A crash ends connections of any age. So a limit below what was known needs two endings that agree, the second
        of which had the time to begin after the first one. One above it needs no proof: it costs little.
        """
        bound = MARGIN * lasted
        # No server ends connections after next to no time by a rule: two accidents would let the pool dial without end.
        if bound >= self.seconds or lasted < SHORT_LIFE:
            return False
        if bound < self._profile and not self._confirmed(lasted, now):
            return False
        self.seconds = bound
        return True

    def _confirmed(self, lasted: float, now: float) -> bool:
        if now - self._seen_at <= lasted / 2:  # a part of what was seen last
            self._seen = max(self._seen, lasted)
            return False
        agrees = abs(lasted - self._seen) <= self._tolerance * lasted
        self._seen, self._seen_at = lasted, now
        return agrees

    def lift(self) -> bool:
        """Learn that the server ends nothing; say whether the limit became longer."""
        if self.fixed or self.seconds == math.inf:
            return False
        self.seconds = math.inf
        return True


class Lifetimes:
    """The limits of the connections of one pool, and the scout.

    Args:
        settings: What its owner has set; goes before what the provider is known for, and is never exceeded.
        profile: What the provider is known for.

    Attributes:
        idle: How long a connection may be idle.
        age: How long it may live.
        scout: The idle connection that stays beyond the limit.
    """

    __slots__ = ("_not_before", "_sent_at", "age", "idle", "scout")

    def __init__(self, settings: PoolSettings, profile: LifetimeProfile) -> None:
        self.idle = _limit(settings.idle_timeout, profile.idle_timeout, IDLE_TOLERANCE)
        self.age = _limit(settings.max_lifetime, profile.max_lifetime, AGE_TOLERANCE)
        self.scout: Slot | None = None
        self._sent_at = -math.inf
        self._not_before = -math.inf

    def born(self, slot: Slot, now: float, jitter: float) -> None:
        """Give a connection that has just opened its times. `jitter` is from 0 to 1."""
        slot.share = 1.0 - LEAD - JITTER * jitter
        self.revise(slot, now)

    def due(self, slot: Slot) -> float:
        """Return when an idle connection is to be replaced."""
        return min(slot.retire_at, slot.idle_since + slot.idle_life)

    def end(self, slot: Slot) -> float:
        """Return when an idle connection that is due has to go, replaced or not."""
        return min(slot.expires, slot.idle_since + self.idle.seconds)

    def grace(self, now: float) -> float:
        """Return the same for one that became due because a limit was learned."""
        return now + LEAD * min(self.idle.seconds, self.age.seconds)

    def ended(self, slot: Slot, at: float, *, longest: bool) -> bool:
        """Learn that the server ended a connection; say whether the limits became shorter.

        Args:
            slot: Which one; still as it was before.
            at: When.
            longest: It was idle, and no other one for longer: what ends idle connections takes that one first.
        """
        # Nobody knows what a borrower does: a lease may be kept for a conversation with long pauses.
        idle_for = at - (slot.idle_since if slot.state is SlotState.IDLE else slot.lent_at)
        if slot is self.scout:
            self.scout = None
            self._not_before = at + SCOUT_PAUSE * self.idle.seconds
        shorter = longest and self.idle.ended(idle_for, at)
        age = at - slot.opened_at
        # One that was idle for most of its life proves nothing about its age.
        return (age > 2 * idle_for and self.age.ended(age, at)) or shorter

    def send_scout(self, slot: Slot, now: float) -> bool:
        """Let an idle connection that is due stay beyond the limit, if there is a question and no other scout."""
        if self.idle.fixed or self.idle.seconds == math.inf or now < self._not_before or now >= slot.retire_at:
            return False
        scout = self.scout
        if scout is not None and scout.state is SlotState.IDLE and scout.idle_since == self._sent_at:
            return False  # under way; one that was lent meanwhile proves nothing any more
        self.scout, self._sent_at = slot, slot.idle_since
        slot.due = min(slot.retire_at, slot.idle_since + SCOUT_REACH * self.idle.seconds)
        return True

    def scout_is_back(self, slot: Slot, now: float) -> bool:
        """Whether this is the scout and has lived long enough; if so, idle connections are kept from now on."""
        if slot is not self.scout or slot.idle_since != self._sent_at:
            return False
        if now < slot.idle_since + SCOUT_REACH * self.idle.seconds:
            return False
        self.scout = None
        return self.idle.lift()

    def revise(self, slot: Slot, now: float) -> None:
        """Give a connection the times that follow from the limits as they are now."""
        age = self.age.seconds
        slot.idle_life = slot.share * self.idle.seconds
        if slot.expires > -math.inf:  # not one that has been replaced already
            slot.retire_at = slot.opened_at + slot.share * age
            slot.expires = max(slot.opened_at + age, now + LEAD * age)  # never all at once


def _limit(chosen: float | None, known: float | None, tolerance: float) -> Limit:
    return Limit(known if chosen is None else chosen, fixed=chosen is not None, tolerance=tolerance)
