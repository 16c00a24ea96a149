"""Files that a verb writes at its end."""

from __future__ import annotations

import os
from pathlib import Path

from .outcome import CannotWrite

__all__ = ["check_place", "write"]


def check_place(path: Path) -> None:
    """Say now what would be lost at the end of a long run.

    Raises:
        CannotWrite: There is no such directory, it must not be written to, or the file is one itself.
    """
    folder = path.parent
    if not folder.is_dir():
        raise CannotWrite(f"cannot write {path}: there is no directory {folder}; make it first.")
    if path.is_dir():
        raise CannotWrite(f"cannot write {path}: it is a directory; name a file in it.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise CannotWrite(f"cannot write {path}: it is not allowed; choose another file.")


def write(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        CannotWrite: The system does not let us.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}; choose another file.") from error
