"""Runs the coroutine of a verb: on uvloop where it is installed, quietly, and with SIGTERM as another Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

__all__ = ["run"]

_Result = TypeVar("_Result")


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run `main` to its end and return its result.

    Ctrl-C and SIGTERM cancel it, so that everything it holds (child processes, half-written files) goes the usual way.

    Raises:
        typer.Abort: After Ctrl-C or SIGTERM; the command says so, where a KeyboardInterrupt would end it silently.
    """
    _hush()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_stoppable(main))
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise typer.Abort from None


async def _stoppable(main: Coroutine[Any, Any, _Result]) -> _Result:
    task = asyncio.current_task()
    if task is not None:
        with contextlib.suppress(NotImplementedError):  # Windows has no such signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await main


def _loop_factory() -> Any:
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _hush() -> None:
    """Leave what the library logs to `--debug`: a verb says everything itself, an error in one line."""
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        logging.getLogger("speechpool").setLevel(logging.CRITICAL)
