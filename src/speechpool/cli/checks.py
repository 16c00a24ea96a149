"""What `speechpool config check` finds beyond names and kinds: what the verbs themselves would refuse, all at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from speechpool.errors import SettingsError
from speechpool.settings import PoolSettings

from .certificates import client_context, server_context
from .configuration import PATH, PREFIX, Configuration, Problem, variable

__all__ = ["check"]

_LIMITS: Final = ("text_gap", "idle_timeout", "submission_rate")


def check(configuration: Configuration, environ: Mapping[str, str] = os.environ) -> None:
    """Add to the errors and warnings of `configuration` what a look at its values, and at `environ`, shows."""
    configuration.errors += [*_unknown_variables(environ), *_limits_of_environment(environ)]
    _Examination(configuration, "endpoint").run(_endpoint)
    _Examination(configuration, "pool").run(_pool)
    try:
        _Examination(configuration, "service").run(_service)
    except ModuleNotFoundError as error:
        message = f"[service] was checked in part only: that needs the package {error.name!r}."
        configuration.warnings.append(Problem("service", "", f"{message} Try: pip install 'speechpool[service]'"))


class _Examination:
    """Tries parts of one section. What a part refuses is an error at the first of its names that is set."""

    def __init__(self, configuration: Configuration, section: str) -> None:
        self._configuration = configuration
        self._section = section
        self.values = configuration.section(section)

    def run(self, parts: Callable[[_Examination], None]) -> None:
        if self.values:
            parts(self)

    def attempt(self, names: tuple[str, ...], part: Callable[..., Any], *arguments: Any, **more: Any) -> None:
        """Run a part that some names decide, where one of them is set."""
        name = next((name for name in names if name in self.values), None)
        if name is None:
            return
        try:
            part(*arguments, **more)
        except SettingsError as error:
            origin = self._configuration.found[self._section, name].origin
            place = f"{self._section}.{name}"
            self._configuration.errors.append(Problem(place, origin, f"{place} ({origin}): {error}"))


def _endpoint(examined: _Examination) -> None:
    from .endpoints import url_of

    values = examined.values
    place = (values.get("url"), values.get("region"), values.get("workspace"))
    examined.attempt(("region", "url"), url_of, *place)
    examined.attempt(("tls_ca",), client_context, _path(values.get("tls_ca")))


def _pool(examined: _Examination) -> None:
    # Each value is right by itself; together they may contradict each other.
    examined.attempt(tuple(examined.values), PoolSettings.of, examined.values)


def _service(examined: _Examination) -> None:
    from speechpool.service import LocalBackend, ServiceSettings, SpeechService
    from speechpool.service.faults import parse_fault

    values = examined.values
    certificate, key = (_path(values.get(name)) for name in ("tls_cert", "tls_key"))
    examined.attempt(("tls_cert", "tls_key"), server_context, certificate, key)
    for name in _LIMITS:
        examined.attempt((name,), ServiceSettings, **{name: _limit(values.get(name))})
    for text in values.get("fault", ()):
        examined.attempt(("fault",), parse_fault, text)
    engine = values.get("engine", "auto")
    examined.attempt(("profile", "engine"), LocalBackend, engine=engine, profile=values.get("profile"))
    backend = LocalBackend(engine="marker")
    access = {"host": values.get("host", "127.0.0.1"), "api_key": values.get("api_key")}
    examined.attempt(("host", "api_key"), SpeechService, backend, **access)
    examined.attempt(("allow_origin",), SpeechService, backend, allowed_origins=values.get("allow_origin", ()))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _limit(value: float | str | None) -> float | None:
    return None if isinstance(value, str) else value


def _limits_of_environment(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Every pool of the process reads them (`ConnectionLimits`)."""
    from speechpool.limits import java

    try:
        java.connection_limits(environ)
    except SettingsError as error:
        yield Problem("environment", "environment", str(error))


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[Problem]:
    from .sections import nearest, settings

    sections = {section for section, _ in settings()}
    known = [PATH, *(variable(section, name) for section, name in settings())]
    for name in sorted(environ):
        section, border, _ = name.removeprefix(PREFIX).lower().partition("__")
        # A wrong name of a known section is an error of that section already.
        if name.startswith(PREFIX) and name != PATH and not (border and section in sections):
            hint = nearest(name, known, "see: speechpool config show")
            yield Problem(name, f"environment variable {name}", f"{name} is set, and nothing reads it; {hint}")
