"""Faults as text: `KIND[@DIRECTION][:VALUE[,VALUE...]][~SHARE]`, the grammar of the service's `--fault`.

    latency:50ms                    everything from the server comes 50 ms later
    latency@both:25ms,5ms           25 ms in each direction, give or take 5 ms
    bandwidth@downstream:64k        64,000 bytes a second
    limit-data:10k,reset            a reset after 10,000 bytes
    half-open@upstream~10%          one connection in ten

A time is a number with its unit (`100ms`, `2s`), a size is a number, perhaps with `k`, `M` or `G` (thousands, as
networks count); a share is `0.1` or `10%`. Values stand in the order of the fault's attributes; those left out are at
their defaults. `KIND=VALUE` is read, too, and so are Toxiproxy's names with underscores.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, get_args

from speechpool.errors import SettingsError

from .faults import FAULTS, Attribute, Direction, Fault, PlacedFault, changed

__all__ = ["GRAMMAR", "default_text", "parse_fault", "text_of"]

GRAMMAR: Final = "KIND[@DIRECTION][:VALUE[,VALUE...]][~SHARE]"

_KINDS: Final = {kind.kind: kind for kind in FAULTS}
_FAULT: Final = re.compile(r"([^@:=~]+)(?:@([^:=~]*))?(?:[:=]([^~]*))?(?:~(.*))?", re.ASCII)
_NUMBER: Final = r"(\d{1,15}(?:\.\d*)?(?:e-?\d{1,3})?)"
_TIME: Final = re.compile(_NUMBER + "(ms|s)", re.ASCII)
_SIZE: Final = re.compile(_NUMBER + "([kMG]?)", re.ASCII)
_SIZES: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def parse_fault(text: str) -> PlacedFault:
    """Read one fault; see the module.

    Raises:
        SettingsError: A part is unknown or out of range; it names what would be right.
    """
    match = _FAULT.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"fault {text!r} cannot be read; write {GRAMMAR}.")
    name, direction, values, share = match.groups()
    kind = _KINDS.get(name.replace("_", "-"))
    if kind is None:
        raise SettingsError(f"the fault {name!r} is unknown.{_hint(name, _KINDS)}")
    if direction is not None and direction not in get_args(Direction):
        hint = _hint(direction, get_args(Direction))
        raise SettingsError(f"the direction {direction!r} of a fault is unknown.{hint}")
    fault = _fault(kind, values.split(",") if values else [])
    return PlacedFault(fault, direction, 1.0 if share is None else _share(share))  # type: ignore[arg-type]  # checked above


def _fault(kind: type[Fault], values: list[str]) -> Fault:
    attributes = list(kind.attributes())
    if len(values) > len(attributes):
        names = ", ".join(each.name for each in attributes)
        takes = f"at most {len(attributes)} ({names})" if attributes else "none"
        raise SettingsError(f"the fault {kind.kind!r} takes no value {values[-1]!r}: it takes {takes}.")
    return kind(*(_READERS[each.unit](each, text) for each, text in zip(attributes, values, strict=False)))


def _seconds(attribute: Attribute, text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise SettingsError(f"{attribute.name} = {text!r} must be a time with its unit, e.g. 100ms or 2s.")
    return float(match[1]) * (0.001 if match[2] == "ms" else 1.0)


def _size(attribute: Attribute, text: str) -> int:
    match = _SIZE.fullmatch(text)
    size = float(match[1]) * _SIZES[match[2]] if match else math.nan
    if not size.is_integer():
        raise SettingsError(f"{attribute.name} = {text!r} must be whole {attribute.unit}, e.g. 500, 64k or 2M.")
    return int(size)


def _flag(attribute: Attribute, text: str) -> bool:
    if text != attribute.name:
        raise SettingsError(f"the value {text!r} is unknown; write {attribute.name!r}, or leave it out.")
    return True


_READERS: Final[dict[str, Callable[[Attribute, str], Any]]] = {
    "s": _seconds,
    "bytes": _size,
    "bytes/s": _size,
    "flag": _flag,
    "frame": lambda _, text: text,  # the class checks it
}


def _share(text: str) -> float:
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise SettingsError(f"the share {text!r} of a fault must be above 0 and at most 1, e.g. 0.1 or 10%.")
    return share


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(names)}."


# ------------------------------------------------------------------------------------------ writing
def text_of(placed: PlacedFault) -> str:
    """Return the text that is read back as an equal fault."""
    direction = f"@{placed.direction}" if placed.direction else ""
    values = ",".join(_written(each, value) for each, value in changed(placed.fault))
    share = f"~{placed.toxicity!r}" if placed.toxicity < 1 else ""
    return f"{placed.fault.kind}{direction}{values and ':'}{values}{share}"


def default_text(attribute: Attribute) -> str:
    """Return the default of an attribute as one would write it; `-` where one would leave it out."""
    return _written(attribute, attribute.default) or "-"


def _written(attribute: Attribute, value: Any) -> str:
    if attribute.unit == "s":
        return _time(attribute, float(value))
    if attribute.unit in {"bytes", "bytes/s"}:
        return _whole(value)
    if attribute.unit == "flag":
        return attribute.name if value else ""
    return str(value)


def _time(attribute: Attribute, seconds: float) -> str:
    milliseconds = f"{seconds * 1000:.6g}ms"
    exact = 0 < seconds < 1 and _TIME.fullmatch(milliseconds) and _seconds(attribute, milliseconds) == seconds
    return milliseconds if exact else f"{seconds!r}".removesuffix(".0") + "s"


def _whole(number: int) -> str:
    unit = next(unit for unit in ("G", "M", "k", "") if number % _SIZES[unit] == 0 and (number or not unit))
    return f"{number // _SIZES[unit]}{unit}"
