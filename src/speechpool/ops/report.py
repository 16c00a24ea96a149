"""The last load test, as `speechpool load --json` wrote it: did it reach twice the peak, and did that go well?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from speechpool.errors import SettingsError

from .checklist import Finding

__all__ = ["LoadTest", "judged", "read"]

_DAY: Final = 86400.0
_TWICE: Final = 1.99
"""Rates are rounded when they are written."""
_NO_PEAK: Final = ("stages", "rate", "concurrency", "sweep")
"""Flags in place of a peak, which then stands in the setting though nobody gave it."""
_AGAIN: Final = "run: speechpool load --peak {peak:g} --url URL --json FILE --expect 'error_rate<0.1%'"


@dataclass(frozen=True, slots=True)
class LoadTest:
    """A report.

    Attributes:
        path: Its file.
        age: Days since it was written.
        content: What is in it.
        by: Where the age is from, for people; empty: the report says it.
    """

    path: Path
    age: float
    content: Mapping[str, Any]
    by: str = ""

    @property
    def task_seconds(self) -> float | None:
        """Mean seconds of a task, where the test measured them."""
        return self._positive("task_seconds")

    @property
    def peak(self) -> float | None:
        """Tasks at once that it was made for; None where rates or callers were given instead."""
        setting = self.content.get("setting")
        chosen = isinstance(setting, dict) and any(setting.get(name) for name in _NO_PEAK)
        return None if chosen else self._positive("peak")

    def _positive(self, name: str) -> float | None:
        setting = self.content.get("setting")
        found = setting.get(name) if isinstance(setting, dict) else None
        return float(found) if isinstance(found, (int, float)) and found > 0 else None


def read(path: Path, now: float | None = None) -> LoadTest:
    """Read a report.

    Raises:
        SettingsError: It cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        written = path.stat().st_mtime
    except OSError as error:
        raise SettingsError(f"the load report {path} cannot be read: {error.strerror}.") from error
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("version") != 1 or not content.get("targets"):
        raise SettingsError(f"{path} is no report of `speechpool load --json` (version 1).")
    ended = content.get("ended")
    # Earlier versions do not say it, and a file's date is that of its last copy.
    when, by = (float(ended), "") if isinstance(ended, (int, float)) else (written, ", by the date of its file")
    return LoadTest(path, ((time.time() if now is None else now) - when) / _DAY, content, by)


def judged(
    test: LoadTest, *, peak: float | None, task_seconds: float | None, max_age: float, where: str | None
) -> tuple[Finding, ...]:
    """Return what a report proves.

    Args:
        test: The report.
        peak: Tasks at once that are expected; None: those that it was made for.
        task_seconds: Mean seconds of a task, where the report does not say.
        max_age: Days after which it proves nothing.
        where: Host and port of the endpoint that the program will use, where one is known.
    """
    try:
        return tuple(_Judge(test, peak, task_seconds).findings(max_age, where))
    except (KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"the load report {test.path} is damaged: {error!r} is not as it should be.") from error


