"""A speech service on a thread of its own, and a callback that writes down what it is told."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager

from speechpool import dashscope
from speechpool.dashscope.audio.tts_v2 import AudioFormat, ResultCallback, SpeechSynthesizer
from speechpool.dashscope.pools import shared
from speechpool.protocol.cosyvoice import FinishTask, RunTask, ServerSession
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.engines.marker import MarkerEngine
from speechpool.service.faults import Faults
from speechpool.synthesis.loop_thread import loop_thread
from speechpool.transport import Accepted, serve

__all__ = [
    "LIMIT",
    "MODEL",
    "PCM",
    "TEXT",
    "VOICE",
    "Recorder",
    "Service",
    "SilentServer",
    "closed_port",
    "eventually",
    "speaker",
    "told",
]

MODEL, VOICE = "cosyvoice-v3-flash", "longanyang"
PCM = AudioFormat.PCM_24000HZ_MONO_16BIT
TEXT = "Hello there. How are you?"
LIMIT = 20.0
"""Seconds for anything that is waited for; nothing needs a tenth of it."""
UNLIMITED = {"submission_rate": None}


class Service:
    """A service of the marker engine: every byte says which task it belongs to."""

    def __init__(self, *faults, engine=None, interval=None, port=0, api_key=None, **settings):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="speech-service")
        self._thread.start()
        self._service = SpeechService(
            LocalBackend(engine or MarkerEngine(interval=interval)),
            port=port,
            api_key=api_key,
            settings=ServiceSettings(**UNLIMITED | settings),
            faults=Faults.parse(faults) if faults else None,
        )
        self._do(self._service.start())
        self.url = self._service.url
        self.counts = self._service.counts

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT)

    @property
    def connected(self):
        """How many connections are open at this moment."""
        return len(self._service._sessions)

    def close(self):
        self._do(self._service.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()

    @classmethod
    @contextmanager
    def running(cls, *faults, **options):
        service = cls(*faults, **options)
        dashscope.base_websocket_api_url = service.url
        try:
            yield service
        finally:
            service.close()


class SilentServer:
    """Accepts every task and finishes it without any audio; keeps the frames and headers that it gets."""

    def __init__(self):
        self.frames, self.requests = [], []

    @contextmanager
    def running(self):
        listener = loop_thread.run(lambda: serve(self._accept, "127.0.0.1", 0))
        dashscope.base_websocket_api_url = f"ws://127.0.0.1:{listener.port}"
        try:
            yield self
        finally:
            loop_thread.run(shared.close)
            loop_thread.call(listener.close)
            loop_thread.run(listener.wait_closed)

    def _accept(self, request):
        self.requests.append(request)
        return Accepted(_SilentSession(self.frames))


class _SilentSession:
    def __init__(self, frames):
        self.frames, self.session = frames, ServerSession()

    def on_connected(self, connection):
        self.connection = connection

    def on_text(self, data):
        self.frames.append(json.loads(data))
        instruction = self.session.feed(data)
        if isinstance(instruction, RunTask):
            self.connection.send(self.session.started())
        elif isinstance(instruction, FinishTask):
            self.connection.send(self.session.finished(0))

    def on_binary(self, data):
        raise AssertionError

    def on_closed(self, closed):
        pass


class Recorder(ResultCallback):
    """Writes down what it is told, and by which thread."""

    def __init__(self):
        self.order, self.audio, self.events, self.errors = [], bytearray(), [], []
        self.threads = set()
        self.heard, self.complete, self.over = threading.Event(), threading.Event(), threading.Event()

    def on_open(self):
        self.order.append("open")

    def on_complete(self):
        self.order.append("complete")
        self.complete.set()

    def on_error(self, message):
        self.order.append("error")
        self.errors.append(json.loads(message)["header"])

    def on_close(self):
        self.order.append("close")
        self.over.set()

    def on_event(self, message):
        self.events.append(json.loads(message))

    def on_data(self, data):
        self.threads.add(threading.current_thread())
        self.audio += data
        self.heard.set()

    def wait(self):
        assert self.over.wait(LIMIT), f"no on_close; {self.order}"
        return self


def speaker(callback=None, **options):
    return SpeechSynthesizer(**{"model": MODEL, "voice": VOICE, "format": PCM, "callback": callback} | options)


def told(function, *arguments, **named):
    """The error that a call raises."""
    try:
        function(*arguments, **named)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def eventually(condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def closed_port():
    """The URL of a port at which nobody listens."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"ws://127.0.0.1:{server.getsockname()[1]}"
