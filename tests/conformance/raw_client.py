"""A client without manners: it sends whatever a test says, and keeps whatever comes.

`served` starts one service with the faults and limits of a test; `Relay` is a socket in the middle that can fall silent.
"""

import asyncio
import json
from contextlib import asynccontextmanager

from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.faults import Faults
from speechpool.transport import connect

KEY = "checklist"
VOICE = {"text_type": "PlainText", "voice": "longanyang", "format": "pcm", "sample_rate": 24000}
LIMIT = 20.0
"""Seconds of a whole test, and far more than any of them needs."""


@asynccontextmanager
async def served(*faults, engine="marker", profile=None, **settings):
    """A service without a limit on submissions, unless a test asks for one."""
    service = SpeechService(
        LocalBackend(engine, profile=profile),
        port=0,
        api_key=KEY,
        settings=ServiceSettings(**{"submission_rate": None, **settings}),
        faults=Faults.parse(faults) if faults else None,
    )
    async with service:
        yield service


def run(test, *faults, **options):
    """Run `await test(service)`."""

    async def whole():
        async with asyncio.timeout(LIMIT), served(*faults, **options) as service:
            await test(service)

    asyncio.run(whole())


class Client:
    """The owner of one connection. Events come as dictionaries, audio as bytes, in order."""

    def __init__(self):
        self.got = asyncio.Queue()
        self.closed = asyncio.get_running_loop().create_future()

    @classmethod
    async def dial(cls, service, *, path=None, headers=None):
        client = cls()
        url = service.url if path is None else f"ws://127.0.0.1:{service.port}{path}"
        headers = {"Authorization": f"Bearer {KEY}"} if headers is None else headers
        client.connection = await connect(url, client, headers=headers)
        return client

    def on_text(self, data):
        try:
            self.got.put_nowait(json.loads(data))
        except ValueError:
            self.got.put_nowait(data.decode())

    def on_binary(self, data):
        self.got.put_nowait(data)

    def on_closed(self, closed):
        self.closed.set_result(closed)

    # ---------------------------------------------------------------------------------- sending
    def send(self, action, payload, task_id="a", streaming="duplex"):
        header = {"action": action, "task_id": task_id, "streaming": streaming}
        self.connection.send(json.dumps({"header": header, "payload": payload}).encode())

    def run_task(self, task_id="a", **parameters):
        names = {"task_group": "audio", "task": "tts", "function": "SpeechSynthesizer", "model": "cosyvoice-v3-flash"}
        self.send("run-task", {**names, "parameters": {**VOICE, **parameters}, "input": {}}, task_id)

    def text(self, text, task_id="a"):
        self.send("continue-task", {"input": {"text": text}}, task_id)

    def finish(self, task_id="a", **given):
        self.send("finish-task", {"input": given}, task_id)

    # ---------------------------------------------------------------------------------- reading
    async def begin(self, task_id="a", **parameters):
        """Run a task and read its task-started."""
        self.run_task(task_id, **parameters)
        assert name(await self.got.get()) == "task-started"

    async def until(self, event):
        """Read up to an event, and return everything, it included."""
        got = []
        while not got or name(got[-1]) != event:
            got.append(await self.got.get())
            assert name(got[-1]) in {event, "audio", "result-generated", "task-started"}, got[-1]
        return got

    async def failure(self):
        """Read up to task-failed and the close behind it, and return code and message."""
        header = (await self.until("task-failed"))[-1]["header"]
        await self.closed
        return header["error_code"], header["error_message"]


def name(frame):
    """What a frame is: the name of its event, or `audio`."""
    if isinstance(frame, bytes):
        return "audio"
    return frame["header"]["event"] if isinstance(frame, dict) else frame


def audio(frames):
    return b"".join(frame for frame in frames if isinstance(frame, bytes))


class Relay:
    """A TCP relay to `port` that passes nothing on once it is told to be silent, and closes nothing either.

    Attributes:
        heard: Set by whatever comes from the other end.
    """

    def __init__(self, port):
        self.heard = asyncio.Event()
        self._port = port
        self._passing = True
        self._jobs = set()
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    def silence(self):
        """Pass nothing on any more."""
        self._passing = False

    async def _accept(self, reader, writer):
        there, away = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, away]
        self._jobs |= {
            asyncio.create_task(self._pass(reader, away, asyncio.Event())),
            asyncio.create_task(self._pass(there, writer, self.heard)),
        }

    async def _pass(self, reader, writer, heard):
        while data := await reader.read(65536):
            heard.set()
            if self._passing:
                writer.write(data)
