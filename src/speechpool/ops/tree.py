"""Reads a program's source, without running it: keys in it, pools that nobody closes, failed objects given back."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from speechpool.errors import SettingsError

from .source import Place, Source
from .syntax import KEY, WORTH_PARSING, Module

__all__ = ["read"]

_SKIPPED: Final = frozenset({"venv", "env", "node_modules", "site-packages", "__pycache__", "build", "dist"})
_LARGEST: Final = 1_000_000
"""Bytes of the largest file that is read."""
_TEXTS: Final = frozenset(
    {".toml", ".yaml", ".yml", ".json", ".ini", ".cfg", ".conf", ".sh", ".ipynb", ".properties", ".java", ".js", ".ts"}
)
_NAMED_TEXTS: Final = ("Dockerfile", "Makefile", "docker-compose")


def read(folder: Path) -> Source:
    """Look at everything below `folder`, hidden folders and environments left out.

    Raises:
        SettingsError: There is no such folder, it cannot be read, or no file is in it.
    """
    if not folder.is_dir():
        raise SettingsError(f"--source {folder} is no folder; name the one with the program in it.")
    source = Source(str(folder))
    modules = []
    for path in _files(folder):
        name = str(path.relative_to(folder))
        try:
            text = path.read_text("utf-8", errors="replace")
        except OSError:
            source.unread.append(name)
            continue
        if path.suffix != ".py":
            source.texts += 1
            found = source.env_keys if path.name.startswith(".env") else source.keys
            found += [Place(name, number) for number, line in enumerate(text.splitlines(), 1) if KEY.search(line)]
            continue
        source.programs += 1
        if not WORTH_PARSING.search(text):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # those of the program are its own
                tree = ast.parse(text)
            modules.append(Module(name, tree))
        except (SyntaxError, ValueError, RecursionError):
            source.unread.append(name)
    if not source.programs:
        raise SettingsError(f"--source {folder} holds no Python file; name the folder with the program in it.")
    source.patched = any(module.patches for module in modules)
    for module in modules:
        module.look(source)
    closed = {name for module in modules for name in module.closed}
    for module in modules:
        for pool, name in module.open:
            # Closed by that name in another file: it may be this one, or its namesake.
            pool.end = "handed on" if name in closed else "open"
    return source


def _files(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except PermissionError as error:
        raise SettingsError(f"--source: {folder} cannot be read: {error.strerror}.") from error
    for path in entries:
        hidden = path.name.startswith(".")
        if path.is_dir() and not path.is_symlink():
            if not hidden and path.name not in _SKIPPED:
                yield from _files(path)
        elif path.is_file() and path.stat().st_size <= _LARGEST:
            known = path.suffix == ".py" or path.suffix in _TEXTS or path.name.startswith(_NAMED_TEXTS)
            if path.name.startswith(".env") or (known and not hidden):
                yield path
