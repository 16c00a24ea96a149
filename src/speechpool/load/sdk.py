"""The official SDK as a target: in a process of its own, so that its threads do not disturb our event loop.

The child (`sdk_child`) runs a thread for each task, as programs do that use it. It is known to hang and to leak, so
each wait has its limit here, and the child is ended without being asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, Final, Self

import msgspec

from speechpool.errors import SettingsError
from speechpool.protocol.inference import Inference

from .callers import Caller
from .helper import Helper
from .record import Record
from .targets import Setup

__all__ = ["LIMIT", "SdkTarget"]

LIMIT: Final = 60.0
"""Seconds that a task may take before it is given up."""
_READY: Final = 30.0
"""Seconds until the child must be ready, and one more for each connection of its pool: it dials them one by one."""
_FILLED: Final = (
    "first_packet", "first_packet_sent", "first_audible", "end_to_end", "audio_seconds", "longest_gap", "underrun",
    "outcome", "error", "foreign",
)  # fmt: skip
"""What the child measures. Nothing tells whether a connection was open before, or what the parts of a delay were."""


class SdkTarget:
    """See `Target`.

    Args:
        setup: Where to, and how.
        pooled: By its object pool; else each task makes a synthesizer, and so a connection.

    Raises:
        SettingsError: The SDK is not installed.
    """

    def __init__(self, setup: Setup, *, pooled: bool) -> None:
        if find_spec("dashscope") is None:
            raise SettingsError("the targets sdk and sdk-pool need the official SDK; install it: pip install dashscope")
        self._setup, self._pooled = setup, pooled
        self._ready: asyncio.Future[dict[str, Any]] | None = None
        self._running: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._helper = Helper("speechpool.load.sdk_child", self._on_line, self._on_end)
        self._over: str | None = None

    async def __aenter__(self) -> Self:
        self._ready = asyncio.get_running_loop().create_future()
        await self._helper.__aenter__()
        try:
            await self._prepare(self._ready)
        except BaseException:
            await self._helper.__aexit__()
            raise
        return self

    async def _prepare(self, ready: asyncio.Future[dict[str, Any]]) -> None:
        voice = self._setup.pcm()
        self._helper.say({
            "url": self._setup.endpoint().address(Inference(), voice),
            "api_key": self._setup.api_key,
            "model": voice.model,
            "voice": voice.voice,
            "rate": voice.effective_sample_rate,
            "size": self._setup.size,
            "pooled": self._pooled,
            "limit": LIMIT,
        })  # fmt: skip
        limit = _READY + (self._setup.size if self._pooled else 0)
        try:
            async with asyncio.timeout(limit):
                answer = await ready
        except TimeoutError:
            raise SettingsError(
                f"the official SDK was not ready within {limit:g} s, so it cannot be measured."
            ) from None
        if "error" in answer:
            raise SettingsError(f"the official SDK cannot be measured: {answer['error']}.")

    async def __aexit__(self, *_: object) -> None:
        await self._helper.__aexit__()

    def used(self) -> None:
        """It does not tell."""

    async def speak(self, record: Record, caller: Caller, start: float) -> None:
        """Run one task and write down what it was like."""
        self._number += 1
        number = self._number
        done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._running[number] = done
        record.outcome, record.error = "failed", "Hangs"
        try:
            if self._over is not None:
                record.error = "Ended"
                return
            self._helper.say({"number": number, "record": asdict(record), "caller": asdict(caller), "start": start})
            async with asyncio.timeout(2 * LIMIT):  # it waits for a connection, for the start, and for the end
                _fill(record, await done)
        except TimeoutError:
            pass
        finally:
            del self._running[number]

    def _on_line(self, line: bytes) -> None:
        message = msgspec.json.decode(line)
        done = self._running.get(message["number"]) if "number" in message else self._ready
        if done is not None and not done.done():
            done.set_result(message)

    def _on_end(self, words: str) -> None:
        self._over = words
        for done in (self._ready, *self._running.values()):
            if done is not None and not done.done():
                done.set_result({"error": words, "record": {"outcome": "failed", "error": "Ended"}})


def _fill(record: Record, message: Mapping[str, Any]) -> None:
    for name in _FILLED:
        if name in message["record"]:
            setattr(record, name, message["record"][name])
