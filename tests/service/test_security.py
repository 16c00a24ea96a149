"""What strangers may try at the door: names, origins, limits, half requests, and frames that break the rules."""

import asyncio
import contextlib
import json
import struct

import pytest
from scripted import ScriptedBackend, instruction

from speechpool.errors import SettingsError
from speechpool.service import ServiceSettings, SpeechService
from speechpool.service.faults import Faults
from speechpool.service.keys import client_of
from speechpool.service.origins import check_origins, is_local_name, is_own_page

PATH = "/api-ws/v1/inference"
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


class Peer:
    """A raw client: it says what it is told, masked but otherwise unchecked."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def ask(self, path=PATH, *, host="localhost", key="key", upgrade=True, **headers):
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}"] if host is not None else [f"GET {path} HTTP/1.1"]
        if key:
            lines.append(f"Authorization: Bearer {key}")
        if upgrade:
            lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
            lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return await self.answer()

    async def answer(self):
        """Return status, headers in lower case, and the body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name}
        status = int(head[0].split()[1])
        body = b"" if status == 101 else await self.reader.readexactly(int(headers["content-length"]))
        return status, headers, body

    def send(self, kind, payload=b"", *, fin=True, bits=0, masked=True):
        first, size = kind | bits | (0x80 if fin else 0), len(payload)
        if size < 126:
            head = bytes((first, size | 0x80 * masked))
        elif size < 65536:
            head = struct.pack("!BBH", first, 126 | 0x80 * masked, size)
        else:
            head = struct.pack("!BBQ", first, 127 | 0x80 * masked, size)
        mask = b"\x11\x22\x33\x44" if masked else b""
        body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if masked else payload
        self.writer.write(head + mask + body)

    async def frame(self):
        first, size = await self.reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        return first & 0x0F, await self.reader.readexactly(size)

    async def event(self):
        kind, payload = await self.frame()
        assert kind == TEXT, (kind, payload)
        header = json.loads(payload)["header"]
        assert header["event"] != "task-failed", header
        return header["event"]

    async def close_code(self):
        """The code of the close that comes next; the socket ends behind it."""
        while True:
            kind, payload = await self.frame()
            if kind == CLOSE:
                code = struct.unpack("!H", payload[:2])[0]
                self.send(CLOSE, payload[:2])
                assert await self.reader.read() == b""
                return code


def run(test, **options):
    async def whole():
        backend = ScriptedBackend()
        writers = []
        async with asyncio.timeout(10), SpeechService(backend, port=0, **options) as service:

            async def dial(host="127.0.0.1"):
                reader, writer = await asyncio.open_connection("127.0.0.1", service.port, local_addr=(host, 0))
                writers.append(writer)
                return Peer(reader, writer)

            try:
                await test(service, dial)
            finally:
                for writer in writers:
                    writer.close()
                await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    asyncio.run(whole())


async def opened(dial, **headers):
    peer = await dial()
    status, answer, body = await peer.ask(**headers)
    assert status == 101, body
    return peer, answer


def code_of(body):
    return json.loads(body)["code"]


# ------------------------------------------------------------------------------------------ names and origins
@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LOCALHOST:8765", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9", True),
        ("[::1]:8765", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.1.2:8765", False),
        ("localhost@evil.example", False),
        ("evil.example@localhost", True),  # no browser sends it, and it is what it says
        ("localhost:port", False),
        ("[::1", False),
        ("", False),
        (None, False),
    ],
)
def test_names_of_this_machine(host, local):
    assert is_local_name(host) is local


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        (None, "localhost:8765", True),
        ("http://localhost:8765", "localhost:8765", True),
        ("https://localhost:8765", "LocalHost:8765", True),
        ("http://speech.example", "speech.example", True),
        ("http://speech.example", "speech.example:80", True),
        ("https://speech.example", "speech.example:443", True),
        ("http://speech.example", "speech.example:443", False),
        ("http://localhost:3000", "localhost:8765", False),
        ("http://evil.example", "localhost:8765", False),
        ("https://friend.example", "localhost:8765", True),
        ("HTTPS://Friend.example", "localhost:8765", True),
        ("http://friend.example", "localhost:8765", False),
        ("null", "localhost:8765", False),
        ("null", None, False),
        ("", "localhost:8765", False),
        ("file://", "localhost:8765", False),
        ("http://localhost:x", "localhost:8765", False),
        ("http://localhost:8765", None, False),
    ],
)
def test_origins(origin, host, own):
    assert is_own_page(origin, host, check_origins(["https://friend.example"])) is own


