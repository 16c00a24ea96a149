"""A connection to the real service, frame by frame, and the guard of what it may cost.

Nothing of the pool is used: what the service does with a frame is what the probes want to see.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

from speechpool import Endpoint
from speechpool.protocol.cosyvoice import CosyVoice
from speechpool.text import count_characters
from speechpool.transport import Closed, Heartbeat, connect

MOST_CHARACTERS = 200
ENDS = ("task-finished", "task-failed", "closed")
PLAIN = {"text_type": "PlainText", "format": "pcm", "sample_rate": 16000}


class TooExpensive(Exception):
    """A text was not sent, because the characters that all probes may cost together are spent."""


class Budget:
    """Counts what is sent as the provider bills it, and lets no more through than `limit`."""

    def __init__(self, limit: int = MOST_CHARACTERS) -> None:
        self.limit, self.spent = limit, 0

    def spend(self, text: str) -> None:
        """Count `text`, tags and all, before it is sent.

        Raises:
            TooExpensive: It would pass the limit; nothing was counted.
        """
        characters = count_characters(text)
        if self.spent + characters > self.limit:
            raise TooExpensive(f"{characters} characters more than the {self.spent} sent would pass {self.limit}.")
        self.spent += characters


@dataclass
class Cloud:
    """The service under probe.

    Attributes:
        idle: Seconds after which it is said to close an idle connection.
        gap: Seconds without text after which it is said to give a task up.
        pause: Seconds between two run-tasks, so that the account's rate of 3 a second is never the answer.
        throttled: Answers to a rate limit, where one came by itself.
    """

    url: str
    key: str = field(repr=False)
    model: str = "cosyvoice-v3-flash"
    voice: str = "longanyang"
    idle: float = 60.0
    gap: float = 23.0
    pause: float = 0.5
    budget: Budget = field(default_factory=Budget)
    throttled: list[str] = field(default_factory=list)
    _last_run: float = 0.0

    @classmethod
    def from_environment(cls) -> Cloud:
        """DASHSCOPE_API_KEY, SPEECHPOOL_CLOUD_URL (Beijing), and SPEECHPOOL_CLOUD_MODEL, _VOICE, _IDLE, _GAP, _PAUSE."""
        given = {
            name: kind(os.environ[variable])
            for name, kind in (("model", str), ("voice", str), ("idle", float), ("gap", float), ("pause", float))
            if (variable := f"SPEECHPOOL_CLOUD_{name.upper()}") in os.environ
        }
        url = os.environ.get("SPEECHPOOL_CLOUD_URL", "wss://dashscope.aliyuncs.com")
        return cls(url, os.environ["DASHSCOPE_API_KEY"], **given)

    async def open(self, *, ping_every: float | None = None) -> Wire:
        """Open a connection."""
        dialect, wire = CosyVoice(), Wire(self)
        endpoint = Endpoint(self.url, api_key=self.key)
        heartbeat = None if ping_every is None else Heartbeat(ping_every)
        headers = dialect.headers(self.key)
        wire.connection = await connect(
            endpoint.address(dialect, None), wire, headers=headers, proxy=endpoint.route, heartbeat=heartbeat
        )
        return wire

    async def turn(self) -> None:
        """Wait until the next run-task may be sent."""
        await asyncio.sleep(self._last_run + self.pause - time.monotonic())
        self._last_run = time.monotonic()


@dataclass(frozen=True)
class Seen:
    """What came: `kind` is the event's name, "audio" or "closed"; `at` in seconds of the monotonic clock."""

    at: float
    kind: str
    event: dict[str, Any] = field(default_factory=dict)
    audio: bytes = b""
    closed: Closed | None = None

    def __str__(self) -> str:
        if self.closed is not None:
            return f"close {self.closed.code} {self.closed.reason!r}"
        header = self.event.get("header", {})
        return f"{header['error_code']}: {header['error_message']}" if "error_code" in header else self.kind


class Wire:
    """One connection."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.connection: Any = None
        self._inbox: asyncio.Queue[Seen] = asyncio.Queue()

    # ---- its owner's end
    def on_text(self, data: bytes) -> None:
        event = json.loads(data)
        seen = Seen(time.monotonic(), event["header"]["event"], event)
        if "throttl" in str(seen).lower() or "rate limit" in str(seen).lower():
            self.cloud.throttled.append(str(seen))
        self._inbox.put_nowait(seen)

    def on_binary(self, data: bytes) -> None:
        self._inbox.put_nowait(Seen(time.monotonic(), "audio", audio=data))

    def on_closed(self, closed: Closed) -> None:
        self._inbox.put_nowait(Seen(time.monotonic(), "closed", closed=closed))

    # ---- what a probe does
    async def run(self, task_id: str, *, text: str | None = None, model: str | None = None, **parameters: Any) -> None:
        """Send run-task; with `text` as a task of one frame, as Sambert's are."""
        await self.cloud.turn()
        given = {**PLAIN, "voice": self.cloud.voice, **parameters}
        if text is not None:
            self.cloud.budget.spend(text)
        self.cloud.budget.spend(str(parameters.get("instruction", "")))
        payload = {
            "task_group": "audio",
            "task": "tts",
            "function": "SpeechSynthesizer",
            "model": model or self.cloud.model,
            "parameters": {name: value for name, value in given.items() if value is not None},
            "input": {} if text is None else {"text": text},
        }
        self._send("run-task", task_id, payload, "duplex" if text is None else "out")

    def text(self, task_id: str, text: str) -> None:
        self.cloud.budget.spend(text)
        self._send("continue-task", task_id, {"input": {"text": text}})

    def finish(self, task_id: str) -> None:
        self._send("finish-task", task_id, {"input": {}})

    async def next(self, timeout: float = 10.0) -> Seen | None:
        """The next thing that comes, or None where nothing does in time."""
        try:
            async with asyncio.timeout(timeout):
                return await self._inbox.get()
        except TimeoutError:
            return None

    async def until(self, *kinds: str, timeout: float = 10.0) -> list[Seen]:
        """Everything up to the first of `kinds`, or up to a silence of `timeout`."""
        found = []
        while (seen := await self.next(timeout)) is not None:
            found.append(seen)
            if seen.kind in kinds:
                break
        return found

    async def speak(self, task_id: str, text: str, *, model: str | None = None, **parameters: Any) -> list[Seen]:
        """Run a whole task and return all that came, its end last."""
        await self.run(task_id, model=model, **parameters)
        found = await self.until("task-started", *ENDS)
        if found and found[-1].kind == "task-started":
            self.text(task_id, text)
            self.finish(task_id)
            found += await self.until(*ENDS)
        return found

    async def close(self) -> None:
        self.connection.close()
        try:
            async with asyncio.timeout(2):
                await self.connection.wait_closed()
        except TimeoutError:
            self.connection.abort()
            await self.connection.wait_closed()

    def _send(self, action: str, task_id: str, payload: dict[str, Any], streaming: str = "duplex") -> None:
        header = {"action": action, "task_id": task_id, "streaming": streaming}
        self.connection.send(json.dumps({"header": header, "payload": payload}).encode())
