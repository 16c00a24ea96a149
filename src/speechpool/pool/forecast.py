"""How long somebody would wait in line, judged by how fast the line moved so far.

While somebody waits, every connection that becomes free is handed over at once, so the hand-overs of such busy times
say what the pool can do. They are counted as one number:

    turn = busy connection-seconds / hand-overs

the time for which one connection is taken by one borrower, with all that comes with it: the task, connections that
ended, dials that replace them. The n-th in line waits about `n * turn / connections`.

Hand-overs and not the times that single borrowers took, because a borrower that holds its connection for an hour takes
one connection away and must not make everybody else look slow. Per connection, so that a pool of another size is
predicted at once. What was seen is forgotten after about two turns of all connections: soon enough to follow a server
that becomes slow, and not before chance has evened out. Nothing is touched by a hand-over except the last one of a busy
time: how many there were is known from the pool's own counters.
"""

from __future__ import annotations

import math

__all__ = ["Forecast", "spread"]

_TURNS = 2.0
"""After so many turns of all connections, what was seen before counts a third."""
_FEWEST = 16.0
"""Hand-overs that are remembered at least, in a small pool."""
_ENOUGH = 0.375
"""Share of these that must have been seen: 8 hand-overs, or one turn of all connections."""
_LONGEST = 4.0
"""Turns of all connections that one pause between hand-overs counts at most: it must not be remembered for ever."""
_STALE = 60.0
"""Seconds without waiters after which what was seen says nothing any more, or `_LONGEST` turns if these are longer."""
_ALARM = 4.0
"""A prediction with its spread is at most so many times the gap between two hand-overs, for each one in line."""
_CURRENT = 0.5
"""Seconds for which this is believed, in a line that never ends."""
_WEIGHT = 0.2
"""Of the last dial, in the expected time of one."""


class Forecast:
    """Predicts waits. Has no clock: every method is told what time it is, and how many hand-overs there were so far.

    Attributes:
        alarm: Seconds for each one in line that no prediction exceeds with its spread; infinity: not known.
        alarm_until: When that has to be looked at again.
        dial: Seconds that a dial is expected to take; None: none has succeeded yet.
    """

    __slots__ = (
        "_busy",
        "_lasts",
        "_learned_at",
        "_longest",
        "_mark",
        "_served",
        "_total",
        "alarm",
        "alarm_until",
        "dial",
    )

    def __init__(self) -> None:
        self.alarm, self.alarm_until = math.inf, -math.inf
        self.dial: float | None = None
        self._busy = self._served = 0.0
        self._mark, self._total = 0.0, 0  # the last look
        self._learned_at, self._lasts = -math.inf, _STALE
        self._longest = math.inf

    def begin(self, now: float, total: int) -> None:
        """Learn that somebody waits and nobody did before."""
        self._mark = now
        self._total = total

    def skip(self) -> None:
        """Do not count the last hand-over: it says nothing of how fast borrowers come back."""
        self._total += 1

    def dialled(self, seconds: float) -> None:
        """Learn how long a dial took that succeeded."""
        self.dial = seconds if self.dial is None else self.dial + _WEIGHT * (seconds - self.dial)

    def look(self, now: float, total: int, connections: int) -> None:
        """Learn from the time since the last look, in all of which somebody waited."""
        served = total - self._total
        if served <= 0:
            return
        busy = (now - self._mark) * connections
        if self._mark - self._learned_at > self._lasts:
            self._busy = self._served = 0.0
        elif busy > self._longest:
            busy = min(busy, _LONGEST * max(served, connections) * self._busy / self._served)
        memory = max(_FEWEST, _TURNS * connections)
        keep = memory / (memory + served)
        self._busy = busy = self._busy * keep + busy
        self._served = kept = self._served * keep + served
        self._mark = self._learned_at = now
        self._total = total
        turn = busy / kept
        if kept >= memory * _ENOUGH:
            self.alarm = _ALARM * turn / connections
            self.alarm_until = now + _CURRENT
            self._longest = _LONGEST * turn * connections
        self._lasts = max(_STALE, _LONGEST * turn)

    def wait(self, place: int, now: float, connections: int, *, opening: int = 0, waiting: bool = True) -> float | None:
        """Return the seconds until the one in this place of the line has a connection; None where too little is known.

        Args:
            place: 1 is the first.
            now: The time.
            connections: How many there are, whatever they do.
            opening: Those of them that open just now; each serves one of the line when it is there.
            waiting: Somebody waits already, so that a pause since the last hand-over says something.
        """
        memory = max(_FEWEST, _TURNS * connections)
        quiet = (self._mark if waiting else now) - self._learned_at
        if not connections or self._served < memory * _ENOUGH or quiet > self._lasts:
            return None
        turn = self._busy / self._served
        if waiting:  # as if the next hand-over came right now, where that is later than expected
            turn = max(turn, (self._busy + (now - self._mark) * connections) / (self._served + 1.0))
        gap = turn / connections
        return min(place * gap, max(self.dial or 0.0, (place - opening) * gap)) if opening else place * gap


def spread(wait: float, place: int) -> float:
    """Return the seconds by which a wait predicted for this place may well be longer or shorter.

    One standard deviation, where borrowers hold their connections for times that differ as much as chance makes them.
    """
    return wait / math.sqrt(place)
