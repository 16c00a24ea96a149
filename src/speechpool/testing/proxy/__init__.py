"""A TCP proxy that makes a network bad on purpose, in Toxiproxy's vocabulary.

    async with FaultProxy("127.0.0.1", 8765) as proxy:
        slow = proxy.add(Latency(0.05, jitter=0.01), direction="both")
        ...
        slow.remove()

or `python -m speechpool.testing.proxy --to 127.0.0.1:8765 --fault latency:50ms`. docs/faults.md has every fault.
"""

from .faults import (
    FAULTS,
    Bandwidth,
    Direction,
    Drop,
    Fault,
    HalfOpen,
    Latency,
    LimitData,
    NoPong,
    PlacedFault,
    Refuse,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
)
from .grammar import parse_fault
from .proxy import ActiveFault, Counts, FaultProxy

__all__ = [
    "FAULTS",
    "ActiveFault",
    "Bandwidth",
    "Counts",
    "Direction",
    "Drop",
    "Fault",
    "FaultProxy",
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
    "parse_fault",
]
