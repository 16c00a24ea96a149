"""The heart of a pool that shares a bound of connections with other pools.

What it adds to the core: each dial takes a place, each connection that is gone gives one back; where there is none, it
says for whom it would dial, and goes on when it is woken (`look`). And it gives up idle connections above its floor
for those who wait elsewhere. Everything else, and every pool without such a bound, stays as it is.
"""

from __future__ import annotations

import math

from speechpool.limits import UPKEEP, Backoff, Places
from speechpool.settings import LifetimeProfile, PoolSettings

from .core import UNKNOWN, Core, Phase
from .slot import Action, Close, Slot, SlotState
from .waiting import Waiter

__all__ = ["WARM_CREDIT", "LimitedCore"]

WARM_CREDIT = 1.0
"""A connection that comes back serves a waiter of its own pool before one of another pool who came up to so many
seconds earlier: for that one it would have to be closed, and another one opened. Without it two busy pools would
exchange connections at every task."""


class LimitedCore(Core):
    """A core whose dials need a place.

    Args:
        settings: As of `Core`.
        backoff: As of `Core`.
        places: Its part of the limits. The owner joins it before `start`.
        connect_timeout: As of `Core`.
        profile: As of `Core`.

    Attributes:
        places: Its part of the limits.
    """

    __slots__ = ("__weakref__", "places")

    def __init__(
        self,
        settings: PoolSettings,
        backoff: Backoff,
        *,
        places: Places,
        connect_timeout: float | None = 10.0,
        profile: LifetimeProfile = UNKNOWN,
    ) -> None:
        self.places = places
        super().__init__(settings, backoff, connect_timeout=connect_timeout, profile=profile)

    def start(self, now: float) -> list[Action]:
        """Begin, with as much of the floor as fits."""
        self.floor = self.places.fair
        return super().start(now)

    # Its share

    def look(self, now: float) -> list[Action]:
        """Learn that the share has changed: places were granted, the floor moved, or others need a connection."""
        actions: list[Action] = []
        if self.places.evict:
            while self.places.evict and self.idle:  # each close is counted at once
                actions.append(self._close(self.idle.pop(0), "evicted", now))
            self.places.looked()
        self.floor = self.places.fair
        return actions + self._refill(now)

    def spare(self, most: int) -> list[float]:
        """Return since when the idle connections have been idle; for any thread, see `Share.spare`."""
        return [slot.idle_since for slot in self.idle[:most]]

    @property
    def limited_by(self) -> str | None:
        """Which limit would be in the way of a dial that its own sizes allow."""
        allowed = self.total < self.max_size or self.settings.overflow == "grow"
        return self.places.limit if allowed and self.places.room < 1 else None

    @property
    def _standing(self) -> int:
        """Connections that take a place and do not close; twins count once."""
        return len(self.slots) - self.closing - self.twins_standing

    @property
    def _lacking(self) -> int:
        # Overflow counts: what the ledger calls a surplus must not be what the floor misses, or the pool would open and
        # evict in turn.
        return self.floor - self._standing if self.phase is Phase.RUNNING else 0

    def _wants(self, now: float) -> tuple[float, ...]:
        """Say for whom it would dial now, in order, if only there were places."""
        if (self._lacking <= 0 and self.line.size <= self.opening) or now < self.pace.dial_after:
            return ()
        dials = self._dial_limit() - self.opening
        if self.settings.overflow != "grow":
            dials = min(dials, self.max_size - self.total)
        if dials <= 0:
            return ()
        wants = self.line.arrivals(self.opening, self.opening + dials)
        upkeep = min(self._lacking, dials, self.max_size - self.total) - len(wants)
        return wants + (UPKEEP,) * upkeep

    def _ask(self, now: float) -> None:
        self.places.ask(self._wants(now))

    # What is different in the core

    def _adopt(self, settings: PoolSettings) -> None:
        super()._adopt(settings)
        over = self.phase is Phase.DRAINING or self.phase is Phase.CLOSED
        self.places.keep(0 if over else settings.floor)
        self.floor = self.places.fair

    def _give_up_floor(self) -> None:
        self.places.keep(0)
        self.floor = 0

    def drain(self, now: float) -> list[Action]:
        """Lend to nobody new, and keep no floor."""
        actions = super().drain(now)
        self._give_up_floor()
        self._ask(now)
        return actions

    def close(self, now: float) -> list[Action]:
        """End, and take part in the limits until the last connection is gone."""
        actions = super().close(now)
        self._give_up_floor()
        self._ask(now)
        self._leave_when_empty()
        return actions

    def cancel(self, waiter: Waiter, now: float) -> list[Action]:
        """Let a waiter go, and what it wanted."""
        actions = super().cancel(waiter, now)
        self._ask(now)
        return actions

    def _hopeless(self, waiter: Waiter) -> bool:
        if super()._hopeless(waiter):
            return True
        return self.line.size >= self.opening + self.places.reach

    def _place(self, slot: Slot, now: float, *, dialled: bool) -> list[Action]:
        actions = super()._place(slot, now, dialled=dialled)
        if slot.state is SlotState.IDLE:
            # Somebody of another thread may have begun to wait since `_unwanted` asked; he did not see this one.
            if self._presses(math.inf):
                self.places.looked()
        elif self.places.held_up:
            self._ask(now)  # one waiter fewer
        return actions

    def returned(
        self, slot: Slot, use: int, now: float, healthy: bool = True, reason: str = "unhealthy", *, used: bool = True
    ) -> list[Action]:
        """Take back a connection, and tell the limits where that leaves one waiter fewer."""
        actions = super().returned(slot, use, now, healthy, reason, used=used)
        if self.places.held_up:
            self._ask(now)
        return actions

    def _unwanted(self, slot: Slot, now: float) -> str | None:
        reason = super()._unwanted(slot, now)
        if reason is None and self.places.pressure < math.inf:
            first = self.line.first(slot.serial) if self.line.size else None
            if self._presses(math.inf if first is None else first.order[0]):
                return "evicted"
        return reason

    def _presses(self, arrival: float) -> bool:
        """Whether somebody of another pool needs a connection of this one more than who arrived then."""
        pressure = self.places.pressure
        line = self.places.kept if pressure < UPKEEP else self.places.fair
        return pressure < math.inf and pressure + WARM_CREDIT < arrival and self._standing > line

    def _refill(self, now: float) -> list[Action]:
        actions = super()._refill(now)
        self._ask(now)
        return actions

    def _may_dial(self) -> bool:
        return self.places.take()

    def _missing_room(self, now: float) -> int:
        missing = super()._missing_room(now)
        if now < self.pace.dial_after or not self.line.fresh:
            return missing
        # Of the room that its own sizes leave only so much is there.
        own = math.inf if self.settings.overflow == "grow" else max(0, self.max_size - self.total)
        room = min(own, self.places.room)
        return max(missing, self.line.fresh - self.opening - self.closing - int(room))

    def _close(self, slot: Slot, reason: str, now: float) -> Close:
        action = super()._close(slot, reason, now)
        self.places.close()
        return action

    def _forget(self, slot: Slot) -> None:
        closing = slot.state is SlotState.CLOSING
        super()._forget(slot)
        self.places.gone(closing=closing)
        self._leave_when_empty()

    def _leave_when_empty(self) -> None:
        if self.phase is Phase.CLOSED and not self.slots:
            self.places.leave()
