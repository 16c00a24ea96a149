"""One process of a team: see `team`."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress
from typing import Any

import msgspec

from speechpool.errors import SpeechPoolError
from speechpool.transport.descriptors import raise_soft_limit

from .helper import Parent
from .runner import Load
from .targets import opened
from .team import Answer, Order

__all__ = ["main"]


async def _work(parent: Parent) -> None:
    lines = parent.lines_on_loop()
    first = msgspec.json.decode(await anext(lines), type=Order)
    assert first.setup is not None  # noqa: S101  # the first order has it
    async with opened(first.names, first.setup) as targets:
        parent.say(Answer())
        running: asyncio.Task[None] | None = None
        async for line in lines:
            order = msgspec.json.decode(line, type=Order)
            if order.stop and running is not None:
                running.cancel()
            elif order.job is not None:
                load = Load(targets, order.job, progress=lambda seen: parent.say(Answer(seen=seen)))
                running = asyncio.create_task(_run(load, parent))


async def _run(load: Load, parent: Parent) -> None:
    with suppress(asyncio.CancelledError):
        await load.run()
    parent.say(Answer(result=load.result))


def _loop_factory() -> Any:
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def main() -> None:
    """Do what the parent says, until it has nothing more to say."""
    parent = Parent()
    raise_soft_limit()
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_work(parent))
    except SpeechPoolError as error:
        parent.say(Answer(kind=type(error).__name__, error=str(error)))
    os._exit(0)


if __name__ == "__main__":
    main()
