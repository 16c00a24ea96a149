"""The official SDK, a thread for each task: the child process of `sdk`.

Its first line says where to; each further one is a task. A task is measured by the same `Listener` as ours, by the
clock of the machine. The SDK leaves threads behind, so the process ends by `os._exit`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final

import msgspec

from speechpool.protocol import SentenceBegin

from .callers import Caller
from .helper import Parent
from .record import Listener, Record
from .targets import UNBOUNDED

__all__ = ["main"]

_CANCEL: Final = 2000
"""Milliseconds for a cancel to be confirmed."""


def main() -> None:
    """Run tasks until the parent has nothing more to say."""
    parent = Parent()
    lines = parent.lines()
    try:
        speaker = Speaker(**msgspec.json.decode(next(lines)))
    except Exception as error:  # noqa: BLE001  # the parent says it
        parent.say({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        os._exit(1)
    parent.say({"ready": True})

    def run(order: dict[str, Any]) -> None:
        record = speaker.speak(Record(**order["record"]), Caller(**order["caller"]), order["start"])
        parent.say({"number": order["number"], "record": asdict(record)})

    threads = ThreadPoolExecutor(UNBOUNDED * speaker.size)
    for line in lines:
        threads.submit(run, msgspec.json.decode(line))
    os._exit(0)


class Callback:
    """What the SDK calls back: hands everything to the listener."""

    def __init__(self, listener: Listener, *, slow: bool) -> None:
        self._listener, self._slow = listener, slow
        self.heard, self.over = threading.Event(), threading.Event()
        self.ended: float | None = None
        self.completed = False
        self.error: str | None = None

    def on_open(self) -> None:
        """Nothing to do."""

    def on_data(self, data: bytes) -> None:
        """Take audio."""
        self._listener(bytes(data))
        self.heard.set()
        if self._slow:
            time.sleep(self._listener.ahead())

    def on_event(self, message: str) -> None:
        """Take an event of the protocol."""
        output = json.loads(message)["payload"]["output"]
        if output.get("type") == "sentence-begin":
            self._listener(SentenceBegin(0, output.get("original_text")))

    def on_complete(self) -> None:
        """The task is through."""
        self.ended, self.completed = time.monotonic(), True

    def on_error(self, message: str) -> None:
        """The server gave it up."""
        self.ended, self.error = time.monotonic(), json.loads(message)["header"].get("error_code", "TaskFailed")

    def on_close(self) -> None:
        """Nothing comes any more."""
        self.over.set()


class Speaker:
    """Speaks by the SDK, as its documents show: `streaming_call`, then `streaming_complete`."""

    def __init__(
        self, *, url: str, api_key: str, model: str, voice: str, rate: int, size: int, pooled: bool, limit: float
    ) -> None:
        import dashscope
        from dashscope.audio import tts_v2

        logging.getLogger("dashscope").setLevel(logging.CRITICAL)
        logging.getLogger("websocket").setLevel(logging.CRITICAL)
        dashscope.api_key = api_key
        self.size = size
        self._sdk: Any = tts_v2
        self._url, self._rate, self._limit = url, rate, limit
        self._options = {"model": model, "voice": voice, "format": tts_v2.AudioFormat.PCM_24000HZ_MONO_16BIT}
        self._pool: Any = tts_v2.SpeechSynthesizerObjectPool(max_size=min(size, 100), url=url) if pooled else None

    def speak(self, record: Record, caller: Caller, start: float) -> Record:
        """Run one task."""
        callback = Callback(Listener(record, start, caller.text, self._rate, slow=caller.slow), slow=caller.slow)
        record.outcome, record.error = "failed", None
        try:
            self._run(caller, callback)
        except Exception as error:  # noqa: BLE001  # of any kind: websocket-client's, the SDK's, the system's
            record.error = callback.error or type(error).__name__
        else:
            record.error = callback.error
            if callback.completed:
                record.outcome = "cancelled" if caller.leaves else "completed"
            elif record.error is None:
                record.error = "ConnectionLost"
        record.end_to_end = (callback.ended or time.monotonic()) - start - record.planned
        return record

    def _run(self, caller: Caller, callback: Callback) -> None:
        if self._pool is None:
            self._talk(self._sdk.SpeechSynthesizer(**self._options, url=self._url, callback=callback), caller, callback)
            return
        synthesizer = self._pool.borrow_synthesizer(**self._options, callback=callback)
        try:
            self._talk(synthesizer, caller, callback)
        except BaseException:
            synthesizer.close()  # its documents: never return one whose task has failed
            raise
        if callback.completed:
            self._pool.return_synthesizer(synthesizer)
        else:
            synthesizer.close()

    def _talk(self, synthesizer: Any, caller: Caller, callback: Callback) -> None:
        pause = 1 / caller.tokens_per_second if caller.tokens_per_second else 0.0
        for number, piece in enumerate(caller.pieces()):
            if pause and number:
                time.sleep(pause)
            synthesizer.streaming_call(piece)
        limit = round(1000 * self._limit)
        if not caller.leaves:
            synthesizer.streaming_complete(limit)
            return
        synthesizer.async_streaming_complete(limit)
        callback.heard.wait(self._limit)
        with contextlib.suppress(Exception):  # it may be through already
            synthesizer.streaming_cancel(_CANCEL)
        callback.over.wait(self._limit)


if __name__ == "__main__":
    main()