@pytest.mark.parametrize("origin", ["", "example.com", "https://", "https://example.com/", "https://h:port", "**"])
def test_what_is_no_origin_is_refused_at_the_start(origin):
    with pytest.raises(SettingsError, match="no origin"):
        SpeechService(ScriptedBackend(), allowed_origins=[origin])


def test_a_star_allows_any_origin():
    assert is_own_page("null", "localhost", check_origins(["*"]))


@pytest.mark.parametrize("path", [PATH, "/healthz", "/voices", "/elsewhere"])
def test_without_a_key_only_names_of_this_machine_are_answered(path):
    async def test(service, dial):
        for host in ("rebound.example", None):
            status, _, body = await (await dial()).ask(path, host=host, upgrade=path == PATH)
            assert (status, code_of(body)) == (403, "AccessDenied")
            assert b"localhost" in body
        assert service.counts.refused == 2
        assert (await (await dial()).ask(path, upgrade=path == PATH))[0] != 403

    run(test)


def test_with_a_key_any_name_will_do():
    async def test(service, dial):
        await opened(dial, host="speech.example", key="secret")

    run(test, api_key="secret")


def test_pages_of_other_hosts_are_refused_and_own_and_allowed_ones_not():
    async def test(service, dial):
        status, _, body = await (await dial()).ask(Origin="http://evil.example")
        assert (status, code_of(body)) == (403, "AccessDenied")
        assert b"--allow-origin" in body
        await opened(dial, Origin="http://localhost")  # as websocket-client does
        await opened(dial, Origin="https://friend.example")

    run(test, allowed_origins=["https://friend.example"])


# ------------------------------------------------------------------------------------------ limits
def test_connections_of_one_key_are_limited_and_of_another_not():
    async def test(service, dial):
        first, _ = await opened(dial, key="one")
        await opened(dial, key="one")
        status, _, body = await (await dial()).ask(key="one")
        assert (status, code_of(body)) == (429, "Throttling")
        assert b"2 connections of one key" in body
        await opened(dial, key="two")
        first.send(CLOSE, struct.pack("!H", 1000))
        assert await first.reader.read()  # its close, and the end
        while service.connections > 2:
            await asyncio.sleep(0)
        await opened(dial, key="one")

    run(test, settings=ServiceSettings(max_connections_per_key=2))


def test_connections_of_one_address_are_limited_and_of_another_not():
    async def test(service, dial):
        await opened(dial, key="one")
        status, _, body = await (await dial()).ask(key="two")
        assert (status, code_of(body)) == (429, "Throttling")
        assert b"1 connections of one address" in body
        elsewhere = await dial("127.0.0.2")
        assert (await elsewhere.ask(key="one"))[0] == 101

    run(test, settings=ServiceSettings(max_connections_per_address=1))


def test_what_left_is_forgotten():
    async def test(service, dial):
        for key in ("one", "two"):
            peer, _ = await opened(dial, key=key)
            peer.writer.close()
        while service.connections or service.counts.connections < 2:
            await asyncio.sleep(0.001)
        guests = service._sessions
        assert not guests.by_client
        assert not guests.by_address
        assert not guests._invited

    run(test)


def test_a_client_is_known_by_a_digest_that_does_not_show_its_key():
    assert client_of("sk-secret") == client_of("sk-secret") != client_of("sk-other")
    assert len(client_of("\udcff")) == 16
    assert "secret" not in client_of("sk-secret")


