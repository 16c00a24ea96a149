"""Listeners, workers and an engine that take no time: what `Admission` decides, played through on a virtual clock.

The engine's figures are hibari's on one core: windows of 0.3, 0.6, 1.2, then 1.8 s, 33 ms of a worker for a second of
audio, a quarter of a sentence's work before its first window.
"""

import heapq
import itertools
import random
from dataclasses import dataclass, field

from speechpool.service.admission import Admission

WINDOWS = (0.3, 0.6, 1.2)
SECONDS_A_WORD = 0.4
CHARACTERS_A_WORD = 6
ROUND_TRIP = 0.002


def windows(seconds, chance=None):
    """Yield the audio of each window of a sentence in seconds, and the seconds that it takes a worker."""
    left, front = seconds, 0.25 * 0.033 * seconds
    for number in itertools.count():
        size = min(left, WINDOWS[number] if number < len(WINDOWS) else 1.8)
        size = left if left - size < 0.2 else size
        cost = 0.006 + 0.033 * size + front
        yield size, cost * chance.lognormvariate(0, 0.3) if chance else cost
        left, front = left - size, 0.0
        if left <= 0:
            return


def sentences(words, chance):
    """Return the lengths of the sentences of a text, in words."""
    cut = []
    while words > 0:
        size = min(words, chance.randint(4, 16))
        cut.append(size if words - size > 1 else words)
        words -= cut[-1]
    return cut


def engine_rate(workers):
    """Return the seconds of audio that the workers make in a second."""
    chance = random.Random(9)
    steps = [
        step
        for _ in range(200)
        for size in sentences(chance.randint(1, 80), chance)
        for step in windows(size * SECONDS_A_WORD)
    ]
    return workers * sum(size for size, _ in steps) / sum(cost for _, cost in steps)


@dataclass(eq=False)
class Listener:
    """One task and who hears it: plays from the first sound on, and notes when there is nothing to play."""

    client: str
    came: float
    words: int
    claim: object = None
    throttled: str = ""  # when: at its "open" or its "text"
    texted: float = 0.0
    first_audio: float | None = None
    plays_until: float = 0.0
    underruns: int = 0
    waiting: list = field(default_factory=list)  # sentences, in words
    to_come: list = field(default_factory=list)  # those that the client has not sent yet
    steps: object = None
    silent: bool = False
    sentence: float = 0.0  # seconds made of it
    characters: int = 0


class Simulation:
    """Runs arrivals through an `Admission` and `workers` workers that serve the earliest deadline first.

    Args:
        workers: How many.
        gap: Seconds between the sentences of a client; None: it sends its text at once.
        slow_from: From then on everything takes twice as long.
        settings: Of the admission.
    """

    def __init__(self, *, workers=2, seed=0, gap=None, slow_from=float("inf"), **settings):
        self.admission = Admission(workers, **settings)
        self.chance = random.Random(seed)
        self.free, self.now, self.gap, self.slow_from = workers, 0.0, gap, slow_from
        self.order = itertools.count()
        self.agenda, self.ready = [], []
        self.listeners = []

    def at(self, when, call, *args):
        heapq.heappush(self.agenda, (when, next(self.order), call, args))

    def arrive(self, when, words, client=""):
        listener = Listener(client, when, words)
        self.listeners.append(listener)
        self.at(when, self.open, listener)
        return listener

    def poisson(self, rate, seconds, client=lambda number: ""):
        when = 0.0
        for number in itertools.count():
            when += self.chance.expovariate(rate)
            if when > seconds:
                return
            self.arrive(when, self.chance.randint(1, 80), client(number))

    def run(self):
        while self.agenda:
            self.now, _, call, args = heapq.heappop(self.agenda)
            call(*args)
            self.dispatch()
        assert self.admission.open_claims == 0
        return self.listeners

    def open(self, listener):
        listener.claim = self.admission.open(listener.client, self.now)
        if listener.claim is None:
            listener.throttled = "open"
            return
        listener.texted = self.now + ROUND_TRIP
        listener.to_come = sentences(listener.words, self.chance)
        self.at(listener.texted, self.text, listener)

    def text(self, listener):
        if listener.throttled:
            return
        size = 1 if self.gap else len(listener.to_come)
        came, listener.to_come = listener.to_come[:size], listener.to_come[size:]
        listener.claim.expect(sum(came) * CHARACTERS_A_WORD)
        listener.waiting += came
        self.speak(listener)
        if not listener.to_come:  # the end comes in a message of its own
            listener.claim.expect(0, last=True)
        elif not listener.throttled:
            self.at(self.now + self.gap, self.text, listener)

    def speak(self, listener):
        """As `ThreadedPlayer.play` does."""
        if listener.steps is not None:
            return
        if not listener.waiting:
            if not listener.to_come:
                self.admission.close(listener.claim)
            return
        if listener.first_audio is None and not self.admission.begin(listener.claim, self.now):
            listener.throttled = "text"
            self.admission.close(listener.claim)
            return
        words = listener.waiting.pop(0)
        listener.characters, listener.sentence = words * CHARACTERS_A_WORD, 0.0
        listener.silent = self.admission.sentence(listener.claim, listener.characters, self.now)
        # No sentence is as long as its text says.
        listener.steps = windows(words * SECONDS_A_WORD * self.chance.uniform(0.8, 1.25), self.chance)
        self.queue(listener)

    def queue(self, listener):
        heapq.heappush(self.ready, (listener.claim.deadline, next(self.order), listener))

    def dispatch(self):
        while self.free and self.ready:
            listener = heapq.heappop(self.ready)[2]
            seconds, cost = next(listener.steps, (None, None))
            if seconds is None:
                self.admission.sentence_over(listener.claim, listener.characters, listener.sentence)
                listener.steps = None
                self.speak(listener)
                continue
            self.free -= 1
            cost *= 2 if self.now > self.slow_from else 1
            self.at(self.now + cost, self.done, listener, seconds, cost)

    def done(self, listener, seconds, cost):
        self.free += 1
        self.hear(listener, seconds)
        listener.sentence += seconds
        listener.claim.deadline = (self.now if listener.silent else max(listener.claim.deadline, self.now)) + seconds
        listener.silent = False
        self.admission.step(listener.claim, seconds, cost)
        self.queue(listener)

    def hear(self, listener, seconds):
        if listener.first_audio is None:
            listener.first_audio = self.now - listener.texted
            listener.plays_until = self.now
        elif self.now > listener.plays_until + 1e-9:
            listener.underruns += 1
            listener.plays_until = self.now
        listener.plays_until += seconds
