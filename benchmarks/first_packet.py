"""From the call to the first audio over a round trip of 50 ms: what a warm pool saves, and what it adds.

A server in C (floor.c) answers at once, and a proxy (speechpool.testing.proxy) holds every byte back for 25 ms each
way. A task needs two round trips until its first audio: run-task and task-started, then the text and the audio. A new
connection needs one more for the WebSocket handshake; that of TCP is not delayed here, and TLS, which would take one or
two more, is not used. What lies above the round trips is overhead: of the proxy, which all have, and of the client.

  picows            the WebSocket library by itself on an open connection
  pooled            pool.stream(text, voice) of a warm pool
  pooled_early      the same where the text comes 100 ms after the stream was entered, as from a language model:
                    counted from the text on, and as run-task left before it, one round trip
  fresh             a pool of its own for each call
  official_pooled   dashscope's SpeechSynthesizerObjectPool, by callback
  official_fresh    dashscope's SpeechSynthesizer, a new one for each call
  livekit           livekit.agents.utils.ConnectionPool over aiohttp, with the task's protocol by hand
  aio_websocket_pool    aio_websocket_pool.WebsocketConnectionPool over websockets, likewise

One task at a time, all in turn, again and again; a figure is the median. The last two need the extra [bench] and are
left out without it. Needs Linux, gcc and libssl-dev, and the extras [all,dev].
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import logging
import signal
import statistics
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

from children import HERE, Child, Failure, compiled, interrupt, say, versions
from clients import MODEL, PATH, SAMPLE_RATE, TEXT, VOICE, _messages

ONE_WAY_MS = 25
ROUND_TRIP_MS = 2 * ONE_WAY_MS
TRIPS = {
    "picows": 2, "pooled": 2, "pooled_early": 1, "fresh": 3, "official_pooled": 2, "official_fresh": 3,
    "livekit": 2, "aio_websocket_pool": 2,
}  # fmt: skip
"""Round trips until the first audio."""
EARLY = 0.1
"""Seconds from the entering of a stream to its text."""
LIMIT = 10.0
NEEDS = {"livekit": "livekit.agents", "aio_websocket_pool": "aio_websocket_pool"}
PACKAGES = {"livekit": "livekit-agents", "aio_websocket_pool": "aio-websocket-pool"}


# ------------------------------------------------------------------------------------ the protocol by hand
async def converse(send, receive):
    """Speak one task over `send(bytes)` and `receive()`; returns the moment of its first audio."""
    import os

    run_task, continue_task, finish_task, loads = _messages()
    task = os.urandom(16).hex()
    await send(run_task(task))
    first = None
    while True:
        message = await receive()
        if isinstance(message, bytes):
            first = first or time.perf_counter()
            continue
        event = loads(message)["header"]["event"]
        if event == "task-started":
            await send(continue_task(task))
            await send(finish_task(task))
        elif event == "task-finished":
            return first
        elif event == "task-failed":
            raise Failure(f"the server has failed a task: {message}")


@contextlib.asynccontextmanager
async def picows(port):
    from picows import WSListener, WSMsgType, ws_connect

    arrived = asyncio.Queue()

    class Listener(WSListener):
        def on_ws_frame(self, _, frame):
            text = frame.msg_type == WSMsgType.TEXT
            arrived.put_nowait(frame.get_payload_as_utf8_text() if text else frame.get_payload_as_bytes())

    transport, _ = await ws_connect(Listener, f"ws://127.0.0.1:{port}{PATH}")

    async def send(data):
        transport.send(WSMsgType.TEXT, data)

    async def call():
        begun = time.perf_counter()
        return await converse(send, arrived.get) - begun

    yield call
    transport.disconnect()


@contextlib.asynccontextmanager
async def livekit(port):
    import aiohttp
    from livekit.agents.utils import ConnectionPool

    async with aiohttp.ClientSession() as session:

        async def connect(timeout):
            return await asyncio.wait_for(session.ws_connect(f"ws://127.0.0.1:{port}{PATH}"), timeout)

        async def close(socket):
            await socket.close()

        async def call():
            begun = time.perf_counter()
            async with pool.connection(timeout=LIMIT) as socket:

                async def send(data):
                    await socket.send_str(data.decode())

                async def receive():
                    return (await socket.receive()).data

                return await converse(send, receive) - begun

        pool = ConnectionPool(connect_cb=connect, close_cb=close)
        await call()  # the connection is open from here on
        yield call
        await pool.aclose()


@contextlib.asynccontextmanager
async def aio_websocket_pool(port):
    from aio_websocket_pool import WebsocketConnectionPool

    uri = f"ws://127.0.0.1:{port}{PATH}"
    async with WebsocketConnectionPool(uri=uri, max_connections=1, warmup_connections=1) as pool:

        async def call():
            begun = time.perf_counter()
            async with pool.get_connection() as connection:

                async def send(data):
                    await connection.send(data.decode())

                return await converse(send, connection.recv) - begun

        yield call


# ------------------------------------------------------------------------------------ ours
def a_pool(port):
    from speechpool import AsyncSpeechPool, Endpoint

    return AsyncSpeechPool(Endpoint(f"ws://127.0.0.1:{port}", api_key="k"), max_size=1)


def a_voice():
    from speechpool import Voice

    return Voice(MODEL, VOICE, format="pcm", sample_rate=SAMPLE_RATE)


async def first_of(pool, text):
    """Return the moment of the first audio of a stream that is heard to its end."""
    first = None
    async for _ in pool.stream(text, a_voice()):
        first = first or time.perf_counter()
    return first


@contextlib.asynccontextmanager
async def pooled(port):
    async with a_pool(port) as pool:
        await pool.wait_ready()

        async def call():
            begun = time.perf_counter()
            return await first_of(pool, TEXT) - begun

        yield call


@contextlib.asynccontextmanager
async def pooled_early(port):
    async with a_pool(port) as pool:
        await pool.wait_ready()

        async def call():
            said = None

            async def texts():
                nonlocal said
                await asyncio.sleep(EARLY)
                said = time.perf_counter()
                yield TEXT

            first = await first_of(pool, texts())
            return first - said

        yield call


@contextlib.asynccontextmanager
async def fresh(port):
    async def call():
        begun = time.perf_counter()
        async with a_pool(port) as pool:
            return await first_of(pool, TEXT) - begun

    yield call


# ------------------------------------------------------------------------------------ the official SDK
class Official:
    """What the process of the official SDK does for each line it is sent."""

    def __init__(self, port):
        import dashscope
        from dashscope.audio import tts_v2

        logging.getLogger("dashscope").setLevel(logging.CRITICAL)
        dashscope.api_key = "k"
        self.tts, self.url = tts_v2, f"ws://127.0.0.1:{port}{PATH}"
        self.pool = tts_v2.SpeechSynthesizerObjectPool(max_size=1, url=self.url)

    def wanted(self):
        first = []

        class Callback(self.tts.ResultCallback):
            def on_data(self, _):
                first.append(time.perf_counter())

        pcm = self.tts.AudioFormat.PCM_16000HZ_MONO_16BIT
        return first, {"model": MODEL, "voice": VOICE, "format": pcm, "callback": Callback()}

    def pooled(self):
        begun = time.perf_counter()
        first, wanted = self.wanted()
        synthesizer = self.pool.borrow_synthesizer(**wanted)
        synthesizer.streaming_call(TEXT)
        synthesizer.streaming_complete()
        self.pool.return_synthesizer(synthesizer)
        return first[0] - begun

    def fresh(self):
        begun = time.perf_counter()
        first, wanted = self.wanted()
        synthesizer = self.tts.SpeechSynthesizer(url=self.url, **wanted)
        synthesizer.streaming_call(TEXT)
        synthesizer.streaming_complete()
        synthesizer.close()
        return first[0] - begun


def serve_official(port):
    """Answer each line, `pooled` or `fresh`, with the seconds that it took."""
    official = Official(port)
    print(json.dumps({"ready": threading.active_count()}), flush=True)
    for line in sys.stdin:
        try:
            print(json.dumps({"seconds": getattr(official, line.strip())()}), flush=True)
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


def official(kind):
    @contextlib.asynccontextmanager
    async def made(port):
        child = Child("the official SDK", [sys.executable, str(HERE / "first_packet.py"), "--official", str(port)])
        try:
            await asyncio.to_thread(child.answer, 60)

            async def call():
                return (await asyncio.to_thread(child.ask, kind, 30))["seconds"]

            yield call
        finally:
            child.stop()

    return made


CLIENTS = {
    "picows": picows,
    "pooled": pooled,
    "pooled_early": pooled_early,
    "fresh": fresh,
    "official_pooled": official("pooled"),
    "official_fresh": official("fresh"),
    "livekit": livekit,
    "aio_websocket_pool": aio_websocket_pool,
}


# ------------------------------------------------------------------------------------ measuring
def here(name):
    """Whether the package that a client needs is installed."""
    try:
        return importlib.util.find_spec(NEEDS.get(name, "json")) is not None
    except ModuleNotFoundError:
        return False


async def measure(port, names, rounds):
    """Return the milliseconds of each client, by name."""
    taken = {name: [] for name in names}
    async with contextlib.AsyncExitStack() as stack:
        calls = {name: await stack.enter_async_context(CLIENTS[name](port)) for name in names}
        for call in calls.values():
            await call()  # the first one compiles and caches
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                async with asyncio.timeout(30):
                    taken[name].append(1000 * await calls[name]())
            if number % 5 == 4 or number == rounds - 1:
                say(f"round {number + 1}/{rounds}")
    return taken


def benchmark(asked):
    names = [name for name in CLIENTS if here(name)]
    for name in CLIENTS:
        if name not in names:
            say(f"{name} is left out: pip install -e '.[bench]' brings {PACKAGES[name]}")
    children = []
    with tempfile.TemporaryDirectory(prefix="first-packet-") as folder:
        try:
            binary = compiled("floor.c", Path(folder))
            children.append(Child("the server", [str(binary), "server"], BATCH="1"))
            port = children[0].line(10).removeprefix("READY ")
            fault = f"latency@both:{ONE_WAY_MS}ms"
            command = [
                sys.executable,
                "-m",
                "speechpool.testing.proxy",
                "--to",
                f"127.0.0.1:{port}",
                "--fault",
                fault,
                "--json",
            ]
            children.append(Child("the proxy", command))
            proxy = children[1].answer(20)["listen"].rpartition(":")[2]
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                taken = runner.run(measure(int(proxy), names, asked.rounds))
        finally:
            for child in reversed(children):
                child.stop()
    result = report(taken, asked.rounds)
    if asked.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


# ------------------------------------------------------------------------------------ results
def middle(values):
    """Return the median, the lowest and the highest."""
    values = list(values)
    return [round(value, 2) for value in (statistics.median(values), min(values), max(values))]


def report(taken, rounds):
    found = versions()
    for name, package in PACKAGES.items():
        if name in taken:
            found[package] = version(package)
    return {
        "rows": {
            name: {
                "ms": middle(values),
                "round_trips": TRIPS[name],
                "overhead_ms": middle(value - TRIPS[name] * ROUND_TRIP_MS for value in values),
                "beside_picows_ms": middle(a - b for a, b in zip(values, taken["picows"], strict=True)),
            }
            for name, values in taken.items()
        },
        "round_trip_ms": ROUND_TRIP_MS,
        "rounds": rounds,
        "left_out": {PACKAGES[name]: "not installed" for name in NEEDS if name not in taken},
        "versions": found,
    }


def show(result):
    print(f"{'client':20}{'first audio ms':>15}{'lowest - highest':>20}{'round trips':>13}{'overhead ms':>13}")
    for name, row in result["rows"].items():
        median, low, high = row["ms"]
        print(f"{name:20}{median:15.1f}{f'{low:.1f} - {high:.1f}':>20}{row['round_trips']:13}"
              f"{row['overhead_ms'][0]:13.1f}")  # fmt: skip
    found = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    print(f"\na round trip is {result['round_trip_ms']} ms; {result['rounds']} rounds; {found}")


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit status: 0 measured, 1 not measured, 2 wrong usage, 130 interrupted",
    )
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    parser.add_argument("--rounds", type=int, help="tasks of each client (30, or 5 with --quick)")
    parser.add_argument("--official", type=int, metavar="PORT", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.rounds = asked.rounds if asked.rounds is not None else 5 if asked.quick else 30
    if asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds}: at least 1")
    return asked


def main():
    asked = parse()
    if asked.official is not None:
        serve_official(asked.official)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        return benchmark(asked)
    except KeyboardInterrupt:
        say("interrupted; all processes are stopped")
        return 130
    except Failure as failure:
        say(f"first_packet: {failure}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
