"""`speechpool config`: what is set, where it comes from, and what is wrong with it."""

from __future__ import annotations

import inspect
import json
import os
import re
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from speechpool.errors import SettingsError
from speechpool.settings import PoolSettings

from .configuration import HIDDEN, Configuration, Found, load, named_file, read
from .outcome import ExitCode

__all__ = ["register"]

_DEFAULT: Final = "default"
_USER: Final = re.compile(r"//[^/@]*@")
_Json = Annotated[bool, typer.Option("--json", help="Tell it as one line of JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    config = typer.Typer(help="Show the settings and where they come from, or check them.", no_args_is_help=True)
    config.command("show")(show)
    config.command("check")(check)
    app.add_typer(config, name="config")


def show(
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: _Json = False,
) -> None:
    """Show every setting of every section, as a verb would find it. Keys are never shown, only whether they are set.

    Flags win over the environment, that over the file (speechpool.toml, or what SPEECHPOOL_CONFIG names), and that over
    the variables of the official SDK: DASHSCOPE_API_KEY, DASHSCOPE_WEBSOCKET_BASE_URL, DASHSCOPE_API_REGION and
    DASHSCOPE_WORKSPACE_ID.
    """
    from .sections import settings

    configuration = load()
    rows = [(section, name, _found(configuration, section, name)) for section, name in settings()]
    if as_json:
        typer.echo(json.dumps([_told(*row) for row in rows]))
        return
    width = max(len(name) for _, name, _ in rows)
    values = [_shown(name, found.value) for _, name, found in rows]
    widest = max(map(len, values))
    last = ""
    for (section, name, found), value in zip(rows, values, strict=True):
        if section != last:
            typer.echo(f"[{section}]")
            last = section
        source = f"  {value:<{widest}}  {found.origin}" if origin else f"  {value}"
        typer.echo(f"{name:<{width}}{source}".rstrip())


def check(
    file: Annotated[
        Path | None,
        typer.Argument(help="The file; unset: speechpool.toml, or what SPEECHPOOL_CONFIG names.", show_default=False),
    ] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Check the settings file and the environment, and tell everything that is wrong. Leaves with 2 where something is.

    A key in the file is a warning, and no error.
    """
    from .checks import check

    if file is not None and not file.is_file():
        raise SettingsError(f"there is no file {file}; name another one.")
    path = file or named_file()
    configuration = read(path)
    check(configuration)
    if as_json:
        facts = {"file": None if path is None else str(path)}
        lists = {"errors": configuration.errors, "warnings": configuration.warnings}
        typer.echo(json.dumps(facts | {name: [asdict(each) for each in every] for name, every in lists.items()}))
    else:
        _tell(configuration, path)
    if configuration.errors:
        raise typer.Exit(ExitCode.USAGE)


# ------------------------------------------------------------------------------------ what is shown
def _found(configuration: Configuration, section: str, name: str) -> Found:
    found = configuration.found.get((section, name))
    if found is None and (section, name) == ("endpoint", HIDDEN) and (key := os.environ.get("DASHSCOPE_API_KEY")):
        return Found(key, "environment variable DASHSCOPE_API_KEY")
    return found or Found(_defaults(section).get(name), _DEFAULT)


def _defaults(section: str) -> dict[str, Any]:
    """Return the defaults of a section: those of the flags of its verb, where it has one."""
    from .sections import settings, validated

    if section == "pool":
        return {each.name: each.default for each in PoolSettings.describe()}
    if section not in {"service", "check"}:
        return {}
    verb = getattr(import_module(f"{__package__}.{section}"), section)
    flags = {name: each.default for name, each in inspect.signature(verb).parameters.items()}
    right, _ = validated({section: {name: flags[name] for home, name in settings() if home == section}})
    return right[section]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "unset"
    if name == HIDDEN:
        return "set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(value)
    return _USER.sub("//***@", str(value))


def _told(section: str, name: str, found: Found) -> dict[str, Any]:
    hidden = name == HIDDEN or isinstance(found.value, str)
    value = _shown(name, found.value) if hidden and found.value is not None else found.value
    return {"section": section, "name": name, "value": value, "secret": name == HIDDEN, "origin": found.origin}


def _tell(configuration: Configuration, path: Path | None) -> None:
    for kind, problems in (("error", configuration.errors), ("warning", configuration.warnings)):
        for problem in problems:
            typer.echo(f"{kind}: {problem.message}")
    looked = f"{path} and the environment" if path else "the environment (there is no settings file)"
    counts = [
        f"{len(every)} {name}{'' if len(every) == 1 else 's'}"
        for name, every in (("error", configuration.errors), ("warning", configuration.warnings))
        if every
    ]
    typer.echo(f"checked {looked}: {', '.join(counts) or 'nothing is wrong'}")
