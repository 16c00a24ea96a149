"""Time that plays tricks: a wall clock that jumps, a loop that stands still, a peer that falls silent."""

import ast
import asyncio
import contextlib
import time
from pathlib import Path

import pytest
import uvloop
from harness import VOICE, speech
from threaded_server import serving, speaks_after

import speechpool
from raw_peer import PING, PONG, frame, raw_server, read_frame, shake_hands
from speechpool import AsyncSpeechPool, Deadlines, Endpoint
from speechpool.transport import WebSocketConnection

LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
HEARTBEAT = 0.2
STALL = 0.9
"""Several heartbeats, and longer than each of the deadlines below."""


def run(main, factory=asyncio.new_event_loop):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


# T66: the loop stands still

IMPATIENT = Deadlines(start=0.6, first_audio=0.6, gap=0.6, cancel=0.6)


@LOOPS
@pytest.mark.parametrize(
    "where", ["start", "task", *(pytest.param(each, marks=pytest.mark.slow) for each in ("callback", "sink"))]
)
def test_t66_a_loop_that_stood_still_takes_what_came_meanwhile_before_it_judges(factory, where):
    async def main():
        async with AsyncSpeechPool(
            server.endpoint, max_size=30, heartbeat=HEARTBEAT, deadlines=IMPATIENT, retry=0
        ) as pool:
            await pool.wait_ready()
            await asyncio.sleep(2.5 * HEARTBEAT)  # each connection has had a pong: from now on silence means death
            tasks = [asyncio.create_task(pool.synthesize(f"Text {number}.", VOICE)) for number in range(20)]
            while len(server.texts) < (20 if where != "start" else 0):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)  # each has sent its first frame
            await stand_still(pool, where)
            assert [(await task).audio for task in tasks] == [speech(f"Text {number}.") for number in range(20)]
            await asyncio.sleep(2.5 * HEARTBEAT)
            assert pool.stats.discarded == {}
            assert (pool.stats.opened, pool.stats.idle) == (30, 30)

    with serving() as server:
        speaks_after(server, 0.3)  # while the client stands still
        run(main, factory)


async def stand_still(pool, where):
    if where in {"start", "task"}:
        time.sleep(STALL)
    elif where == "callback":
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, lambda: done.set_result(time.sleep(STALL)))
        await done
    else:

        def slow(item):
            if isinstance(item, bytes):
                time.sleep(STALL)

        async with pool.task(VOICE, sink=slow) as task:
            await task.send("Slow.")
            await task.finish()
            await task.wait()


@LOOPS
def test_t66_a_cancel_that_was_confirmed_meanwhile_keeps_its_connection(factory):
    async def main():
        async with AsyncSpeechPool(server.endpoint, max_size=4, heartbeat=HEARTBEAT, deadlines=IMPATIENT) as pool:
            await pool.wait_ready()
            tasks = [asyncio.create_task(pool.synthesize("Text.", VOICE)) for _ in range(4)]
            while len(server.texts) < 4:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            time.sleep(STALL)
            while pool.stats.borrowed:
                await asyncio.sleep(0.01)
            assert pool.stats.discarded == {}
            assert pool.stats.idle == 4

    with serving() as server:
        speaks_after(server, 60)
        run(main, factory)


@LOOPS
def test_t66_a_borrower_whose_connection_came_back_meanwhile_gets_it(factory):
    async def main():
        async with AsyncSpeechPool(
            server.endpoint, max_size=1, heartbeat=HEARTBEAT, borrow_timeout=0.6, deadlines=IMPATIENT
        ) as pool:
            await pool.wait_ready()
            first = asyncio.create_task(pool.synthesize("First.", VOICE))
            while not server.texts:
                await asyncio.sleep(0.01)
            second = asyncio.create_task(pool.synthesize("Second.", VOICE))
            await asyncio.sleep(0.01)
            time.sleep(STALL)  # the first task's end lies in the socket, and the second one's time is over
            assert (await first).audio == speech("First.")
            assert (await second).audio == speech("Second.")

    with serving() as server:
        speaks_after(server, 0.3)
        run(main, factory)


# T65: the wall clock jumps


def test_t65_a_wall_clock_that_jumps_changes_nothing(monkeypatch):
    jumps = iter([0.0, 1e9, -1e9, 3e8])
    real = time.time
    shift = [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + shift[0]) * 1e9))

    async def main():
        async with AsyncSpeechPool(server.endpoint, max_size=3, heartbeat=HEARTBEAT) as pool:
            await pool.wait_ready()
            for shift[0] in jumps:
                assert (await pool.synthesize("Text.", VOICE)).audio == speech("Text.")
                await asyncio.sleep(2.5 * HEARTBEAT)
            assert pool.stats.discarded == {}
            assert pool.stats.opened == 3

    with serving() as server:
        run(main)


