"""The verbs, put together: one file a verb.

A verb is a module of this package with a function `register(app)`; its name in `_VERBS` is all that it takes to add it.
Verbs import what they need when they run, so that `--help` is quick and works without the extras. `context.obj` holds
what the environment and `speechpool.toml` set, by section; a section named like a verb sets the defaults of its flags.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from .configuration import load
from .outcome import table

__all__ = ["build"]

_VERBS = ("demo", "say", "service", "load", "compare", "size", "check", "monitor", "top", "dashboard", "config")

_HELP = "High-concurrency streaming text-to-speech over pooled WebSockets, and a local service to develop against."


def build() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(
        help=_HELP,
        epilog=f"Exit codes:\n\n{table()}",
        pretty_exceptions_enable=False,  # beautified tracebacks show the values of variables: texts and keys
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    package = __name__.rpartition(".")[0]
    for verb in _VERBS:
        import_module(f"{package}.{verb}").register(app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"speechpool {version('speechpool')}")
        raise typer.Exit


def _root(
    context: typer.Context,
    *,
    show_version: Annotated[  # noqa: ARG001  # its callback does all
        bool, typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from, and log more.")] = False,
) -> None:
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=level, format="speechpool: %(message)s", stream=sys.stderr)
    if not {"-h", "--help"}.intersection(sys.argv):  # help must work with a broken file, too
        _configure(context)


def _configure(context: typer.Context) -> None:
    if context.invoked_subcommand == "config":
        return  # it looks for itself, and at what is wrong, too
    configuration = load()
    context.obj = context.default_map = configuration.values()
    for warning in configuration.warnings:
        typer.echo(f"speechpool: warning: {warning.message}", err=True)