# ------------------------------------------------------------------------------------------ requests
@pytest.mark.parametrize(
    "sent",
    [b"", b"GET ", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Drip: a"],
    ids=["nothing", "half a line", "half a header"],
)
@pytest.mark.parametrize("faulty", [False, True])
def test_a_request_that_never_ends_is_dropped(sent, faulty):
    async def test(service, dial):
        peer = await dial()
        peer.writer.write(sent)
        assert await peer.reader.read() == b""
        assert service.connections == 0

    faults = Faults.parse(["handshake-delay:1s"]) if faulty else None
    run(test, settings=ServiceSettings(handshake_timeout=0.05), faults=faults)


@pytest.mark.parametrize("faulty", [False, True])
def test_a_request_that_grows_without_end_is_dropped(faulty):
    async def test(service, dial):
        peer = await dial()
        peer.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 64_000)
        with contextlib.suppress(ConnectionResetError):  # there was more to read
            assert await peer.reader.read() == b""

    run(test, faults=Faults.parse(["handshake-delay:1s"]) if faulty else None)


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls to a plain port \r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    ],
)
@pytest.mark.parametrize("faulty", [False, True])
def test_what_is_no_request_of_ours_is_answered_400(request_, faulty):
    async def test(service, dial):
        peer = await dial()
        peer.writer.write(request_)
        status, _, _ = await peer.answer()
        assert status == 400
        assert await peer.reader.read() == b""

    run(test, faults=Faults.parse(["refuse~0.000001"]) if faulty else None)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_WebSocket_Version": "\xff"},
        {"Sec_WebSocket_Version": "12"},
        {"Sec_WebSocket_Key": "\xff\xfe"},
        {"Sec_WebSocket_Key": "short"},
    ],
)
def test_a_broken_upgrade_is_answered_and_logged_nowhere(headers, caplog):
    async def test(service, dial):
        peer = await dial()
        lines = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec_WebSocket_Version": "13",
            "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        } | headers
        status, _, _ = await peer.ask(upgrade=False, **lines)
        assert status == 400

    run(test)
    assert not caplog.records


def test_compression_is_never_agreed_on():
    async def test(service, dial):
        _, answer = await opened(
            dial, Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits", Sec_WebSocket_Protocol="chat"
        )
        assert "sec-websocket-extensions" not in answer
        assert "sec-websocket-protocol" not in answer

    run(test)


# ------------------------------------------------------------------------------------------ frames
RUN = instruction("run-task")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([(BINARY, b"audio?", {})], 1003, id="binary"),
        pytest.param([(TEXT, b'{"header": "\xff"}', {})], 1007, id="bad UTF-8"),
        pytest.param([(TEXT, b'{"x": "\xff", ' + RUN[1:], {})], 1007, id="bad UTF-8 in a field that nobody reads"),
        pytest.param([(TEXT, b"no json", {})], 1007, id="no JSON"),
        pytest.param([(TEXT, b" " * 5000, {})], 1009, id="too long"),
        pytest.param(
            [(TEXT, b" " * 3000, {"fin": False}), (CONTINUATION, b" " * 3000, {})], 1009, id="too long in pieces"
        ),
        pytest.param([(TEXT, RUN, {"bits": 0x40})], 1002, id="RSV1, compressed"),
        pytest.param([(TEXT, RUN, {"bits": 0x20})], 1002, id="RSV2"),
        pytest.param([(PING, b"", {"bits": 0x10})], 1002, id="RSV3"),
        pytest.param([(3, b"", {})], 1002, id="unknown opcode"),
        pytest.param([(TEXT, RUN, {"masked": False})], 1002, id="not masked"),
        pytest.param([(CONTINUATION, RUN, {})], 1002, id="continues nothing"),
        pytest.param([(TEXT, b"{", {"fin": False}), (TEXT, RUN, {})], 1002, id="interrupts itself"),
        pytest.param([(PING, b"", {"fin": False})], 1002, id="a ping in pieces"),
        pytest.param([(PING, b"x" * 126, {})], 1002, id="a long ping"),
        pytest.param([(CLOSE, b"\x03", {})], 1002, id="half a close code"),
        pytest.param([(CLOSE, struct.pack("!H", 1005), {})], 1002, id="a close code that is not for the wire"),
    ],
)
def test_a_frame_that_breaks_the_rules_closes_with_its_code(frames, code):
    async def test(service, dial):
        bystander, _ = await opened(dial)
        peer, _ = await opened(dial)
        for kind, payload, options in frames:
            peer.send(kind, payload, **options)
        assert await peer.close_code() == code
        while service.connections > 1:
            await asyncio.sleep(0.001)
        bystander.send(TEXT, RUN)
        assert await bystander.event() == "task-started"

    run(test, settings=ServiceSettings(max_frame=4096))


