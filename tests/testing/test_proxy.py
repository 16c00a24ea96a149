"""The fault proxy on real sockets: each fault does what it says, where it says, while connections are open."""

import asyncio
import contextlib
import itertools
import json
import random
import re
import socket
import sys
import time
from pathlib import Path

import pytest
import uvloop

from speechpool import AsyncSpeechPool, Endpoint, SettingsError, Voice
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.engines.marker import check, marker_length
from speechpool.testing import proxy as proxy_package
from speechpool.testing.proxy import (
    FAULTS,
    Bandwidth,
    Drop,
    FaultProxy,
    HalfOpen,
    Latency,
    LimitData,
    NoPong,
    PlacedFault,
    Refuse,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    parse_fault,
)
from speechpool.testing.proxy.__main__ import main as program
from speechpool.testing.proxy.control import control
from speechpool.testing.proxy.frames import FrameCursor
from speechpool.testing.proxy.grammar import default_text

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request):
    def run(main):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(main)

    return run


class Server:
    """Keeps what comes, and shows its connections."""

    def __init__(self, echo=False):
        self.echo = echo
        self.peers = []
        self._arrived = asyncio.Event()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()
        return self

    def _connected(self, reader, writer):
        self.peers.append((reader, writer))
        self._arrived.set()
        if self.echo:
            self.echoing = asyncio.create_task(self._echo(reader, writer))

    async def _echo(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def __aexit__(self, *_):
        self.server.close()
        for _, writer in self.peers:
            writer.close()
        await asyncio.sleep(0)

    async def peer(self, number=0):
        while len(self.peers) <= number:
            self._arrived.clear()
            await self._arrived.wait()
        return self.peers[number]


@contextlib.asynccontextmanager
async def connected(*, echo=False, **how):
    """A server, a proxy before it, and one connection through it: (proxy, client, server side), each reader and writer."""
    async with Server(echo) as server, FaultProxy(*server.address, **how) as proxy:
        reader, writer = await asyncio.open_connection(*proxy.address)
        try:
            yield proxy, (reader, writer), await server.peer()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def settle(condition):
    """Let sockets have their way; what never comes fails by the test's timeout."""
    while not condition():
        await asyncio.sleep(0.002)


async def silent(reader):
    """Nothing comes for a while; what would come had all the time for it."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.read(1)
    return True


def test_without_faults_bytes_and_ends_pass_in_both_directions(run):
    async def main():
        payload = random.Random(1).randbytes(3_000_000)
        async with connected(echo=True) as (proxy, (reader, writer), _):
            writer.write(payload)
            writer.write_eof()
            assert await reader.read(-1) == payload
            await settle(lambda: proxy.counts.open == 0)
            counts = proxy.counts
            assert (counts.accepted, counts.failed) == (1, 0)
            assert counts.upstream == counts.downstream == len(payload)

    run(main())


def test_a_server_that_takes_no_connection_resets_the_client(run):
    async def main():
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            async with FaultProxy(*nobody.getsockname()) as proxy:
                reader, writer = await asyncio.open_connection(*proxy.address)
                with pytest.raises(ConnectionResetError):
                    await reader.read(1)
                assert (proxy.counts.failed, proxy.counts.open) == (1, 0)
                writer.close()

    run(main())


@pytest.mark.parametrize("direction", ["upstream", "downstream", "both"])
def test_latency_delays_in_order_and_goes_on_an_open_connection(run, direction):
    async def main():
        async with connected(seed=7) as (proxy, client, server):
            active = proxy.add(Latency(0.05, jitter=0.05), direction=direction)
            for (_, writer), (reader, _), way in ((client, server, "upstream"), (server, client, "downstream")):
                began = time.monotonic()
                pieces = [bytes([number]) * 100 for number in range(30)]
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0.001)
                assert await reader.readexactly(3000) == b"".join(pieces)
                if direction in {way, "both"}:
                    assert time.monotonic() - began >= 0.03  # the last one waits for the latest one before it
            assert active.strikes > 0
            active.remove()
            active.remove()  # does nothing
            strikes = active.strikes
            client[1].write(b"x")
            assert await server[0].readexactly(1) == b"x"
            assert active.strikes == strikes

    run(main())


def test_what_a_removed_fault_held_passes_at_once_and_in_order(run):
    async def main():
        async with connected() as (proxy, client, server):
            first = proxy.add("latency@upstream:600s")
            proxy.add("latency@upstream:600s")
            client[1].write(b"one ")
            await settle(lambda: first.strikes == 1)
            first.remove()
            client[1].write(b"two ")
            await asyncio.sleep(0.01)
            proxy.clear()
            client[1].write(b"three")
            assert await server[0].readexactly(13) == b"one two three"
            assert proxy.faults == ()

    run(main())


def test_bandwidth_passes_no_faster_than_its_rate(run):
    async def main():
        async with connected() as (proxy, client, server):
            proxy.add(Bandwidth(200_000), direction="upstream")
            began = time.monotonic()
            client[1].write(bytes(40_000))
            await server[0].readexactly(40_000)
            assert time.monotonic() - began >= 0.2 - 0.02

    run(main())


def test_a_slow_close_delays_the_end_and_no_byte(run):
    async def main():
        async with connected() as (proxy, client, server):
            slow = proxy.add(SlowClose(600.0), direction="both")
            server[1].write(b"bye")
            server[1].close()
            assert await client[0].readexactly(3) == b"bye"
            assert await silent(client[0])
            slow.remove()
            assert await client[0].read(1) == b""

    run(main())


def test_a_timeout_swallows_and_then_closes(run):
    async def main():
        async with connected() as (proxy, client, server):
            active = proxy.add(Timeout(0.1))
            server[1].write(b"never heard")
            assert await client[0].read(100) == b""  # the close
            assert active.strikes == 1
            with contextlib.suppress(OSError):
                assert await server[0].read(1) == b""

    run(main())


@pytest.mark.parametrize(("direction", "reset"), [("downstream", [0]), ("upstream", [1]), ("both", [0, 1])])
def test_a_reset_reaches_the_peer_that_it_names(run, direction, reset):
    async def main():
        async with connected() as (proxy, client, server):
            proxy.add(ResetPeer(), direction=direction)
            for number, (reader, _) in enumerate((client, server)):
                if number in reset:
                    with pytest.raises(ConnectionResetError):
                        await reader.read(1)
                else:
                    assert await reader.read(1) == b""
            await settle(lambda: proxy.counts.open == 0)

    run(main())


def test_a_slicer_keeps_every_byte(run):
    async def main():
        payload = random.Random(2).randbytes(2000)
        async with connected() as (proxy, client, server):
            active = proxy.add(Slicer(50, size_variation=49), direction="both")
            client[1].write(payload)
            assert await server[0].readexactly(2000) == payload
            assert active.strikes >= 2000 / 99

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_limit_data_ends_behind_so_many_bytes(run, reset):
    async def main():
        async with connected() as (proxy, client, server):
            server[1].write(b"before")
            assert await client[0].readexactly(6) == b"before"
            proxy.add(LimitData(10, reset=reset))
            server[1].write(bytes(range(100)))
            if reset:
                with pytest.raises(ConnectionResetError):
                    await client[0].readexactly(11)
            else:
                assert await client[0].read(-1) == bytes(range(10))
            await settle(lambda: proxy.counts.open == 0)

    run(main())


def test_half_open_swallows_and_nobody_learns_of_it(run):
    async def main():
        async with connected() as (proxy, client, server):
            active = proxy.add(HalfOpen())
            server[1].write(b"lost")
            server[1].close()
            assert await silent(client[0])
            client[1].write(b"lost, too")
            await settle(lambda: active.strikes >= 3)
            assert proxy.counts.open == 1
            active.remove()  # a stream cannot have a hole
            with pytest.raises(ConnectionResetError):
                await client[0].read(1)

    run(main())


def test_half_open_that_lost_nothing_goes_on(run):
    async def main():
        async with connected() as (proxy, client, server):
            proxy.add("half-open@upstream")
            server[1].write(b"down")
            assert await client[0].readexactly(4) == b"down"
            proxy.clear()
            client[1].write(b"up")
            assert await server[0].readexactly(2) == b"up"

    run(main())


def test_refuse_refuses_new_connections_only_and_the_port_stays(run):
    async def main():
        async with connected() as (proxy, client, server):
            address = proxy.address
            refuse = proxy.add(Refuse())
            again = proxy.add("refuse")
            for _ in range(3):
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection(*address)
            refuse.remove()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
            client[1].write(b"on")
            assert await server[0].readexactly(2) == b"on"
            again.remove()
            _, writer = await asyncio.open_connection(*address)
            assert proxy.address == address
            writer.close()

    run(main())


def test_drop_and_cut_end_what_is_open_and_nothing_later(run):
    async def main():
        async with connected() as (proxy, client, server):
            assert proxy.add(Drop()).strikes == 1
            for reader, _ in (client, server):
                with pytest.raises(ConnectionResetError):
                    await reader.read(1)
            assert proxy.faults == ()
            for reset in (False, True):
                reader, writer = await asyncio.open_connection(*proxy.address)
                await settle(lambda: proxy.counts.open == 1)
                await asyncio.sleep(0.01)
                assert proxy.cut(reset=reset) == 1
                if reset:
                    with pytest.raises(ConnectionResetError):
                        await reader.read(1)
                else:
                    assert await reader.read(1) == b""
                writer.close()

    run(main())


def test_toxicity_is_a_share_and_the_seed_chooses(run):
    async def who(seed):
        async with Server() as server, FaultProxy(*server.address, seed=seed) as proxy:
            proxy.add(ResetPeer(), "downstream", toxicity=0.5)
            met = []
            for _ in range(24):
                reader, writer = await asyncio.open_connection(*proxy.address)
                try:
                    async with asyncio.timeout(0.03):
                        await reader.read(1)
                except ConnectionResetError:
                    met.append(True)
                except TimeoutError:
                    met.append(False)
                writer.close()
            return met

    async def main():
        first, again, other = await who(1), await who(1), await who(2)
        assert first == again != other
        assert 4 <= sum(first) <= 20

    run(main())


@pytest.mark.parametrize("faults", [[], ["latency@both:1ms"], ["bandwidth@both:1G"], ["slicer@both:1000"]])
def test_a_reader_that_stops_stops_the_writer(run, faults):
    async def main():
        async with connected(buffer=300_000) as (proxy, client, server):
            for fault in faults:
                proxy.add(fault)
            server[0]._transport.pause_reading()
            client[1].transport.set_write_buffer_limits(0)
            payload = bytes(50_000_000)
            client[1].write(payload)
            before = -1
            while before != proxy.counts.upstream:
                before = proxy.counts.upstream
                await asyncio.sleep(0.1)
            kernel = 12_000_000  # what the buffers of two sockets take
            assert before < kernel + 300_000 + 65_536
            proxy.cut()

    run(main())


# A WebSocket


def frame(opcode, payload, mask=False):
    head = bytes([0x80 | opcode])
    bit = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + size.to_bytes(2)
    else:
        head += bytes([bit | 127]) + size.to_bytes(8)
    return head + (bytes(4) if mask else b"") + payload


UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
def test_no_pong_takes_out_pongs_wherever_the_pieces_begin(size):
    frames = [frame(2, bytes(300)), frame(10, b"ping-data"), frame(1, b"text"), frame(10, b""), frame(2, bytes(70_000))]
    stream = UPGRADED + b"".join(frames)
    cursor, kept = FrameCursor(), b""
    for begin in range(0, len(stream), size):
        piece = stream[begin : begin + size]
        kept += b"".join(piece[start:end] for opcode, start, end in cursor.pieces(piece) if opcode != 10)
    assert kept == UPGRADED + frames[0] + frames[2] + frames[4]


def test_no_pong_added_in_the_middle_of_a_frame_and_beside_latency(run):
    async def main():
        async with connected() as (proxy, client, server):
            big = frame(2, bytes(1000))
            server[1].write(UPGRADED + big[:500])
            await client[0].readexactly(len(UPGRADED) + 500)
            proxy.add("latency:1ms")
            active = proxy.add(NoPong())
            server[1].write(big[500:] + frame(10, b"gone") + frame(1, b"here"))
            assert await client[0].readexactly(len(big) - 500 + 6) == big[500:] + frame(1, b"here")
            assert active.strikes == 1

    run(main())


def test_no_pong_says_that_it_sees_nothing_through_tls(run, caplog):
    async def main():
        async with connected() as (proxy, client, server):
            proxy.add(NoPong())
            server[1].write(b"\x16\x03\x01 hello")
            server[1].write(b" again")
            assert await client[0].readexactly(15) == b"\x16\x03\x01 hello again"

    run(main())
    assert caplog.messages == ["The fault no-pong finds no frames: the connection is TLS. Let it meet ws, not wss."]


# Text


def test_every_fault_reads_what_it_writes():
    examples = [
        Latency(0.05, jitter=0.01), Bandwidth(64_000), SlowClose(2.0), Timeout(0.0), ResetPeer(1.5), Slicer(10, 3, 0.01),
        LimitData(10_000, reset=True), HalfOpen(), NoPong("ping"), Refuse(), Drop(),
    ]  # fmt: skip
    assert {type(each) for each in examples} == set(FAULTS)
    for fault in [*examples, *(kind() for kind in FAULTS)]:
        directions = [None] if fault.direction is None else ["upstream", "downstream", "both"]
        shares = [1.0] if isinstance(fault, Refuse) else [1.0, 0.1]
        for direction, share in itertools.product(directions, shares):
            placed = PlacedFault(fault, direction, share)
            assert parse_fault(str(placed)) == placed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latencey:50ms", "Did you mean 'latency'"),
        ("latency:50", "100ms or 2s"),
        ("latency:10ms,20ms", "must not exceed delay"),
        ("latency@sideways:1s", "'sideways'"),
        ("bandwidth:0", "must be 1 to"),
        ("refuse@both", "leave out the direction"),
        ("refuse~10%", "leave out the share"),
        ("half-open:3", "takes no value"),
        ("slicer:10,10", "must be below average_size"),
        ("latency:1s~0", "above 0 and at most 1"),
        ("limit-data:10k,rest", "write 'reset'"),
        ("", "cannot be read"),
    ],
)
def test_bad_faults_say_what_would_be_right(text, said):
    with pytest.raises(SettingsError, match=re.escape(said)):
        parse_fault(text)


def test_the_page_describes_every_fault():
    page = (Path(__file__).parents[2] / "docs/faults.md").read_text()
    for kind in FAULTS:
        values = "; ".join(f"`{one.name}` ({default_text(one)}): {one.meaning}" for one in kind.attributes()) or "-"
        assert f"| `{kind.kind}` | {kind.meaning} | {values} | {kind.direction or '-'} | {kind.strikes} |" in page


# The control and the program


async def ask(port, method, path, body=None, host="localhost"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    head, _, answer = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), json.loads(answer)


def test_the_control_adds_removes_lists_and_cuts(run):
    async def main():
        async with connected() as (proxy, (reader, _), _), control(proxy) as port:
            assert (await ask(port, "POST", "/faults", {"fault": "latency@both:50ms"}))[0] == 201
            status, added = await ask(port, "POST", "/faults", {"fault": "half-open"})
            assert (status, added) == (201, {"number": 2, "fault": "half-open@both", "strikes": 0})
            _, state = await ask(port, "GET", "/")
            assert [one["number"] for one in state["faults"]] == [1, 2]
            assert state["counts"]["open"] == 1
            assert (await ask(port, "DELETE", "/faults/2"))[0] == 200
            assert [str(one.placed) for one in proxy.faults] == ["latency@both:50ms"]
            assert (await ask(port, "DELETE", "/faults"))[1]["faults"] == []
            assert await ask(port, "POST", "/cut", {"reset": True}) == (200, {"cut": 1})
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            for status, request in [
                (400, ("POST", "/faults", {"fault": "nonsense"})),
                (400, ("POST", "/faults", b"{")),
                (400, ("POST", "/faults", [1])),
                (403, ("GET", "/", None, "evil.example")),
                (404, ("DELETE", "/faults/9")),
                (404, ("GET", "/etc/passwd")),
            ]:
                got, answer = await ask(port, *request)
                assert (got, list(answer)) == (status, ["error"]), request

    run(main())


def test_the_program_says_what_is_wrong(capsys):
    for arguments, said in [
        (["--to", "nowhere"], "must be HOST:PORT"),
        (["--to", "127.0.0.1:1", "--fault", "latencey"], "Did you mean 'latency'"),
        ([], "--to"),
    ]:
        with pytest.raises(SystemExit) as ended:
            program(arguments)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host, port = taken.getsockname()
        assert program(["--listen", f"{host}:{port}", "--to", "127.0.0.1:1"]) == 3
        assert f"cannot listen on {host}:{port}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        program(["--help"])
    told = capsys.readouterr().out
    assert all(kind.kind in told for kind in FAULTS)


def test_the_program_runs_until_it_is_told_to_end():
    async def main():
        async with Server(echo=True) as server:
            host, port = server.address
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", proxy_package.__name__, "--to", f"{host}:{port}", "--fault", "latency:1ms", "--json",
                "--control", "0", stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            said = json.loads(await child.stdout.readline())
            reader, writer = await asyncio.open_connection(*said["listen"].split(":"))
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert (await ask(said["control"], "GET", "/"))[1]["faults"][0]["fault"] == "latency@downstream:1ms"
            child.terminate()
            state = json.loads(await child.stdout.readline())
            assert state["counts"]["downstream"] == 5
            assert await child.wait() == 143
            child._transport.close()
            writer.close()

    asyncio.run(main())


# The whole house


def test_speech_comes_unchanged_through_a_bad_network(run):
    voice = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
    text = "The quick brown fox jumps over the lazy dog."

    async def main():
        async with SpeechService(
            LocalBackend("marker"), port=0, settings=ServiceSettings(submission_rate=None)
        ) as service:
            host, port = service.url.split("/")[2].split(":")
            path = "/" + service.url.split("/", 3)[3]
            async with FaultProxy(host, int(port), seed=3) as proxy:
                for fault in ("latency@both:5ms,5ms", "slicer@both:700,600", "bandwidth@both:20M"):
                    proxy.add(fault)
                async with AsyncSpeechPool(Endpoint(proxy.url("ws", path), api_key="k"), max_size=4) as pool:
                    spoken = await asyncio.gather(*(pool.synthesize(text, voice) for _ in range(12)))
                    for speech in spoken:
                        assert check(speech.audio, speech.request_id) == marker_length(text)
                assert proxy.counts.accepted <= 4
                await settle(lambda: proxy.counts.open == 0)

    run(main())
