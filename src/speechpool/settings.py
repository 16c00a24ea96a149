"""Settings of the library: frozen, keyword-only and checked when they are made.

Every field carries its minimum, its unit and the reason for its default; `docs/settings.md` shows the same table, and a
test compares the two.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from .errors import SettingsError

__all__ = [
    "CheckedSettings",
    "Deadlines",
    "LifetimeProfile",
    "Overflow",
    "PoolSettings",
    "Setting",
    "setting",
    "with_overrides",
]

Overflow = Literal["wait", "fail", "grow"]
"""What a borrower meets when all connections are borrowed: a queue, an error, or an extra connection."""

_VARIABLE = "SPEECHPOOL_POOL__"
"""What the names of the environment variables of `PoolSettings` begin with."""

_Settings = TypeVar("_Settings", "PoolSettings", "Deadlines")


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting, beside its value: `minimum` (inclusive), `unit` and `reason`."""

    name: str
    default: object
    minimum: float
    unit: str
    reason: str


def setting(default: Any, minimum: float, unit: str, reason: str) -> Any:
    """Return a field with its default, its minimum (inclusive), its unit and the reason for the default."""
    return field(default=default, metadata={"minimum": minimum, "unit": unit, "reason": reason})


class CheckedSettings:
    """Base of settings: checks each field against its own metadata when the object is made."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            _check(type(self).__name__, each, getattr(self, each.name))

    @classmethod
    def describe(cls) -> Iterator[Setting]:
        """Yield every setting with its default, minimum, unit and reason, in the order of definition."""
        for each in fields(cls):  # type: ignore[arg-type]  # every subclass is a dataclass
            yield Setting(
                each.name,
                each.default,
                each.metadata["minimum"],
                each.metadata["unit"],
                each.metadata["reason"],
            )


def _number(text: str) -> object:
    """Return the number that a text stands for, or the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _check(owner: str, each: dataclasses.Field[Any], value: object) -> None:
    name, minimum, unit = each.name, each.metadata["minimum"], each.metadata["unit"]
    if unit == "choice":
        if value not in get_args(Overflow):
            choices = ", ".join(repr(choice) for choice in get_args(Overflow))
            raise SettingsError(f"{owner}.{name} = {value!r} is unknown; choose one of {choices}.")
        return
    if unit == "flag":
        if not isinstance(value, bool):
            raise SettingsError(f"{owner}.{name} = {value!r} must be True or False.")
        return
    if value is None:
        # None means "derived" where that is the default, "never" for a time, "any" for a rate.
        if each.default is None or unit in {"s", "1/s"}:
            return
        raise SettingsError(f"{owner}.{name} must not be None; its default is {each.default!r}.")
    wanted = (int, float) if unit in {"s", "1/s"} or isinstance(each.default, float) else int
    if isinstance(value, bool) or not isinstance(value, wanted) or not math.isfinite(value):
        kind = "a whole number" if wanted is int else "a number"
        raise SettingsError(f"{owner}.{name} = {value!r} must be {kind} ({unit}).")
    if value < minimum:
        raise SettingsError(f"{owner}.{name} = {value!r} is below its minimum of {minimum:g} ({unit}).")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings(CheckedSettings):
    """How many connections a pool keeps, how long they live, and how long borrowers wait.

    Raises:
        SettingsError: A value is below its minimum, of the wrong kind, or at odds with another one.
    """

    max_size: int = setting(20, 1, "connections", "the official pool's default; plan 1.6 x the expected peak")
    min_size: int | None = setting(None, 0, "connections", "None: max_size, so that every task finds a warm connection")
    max_idle: int | None = setting(None, 0, "connections", "None: max_size; idle ones beyond it are closed on return")
    idle_timeout: float | None = setting(None, 0.05, "s", "None: the provider's profile (DashScope: 50 s)")
    max_lifetime: float | None = setting(None, 0.1, "s", "None: the provider's profile (DashScope documents no limit)")
    max_opening: int = setting(8, 1, "connections", "dials at once: fast warm-up, yet no herd on the endpoint")
    max_replacing: int = setting(4, 1, "connections", "beyond max_size, while each waits for the one that it replaces")
    borrow_timeout: float | None = setting(10.0, 0.0, "s", "a caller that waits longer has usually lost its listener")
    max_waiting: int | None = setting(None, 0, "callers", "None: 10 x max_size; beyond it borrowing fails at once")
    close_timeout: float = setting(2.0, 0.01, "s", "how long a peer may take to answer a close")
    leak_after: float | None = setting(
        120.0, 0.05, "s", "a lease held longer is reported with the stack that borrowed it"
    )
    overflow: Overflow = setting("wait", 0, "choice", "waiting bounds concurrency; 'grow' is the official SDK's way")
    open_backoff: float = setting(0.1, 0.001, "s", "first pause after a failed dial; doubles, with full jitter")
    open_backoff_cap: float = setting(2.0, 0.001, "s", "longest pause while somebody waits")
    open_backoff_idle_cap: float = setting(15.0, 0.001, "s", "longest pause while nobody waits")
    outage_after: float | None = setting(
        2.0,
        0.01,
        "s",
        "failing dials for so long are an outage, in which borrowing fails at once; None: borrowers wait",
    )
    heartbeat: float | None = setting(20.0, 0.02, "s", "ping after this silence; None: no pings")
    retry: int = setting(2, 0, "attempts", "retries of one task before its first audio; 0 turns them off")

    @classmethod
    def load(
        cls, path: str | Path | None = None, environ: Mapping[str, str] = os.environ, **fields: object
    ) -> PoolSettings:
        """Return what is set beside the program: `[pool]` of a file, and over it `SPEECHPOOL_POOL__MAX_SIZE` and so on.

        Args:
            path: The file; None: what `SPEECHPOOL_CONFIG` names, else `speechpool.toml`, where there is one.
            environ: Where the variables stand.
            fields: They win.

        Raises:
            SettingsError: The file cannot be read, or a value is wrong.
        """
        import tomllib  # here, because `import speechpool` is to be quick

        named = path or environ.get("SPEECHPOOL_CONFIG")
        file = Path(named or "speechpool.toml")
        values: dict[str, object] = {}
        if named is not None or file.is_file():
            try:
                table = tomllib.loads(file.read_text("utf-8")).get("pool", {})
            except (OSError, ValueError) as error:
                raise SettingsError(f"{file} cannot be read as settings: {error}.") from error
            if not isinstance(table, dict):
                raise SettingsError(f"pool in {file} is no table; write [pool], and the settings below it.")
            values |= table
        for name, text in environ.items():
            if name.startswith(_VARIABLE):
                values[name.removeprefix(_VARIABLE).lower()] = _number(text)
        return cls.of(values | fields)

    @classmethod
    def of(cls, values: Mapping[str, object]) -> PoolSettings:
        """Return settings from plain values, as files hold them: "none" stands for None.

        Raises:
            SettingsError: A name is unknown (the nearest known one is suggested) or a value is out of range.
        """
        return with_overrides(cls(), {name: None if value == "none" else value for name, value in values.items()})

    def __post_init__(self) -> None:
        CheckedSettings.__post_init__(self)
        if self.min_size is not None and self.min_size > self.max_size:
            raise SettingsError(
                f"PoolSettings.min_size = {self.min_size} is above max_size = {self.max_size}; lower the one or "
                "raise the other."
            )
        if self.max_idle is not None and self.min_size is not None and self.max_idle < self.min_size:
            raise SettingsError(
                f"PoolSettings.max_idle = {self.max_idle} is below min_size = {self.min_size}: the floor could not "
                "be kept; raise it."
            )

    @property
    def floor(self) -> int:
        """The warm floor that is really kept: `min_size`, or `max_size` where it is None."""
        if self.min_size is not None:
            return self.min_size
        return self.max_size if self.max_idle is None else min(self.max_size, self.max_idle)

    @property
    def idle_limit(self) -> int:
        """How many idle connections are kept: `max_idle`, or `max_size` where it is None."""
        return self.max_size if self.max_idle is None else self.max_idle

    @property
    def waiting_limit(self) -> int:
        """How many callers may wait: `max_waiting`, or ten times `max_size` where it is None."""
        return 10 * self.max_size if self.max_waiting is None else self.max_waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class LifetimeProfile:
    """How long a provider keeps connections, less a margin. What is seen of the server corrects it.

    Attributes:
        idle_timeout: Seconds that a connection may be idle; None: any time.
        max_lifetime: Seconds that a connection may live; None: any time.
    """

    idle_timeout: float | None = None
    max_lifetime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines(CheckedSettings):
    """How long each part of a task may take. None turns a deadline off.

    Raises:
        SettingsError: A value is below its minimum or of the wrong kind.
    """

    connect: float | None = setting(10.0, 0.01, "s", "DNS, TCP, TLS and handshake; across borders up to 3 s is normal")
    start: float | None = setting(10.0, 0.01, "s", "run-task to task-started; the official SDK waits 10 s, too")
    first_audio: float | None = setting(10.0, 0.01, "s", "200 to 800 ms is normal after the text")
    gap: float | None = setting(10.0, 0.01, "s", "silence in the middle of audio that the server owes")
    total: float | None = setting(600.0, 0.01, "s", "the official SDK's limit for one task")
    cancel: float | None = setting(2.0, 0.01, "s", "how long a cancelled task may hold its connection")


def with_overrides(settings: _Settings, overrides: Mapping[str, object]) -> _Settings:
    """Return `settings` with some fields replaced.

    Raises:
        SettingsError: A name is unknown (the nearest known one is suggested) or a value is out of range.
    """
    known = [each.name for each in fields(settings)]
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(known)}."
            raise SettingsError(f"{name!r} is no setting of {type(settings).__name__}.{hint}")
    return dataclasses.replace(settings, **overrides) if overrides else settings  # type: ignore[arg-type]
