"""The command `speechpool`: what surrounds every verb. One line for an error, an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from typing import NoReturn

from speechpool.errors import SettingsError

from .outcome import ExitCode, Terminated, exit_code, message_of

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line of this process and leave with its exit code (see `speechpool.cli.outcome`)."""
    arguments = sys.argv[1:]
    # Also before and after a verb's event loop, which has handlers of its own: a file may be half-written there, too.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(arguments)
        # Here, not at exit: a reader that went away (`speechpool ... | head`) would leave a traceback there.
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, Terminated) as error:  # noqa: BLE001  # the last line of defence against a traceback
        if "--debug" in arguments:
            traceback.print_exc()
        code = _report(error)
    sys.exit(code)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _run(arguments: list[str]) -> int:
    try:
        import typer
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the command line needs the package {error.name!r}: pip install 'speechpool[cli]'"
        ) from None
    from .app import build

    command = typer.main.get_command(build())
    try:
        result = command.main(args=arguments, prog_name="speechpool", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if result == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    # A verb returns nothing; what comes back as a number is the code of a typer.Exit.
    return result if isinstance(result, int) else ExitCode.DONE


def _report(error: BaseException) -> int:
    # Errors of usage come from typer, or from click under it, whose classes moved between versions.
    describe = getattr(error, "format_message", None)
    if callable(describe):
        message = str(describe()).rstrip(".")
        if message:  # empty where no verb was given: the help was shown instead
            _complain(f"{message}; see 'speechpool --help'.")
        return ExitCode.USAGE
    if isinstance(error, BrokenPipeError):
        sys.stdout = None  # nobody reads it, so nothing may be flushed into it
        return ExitCode.DONE
    _complain(message_of(error))
    return exit_code(error)


def _complain(message: str) -> None:
    with contextlib.suppress(OSError):
        print(f"speechpool: error: {message}", file=sys.stderr)  # noqa: T201  # this is what the command says
