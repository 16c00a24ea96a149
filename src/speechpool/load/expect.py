"""Expectations: `first_packet.p99<500ms`, `error_rate<0.1%`, `reuse@2x>95%`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from speechpool.errors import SettingsError

from .summary import DELAYS, PERCENTILES

__all__ = ["RATIOS", "Expectation", "grammar", "parse"]

RATIOS: Final = ("error_rate", "reuse", "goodput", "utilisation")
COUNTS: Final = ("tasks", "foreign", "underruns", "real_time_factor")
_MARKS: Final = [*(f"p{q}" for q in PERCENTILES), "mean", "max"]
_SECONDS: Final = {*DELAYS, "recovery"}
_UNITS: Final = {"ms": 0.001, "s": 1.0, "%": 0.01, "": 1.0}
_COMPARED: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FORM: Final = re.compile(
    r"\s*(?P<name>[a-z_]+)(?:\.(?P<mark>p\d+|mean|max))?(?:@(?P<stage>[^<>=]+?))?\s*(?P<compared><=|>=|<|>)\s*"
    r"(?P<limit>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|%|)\s*"
)


def grammar() -> str:
    """Return what can be expected, for people."""
    return (
        f"{', '.join(DELAYS)} with .{', .'.join(_MARKS)} in ms or s; recovery in s; "
        f"{', '.join(RATIOS)} in %; {', '.join(COUNTS)}; @STAGE for one stage, e.g. first_packet.p99@2x<400ms"
    )


@dataclass(frozen=True, slots=True)
class Expectation:
    """One of them.

    Attributes:
        text: As it was written.
        name: What it is about.
        mark: Which percentile; empty where it has none.
        stage: Name of the stage; empty: all that are judged.
        compared: `<`, `<=`, `>` or `>=`.
        limit: In seconds, or as a ratio or number.
    """

    text: str
    name: str
    mark: str
    stage: str
    compared: str
    limit: float

    def value(self, target: Mapping[str, Any]) -> float | None:
        """Return what it is about in the report of one target; None where there is no such number."""
        if self.name == "recovery":
            recovery = target["recovery"]
            return None if recovery is None else recovery["seconds"]
        if self.stage:
            found = next((one for one in target["stages"] if one["name"] == self.stage), None)
        else:
            found = target["total"]
        value = None if found is None else found.get(self.name)
        return value.get(self.mark) if isinstance(value, dict) else value

    def holds(self, target: Mapping[str, Any]) -> bool:
        """Whether it does; without a number it does not."""
        value = self.value(target)
        return value is not None and _COMPARED[self.compared](value, self.limit)


def parse(text: str) -> Expectation:
    """Read one.

    Raises:
        SettingsError: It cannot be read, or asks for what there is not.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise SettingsError(f"--expect {text!r} cannot be read; write e.g. 'first_packet.p99<500ms'.")
    name, mark, unit = found["name"], found["mark"] or "", found["unit"]
    if name not in {*_SECONDS, *RATIOS, *COUNTS}:
        raise SettingsError(f"--expect {text!r}: there is no {name!r}; there are {grammar()}.")
    if (name in DELAYS) != bool(mark) or (mark and mark not in _MARKS):
        wanted = f"needs one of .{', .'.join(_MARKS)}" if name in DELAYS else "has no percentiles"
        raise SettingsError(f"--expect {text!r}: {name} {wanted}.")
    if (name in _SECONDS) != (unit in {"ms", "s"}) or (unit == "%" and name not in RATIOS):
        wanted = "ms or s" if name in _SECONDS else "% or no unit" if name in RATIOS else "no unit"
        raise SettingsError(f"--expect {text!r}: {name} takes {wanted}.")
    limit = float(found["limit"]) * _UNITS[unit]
    return Expectation(text.strip(), name, mark, (found["stage"] or "").strip(), found["compared"], limit)
