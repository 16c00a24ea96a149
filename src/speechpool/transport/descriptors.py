"""File descriptors: whether they suffice for a pool, and what to say once they have run out.

A connection takes one. A shortage does not always look like one: a name cannot be looked up, a certificate not be
checked, because a file could not be opened. So `shortage` tries, where an error may be such a disguise.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl as tls
import sys
from pathlib import Path

from speechpool.errors import SettingsError

__all__ = ["RESERVE", "check_descriptors", "need_one", "raise_soft_limit", "remedy", "shortage"]

RESERVE = 16
"""Descriptors left to the program itself: files it opens, name look-ups, certificates that are read while it dials."""

_SHORT = frozenset({errno.EMFILE, errno.ENFILE})
_TABLES = ("/proc/self/fd", "/dev/fd")


def check_descriptors(needed: int, what: str, *, held: int = 0) -> None:
    """Refuse a number of connections for which this process may not open enough descriptors.

    Does nothing where the system sets no limit.

    Args:
        needed: Connections that may be open at once.
        what: Names the setting and its value, to begin the error with.
        held: How many of them are open already.

    Raises:
        SettingsError: There are too few; the text names the limits, what is in use, and the remedy.
    """
    soft, hard = _limits()
    if soft is None or needed <= held:
        return
    used = _used()
    total = used + needed - held + RESERVE
    if total <= soft:
        return
    room = max(0, soft - RESERVE - used + held)
    raise SettingsError(
        f"{what} needs up to {needed} descriptors, {total} together with the {used} in use now and {RESERVE} for the "
        f"program's own files, but this process may open {soft} (its soft limit; the hard limit is {_shown(hard)}). "
        f"{_raise_it(total, hard)}, or lower max_size: there is room for {room} connections."
    )


def raise_soft_limit() -> None:
    """Let this process open as many descriptors as its hard limit allows: for programs, never for a library's user."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def shortage(error: BaseException) -> OSError | None:
    """Return the shortage of descriptors behind an error of a dial, or None where it has another cause."""
    if not isinstance(error, OSError):
        return None
    if error.errno in _SHORT and not isinstance(error, socket.gaierror | tls.SSLError):  # those number for themselves
        return error
    if not isinstance(error, socket.gaierror | tls.SSLCertVerificationError):
        return None
    try:
        need_one()
    except OSError as cause:
        return cause
    return None


def need_one() -> None:
    """Open a descriptor and close it again: before something that does not say that it found none.

    Raises:
        OSError: There is none left.
    """
    os.close(os.open(os.devnull, os.O_RDONLY))


def remedy(error: OSError) -> str:
    """Say what ran out, where the limit is and how to raise it; one sentence or two, from an error of `shortage`."""
    if error.errno == errno.ENFILE:
        return (
            "The whole machine has too many open files; close some, or raise its limit (sysctl fs.file-max on Linux)."
        )
    soft, hard = _limits()
    if soft is None:
        return "This process has too many open files; close some."
    return (
        f"This process has too many open files: it may open {soft} (its soft limit; the hard limit is {_shown(hard)}). "
        f"{_raise_it(2 * soft, hard)}, or lower max_size."
    )


def _limits() -> tuple[int | None, int | None]:
    """The soft and the hard limit; None: there is none."""
    if sys.platform == "win32":  # sockets are no entries of a small table there
        return None, None
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (None if limit == resource.RLIM_INFINITY else limit for limit in limits)
    return soft, hard


def _used() -> int:
    """Descriptors in use, or 0 where the system does not say."""
    for table in _TABLES:
        try:
            return sum(1 for _ in Path(table).iterdir()) - 1  # one of them was listing
        except OSError:
            continue
    return 0


def _raise_it(wanted: int, hard: int | None) -> str:
    if hard is None or wanted <= hard:
        return f"Raise it with `ulimit -n {wanted}` or resource.setrlimit before the pool is opened"
    return f"The hard limit itself is too low: let an administrator raise it to {wanted} (LimitNOFILE= of systemd)"


def _shown(limit: int | None) -> str:
    return "none" if limit is None else str(limit)