def test_a_frame_whose_header_claims_exabytes_is_refused_before_it_comes():
    async def test(service, dial):
        peer, _ = await opened(dial)
        peer.writer.write(struct.pack("!BBQ", 0x81, 0xFF, 2**62) + b"mask")
        assert await peer.close_code() == 1009

    run(test)


def test_fragments_are_joined_and_pings_answered_between_them():
    async def test(service, dial):
        peer, _ = await opened(dial)
        third = len(RUN) // 3
        peer.send(TEXT, RUN[:third], fin=False)
        peer.send(PING, b"are you there?")
        peer.send(CONTINUATION, RUN[third : 2 * third], fin=False)
        peer.send(PONG, b"unasked")
        peer.send(CONTINUATION, RUN[2 * third :])
        assert await peer.frame() == (PONG, b"are you there?")
        assert await peer.event() == "task-started"

    run(test)


def test_frames_byte_by_byte_and_many_in_one_read_are_the_same():
    async def test(service, dial):
        peer, _ = await opened(dial)
        for _ in range(100):
            peer.send(PING, b"ping")
        peer.send(TEXT, RUN)
        assert [await peer.frame() for _ in range(100)] == [(PONG, b"ping")] * 100
        assert await peer.event() == "task-started"
        slow, _ = await opened(dial)
        mask = b"\0\0\0\0"
        for byte in struct.pack("!BBH", 0x81, 0xFE, len(RUN)) + mask + RUN:
            slow.writer.write(bytes((byte,)))
            await slow.writer.drain()
        assert await slow.event() == "task-started"

    run(test)


# ------------------------------------------------------------------------------------------ faults of handshakes
def test_a_refusal_comes_with_its_status_and_pause_and_spares_the_pages():
    async def test(service, dial):
        status, headers, body = await (await dial()).ask()
        assert (status, headers["retry-after"], code_of(body)) == (520, "2", "InjectedFault")
        assert service.counts.refused == 1
        assert (await (await dial()).ask("/healthz", upgrade=False))[0] == 200

    run(test, faults=Faults.parse(["refuse:520,2"]))


def test_a_dropped_handshake_gets_no_answer_and_a_stalled_one_none_either():
    async def drop(service, dial):
        peer = await dial()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await peer.ask()

    async def stall(service, dial):
        peer = await dial()
        asking = asyncio.ensure_future(peer.ask())
        other = await dial()
        assert (await other.ask("/healthz", upgrade=False))[0] == 200
        assert not asking.done()
        peer.writer.close()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asking
        assert service.counts.connections == 0

    run(drop, faults=Faults.parse(["handshake-drop"]))
    run(stall, faults=Faults.parse(["handshake-stall"]), settings=ServiceSettings(handshake_timeout=0.01))


def test_a_late_handshake_is_complete_with_what_was_sent_behind_it():
    async def test(service, dial):
        clock = asyncio.get_running_loop().time
        peer = await dial()
        start = clock()
        asking = asyncio.ensure_future(peer.ask())
        await asyncio.sleep(0)
        for _ in range(100):
            peer.send(PING, b"x" * 100)  # more than the read buffer holds, and it does not wait for the answer
        peer.send(TEXT, RUN)
        assert (await asking)[0] == 101
        assert clock() - start >= 0.05
        assert [await peer.frame() for _ in range(100)] == [(PONG, b"x" * 100)] * 100
        assert await peer.event() == "task-started"

    run(test, faults=Faults.parse(["handshake-delay:50ms"]))


def test_closing_drops_handshakes_that_still_wait():
    async def test(service, dial):
        peer = await dial()
        asking = asyncio.ensure_future(peer.ask())
        assert (await (await dial()).ask("/healthz", upgrade=False))[0] == 200  # so it has been read
        await service.close()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asking

    run(test, faults=Faults.parse(["handshake-delay:3600s"]))
