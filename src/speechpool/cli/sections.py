"""The sections of `speechpool.toml`: what may stand in them, and what is wrong with what does."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from speechpool.settings import Overflow, PoolSettings, Setting

__all__ = ["Place", "nearest", "settings", "validated"]

Place = tuple[str, ...]
"""A section, or a section and a name in it."""


def _listed(value: Any) -> Any:
    """Read what the environment can only say as one text: a JSON list, or parts between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


_Limit = Annotated[float, Field(gt=0)] | Literal["none"]
_Texts = Annotated[list[str], BeforeValidator(_listed)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Service(_Section):
    """`[service]`: the flags of `speechpool service`."""

    host: str | None = None
    port: int | None = Field(default=None, ge=0, le=65535)
    api_key: str | None = None
    engine: str | None = None
    profile: str | None = None
    workers: int | None = Field(default=None, ge=1)
    max_queue: int | None = Field(default=None, ge=1)
    max_first_audio: _Limit | None = None
    max_connections: int | None = Field(default=None, ge=1)
    max_connections_per_key: int | None = Field(default=None, ge=1)
    max_connections_per_address: int | None = Field(default=None, ge=1)
    max_tasks_per_key: int | None = Field(default=None, ge=1)
    text_gap: _Limit | None = None
    idle_timeout: _Limit | None = None
    submission_rate: _Limit | None = None
    early_text: bool | None = None
    older_events: bool | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    allow_origin: _Texts | None = None
    fault: _Texts | None = None
    drain: float | None = Field(default=None, ge=0)


class _Endpoint(_Section):
    """`[endpoint]`: where the other verbs connect to."""

    url: str | None = None
    region: str | None = None
    workspace: str | None = None
    api_key: str | None = None
    tls_ca: str | None = None


def _kind(each: Setting) -> Any:
    """Return what may stand for a setting of a pool."""
    if each.unit == "choice":
        return (Overflow | None, None)
    least = Field(ge=each.minimum)
    kind: Any = Annotated[float, least] | Literal["none"] if each.unit == "s" else Annotated[int, least]
    return (kind | None, None)


_Pool = create_model("_Pool", __base__=_Section, **{each.name: _kind(each) for each in PoolSettings.describe()})
"""`[pool]`: the fields of `PoolSettings`, for `PoolSettings.load()`."""


class _Check(_Section):
    """`[check]`: the flags of `speechpool check`."""

    watch_idle: float | None = Field(default=None, ge=0)
    peak: float | None = Field(default=None, gt=0)
    task_seconds: float | None = Field(default=None, gt=0)
    submission_rate: float | None = Field(default=None, gt=0)
    machines: int | None = Field(default=None, ge=1)
    source: str | None = None
    load_report: str | None = None
    max_age: float | None = Field(default=None, ge=0)
    metrics: _Texts | None = None
    dashboards: str | None = None
    grafana: str | None = None
    prometheus: str | None = None
    only: _Texts | None = None
    strict: bool | None = None
    html: str | None = None


class _Sections(_Section):
    """The whole file."""

    service: _Service = _Service()
    endpoint: _Endpoint = _Endpoint()
    pool: _Pool = _Pool()  # type: ignore[valid-type]  # a class, made from data
    check: _Check = _Check()


_SECTIONS: Final[Mapping[str, type[_Section]]] = {
    "service": _Service,
    "endpoint": _Endpoint,
    "pool": _Pool,
    "check": _Check,
}

_WORDS: Final = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text in quotes",
    "list_type": 'a list such as ["one", "two"]',
    "value_error": 'a list such as ["one", "two"]',  # of JSON that is none
    "model_type": "a table of settings",
    "literal_error": "{expected}",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:,g}",
    "less_than_equal": "at most {le:,g}",
}
"""What would be right, by the kind of pydantic's errors; the limits are in their context."""


def settings() -> Iterator[tuple[str, str]]:
    """Yield every section and name there is."""
    for section, kind in _SECTIONS.items():
        for name in kind.model_fields:
            yield section, name


def validated(values: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[Place, str]]:
    """Return what is right of `values`, as the kinds that the verbs expect, and what is wrong with the rest."""
    unknown: dict[Place, str] = {}
    wrong: dict[Place, list[str]] = {}
    try:
        return _Sections.model_validate(values).model_dump(exclude_unset=True), {}
    except ValidationError as error:
        for each in error.errors(include_url=False):
            place = tuple(map(str, each["loc"][:2]))
            if each["type"] == "extra_forbidden":
                unknown[place] = _unknown(place)
            else:  # one for each alternative, such as a number or 'none'
                wrong.setdefault(place, []).append(_right(each))
    told = unknown | {
        place: f"must be {' or '.join(parts)}; correct it, or leave it out." for place, parts in wrong.items()
    }
    right = {
        section: {name: value for name, value in names.items() if (section, name) not in told}
        for section, names in values.items()
        if (section,) not in told
    }
    return _Sections.model_validate(right).model_dump(exclude_unset=True), told


def nearest(name: str, known: list[str], otherwise: str = "") -> str:
    """Return what to say of a name that is not known: the nearest one, else `otherwise`, else all."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise or f"known are: {', '.join(known)}."


def _right(error: Mapping[str, Any]) -> str:
    words = _WORDS.get(error["type"])
    return words.format(**error.get("ctx", {})) if words else error["msg"].removeprefix("Input should be ")


def _unknown(place: Place) -> str:
    section, name = place[0], place[-1]
    if len(place) > 1:
        return f"is no setting; {nearest(name, list(_SECTIONS[section].model_fields))}"
    homes = [f"[{home}]" for home, known in settings() if known == section]
    if homes:
        return f"stands outside of a section; write it below {' or '.join(homes)}."
    return f"is no section; {nearest(section, list(_SECTIONS))}"
