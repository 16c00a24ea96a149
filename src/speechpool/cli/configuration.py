"""What is set beside the flags, and where.

A flag wins over the environment (`SPEECHPOOL_<SECTION>__<NAME>`), the environment over `speechpool.toml` in the working
directory (`SPEECHPOOL_CONFIG` names another file), the file over the variables of the official SDK, and those over the
built-in default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from speechpool.errors import SettingsError

__all__ = ["FILE", "HIDDEN", "PATH", "PREFIX", "Configuration", "Found", "Problem", "load", "named_file", "read"]

FILE: Final = "speechpool.toml"
PREFIX: Final = "SPEECHPOOL_"
PATH: Final = f"{PREFIX}CONFIG"
HIDDEN: Final = "api_key"
"""The name, in any section, whose value is never shown."""

_SDK: Final = {
    "url": "DASHSCOPE_WEBSOCKET_BASE_URL",
    "region": "DASHSCOPE_API_REGION",
    "workspace": "DASHSCOPE_WORKSPACE_ID",
}
"""What the official SDK reads, too. Not its key: `Endpoint` asks for that, and the local service must never get it."""
_BEIJING: Final = "cn-beijing"
_SECTIONS: Final = frozenset({"service", "endpoint", "pool", "check"})
"""The names of all sections; `sections` needs a quarter of a second of imports."""
_KEY_VARIABLES: Final = {"endpoint": "DASHSCOPE_API_KEY", "service": f"{PREFIX}SERVICE__API_KEY"}


@dataclass(frozen=True, slots=True)
class Found:
    """A value that is set: `file:PATH` or `environment variable NAME` is its `origin`."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, or unwise: the name of the setting, section or variable, where it is, and a sentence."""

    name: str
    origin: str
    message: str


@dataclass(slots=True)
class Configuration:
    """Everything that is set.

    Attributes:
        found: By section and name.
        errors: What is wrong; it is not in `found`.
        warnings: What works, but should not be so.
    """

    found: dict[tuple[str, str], Found] = field(default_factory=dict)
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def values(self) -> dict[str, dict[str, Any]]:
        """Return the values by section and name; what is not set is not there."""
        values: dict[str, dict[str, Any]] = {}
        for (section, name), found in self.found.items():
            values.setdefault(section, {})[name] = found.value
        return values

    def section(self, section: str) -> dict[str, Any]:
        """Return the values of a section, by name."""
        return self.values().get(section, {})

    def add(self, values: Mapping[str, Any], origin: Callable[[str, str], str]) -> None:
        """Put values over those that are there, after a check; `origin` says where a section and name is set."""
        if not values:
            return  # the usual case: the check needs a quarter of a second of imports
        from .sections import validated

        right, wrong = validated(values)
        for place, said in wrong.items():
            where = origin(place[0], place[-1])
            self.errors.append(Problem(".".join(place), where, f"{_with_value(place, values)} ({where}) {said}"))
        self.put(right, origin)

    def put(self, values: Mapping[str, Mapping[str, Any]], origin: Callable[[str, str], str]) -> None:
        """Put values that are right over those that are there."""
        for section, names in values.items():
            for name, value in names.items():
                self.found[section, name] = Found(value, origin(section, name))
        where = [name for name in ("url", "region") if name in values.get("endpoint", {})]
        if len(where) == 2:
            place = origin("endpoint", "region")
            self.errors.append(
                Problem(
                    "endpoint.region",
                    place,
                    f"endpoint.url and endpoint.region ({place}) exclude each other: keep one.",
                )
            )
        for name in where:  # the other one, set at a place that counts less, would name another server
            self.found.pop(("endpoint", "region" if name == "url" else "url"), None)


def named_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file that counts; None where there is none.

    Raises:
        SettingsError: `SPEECHPOOL_CONFIG` names no file.
    """
    named = environ.get(PATH)
    if named and not Path(named).is_file():
        raise SettingsError(f"{PATH} = {named} names no file.")
    path = Path(named or FILE)
    return path if path.is_file() else None


def read(path: Path | None, environ: Mapping[str, str] = os.environ) -> Configuration:
    """Read everything that is set, right or wrong.

    Args:
        path: The settings file.
        environ: Where the variables stand.
    """
    configuration = Configuration()
    configuration.put(_of_sdk(environ), lambda _, name: f"environment variable {_SDK[name]}")
    if path is not None:
        _add_file(configuration, path)
    configuration.add(_of_environment(environ), lambda section, name: f"environment variable {variable(section, name)}")
    return configuration


def load() -> Configuration:
    """Return what is set in this process.

    Raises:
        SettingsError: Something is wrong with it.
    """
    configuration = read(named_file())
    if configuration.errors:
        first, more = configuration.errors[0].message, len(configuration.errors) - 1
        others = f" ({more} more; see: speechpool config check)" if more else ""
        raise SettingsError(f"{first}{others}")
    return configuration


def variable(section: str, name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{section}__{name}".upper()


def _of_sdk(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found = {name: environ[key] for name, key in _SDK.items() if environ.get(key)}
    if "url" in found:
        found.pop("region", None)  # as in the SDK
    if found.get("region") == _BEIJING:
        found["region"] = "cn"  # the SDK means the host that needs no workspace
    return {"endpoint": found} if found else {}


def _of_environment(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return what variables of known sections say; `speechpool config check` reports the others."""
    values: dict[str, dict[str, str]] = {}
    for key, value in environ.items():
        section, border, name = key.removeprefix(PREFIX).lower().partition("__")
        if key.startswith(PREFIX) and border and section in _SECTIONS:
            values.setdefault(section, {})[name] = value
    return values


def _add_file(configuration: Configuration, path: Path) -> None:
    origin = f"file:{path}"
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        configuration.errors.append(Problem(str(path), origin, f"{path} is no TOML: {error}."))
        return
    except OSError as error:
        configuration.errors.append(Problem(str(path), origin, f"{path} cannot be read: {error.strerror}."))
        return
    configuration.add(values, lambda _, __: origin)
    for section, better in _KEY_VARIABLES.items():
        if (section, HIDDEN) in configuration.found and HIDDEN in values.get(section, {}):
            message = (
                f"{section}.{HIDDEN} stands in {path}, where others may find it; set the environment variable "
                f"{better} instead."
            )
            configuration.warnings.append(Problem(f"{section}.{HIDDEN}", origin, message))


def _with_value(place: tuple[str, ...], values: Mapping[str, Any]) -> str:
    """Return a setting with its value, where that may be shown: what is misspelt may be a key."""
    from .sections import settings

    name = ".".join(place)
    if place not in set(settings()) or place[-1] == HIDDEN:
        return name
    value = values[place[0]][place[-1]]
    return f"{name} = {value!r}" if isinstance(value, (str, int, float)) else name
