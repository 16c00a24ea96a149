"""Faults on demand: what `--fault` says, and when it strikes.

    KIND[@PHASE][:VALUE][~PROBABILITY]        KIND=VALUE is read, too

    handshake-delay=100ms       every handshake takes 100 ms more
    refuse:429,2~10%            one handshake in ten is answered 429 with `Retry-After: 2`
    drop@mid-audio~0.05         one task in twenty loses its socket after its first audio
    fail@started:InternalError  every task fails right after task-started

A time is a number with its unit: `100ms`, `2s`. A probability is a share (`0.1`) or a percentage (`10%`); without one a
fault always strikes. Faults of one moment strike in the order in which they were given.

A phase is met once a task (`idle` once a connection, a fault of the handshake once a handshake); `fault_kinds` is the
table of kinds and phases. This module decides, `faulty` acts. Faults of TCP (latency, resets, half-open sockets) are
made by a proxy, not here.
"""

from __future__ import annotations

import difflib
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from speechpool.errors import SettingsError
from speechpool.protocol.cosyvoice import FAILURES

from .fault_kinds import CLOSE_CODE, ERROR_CODE, FAULTS, PHASES, STATUS, TIME, FaultKind

__all__ = ["FAULTS", "PHASES", "Fault", "FaultKind", "Faults", "HandshakeFault", "parse_fault"]

_KINDS: Final = {kind.name: kind for kind in FAULTS}


@dataclass(frozen=True, slots=True)
class Fault:
    """One `--fault`. Its text, `str(fault)`, is read back as an equal one.

    Attributes:
        kind: A name of `FAULTS`.
        phase: A name of `PHASES`; empty: at the handshake.
        value: Seconds, an HTTP status or a close code, as the kind wants it.
        retry_after: Seconds of the header Retry-After, or None.
        code: A name of `FAILURES`, where the kind is `fail`.
        probability: The share of the moments at which it strikes, above 0, at most 1.
    """

    kind: str
    phase: str = ""
    value: float = 0.0
    retry_after: float | None = None
    code: str = ""
    probability: float = 1.0

    def __str__(self) -> str:
        phase = f"@{self.phase}" if self.phase else ""
        probability = f"~{_plain(self.probability)}" if self.probability < 1 else ""
        return f"{self.kind}{phase}{self._value()}{probability}"

    def _value(self) -> str:
        wanted = _KINDS[self.kind].value
        if wanted == TIME:
            return f":{_plain(self.value)}s"
        if wanted == ERROR_CODE:
            return f":{self.code}"
        retry_after = "" if self.retry_after is None else f",{_plain(self.retry_after)}"
        return f":{self.value:.0f}{retry_after}" if wanted else ""


def _plain(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


# ------------------------------------------------------------------------------------------ reading
_FAULT: Final = re.compile(r"([^@:=~]+)(?:@([^:=~]*))?(?:[:=]([^~]*))?(?:~(.*))?", re.ASCII)
_TIME: Final = re.compile(r"(\d+(?:\.\d*)?(?:e-?\d+)?)(ms|s)", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0}
_LONGEST: Final = 3600.0
# RFC 6455 section 7.4: those a close frame may carry, and those for private use.
_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})


def parse_fault(text: str) -> Fault:
    """Read one `KIND[@PHASE][:VALUE][~PROBABILITY]`.

    Raises:
        SettingsError: A part is unknown or out of range; it names what would be right.
    """
    match = _FAULT.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"fault {text!r} cannot be read; write KIND[@PHASE][:VALUE][~PROBABILITY].")
    name, phase, value, probability = match.groups()
    kind = _KINDS.get(name)
    if kind is None:
        raise SettingsError(f"the fault {name!r} is unknown.{_hint(name, _KINDS)}")
    chance = 1.0 if probability is None else _probability(probability)
    place = _phase(kind, phase)
    if value and not kind.value:
        raise SettingsError(f"the fault {name!r} takes no value, got {value!r}.")
    return _read_value(kind, place, value or kind.default, chance)


