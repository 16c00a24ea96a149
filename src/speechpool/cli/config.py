"""Defaults of the flags: `SPEECHPOOL_<SECTION>__<NAME>` in the environment, `speechpool.toml` in the working directory.

A flag wins over the environment, the environment over the file, the file over the built-in default. `SPEECHPOOL_CONFIG`
names another file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from speechpool.errors import SettingsError

__all__ = ["FILE", "PREFIX", "load"]

FILE = "speechpool.toml"
PREFIX = "SPEECHPOOL_"
_PATH = f"{PREFIX}CONFIG"


def load() -> dict[str, dict[str, Any]]:
    """Return what is set, by section and name; what is not set is not there.

    Raises:
        SettingsError: The file is missing or no TOML, or a name or value is wrong.
    """
    named = os.environ.get(_PATH)
    path = Path(named or FILE)
    if named and not path.is_file():
        raise SettingsError(f"{_PATH} = {named} names no file.")
    if not path.is_file() and not any(name.startswith(PREFIX) and "__" in name for name in os.environ):
        return {}  # the usual case: nothing to read, so a third of a second of imports is saved
    return _read(path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    import tomllib

    import pydantic

    from .sections import read

    try:
        return read(path)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}.") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"the setting {where!r} ({path} or {PREFIX}{where.replace('.', '__').upper()}) is wrong: {first['msg']}."
        ) from None
