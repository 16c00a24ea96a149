"""What can go wrong with a connection: one frozen class a kind, checked when it is made.

The names are Toxiproxy's, in the spelling of Python; `half_open`, `no_pong`, `refuse` and `drop` are added. `FAULTS` is
the table for the parser, the help and the documentation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Literal, get_args

from speechpool.errors import SettingsError

__all__ = [
    "FAULTS",
    "Attribute",
    "Bandwidth",
    "Direction",
    "Drop",
    "Fault",
    "Frame",
    "HalfOpen",
    "Latency",
    "LimitData",
    "NoPong",
    "PlacedFault",
    "Refuse",
    "ResetPeer",
    "Slicer",
    "SlowClose",
    "Timeout",
]

Direction = Literal["upstream", "downstream", "both"]
"""`upstream` is from the client to the server, `downstream` from the server to the client."""
Frame = Literal["pong", "ping"]
"""A control frame of a WebSocket."""

LONGEST: Final = 3600.0
"""Seconds: no fault waits longer than an hour."""
LARGEST: Final = 10**12
"""Bytes, or bytes a second."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """What is known of one attribute of a fault, beside its value.

    Attributes:
        name: As the class spells it.
        default: Where none is given.
        unit: `s`, `bytes`, `bytes/s`, `flag` or `frame`.
        minimum: Inclusive.
        meaning: In a few words.
    """

    name: str
    default: Any
    unit: str
    minimum: float
    meaning: str


def _attribute(default: Any, unit: str, meaning: str, minimum: float = 0) -> Any:
    return field(default=default, metadata={"unit": unit, "minimum": minimum, "meaning": meaning})


@dataclass(frozen=True, slots=True)
class Fault:
    """Base of every fault.

    Raises:
        SettingsError: An attribute is of the wrong kind or out of its range.
    """

    kind: ClassVar[str] = ""
    """The word of the command line."""
    meaning: ClassVar[str] = ""
    """What happens, in one line."""
    strikes: ClassVar[str] = ""
    """What `ActiveFault.strikes` counts."""
    direction: ClassVar[Direction | None] = "downstream"
    """Where it acts by default; None: it is about whole connections and takes no direction."""

    def __post_init__(self) -> None:
        for attribute in self.attributes():
            _check(f"{type(self).__name__}.{attribute.name}", attribute, getattr(self, attribute.name))

    @classmethod
    def attributes(cls) -> Iterator[Attribute]:
        """Yield every attribute, in the order of the command line."""
        for each in fields(cls):
            yield Attribute(each.name, each.default, **each.metadata)


def _check(name: str, attribute: Attribute, value: object) -> None:
    if attribute.unit == "flag":
        if not isinstance(value, bool):
            raise SettingsError(f"{name} = {value!r} must be True or False.")
    elif attribute.unit == "frame":
        if value not in get_args(Frame):
            raise SettingsError(f"{name} = {value!r} is unknown; choose 'pong' or 'ping'.")
    else:
        _check_number(name, attribute, value)


def _check_number(name: str, attribute: Attribute, value: object) -> None:
    seconds = attribute.unit == "s"
    allowed = (int, float) if seconds else int
    if isinstance(value, bool) or not isinstance(value, allowed) or not math.isfinite(value):
        raise SettingsError(f"{name} = {value!r} must be a {'' if seconds else 'whole '}number ({attribute.unit}).")
    limit = LONGEST if seconds else LARGEST
    if not attribute.minimum <= value <= limit:
        raise SettingsError(f"{name} = {value!r} must be {attribute.minimum:g} to {limit:g} ({attribute.unit}).")


@dataclass(frozen=True, slots=True)
class Latency(Fault):
    """Delay everything, in order; see `FAULTS`."""

    kind = "latency"
    meaning = "everything arrives so much later, in its order; the throughput stays"
    strikes = "pieces delayed"
    delay: float = _attribute(0.1, "s", "how much later")
    jitter: float = _attribute(0.0, "s", "give or take, at random; at most the delay")

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if self.jitter > self.delay:
            raise SettingsError(f"Latency.jitter = {self.jitter!r} must not exceed delay = {self.delay!r} (s).")


@dataclass(frozen=True, slots=True)
class Bandwidth(Fault):
    """Limit the rate of each connection; see `FAULTS`."""

    kind = "bandwidth"
    meaning = "no more than so many bytes a second pass on a connection"
    strikes = "pieces passed on"
    rate: int = _attribute(64_000, "bytes/s", "of each connection", 1)


@dataclass(frozen=True, slots=True)
class SlowClose(Fault):
    """Delay the end of a connection, not its bytes; see `FAULTS`."""

    kind = "slow-close"
    meaning = "the end of a connection arrives so much later, its bytes do not"
    strikes = "ends delayed"
    delay: float = _attribute(1.0, "s", "how much later")


@dataclass(frozen=True, slots=True)
class Timeout(Fault):
    """Swallow all bytes, and close after a while; see `FAULTS`."""

    kind = "timeout"
    meaning = "all bytes are swallowed, and the connection is closed after a while; an end passes"
    strikes = "pieces swallowed"
    after: float = _attribute(1.0, "s", "when it is closed; 0: never")


@dataclass(frozen=True, slots=True)
class ResetPeer(Fault):
    """Reset every connection, now and later; see `FAULTS`."""

    kind = "reset-peer"
    meaning = "every connection is reset: downstream to the client, upstream to the server; the other peer is closed"
    strikes = "connections reset"
    direction: ClassVar[Direction | None] = "both"
    after: float = _attribute(0.0, "s", "since the connection met the fault")


@dataclass(frozen=True, slots=True)
class Slicer(Fault):
    """Cut the bytes into small pieces; see `FAULTS`."""

    kind = "slicer"
    meaning = "bytes arrive in small pieces, each in a packet of its own"
    strikes = "pieces made"
    average_size: int = _attribute(64, "bytes", "of a piece", 1)
    size_variation: int = _attribute(0, "bytes", "give or take, at random; below the average size")
    delay: float = _attribute(0.0, "s", "between two pieces")

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if self.size_variation >= self.average_size:
            raise SettingsError(
                f"Slicer.size_variation = {self.size_variation!r} must be below average_size = {self.average_size!r} "
                "(bytes), or a piece would be empty."
            )


@dataclass(frozen=True, slots=True)
class LimitData(Fault):
    """End a connection after so many bytes; see `FAULTS`."""

    kind = "limit-data"
    meaning = "the connection ends once so many bytes have passed since it met the fault"
    strikes = "connections ended"
    bytes: int = _attribute(1024, "bytes", "that pass; 0: it ends at the first byte")
    reset: bool = _attribute(default=False, unit="flag", meaning="by a reset instead of a close")


@dataclass(frozen=True, slots=True)
class HalfOpen(Fault):
    """Swallow everything, and keep both sockets open; see `FAULTS`."""

    kind = "half-open"
    meaning = "bytes and ends are swallowed, and both sockets stay open: the peer has vanished"
    strikes = "pieces swallowed"
    direction: ClassVar[Direction | None] = "both"


@dataclass(frozen=True, slots=True)
class NoPong(Fault):
    """Take control frames out of a WebSocket; see `FAULTS`."""

    kind = "no-pong"
    meaning = "these control frames are taken out of a WebSocket (ws, not wss), all others pass"
    strikes = "frames removed"
    frame: Frame = _attribute("pong", "frame", "pong or ping")


@dataclass(frozen=True, slots=True)
class Refuse(Fault):
    """Close the listener; see `FAULTS`."""

    kind = "refuse"
    meaning = "nobody listens: new connections are refused, those that exist go on"
    strikes = "always 0: the kernel refuses"
    direction: ClassVar[Direction | None] = None


@dataclass(frozen=True, slots=True)
class Drop(Fault):
    """Reset all connections that exist, once; see `FAULTS`."""

    kind = "drop"
    meaning = "all connections that exist now are reset, at both ends; later ones are not"
    strikes = "connections reset"
    direction: ClassVar[Direction | None] = None


FAULTS: Final[tuple[type[Fault], ...]] = (
    Latency,
    Bandwidth,
    SlowClose,
    Timeout,
    ResetPeer,
    Slicer,
    LimitData,
    HalfOpen,
    NoPong,
    Refuse,
    Drop,
)
"""Every kind of fault, for the parser, the help and the documentation."""


@dataclass(frozen=True, slots=True)
class PlacedFault:
    """A fault, where it acts, and on how many connections.

    Attributes:
        fault: What goes wrong.
        direction: None: the fault's own default, which is put here; it stays None where the fault takes none.
        toxicity: The share of the connections that meet it, above 0, at most 1.

    Raises:
        SettingsError: The fault takes no such direction, or the share is out of range.
    """

    fault: Fault
    direction: Direction | None = None
    toxicity: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.fault, Fault):
            raise SettingsError(f"{self.fault!r} is no fault; give an object, such as Latency(0.1).")
        kind = self.fault.kind
        if self.direction is None:
            object.__setattr__(self, "direction", self.fault.direction)
        elif self.fault.direction is None:
            raise SettingsError(f"the fault {kind!r} is about whole connections; leave out the direction.")
        elif self.direction not in get_args(Direction):
            choices = ", ".join(map(repr, get_args(Direction)))
            raise SettingsError(f"the direction {self.direction!r} is unknown; choose one of {choices}.")
        if isinstance(self.toxicity, bool) or not 0 < self.toxicity <= 1:
            raise SettingsError(f"toxicity = {self.toxicity!r} must be above 0 and at most 1 (share of connections).")
        if isinstance(self.fault, Refuse) and self.toxicity < 1:
            raise SettingsError(
                "the fault 'refuse' is about the listener: it refuses all or none; leave out the share."
            )

    def covers(self, direction: Direction) -> bool:
        """Whether it acts in this one direction."""
        return self.direction in {direction, "both"}

    def __str__(self) -> str:
        from .grammar import text_of

        return text_of(self)


def changed(fault: Fault) -> list[tuple[Attribute, Any]]:
    """Return the attributes up to the last one that differs from its default, with their values; at least the first."""
    pairs = [(each, getattr(fault, each.name)) for each in fault.attributes()]
    while len(pairs) > 1 and pairs[-1][1] == pairs[-1][0].default:
        pairs.pop()
    return pairs
