"""A service in the foreground of a process: it runs until a signal says otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable

from .server import SpeechService

__all__ = ["run"]

logger = logging.getLogger("speechpool.service")


async def run(service: SpeechService, *, drain: float, on_listening: Callable[[SpeechService], None]) -> None:
    """Run `service` until a signal comes.

    SIGTERM lets running tasks finish, for `drain` seconds at most. SIGINT (Ctrl-C) or a second SIGTERM ends at once.

    Args:
        service: Not started yet.
        drain: Seconds that running tasks get.
        on_listening: Called once, when the port is open.

    Raises:
        SettingsError: The address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    asked, hurried = asyncio.Event(), asyncio.Event()

    def on_term() -> None:
        (hurried if asked.is_set() else asked).set()

    def on_interrupt() -> None:
        hurried.set()
        asked.set()

    # Before the start, so that a signal during a slow start counts, too. Windows has no such handlers: Ctrl-C cancels.
    with contextlib.suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGTERM, on_term)
        loop.add_signal_handler(signal.SIGINT, on_interrupt)
    async with service:
        if not asked.is_set():
            on_listening(service)
        await asked.wait()
        if not hurried.is_set():
            await _drain(service, drain, hurried)


async def _drain(service: SpeechService, limit: float, hurried: asyncio.Event) -> None:
    if service.counts.running:
        logger.info("Draining: %d tasks may finish within %g s.", service.counts.running, limit)
    draining = asyncio.ensure_future(service.drain(limit))
    waiting = asyncio.ensure_future(hurried.wait())
    await asyncio.wait((draining, waiting), return_when=asyncio.FIRST_COMPLETED)
    for each in (draining, waiting):
        each.cancel()
    if service.counts.running:
        logger.warning("%d tasks did not finish in time and are given up.", service.counts.running)
