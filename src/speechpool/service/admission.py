"""Decides whether one more task can be served in time, from what the workers still owe the others.

A listener that hears a sentence must get the next piece of it before the last one has been played; one that waits shall
hear the first piece within a limit. The workers serve whoever runs out of audio first (`scheduler`), so whether all of
that holds can be told in advance: up to any moment, what is due by then must not take longer than the workers have
until then. A task is taken only if that stays true with it. Under overload some tasks are thus refused at once, and
those that were taken play through; without it all of them would be late.

What a second of audio costs, how long a sentence lasts and how long a task goes on is learned from the tasks before.

Clients share: the n-th task of a client that waits for its first audio is due after the n-th ones of all others, and
the last part of the workers is kept for clients that have less than their share.

Pure: no clock, no thread, no engine. A step costs a few additions; an admission sorts what is open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

__all__ = ["PATIENCE", "Admission", "Claim"]

PATIENCE: Final = 0.25
"""Seconds after which a first audio is due if nobody else waits: who would run dry before is served before."""

_HOLD: Final = 1.0
"""Seconds that a task without text holds its place, so that idle tasks keep nobody out. It asks anew at its first text.
"""
_SHARE: Final = 0.75
"""The part of the workers that is given away; the rest is for the event loop and for estimates that were too low."""
_RESERVED: Final = 0.85
"""The part for clients that have less than their share."""
_GRACE: Final = 0.05
"""Seconds by which audio may be late by this reckoning: it takes whole windows for due at once."""


class _Mean:
    """A ratio of two sums, in which what was added long ago counts less and less.

    Args:
        start: Assumed at first, as if learned from `weight`.
        weight: In the unit of the lower sum, like `memory`.
        memory: What counts.
    """

    __slots__ = ("_lower", "_memory", "_upper", "value")

    def __init__(self, start: float, *, weight: float, memory: float) -> None:
        self._upper, self._lower, self._memory, self.value = start * weight, weight, memory, start

    def add(self, upper: float, lower: float = 1.0) -> None:
        keep = max(0.0, 1.0 - lower / self._memory)
        self._upper = self._upper * keep + upper
        self._lower = self._lower * keep + lower
        self.value = self._upper / self._lower


class Claim:
    """What one open task claims of the workers. Made by `Admission.open`.

    Attributes:
        client: Whose it is.
        deadline: When its listener runs out of audio; while it waits, when its first audio is due.
        paused: Its listener does not keep up, so nothing of it is due.
    """

    __slots__ = (
        "_asked",
        "_busy",
        "_characters",
        "_complete",
        "_made",
        "_pace",
        "_sentence",
        "_speaks",
        "_spent",
        "client",
        "deadline",
        "paused",
    )

    def __init__(self, client: str, *, pace: float, asked: float) -> None:
        self.client = client
        self.deadline = 0.0
        self.paused = False
        self._pace = pace
        self._asked = asked  # when it was opened; then when its first text came
        self._busy = False  # a sentence of it is being made, or waits for that
        self._complete = False  # no more text will come
        self._characters = 0  # known, and in no sentence that was begun
        self._sentence = 0.0  # seconds expected of the sentence that is being made
        self._speaks = False  # it is a sentence that is being made, and no silence
        self._made = 0.0  # seconds
        self._spent = 0.0  # seconds of a worker before the first audio

    @property
    def waits(self) -> bool:
        """Whether its listener has heard nothing yet."""
        return not self._made

    def expect(self, characters: int, *, last: bool = False) -> None:
        """Note text that came, as the provider counts it; `last`: no more will."""
        self._characters += characters
        self._complete = self._complete or last


class Admission:
    """Admits tasks to `workers` worker threads.

    Args:
        workers: Threads that synthesise.
        max_first_audio: Seconds from a task's text to its first audio that may be expected; None: no limit, every task
            is taken.
    """

    def __init__(self, workers: int, *, max_first_audio: float | None = 1.0) -> None:
        self._workers = workers
        self._limit = max_first_audio
        self._claims: dict[Claim, None] = {}  # a set in the order of arrival, so that the same sums come out
        # They start a little above what the default engine needs on a plain core, and weigh little then.
        self._cost = _Mean(0.06, weight=5, memory=300)  # seconds of a worker for a second of audio
        self._first_cost = _Mean(0.06, weight=2, memory=50)  # seconds of a worker until a task's first audio
        self._opening = _Mean(0.3, weight=2, memory=50)  # seconds of audio in that
        self._step = _Mean(1.0, weight=4, memory=200)  # seconds of audio in any step
        self._character = _Mean(0.08, weight=100, memory=20_000)  # seconds of audio for a character
        self._task = _Mean(8.0, weight=2, memory=50)  # seconds of audio in a task

    @property
    def open_claims(self) -> int:
        """Tasks that are open."""
        return len(self._claims)

    # ---------------------------------------------------------------------------------- the life of a claim
    def open(self, client: str, now: float, *, pace: float = 1.0) -> Claim | None:
        """Take a task whose text is not known yet, if one of the usual length can be served; None: refused.

        Args:
            client: Whose it is.
            now: Seconds, by any one clock.
            pace: Its rate of speech; 1 is the usual one.
        """
        claim = Claim(client, pace=pace, asked=now)
        claim.deadline = self._due(claim, now)
        if not self._fits(claim, now):
            return None
        self._claims[claim] = None
        return claim

    def begin(self, claim: Claim, now: float) -> bool:
        """Take the first text of a task, if it can be served; its `deadline` says when its first audio is due."""
        claim._asked = now
        claim.deadline = self._due(claim, now)
        return self._fits(claim, now)

    def sentence(self, claim: Claim, characters: int, now: float) -> bool:
        """Note that a sentence begins; return whether its listener hears nothing now, so that it is due in a moment.

        Without characters it is silence, which costs nothing; nothing is learned from it.
        """
        claim.paused = False  # whoever paused the sentence before says so again
        claim._busy, claim._speaks = True, characters > 0
        claim._characters = max(0, claim._characters - characters)
        claim._sentence = self._seconds(claim, characters)
        if claim.waits:
            return True
        silent = claim.deadline <= now
        if silent:
            claim.deadline = now + PATIENCE
        return silent

    def step(self, claim: Claim, seconds: float, cost: float) -> None:
        """Note a step: the seconds of audio that it made, and those that it took a worker."""
        if claim.waits:
            claim._spent += cost
            if not seconds:
                return
            cost = claim._spent
            if claim._speaks:
                self._first_cost.add(cost)
                self._opening.add(seconds)
        if claim._speaks and seconds:
            self._step.add(seconds)
            self._cost.add(cost, seconds)
        claim._made += seconds
        claim._sentence -= seconds

    def sentence_over(self, claim: Claim, characters: int, seconds: float) -> None:
        """Note how many seconds of audio a sentence had."""
        claim._busy, claim._sentence = False, 0.0
        if characters and seconds:
            self._character.add(seconds * claim._pace, characters)

    def close(self, claim: Claim) -> None:
        """Forget a task. If its text was complete, it tells how long tasks are."""
        if claim not in self._claims:
            return
        del self._claims[claim]
        if claim._complete:
            self._task.add(claim._made + self._known(claim))

    # ---------------------------------------------------------------------------------- what is due when
    def _due(self, claim: Claim, now: float) -> float:
        """When the first audio of a task is due: later for each other that has the right to be served before."""
        waiting = Counter(
            each.client for each in self._claims if each.waits and each is not claim and self._counts(each, now)
        )
        own = waiting[claim.client]
        rank = sum(min(number, own + (client != claim.client)) for client, number in waiting.items())
        # Twice what it takes, so that those who have just begun to hear get their second window in between.
        return now + PATIENCE + 2 * rank * self._first_cost.value / self._workers

    def _counts(self, claim: Claim, now: float) -> bool:
        """Whether a task is reckoned with."""
        if claim.paused or claim._busy:
            return not claim.paused
        # It waits for text. It keeps its place while its audio plays, and a moment longer.
        return now < (claim._asked if claim.waits else claim.deadline) + _HOLD

    def _seconds(self, claim: Claim, characters: int) -> float:
        return characters * self._character.value / claim._pace

    def _known(self, claim: Claim) -> float:
        return max(0.0, claim._sentence) + self._seconds(claim, claim._characters)

    def _left(self, claim: Claim) -> float:
        """Seconds of audio that a task still has to get, as far as one can tell."""
        known = self._known(claim)
        return known if claim._complete else max(known, self._task.value - claim._made)

    # ---------------------------------------------------------------------------------- the test
    def _fits(self, newcomer: Claim, now: float) -> bool:
        others = [each for each in self._claims if each is not newcomer and self._counts(each, now)]
        # A task that has the workers to itself is served as well as it can be.
        if self._limit is None or not others:
            return True
        work = {newcomer.client: self._left(newcomer)}
        demands: list[_Demand] = []
        for each in others:
            left = self._left(each)
            work[each.client] = work.get(each.client, 0.0) + left
            # One that waits for text does not wait for us: what comes next has a moment's time.
            demands += self._demands(each, max(each.deadline - now, 0.0 if each._busy else PATIENCE), left)
        # Shares are reckoned as if there were one client more, so that the first task of the next one finds room.
        greedy = work[newcomer.client] * (len(work) + 1) > sum(work.values())
        capacity = self._workers * (_SHARE if greedy else _RESERVED)
        due = newcomer.deadline - now
        if self._wait(demands, due, capacity) > self._limit:
            return False
        demands += self._demands(newcomer, due, self._left(newcomer))
        return _in_time(sorted(demands), due, capacity)

    def _wait(self, demands: list[_Demand], due: float, capacity: float) -> float:
        """Return the seconds until the first audio of a task that is due then."""
        before = sum(work + growth * (due - at) for at, work, growth, _ in demands if at <= due)
        # Before it can begin, a worker has to end its step; then it needs its own time.
        return before / capacity + self._step.value * self._cost.value + self._first_cost.value

    def _demands(self, claim: Claim, due: float, left: float) -> Iterator[_Demand]:
        """What a task demands of the workers: its first window at a moment, then as much as is played."""
        cost = self._cost.value
        if claim.waits:
            yield due, self._first_cost.value, 0.0, False
            due += self._opening.value
            left -= self._opening.value
        if left > 0:
            window = min(left, self._step.value)
            yield due, window * cost, cost, True
            yield due + left - window, 0.0, -cost, True


_Demand = tuple[float, float, float, bool]
"""From when, seconds of a worker due then, and per second after it; whether audio runs dry if they come late."""


def _in_time(demands: list[_Demand], begin: float, capacity: float) -> bool:
    """Whether workers of that capacity do what is due in time, whenever they look from `begin` on."""
    work = growth = last = 0.0
    for at, more, faster, strict in demands:
        work += growth * (at - last) + more
        growth += faster
        last = at
        if strict and at >= begin and work > capacity * (at + _GRACE):
            return False
    return True