class _Judge:
    def __init__(self, test: LoadTest, peak: float | None, task_seconds: float | None) -> None:
        self._test = test
        content = test.content
        self._content, self._setting = content, content["setting"]
        self._peak = float(peak if peak is not None else test.peak or 0.0)
        self._task_seconds = test.task_seconds or task_seconds
        self._again = _AGAIN.format(peak=self._peak or 20)

    def findings(self, max_age: float, where: str | None) -> Iterator[Finding]:
        yield from self._honest()
        yield from self._young(max_age)
        yield from self._same(where)
        yield from self._reached()
        yield from self._held()

    def _honest(self) -> Iterator[Finding]:
        if invalid := self._content["tester"]["invalid"]:
            yield Finding.failed(
                f"{self._test.path} says that it is invalid: {invalid}", f"{self._again}, on a free machine"
            )
        if self._content["interrupted"]:
            yield Finding.failed(
                f"The run of {self._test.path} was interrupted.", f"let it come to its end; {self._again}"
            )

    def _young(self, max_age: float) -> Iterator[Finding]:
        told = f"{self._test.path} is {self._test.age:.1f} days old{self._test.by}"
        if self._test.age > max_age:
            yield Finding.failed(f"{told}; more than {max_age:g} prove nothing about today.", self._again)
        else:
            yield Finding.passed(f"{told}.")

    def _same(self, where: str | None) -> Iterator[Finding]:
        tested = self._setting.get("url")
        if where is not None and tested != where:
            said = "a service of its own" if tested is None else tested
            yield Finding.warned(
                f"It tested {said}, while the endpoint here is {where}.",
                f"test the endpoint itself (--url; --i-own-this-target), where it is yours to load; {self._again}",
            )

    def _reached(self) -> Iterator[Finding]:
        if not self._peak:
            yield Finding.unknown("No peak is known, so nobody can say what twice of it is.", "add --peak")
            return
        reached = self._most()
        if reached is None:
            yield Finding.unknown(
                "The report does not say how long a task takes, so its rates tell no tasks at once.",
                "add --task-seconds",
            )
            return
        times = reached / self._peak
        told = f"It went up to {reached:.3g} tasks at once, {times:.2f} times the peak of {self._peak:g}."
        yield Finding.passed(told) if times >= _TWICE else Finding.failed(told, self._again)

    def _most(self) -> float | None:
        """Tasks at once at its busiest, by Little's law: what was asked, and did begin."""
        if concurrency := self._setting.get("concurrency"):
            return float(concurrency)
        if self._task_seconds is None:
            return None
        rates = [self._rate(stage) for target in self._targets().values() for stage in _judged(target)]
        return max(rates, default=0.0) * float(self._task_seconds)

    @staticmethod
    def _rate(stage: Mapping[str, Any]) -> float:
        # By chance fewer tasks begin than were asked for; half of them is no chance.
        begun = stage["tasks"] / stage["seconds"]
        return float(stage["rate"] if begun > stage["rate"] / 2 else begun)

    def _targets(self) -> Mapping[str, Mapping[str, Any]]:
        targets: Mapping[str, Mapping[str, Any]] = self._content["targets"]
        return {"pool": targets["pool"]} if "pool" in targets else targets

    def _held(self) -> Iterator[Finding]:
        expectations = self._content.get("expectations") or []
        broken = [
            f"{one['expectation']} ({one['target']}: {_told(one['value'])})" for one in expectations if not one["holds"]
        ]
        if broken:
            yield Finding.failed(
                f"Expectations failed: {', '.join(broken)}.",
                f"see docs/load.md for what to look at; then {self._again}",
            )
        elif expectations:
            yield Finding.passed(f"All {len(expectations)} expectations hold.")
        bad = [text for name, target in self._targets().items() for text in _missed(name, target["total"])]
        if bad and not expectations:
            yield Finding.failed(
                f"Targets are missed: {', '.join(bad)}.", f"see docs/load.md for what to look at; then {self._again}"
            )
        elif bad:
            yield Finding.warned(
                f"Its expectations ask for less than the targets, which are missed: {', '.join(bad)}.",
                "expect first_packet.p99<500ms, error_rate<0.1% and reuse>95%, or know why not",
            )
        elif not expectations:
            yield Finding.passed("It named no expectations; the targets of delay, errors and reuse are met.")


def _judged(target: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [stage for stage in target["stages"] if stage["judged"]]


def _missed(name: str, total: Mapping[str, Any]) -> Iterator[str]:
    delay, errors, reuse = total["first_packet"]["p99"], total["error_rate"], total["reuse"]
    if not total["tasks"]:
        yield f"{name}: no task was judged"
    if delay is not None and delay >= 0.5:
        yield f"{name}: first packet p99 is {1000 * delay:.0f} ms, not below 500"
    if errors is not None and errors >= 0.001:
        yield f"{name}: {errors:.2%} of the tasks fail, not below 0.1 %"
    if reuse is not None and reuse <= 0.95:
        yield f"{name}: {reuse:.1%} of the connections are reused, not above 95 %"
    if total["foreign"]:
        yield f"{name}: {total['foreign']} tasks heard audio of somebody else"


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
