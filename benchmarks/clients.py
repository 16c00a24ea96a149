"""The clients that task_cost.py and dropin.py compare, each in a process of its own (paced_clients.py changes them).

    python clients.py NAME --port P --server-pid PID [--authority PEM]

All do the same work: 100 callers, each task after task; every frame is handed over as `bytes` and counted by the same
function. A client reads lines "WARM SECONDS" from its standard input, answers each with one line of JSON, and rests in
between with its connections open.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import logging
import os
import resource
import signal
import ssl
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

CALLERS = 100
FRAMES, FRAME_BYTES = 40, 3200
PATH = "/api-ws/v1/inference"
TEXT = "The quick brown fox jumps over the lazy dog."
MODEL, VOICE, SAMPLE_RATE = "cosyvoice-v2", "longxiaochun_v2", 16000
PR_SET_PDEATHSIG = 1
FINISH_LIMIT = 15
"""Seconds that the last task of each caller may take."""
INSTRUCTION = "speak in a calm and friendly voice"


class Count:
    """What one caller got. Each has its own, so that a wrong task cannot hide behind another one."""

    __slots__ = ("bytes", "frames", "running", "stop", "tasks")

    def __init__(self):
        self.tasks = self.frames = self.bytes = 0
        self.running = self.stop = False


def url_of(port, authority):
    return f"{'wss' if authority else 'ws'}://127.0.0.1:{port}"


def on_audio(st, data):
    st.frames += 1
    st.bytes += len(data)


# ------------------------------------------------------------------------------------ bare picows
def _messages():
    import orjson

    dumps = orjson.dumps

    def run_task(tid):
        return dumps({
            "header": {"action": "run-task", "task_id": tid, "streaming": "duplex"},
            "payload": {
                "model": MODEL, "task_group": "audio", "task": "tts",
                "function": "SpeechSynthesizer", "input": {},
                "parameters": {
                    "voice": VOICE, "volume": 50, "text_type": "PlainText",
                    "sample_rate": SAMPLE_RATE, "rate": 1.0, "format": "pcm", "pitch": 1.0,
                    "seed": 0, "type": 0, "enable_ssml": True, "language_hints": ["zh"],
                    "instruction": INSTRUCTION}}})  # fmt: skip

    def continue_task(tid):
        return dumps({
            "header": {"action": "continue-task", "task_id": tid, "streaming": "duplex"},
            "payload": {"model": MODEL, "task_group": "audio", "task": "tts",
                        "function": "SpeechSynthesizer", "input": {"text": TEXT}}})  # fmt: skip

    def finish_task(tid):
        return dumps({"header": {"action": "finish-task", "task_id": tid, "streaming": "duplex"},
                      "payload": {"input": {}}})  # fmt: skip

    return run_task, continue_task, finish_task, orjson.loads


class Picows:
    """picows by itself: no pool, no deadlines, no retry, no telemetry; the least that a task can cost in Python."""

    take = staticmethod(on_audio)

    def __init__(self, port, callers=CALLERS, authority=None):
        self.url = url_of(port, authority) + PATH
        self.tls = ssl.create_default_context(cafile=authority) if authority else None
        self.counts = [Count() for _ in range(callers)]
        self.tasks = []

    async def open(self):
        from picows import WSListener, WSMsgType, ws_connect

        run_task, continue_task, finish_task, loads = _messages()
        take = self.take
        TEXT, BINARY = WSMsgType.TEXT, WSMsgType.BINARY  # noqa: N806  # as in the scripts that measured the stacks

        class Tasks:
            __slots__ = ("send", "st", "tid")

            def __init__(self, st, send):
                self.st, self.send = st, send

            def next(self):
                self.tid = os.urandom(16).hex()
                self.send(run_task(self.tid))

            def event(self, data):
                ev = loads(data)["header"]["event"]
                if ev == "task-started":
                    self.send(continue_task(self.tid))
                    self.send(finish_task(self.tid))
                elif ev == "task-finished":
                    self.st.tasks += 1
                    if not self.st.stop:
                        self.next()
                    else:
                        self.st.running = False
                elif ev == "task-failed":
                    raise RuntimeError("task-failed")

        async def connect(st, all_tasks):
            class L(WSListener):
                def on_ws_connected(self, t):
                    self.t = t
                    self.tasks = Tasks(st, lambda b: t.send(TEXT, b))
                    all_tasks.append(self.tasks)

                def on_ws_frame(self, t, f):
                    mt = f.msg_type
                    if mt == BINARY:
                        take(st, f.get_payload_as_bytes())
                    elif mt == TEXT:
                        self.tasks.event(f.get_payload_as_bytes())

            await ws_connect(L, self.url, ssl_context=self.tls, read_buffer_init_size=16384)

        for count in self.counts:
            await connect(count, self.tasks)

    def start(self):
        for tasks in self.tasks:
            tasks.st.stop, tasks.st.running = False, True
            tasks.next()

    async def finish(self):
        for count in self.counts:
            count.stop = True
        while any(count.running for count in self.counts):
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------ speechpool
class Speechpool:
    """The library by its public interface, as it comes: telemetry, deadlines, retry and heartbeat on."""

    take = staticmethod(on_audio)

    def __init__(self, port, callers=CALLERS, authority=None, **settings):
        import speechpool

        tls = ssl.create_default_context(cafile=authority) if authority else None
        endpoint = speechpool.Endpoint(url_of(port, authority), api_key="k", ssl=tls)
        self.pool = speechpool.AsyncSpeechPool(endpoint, max_size=callers, **settings)
        self.voice = speechpool.Voice(
            MODEL,
            VOICE,
            format="pcm",
            sample_rate=SAMPLE_RATE,
            language_hints=("zh",),
            instruction=INSTRUCTION,
            extra={"seed": 0, "type": 0, "enable_ssml": True},
        )
        self.counts = [Count() for _ in range(callers)]
        self.callers = []

    async def open(self):
        await self.pool.__aenter__()
        await self.pool.wait_ready()

    def start(self):
        for count in self.counts:
            count.stop = False
        self.callers = [asyncio.ensure_future(self.speak(count)) for count in self.counts]

    async def finish(self):
        for count in self.counts:
            count.stop = True
        await asyncio.gather(*self.callers)


class Stream(Speechpool):
    """`async for chunk in pool.stream(text, voice)`."""

    async def speak(self, count):
        pool, voice, take = self.pool, self.voice, self.take
        while not count.stop:
            async for chunk in pool.stream(TEXT, voice):
                take(count, chunk)
            count.tasks += 1


class Uncounted(Stream):
    """The same where nothing is measured: no histogram, no count of tasks, no utilisation. Only for this comparison."""

    async def open(self):
        from speechpool.synthesis.host import TaskHost
        from speechpool.telemetry import Histogram, Utilisation

        def nothing(*_, **__):
            pass

        TaskHost.begin = TaskHost.record = Histogram.observe = Utilisation.changed = nothing
        await super().open()


class Sink(Speechpool):
    """`pool.task(voice, sink=...)`."""

    async def speak(self, count):
        pool, voice, take = self.pool, self.voice, self.take

        def sink(item):
            if type(item) is bytes:
                take(count, item)

        while not count.stop:
            async with pool.task(voice, sink=sink) as task:
                await task.send(TEXT)
                await task.finish()
            count.tasks += 1


# ------------------------------------------------------------------------------------ the official SDK
class Official:
    """`SpeechSynthesizerObjectPool` of 100 with a thread for each caller.

    By callback with `streaming_call` and `streaming_complete`: its cheapest way, and the one in which a synthesizer is
    at rest when it is returned. (`call` with a callback leaves a thread behind that may stop the next borrower's task.)
    """

    sdk = "dashscope"
    """The package whose classes are used."""

    def __init__(self, port, authority=None):
        self.url = url_of(port, authority) + PATH
        if authority:
            os.environ["WEBSOCKET_CLIENT_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = authority
        self.counts = [Count() for _ in range(CALLERS)]
        self.failures = []
        self.threads = []

    async def open(self):
        logging.getLogger("dashscope").setLevel(logging.CRITICAL)
        import_module(self.sdk).api_key = "k"
        self.tts = import_module(f"{self.sdk}.audio.tts_v2")
        # The official one dials one connection after another and looks every 100 ms: ten seconds.
        self.pool = await asyncio.to_thread(self.tts.SpeechSynthesizerObjectPool, max_size=CALLERS, url=self.url)

    def start(self):
        for count in self.counts:
            count.stop = False
        # They wait for each other: a hundred threads are started in no time only while none of them works.
        gate = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(count, gate), daemon=True) for count in self.counts]
        for thread in self.threads:
            thread.start()
        gate.set()

    def run(self, count, gate):
        gate.wait()
        try:
            self.speak(count)
        except BaseException as error:
            self.failures.append(error)
            raise

    def speak(self, count):
        failures = self.failures

        class Callback(self.tts.ResultCallback):
            def on_data(self, data):
                on_audio(count, data)

            def on_error(self, message):
                failures.append(RuntimeError(message))

        while not count.stop:
            synthesizer = self.pool.borrow_synthesizer(
                model=MODEL,
                voice=VOICE,
                format=self.tts.AudioFormat.PCM_16000HZ_MONO_16BIT,
                instruction=INSTRUCTION,
                language_hints=["zh"],
                callback=Callback(),
                additional_params={"enable_ssml": True},
            )
            synthesizer.streaming_call(TEXT)
            synthesizer.streaming_complete()
            self.pool.return_synthesizer(synthesizer)
            count.tasks += 1

    async def finish(self):
        for count in self.counts:
            count.stop = True
        while any(thread.is_alive() for thread in self.threads):
            await asyncio.sleep(0.01)
        if self.failures:
            raise self.failures[0]


class DropIn(Official):
    """The same code, with our classes."""

    sdk = "speechpool.dashscope"


CLIENTS = {
    "picows": Picows,
    "sink": Sink,
    "stream": Stream,
    "uncounted": Uncounted,
    "official": Official,
    "dropin": DropIn,
}


# ------------------------------------------------------------------------------------ measuring
def cpu_of(pid):
    """CPU seconds of a process, summed over its live threads, in nanosecond resolution."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def machine_cpu():
    """CPU seconds of everybody, in ticks of 10 ms."""
    spent = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
    return (sum(spent) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")


def snapshot(client, server_pid):
    # What can be read without letting go of the interpreter comes first: 100 threads may run in between.
    own = time.monotonic(), time.process_time(), sum(c.tasks for c in client.counts)
    return *own, time.monotonic(), cpu_of(server_pid), machine_cpu()


def check_whole(client):
    """Every task of every caller, those outside of the window included, brought all of its audio."""
    for number, count in enumerate(client.counts):
        wanted = count.tasks * FRAMES, count.tasks * FRAMES * FRAME_BYTES
        if (count.frames, count.bytes) != wanted:
            raise RuntimeError(
                f"caller {number} got {count.frames} frames and {count.bytes} bytes from {count.tasks} tasks, "
                f"not {wanted[0]} and {wanted[1]}"
            )


async def measure(client, warm, seconds, server_pid):
    client.start()
    await asyncio.sleep(warm)
    t0, cpu0, tasks0, at0, server0, machine0 = snapshot(client, server_pid)
    await asyncio.sleep(seconds)
    t1, cpu1, tasks1, at1, server1, machine1 = snapshot(client, server_pid)
    try:
        async with asyncio.timeout(FINISH_LIMIT):
            await client.finish()
    except TimeoutError:
        raise RuntimeError(f"its tasks did not end within {FINISH_LIMIT} s; a connection is lost or stuck") from None
    check_whole(client)
    tasks, cpu, wall = tasks1 - tasks0, cpu1 - cpu0, t1 - t0
    if tasks < CALLERS:
        raise RuntimeError(f"only {tasks} tasks in {wall:.1f} s; the machine is too slow or too busy for this window")
    return {
        "tasks": tasks,
        "seconds": wall,
        "cpu_us": cpu / tasks * 1e6,
        "client_busy": cpu / wall,
        "server_busy": (server1 - server0) / (at1 - at0),
        "others_busy": max(0.0, (machine1 - machine0 - cpu - (server1 - server0)) / (at1 - at0)),
    }


async def serve_commands(name, port, server_pid, authority):
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    try:
        client = CLIENTS[name](port, authority=authority)
        await client.open()
        answer({"ready": name})
        while line := await commands.readline():
            warm, seconds = map(float, line.split())
            answer(await measure(client, warm, seconds, server_pid))
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})


def answer(value):
    print(json.dumps(value), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--authority", metavar="PEM", help="whose certificate the server has; it speaks wss")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act on
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive it
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_commands(arguments.client, arguments.port, arguments.server_pid, arguments.authority))
        sys.stdout.flush()
        os._exit(0)  # the official pool's threads would keep the process for ever


if __name__ == "__main__":
    main()
