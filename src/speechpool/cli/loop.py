"""Runs the coroutine of a verb: on uvloop where it is installed, quietly, and so that signals end it in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

from .outcome import Terminated

__all__ = ["run"]

_Result = TypeVar("_Result")


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run `main` to its end and return its result.

    Ctrl-C and SIGTERM cancel it, so that everything it holds (tasks, child processes, half-written files) goes the
    usual way. A second one does not wait for that.

    Raises:
        typer.Abort: After Ctrl-C; the command says so, where a KeyboardInterrupt would end it silently.
        Terminated: After SIGTERM.
    """
    _hush()
    terminated = False

    async def stoppable() -> _Result:
        task = asyncio.current_task()

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            if task is not None:
                task.cancel()

        with contextlib.suppress(NotImplementedError):  # Windows has no such signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await main

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(stoppable())
    except (asyncio.CancelledError, KeyboardInterrupt):
        if terminated:
            raise Terminated from None
        raise typer.Abort from None


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
