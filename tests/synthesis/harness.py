"""A speech server that does what a test says, over the in-memory transport."""

import asyncio
from contextlib import asynccontextmanager

from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.protocol.cosyvoice import (
    CancelTask,
    ContinueTask,
    FinishTask,
    FlushTask,
    LateCancel,
    Malformed,
    Refused,
    RunTask,
    ServerSession,
    State,
)
from speechpool.testing.clock import run as run_on_virtual_clock
from speechpool.testing.memory import MemoryNetwork
from speechpool.transport import Accepted

VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=16000)


def speech(text):
    """The audio of a text: itself, so that a test sees at once whose bytes it holds."""
    return text.encode()


class Session:
    """One connection. By default it behaves; the hooks of `server` change single steps."""

    def __init__(self, server):
        self.server = server
        self.protocol = ServerSession()
        self.index = 0
        self.characters = 0
        self.closed = None

    def on_connected(self, connection):
        self.connection = connection
        self.server.sessions.append(self)

    def on_closed(self, closed):
        self.closed = closed
        self.server.ended += 1

    def on_binary(self, data):
        raise AssertionError("a client sends no binary frames")

    def on_text(self, data):
        try:
            instruction = self.protocol.feed(data)
        except (Refused, Malformed) as error:
            self.server.refused.append(str(error))
            self.fail(getattr(error, "code", "Malformed"), str(error))
            return
        self.server.received.append(instruction)
        hook = self.server.hooks.get(type(instruction))
        if hook is None or hook(self, instruction) is not True:
            self.behave(instruction)

    def behave(self, instruction):
        match instruction:
            case RunTask():
                self.server.used.append(self)
                self.index = self.characters = 0
                self.send(self.protocol.started())
            case ContinueTask(text):
                self.speak(text)
            case FlushTask():
                pass
            case FinishTask():
                self.send(self.protocol.finished(self.characters))
            case CancelTask():
                self.send(self.protocol.finished(self.characters))
            case LateCancel():
                pass

    def send(self, frame, binary=False):
        if self.connection.closed is None:
            self.connection.send(frame, binary)

    def speak(self, text):
        self.characters += len(text)
        self.begin(text)
        self.audio(speech(text))
        self.end(text)

    def begin(self, text):
        self.send(self.protocol.sentence_begin(self.index, text))

    def audio(self, data):
        self.send(self.protocol.sentence_synthesis(self.index))
        self.send(data, binary=True)

    def end(self, text):
        self.send(self.protocol.sentence_end(self.index, text, (), self.characters))
        self.index += 1

    def fail(self, code, message=""):
        self.send(self.protocol.failed(code, message))
        if self.connection.closed is None:
            self.connection.close(1000)


class Server:
    """All connections of one endpoint. `hooks[Instruction](session, instruction)` returns True where it did all."""

    def __init__(self, network):
        self.network = network
        self.sessions = []
        self.received = []
        self.used = []  # the sessions of the tasks, in order
        self.refused = []
        self.hooks = {}
        self.ended = 0
        self.refusal = None

    async def start(self):
        self.listener = await self.network.listen(self.accept)
        return self

    def accept(self, request):
        return self.refusal or Accepted(Session(self))

    @property
    def tasks(self):
        return [one for one in self.received if isinstance(one, RunTask)]

    @property
    def texts(self):
        return [one.text for one in self.received if isinstance(one, ContinueTask)]

    @property
    def open(self):
        return [one for one in self.sessions if one.closed is None]

    def all_idle(self):
        return all(one.protocol.state is State.IDLE for one in self.open)


@asynccontextmanager
async def pool_and_server(**options):
    """A pool of two connections, unless said otherwise, and its server."""
    network = MemoryNetwork()
    server = await Server(network).start()
    options = {"max_size": 2, "retry": 2, "heartbeat": None, **options}
    endpoint = Endpoint(server.listener.url, api_key="canary-key")
    async with AsyncSpeechPool(endpoint, dial=network.connect, **options) as pool:
        await pool.wait_ready()
        yield pool, server


async def settle(turns=20):
    """Let everything happen that is ready."""
    for _ in range(turns):
        await asyncio.sleep(0)


def run(main):
    """Run one coroutine on a loop of its own."""
    return asyncio.run(main)


run_virtual = run_on_virtual_clock