WALL_CLOCKS = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
ALLOWED = {
    ("transport/failures.py", "retry_after"): "a Retry-After with a date, of an answer that has no Date of its own",
    ("monitoring/snapshot.py", "_take"): "shown to people",
    ("monitoring/opentelemetry.py", "_started"): "when a span begins, for those who read it",
    ("service/monitor.py", "_take"): "shown to people",
    ("load/summary.py", "summary"): "when a report was made",
    ("cli/check.py", "_write"): "shown to people",
    ("ops/report.py", "read"): "how old a report is",
    ("ops/probe.py", "probe"): "whether the clock of this machine is right",
}
"""Where the wall clock may be asked, and why: never to decide what lives, waits or ends."""


class WallClockReads(ast.NodeVisitor):
    """Collects in which functions the wall clock is read."""

    def __init__(self):
        self.inside = ["the module"]
        self.found = set()

    def visit_FunctionDef(self, node):
        self.inside.append(node.name)
        self.generic_visit(node)
        self.inside.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  # a name of the ast module

    def visit_Attribute(self, node):
        owner = ast.unparse(node.value).rpartition(".")[2]
        if node.attr in WALL_CLOCKS.get(owner, ()):
            self.found.add(self.inside[-1])
        self.generic_visit(node)

    def visit_ImportFrom(self, node):
        if node.module == "time" and any(alias.name in WALL_CLOCKS["time"] for alias in node.names):
            self.found.add(self.inside[-1])


def reads(source):
    visitor = WallClockReads()
    visitor.visit(ast.parse(source))
    return visitor.found


def test_t65_no_code_asks_the_wall_clock():
    root = Path(speechpool.__file__).parent
    found = {
        (path.relative_to(root).as_posix(), function)
        for path in root.rglob("*.py")
        for function in reads(path.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


def test_the_search_for_the_wall_clock_finds_it():
    assert reads("import time\ndef f():\n    g(clock=time.time)") == {"f"}
    assert reads("from datetime import datetime\nasync def f():\n    datetime.now()") == {"f"}
    assert reads("import datetime\nNOW = datetime.datetime.now()") == {"the module"}
    assert reads("def f():\n    from time import time") == {"f"}
    assert reads("import time\ndef f(loop):\n    time.monotonic(), loop.time(), self.now()") == set()


# T32: a peer that falls silent


class Peer:
    """Shakes hands and answers pings, until it is frozen: then it neither reads nor answers."""

    def __init__(self, *, answers):
        self.answers = answers
        self.pongs = 0
        self.came = 0
        self.frozen = asyncio.Event()

    async def __call__(self, reader, writer):
        self.came += 1
        await shake_hands(reader, writer)
        if self.frozen.is_set():  # who comes later is served
            await self.serve(reader, writer)
        serving = asyncio.ensure_future(self.serve(reader, writer))
        frozen = asyncio.ensure_future(self.frozen.wait())
        try:
            await asyncio.wait([serving, frozen], return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            frozen.cancel()
            await asyncio.gather(serving, frozen, return_exceptions=True)
        await asyncio.Event().wait()

    async def serve(self, reader, writer):
        while True:
            kind, payload = await read_frame(reader)
            if kind == PING and self.answers:
                writer.write(frame(PONG, payload))
                self.pongs += 1


@contextlib.asynccontextmanager
async def pool_of_three(peer):
    async with raw_server(peer) as port:
        endpoint = Endpoint(f"ws://127.0.0.1:{port}", api_key="k")
        async with AsyncSpeechPool(endpoint, max_size=3, heartbeat=HEARTBEAT, close_timeout=0.1) as pool:
            await pool.wait_ready()
            yield pool


@LOOPS
def test_t32_idle_connections_of_a_peer_that_falls_silent_are_found_dead_within_two_heartbeats(factory, monkeypatch):
    looks = []
    tick = WebSocketConnection._tick
    monkeypatch.setattr(WebSocketConnection, "_tick", lambda self: looks.append(self) or tick(self))

    async def main():
        peer = Peer(answers=True)
        async with pool_of_three(peer) as pool:
            old = {slot.connection.transport for slot in pool._pool._core.slots}
            while peer.pongs < 3:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # the pongs have arrived
            looks.clear()
            peer.frozen.set()
            while pool.stats.discarded.get("lost", 0) < 3:
                await asyncio.sleep(0.01)
            assert max(looks.count(connection) for connection in old) <= 2  # looks are a heartbeat apart
            await pool.wait_ready()
            leases = [pool.try_borrow() for _ in range(3)]
            assert not old & {lease._lease.connection.transport for lease in leases}
            for lease in leases:
                lease.leave()
            assert peer.came == 6

    run(main, factory)


@LOOPS
def test_t32_a_peer_that_never_answers_a_ping_keeps_its_connections(factory):
    async def main():
        peer = Peer(answers=False)
        async with pool_of_three(peer) as pool:
            await asyncio.sleep(5 * HEARTBEAT)
            assert pool.stats.discarded == {}
            assert (peer.came, pool.stats.idle) == (3, 3)

    run(main, factory)
