"""How a command ends: one exit code for each kind of trouble, one line for each error."""

from __future__ import annotations

from enum import IntEnum

from speechpool.errors import (
    ConnectFailed,
    ConnectionLost,
    EndpointDown,
    FirstAudioTimeout,
    InvalidText,
    PoolTimeout,
    ProtocolViolation,
    SettingsError,
    Shed,
    SpeechPoolError,
    TaskFailed,
    Unauthorized,
)

__all__ = ["CannotWrite", "ExitCode", "Terminated", "exit_code", "message_of", "table"]


class ExitCode(IntEnum):
    """The exit codes of every verb."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNAUTHORIZED = 4
    TASK_FAILED = 5
    TIMEOUT = 6
    CANNOT_WRITE = 7
    EXPECTATION_FAILED = 99
    INTERRUPTED = 130
    TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM came. No error, hence no Exception: it ends everything on its way, as Ctrl-C does."""


class CannotWrite(SpeechPoolError):
    """A file cannot be written. Choose another path."""


_MEANING = {
    ExitCode.DONE: "done",
    ExitCode.UNEXPECTED: "unexpected error; run again with --debug",
    ExitCode.USAGE: "wrong usage, setting, text or missing extra",
    ExitCode.UNREACHABLE: "the server cannot be reached, or the connection was lost",
    ExitCode.UNAUTHORIZED: "the key, workspace or region was refused",
    ExitCode.TASK_FAILED: "the server gave the task up, or broke the protocol",
    ExitCode.TIMEOUT: "nothing came in time",
    ExitCode.CANNOT_WRITE: "a file cannot be written",
    ExitCode.EXPECTATION_FAILED: "an expectation of a load test, or an item of the checklist, failed",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.TERMINATED: "ended by SIGTERM",
}

# The first that fits counts, so a class stands before its parents.
_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (Terminated, ExitCode.TERMINATED),
    (CannotWrite, ExitCode.CANNOT_WRITE),
    (SettingsError, ExitCode.USAGE),
    (InvalidText, ExitCode.USAGE),
    (Unauthorized, ExitCode.UNAUTHORIZED),
    (ConnectFailed, ExitCode.UNREACHABLE),
    (ConnectionLost, ExitCode.UNREACHABLE),
    (EndpointDown, ExitCode.UNREACHABLE),
    (TaskFailed, ExitCode.TASK_FAILED),
    (ProtocolViolation, ExitCode.TASK_FAILED),
    (PoolTimeout, ExitCode.TIMEOUT),
    (FirstAudioTimeout, ExitCode.TIMEOUT),
    (Shed, ExitCode.TIMEOUT),
    (TimeoutError, ExitCode.TIMEOUT),
)


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code of an error that ended a command."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.UNEXPECTED)


def message_of(error: BaseException) -> str:
    """Return one line about an error that ended a command."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Terminated):
        return "terminated"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SpeechPoolError):
        return text
    return f"unexpected {type(error).__name__}: {text}; run again with --debug to see where, and report it"


def table() -> str:
    """Return the exit codes and their meanings, one a line, for people."""
    return "\n".join(f"{code.value:<4} {meaning}" for code, meaning in _MEANING.items())