def _read_value(kind: FaultKind, phase: str, text: str, probability: float) -> Fault:
    if kind.value == TIME:
        return Fault(kind.name, phase, _seconds(text), probability=probability)
    if kind.value == STATUS:
        status, _, pause = text.partition(",")
        retry_after = _seconds(pause if pause.endswith("s") else f"{pause}s") if pause else None
        allowed = range(400, 600)
        return Fault(kind.name, phase, _whole(status, allowed, "400 to 599"), retry_after, probability=probability)
    if kind.value == CLOSE_CODE:
        code = _whole(text, _CLOSE_CODES, "1000 to 1003, 1007 to 1014 or 3000 to 4999")
        return Fault(kind.name, phase, code, probability=probability)
    if kind.value == ERROR_CODE and text not in FAILURES:
        raise SettingsError(f"the error code {text!r} is unknown.{_hint(text, FAILURES)}")
    return Fault(kind.name, phase, code=text, probability=probability)


def _phase(kind: FaultKind, phase: str | None) -> str:
    if phase is None:
        return kind.phases[0] if kind.phases else ""
    if not kind.phases:
        raise SettingsError(f"the fault {kind.name!r} strikes at the handshake; leave out '@{phase}'.")
    if phase not in kind.phases:
        raise SettingsError(f"the fault {kind.name!r} cannot strike at {phase!r}.{_hint(phase, kind.phases)}")
    return phase


def _probability(text: str) -> float:
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise SettingsError(f"the probability {text!r} of a fault must be above 0 and at most 1, e.g. 0.1 or 10%.")
    return share


def _seconds(text: str) -> float:
    match = _TIME.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else math.nan
    if not seconds <= _LONGEST:
        raise SettingsError(f"the time {text!r} of a fault must be 0 to {_LONGEST:g}s with its unit, e.g. 100ms or 2s.")
    return seconds


def _whole(text: str, allowed: range | frozenset[int], words: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:9]) not in allowed:
        raise SettingsError(f"the value {text!r} of a fault must be {words}.")
    return int(text)


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(names)}."


# ------------------------------------------------------------------------------------------ striking
@dataclass(frozen=True, slots=True)
class HandshakeFault:
    """What goes wrong with one handshake; all at their defaults: nothing.

    Attributes:
        delay: Seconds to wait before anything else.
        drop: Then drop the socket, without an answer.
        stall: Else never answer.
        status: Else answer with this status; None: let it in.
        retry_after: Seconds of the header Retry-After of that answer; None: no such header.
    """

    delay: float = 0.0
    drop: bool = False
    stall: bool = False
    status: int | None = None
    retry_after: float | None = None


@dataclass(slots=True)
class Faults:
    """All faults of one service, and the dice.

    Each fault has dice of its own: whether it strikes at its n-th moment is the same in every run with the same seed,
    whatever the others do.

    Args:
        faults: In the order in which they strike.
        seed: Of the dice.
    """

    faults: Sequence[Fault]
    seed: int = 0
    _dice: list[random.Random] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._dice = [random.Random(f"{self.seed} {n} {fault}") for n, fault in enumerate(self.faults)]

    @classmethod
    def parse(cls, texts: Iterable[str], seed: int = 0) -> Faults:
        """Read each text; see `parse_fault`.

        Raises:
            SettingsError: One of them is wrong.
        """
        return cls(tuple(parse_fault(text) for text in texts), seed)

    @property
    def strike_sessions(self) -> bool:
        """Whether one of them strikes after the handshake."""
        return any(fault.phase for fault in self.faults)

    def at(self, phase: str) -> list[Fault]:
        """Throw the dice of every fault of `phase` once, and return those that strike."""
        return [
            fault
            for fault, dice in zip(self.faults, self._dice, strict=True)
            if fault.phase == phase and (fault.probability == 1 or dice.random() < fault.probability)
        ]

    def handshake(self) -> HandshakeFault:
        """Throw the dice for one handshake. Delays add up; of several refusals the first one counts."""
        struck = self.at("")
        refusal = next((fault for fault in struck if fault.kind == "refuse"), None)
        return HandshakeFault(
            delay=sum(fault.value for fault in struck if fault.kind == "handshake-delay"),
            drop=any(fault.kind == "handshake-drop" for fault in struck),
            stall=any(fault.kind == "handshake-stall" for fault in struck),
            status=int(refusal.value) if refusal else None,
            retry_after=refusal.retry_after if refusal else None,
        )
