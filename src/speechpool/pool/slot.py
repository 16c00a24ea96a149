"""One place in the pool, and what the core asks the engine to do with it."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

from .waiting import Waiter

__all__ = [
    "Abandon",
    "Abort",
    "Action",
    "Close",
    "Fail",
    "HandOver",
    "Open",
    "Overdue",
    "Refusal",
    "Report",
    "Slot",
    "SlotState",
]


class SlotState(enum.Enum):
    """Where a slot is in its life; it only moves downwards, except between IDLE and BORROWED."""

    OPENING = "opening"
    IDLE = "idle"
    BORROWED = "borrowed"
    CLOSING = "closing"
    GONE = "gone"


class Slot:
    """One connection, from the start of its dial to the end of its close.

    Attributes:
        state: Where it is in its life.
        connection: What the connector opened; the core never looks into it.
        overflow: It exists beyond `max_size` and never becomes idle.
        dead: It ended or received something unexpected while it was borrowed or opening.
        lent: A borrower holds it. Stays True when `close(drain=...)` aborts the connection under the borrower.
        lent_at: When it was handed over last.
        lost_at: When it ended under its borrower.
        use: How often it was handed over; a lease remembers its number, so that a second return is recognised.
        serial: Its place among all borrows and openings, drawn when it opened: tells who is older.
        dialled_at: When its dial began.
        round: In which round of dials; see `Pace`.
        opened_at: When its dial succeeded.
        share: Its part of the limits, after which it is due; drawn once, at birth.
        retire_at: When its age is due.
        expires: When it must not be lent any more; minus infinity: it has been replaced.
        idle_life: How long it may be idle until it is due.
        idle_since: Since when it is idle, or was the last time.
        partner: The connection that it replaces, or that replaces it; None: neither.
        due: When its present state needs a look: end of the dial, of the idle time, of patience with the borrower, or
            of the close.
        note: The engine's own; the core never looks at it.
    """

    __slots__ = (
        "connection",
        "dead",
        "dialled_at",
        "due",
        "expires",
        "idle_life",
        "idle_since",
        "lent",
        "lent_at",
        "lost_at",
        "note",
        "opened_at",
        "overflow",
        "partner",
        "retire_at",
        "round",
        "serial",
        "share",
        "state",
        "use",
    )

    def __init__(self, now: float, due: float, *, overflow: bool) -> None:
        self.state = SlotState.OPENING
        self.connection: Any = None
        self.overflow = overflow
        self.dead = False
        self.lent = False
        self.lent_at = self.lost_at = math.inf
        self.use = 0
        self.serial = 0
        self.dialled_at = now
        self.round = 0
        self.opened_at = math.inf
        self.share = 1.0
        self.retire_at = math.inf
        self.expires = math.inf
        self.idle_life = math.inf
        self.idle_since = math.inf
        self.partner: Slot | None = None
        self.due = due
        self.note: Any = None

    def __repr__(self) -> str:
        return f"<Slot {self.state.value}{' overflow' if self.overflow else ''} use {self.use}>"


class Refusal(enum.Enum):
    """Why a waiter gets no connection."""

    CLOSED = "closed"
    DOWN = "down"
    FULL = "full"
    REFUSED = "refused"
    SHED = "shed"
    TIMEOUT = "timeout"


# Nobody changes an action; but frozen ones take three times as long to make, and each hand-over makes one.


@dataclass(slots=True)
class Open:
    """Dial, and report `opened` or `open_failed`."""

    slot: Slot


@dataclass(slots=True)
class Abandon:
    """Stop a dial: it takes too long, or the pool closes. It still has to report how it ended."""

    slot: Slot


@dataclass(slots=True)
class HandOver:
    """The slot belongs to the waiter from now on. The waiter may still decline, by `cancel`."""

    waiter: Waiter
    slot: Slot


@dataclass(slots=True)
class Fail:
    """Tell the waiter that it gets nothing."""

    waiter: Waiter
    reason: Refusal


@dataclass(slots=True)
class Close:
    """Begin a polite close, and report `closed` when the peer is gone."""

    slot: Slot
    reason: str


@dataclass(slots=True)
class Abort:
    """Drop the connection now. It counts no longer, and needs no report."""

    slot: Slot


@dataclass(slots=True)
class Overdue:
    """A borrower has held the slot for `leak_after`. Said once for each borrow."""

    slot: Slot


@dataclass(slots=True)
class Report:
    """Somebody used the pool wrongly, without harm."""

    slot: Slot
    problem: str


Action = Open | Abandon | HandOver | Fail | Close | Abort | Overdue | Report
