"""What the tests of the session and the server share: a backend that says what it is told, and a connection without a socket."""

import asyncio
import json
from dataclasses import dataclass, field

from speechpool.errors import ConnectionLost
from speechpool.service.backend import BackendRefusal
from speechpool.transport import Closed


@dataclass(eq=False)
class ScriptedSpeech:
    listener: object
    parameters: object
    calls: list = field(default_factory=list)

    def text(self, text):
        self.calls.append(("text", text))

    def passages(self, passages):
        self.calls.append(("passages", tuple(passage.text for passage in passages)))

    def flush(self):
        self.calls.append("flush")

    def finish(self):
        self.calls.append("finish")

    def cancel(self):
        self.calls.append("cancel")

    def pause(self):
        self.calls.append("pause")

    def resume(self):
        self.calls.append("resume")

    def say(self, *chunks, index=0, words=(), characters=5):
        self.listener.on_sentence_begin(index, "Hello")
        for chunk in chunks:
            self.listener.on_audio(chunk)
        self.listener.on_sentence_end(index, "Hello", words, characters)


class ScriptedBackend:
    name = engine = "scripted"
    profile = "still"

    def __init__(self):
        self.speeches = []
        self.refusal = None
        self.life = []

    async def start(self):
        self.life.append("start")

    async def close(self):
        self.life.append("close")

    def voices(self):
        return ["longanyang"]

    def open(self, task_id, parameters, listener, *, client=""):
        if self.refusal:
            raise BackendRefusal(*self.refusal)
        self.speeches.append(ScriptedSpeech(listener, parameters))
        return self.speeches[-1]


class FakeConnection:
    """A connection that records; `full` makes `drain` wait until `take`."""

    def __init__(self):
        self.writes = []
        self.closed = None
        self.full = False
        self.drains = 0
        self.aborted = False
        self.reads = []
        self._taken = asyncio.Event()

    def send_all(self, frames):
        if self.closed:
            raise ConnectionLost("closed")
        self.writes.append(list(frames))

    async def drain(self):
        self.drains += 1
        if self.full:
            await self._taken.wait()

    def take(self):
        self.full = False
        self._taken.set()

    def close(self, code=1000, reason=""):
        self.closed = self.closed or Closed(code, reason, clean=False)

    def pause(self):
        self.reads.append("pause")

    def resume(self):
        self.reads.append("resume")

    def abort(self):
        self.aborted = True
        self.close()

    @property
    def frames(self):
        return [frame for write in self.writes for frame in write]

    @property
    def events(self):
        return [json.loads(data) for binary, data in self.frames if not binary]

    @property
    def names(self):
        return [event["header"]["event"] for event in self.events]

    @property
    def audio(self):
        return b"".join(data for binary, data in self.frames if binary)


def instruction(action, task_id="a", /, *, parameters=None, payload=None, **given):
    if payload is None:
        payload = {"input": given}
        if action == "run-task":
            payload |= {
                "model": "cosyvoice-v3-flash",
                "parameters": {"text_type": "PlainText", "voice": "longanyang"} | (parameters or {}),
            }
    header = {"action": action, "task_id": task_id, "streaming": "duplex"}
    return json.dumps({"header": header, "payload": payload}).encode()
