"""A hook of MkDocs: a page of the reference with what every verb says about itself with `--help`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import typer
from mkdocs.structure.files import File, Files
from typer.testing import CliRunner

from speechpool.cli.app import build

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

COLUMNS: Final = "90"
"""As wide as the column of a page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    app, runner = build(), CliRunner(env={"COLUMNS": COLUMNS, "TERM": "dumb", "NO_COLOR": "1"})
    parts = ["# Command line\n\n[Settings](../settings.md#command-line) says where values may come from.\n"]
    for words in _verbs(typer.main.get_command(app)):
        said = runner.invoke(app, [*words, "--help"], prog_name="speechpool", catch_exceptions=False).output
        parts.append(f"## {' '.join(['speechpool', *words])}\n\n```text\n{_tidy(said)}\n```\n")
    files.append(File.generated(config, "reference/command_line.md", content="\n".join(parts)))
    return files


def _verbs(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
    yield words
    for name, verb in getattr(command, "commands", {}).items():
        yield from _verbs(verb, *words, name)


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
