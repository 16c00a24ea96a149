"""Each stage against the targets of the five signals, whatever else is expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from .expect import parse

__all__ = ["judged", "warnings"]

_WANTED: Final = tuple(parse(text) for text in ("first_packet.p99<500ms", "error_rate<0.1%", "reuse>95%", "foreign<1"))
_USED: Final = (0.6, 0.8)
"""Share of the connections that should be borrowed at the peak."""


def judged(stage: Mapping[str, Any]) -> list[str]:
    """Return which targets a stage has missed; what is not known is not judged, and neither is the warm-up."""
    if not stage["judged"]:
        return []
    whole = {"total": stage}
    return [one.text for one in _WANTED if one.value(whole) is not None and not one.holds(whole)]


def warnings(targets: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is worth a look, but no failure: how much of a pool was used at the peak."""
    low, high = _USED
    for name, target in targets.items():
        used = next((stage["utilisation"] for stage in target["stages"] if stage["name"] == "1x"), None)
        if used is not None and not low <= used <= high:
            size = "a smaller" if used < low else "a larger"
            yield (
                f"{name}: at 1x {used:.0%} of the connections were used, not {low:.0%} to {high:.0%}: "
                f"{size} --max-size would be right for this peak; see speechpool size."
            )
