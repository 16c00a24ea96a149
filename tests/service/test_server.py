"""The service on a real port: its door, its pages, its end."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest
from scripted import ScriptedBackend, instruction

from speechpool.errors import ConnectFailed, SettingsError, Unauthorized
from speechpool.service import ServiceSettings, SpeechService
from speechpool.service.keys import given_key, is_welcome
from speechpool.service.origins import is_loopback
from speechpool.transport import connect

KEY = {"Authorization": "Bearer key"}
PATH = "/api-ws/v1/inference"


class Client:
    def __init__(self):
        self.frames = asyncio.Queue()
        self.closed = asyncio.get_running_loop().create_future()

    def on_text(self, data):
        self.frames.put_nowait(json.loads(data))

    def on_binary(self, data):
        self.frames.put_nowait(data)

    def on_closed(self, closed):
        self.closed.set_result(closed)


@asynccontextmanager
async def serving(**options):
    backend = ScriptedBackend()
    async with SpeechService(backend, port=0, **options) as service:
        yield service, backend
    assert backend.life == ["start", "close"]


def run(test, **options):
    async def whole():
        async with asyncio.timeout(10), serving(**options) as (service, backend):
            await test(service, backend)

    asyncio.run(whole())


async def dial(service, *, path=PATH, headers=KEY):
    client = Client()
    connection = await connect(f"ws://127.0.0.1:{service.port}{path}", client, headers=headers)
    return client, connection


async def begin(service, backend):
    client, connection = await dial(service)
    connection.send(instruction("run-task"))
    assert (await client.frames.get())["header"]["event"] == "task-started"
    return client, connection, backend.speeches[-1]


async def get(service, path, headers=()):
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{service.port}", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in rest)}, body


# ------------------------------------------------------------------------------------------ the door
@pytest.mark.parametrize("path", [PATH, f"{PATH}/", f"/prefix{PATH}"])
def test_any_path_that_ends_so_is_the_service(path):
    async def test(service, backend):
        client, connection = await dial(service, path=path)
        connection.send(instruction("run-task"))
        assert (await client.frames.get())["header"]["event"] == "task-started"
        connection.send(instruction("finish-task"))
        while not backend.speeches[0].calls:
            await asyncio.sleep(0.001)
        backend.speeches[0].say(b"audio")
        backend.speeches[0].listener.on_finished(5)
        got = [await client.frames.get() for _ in range(5)]
        assert got[2] == b"audio"
        assert service.counts.tasks["completed"] == 1
        assert service.counts.connections == service.connections == 1

    run(test)


@pytest.mark.parametrize(
    ("headers", "api_key"),
    [({}, None), ({"Authorization": "Bearer"}, None), (KEY, "another"), ({"Authorization": "Basic key"}, "key")],
)
def test_without_the_right_key_it_is_401(headers, api_key):
    async def test(service, backend):
        with pytest.raises(Unauthorized) as caught:
            await dial(service, headers=headers)
        assert caught.value.status == 401
        lines = [f"{name}: {value}" for name, value in headers.items()]
        status, answer, body = await get(service, PATH, [*lines, "Upgrade: websocket", "Connection: Upgrade"])
        assert status == 401
        assert answer["content-type"] == "application/json"
        assert json.loads(body) == {"code": "InvalidApiKey", "message": "Invalid API-key provided."}
        assert service.counts.refused == 2
        assert service.counts.connections == 0

    run(test, api_key=api_key)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_right_key_comes_in_by_any_case_of_bearer(scheme):
    async def test(service, backend):
        await dial(service, headers={"Authorization": f"{scheme} secret"})

    run(test, api_key="secret")


def test_space_around_the_services_key_is_no_part_of_it():
    async def test(service, backend):
        await dial(service, headers={"Authorization": "Bearer secret"})

    run(test, api_key="secret\n")


def test_a_service_may_be_started_again():
    async def main():
        service = SpeechService(ScriptedBackend(), port=0)
        for _ in range(2):
            async with service:
                await dial(service)

    asyncio.run(main())


def test_a_key_of_odd_characters_is_refused_and_not_an_error():
    assert not is_welcome(given_key("Bearer \udcff\u00e9"), "key")
    assert not is_welcome(None, None)
    assert is_welcome(given_key("Bearer k\udcc3\udca9y"), "k\u00e9y")  # UTF-8 as a header carries it


def test_beyond_the_limit_of_connections_it_is_503():
    async def test(service, backend):
        _, connection = await dial(service)
        with pytest.raises(ConnectFailed) as caught:
            await dial(service)
        assert caught.value.status == 503
        connection.close()
        await connection.wait_closed()
        while service.connections:
            await asyncio.sleep(0)
        await dial(service)

    run(test, settings=ServiceSettings(max_connections=1))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "speech.example"])
def test_other_machines_need_a_key(host):
    with pytest.raises(SettingsError, match="api-key"):
        SpeechService(ScriptedBackend(), host=host)
    SpeechService(ScriptedBackend(), host=host, api_key="secret")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_none(host):
    assert is_loopback(host)


def test_an_empty_key_is_refused():
    with pytest.raises(SettingsError, match="empty"):
        SpeechService(ScriptedBackend(), api_key=" ")


def test_a_port_in_use_says_what_to_do():
    async def test(service, backend):
        second = ScriptedBackend()
        with pytest.raises(SettingsError, match=rf"{service.port}.*in use.*--port 0"):
            await SpeechService(second, port=service.port).start()
        assert second.life == ["start", "close"]

    run(test)


# ------------------------------------------------------------------------------------------ pages
def test_health_tells_what_runs():
    async def test(service, backend):
        await begin(service, backend)
        status, headers, body = await get(service, "/healthz")
        assert status == 200
        assert headers["content-type"] == "application/json"
        assert headers["x-speechpool-engine"] == "scripted"
        health = json.loads(body)
        assert health.pop("version")
        assert health == {
            "status": "ok",
            "engine": "scripted",
            "profile": "still",
            "tasks_running": 1,
            "tasks": {"completed": 0, "failed": 0, "cancelled": 0, "shed": 0},
            "connections": 1,
        }

    run(test)


def test_voices_are_listed():
    async def test(service, backend):
        status, _, body = await get(service, "/voices")
        assert (status, json.loads(body)) == (200, ["longanyang"])

    run(test)


@pytest.mark.parametrize(("path", "status"), [("/", 404), ("/api-ws/v1/realtime", 404), ("/healthz/x", 404)])
def test_other_paths_are_not_found(path, status):
    async def test(service, backend):
        assert (await get(service, path))[0] == status

    run(test)


def test_the_answer_to_a_handshake_names_the_engine():
    async def test(service, backend):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Authorization: Bearer x\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head
        assert b"x-speechpool-engine: scripted" in head.lower()
        writer.close()
        await writer.wait_closed()

    run(test)


# ------------------------------------------------------------------------------------------ the end
def test_draining_lets_tasks_end_and_nobody_in():
    async def test(service, backend):
        idle, _ = await dial(service)
        busy, connection, speech = await begin(service, backend)
        draining = asyncio.ensure_future(service.drain(5))
        assert (await idle.closed).code == 1001
        with pytest.raises(ConnectFailed) as caught:
            await dial(service)
        assert caught.value.status == 503
        assert json.loads((await get(service, "/healthz"))[2])["status"] == "draining"
        assert not draining.done()
        connection.send(instruction("finish-task"))
        while speech.calls != ["finish"]:
            await asyncio.sleep(0.001)
        speech.listener.on_finished(0)
        assert (await busy.frames.get())["header"]["event"] == "task-finished"
        assert (await busy.closed).code == 1001
        assert await draining is True

    run(test)


def test_draining_ends_in_time():
    async def test(service, backend):
        client, _, speech = await begin(service, backend)
        assert await service.drain(0.05) is False
        assert speech.calls == []  # whether it is given up is for the caller to say
        await service.close()
        assert (await client.frames.get())["header"]["event"] == "task-failed"
        assert (await client.closed).code == 1001
        assert speech.calls == ["cancel"]

    run(test)


def test_closing_gives_tasks_up_and_frees_the_port():
    async def test(service, backend):
        port = service.port
        client, _, speech = await begin(service, backend)
        await service.close()
        assert speech.calls == ["cancel"]
        assert (await client.closed).code == 1001
        assert service.connections == 0
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect(("127.0.0.1", port))
        await service.close()  # and again does nothing

    run(test)


def test_a_client_that_goes_away_frees_its_speech():
    async def test(service, backend):
        _, connection, speech = await begin(service, backend)
        connection.abort()
        while service.connections:
            await asyncio.sleep(0.001)
        assert speech.calls == ["cancel"]
        assert service.counts.tasks["cancelled"] == 1

    run(test)


def test_a_peer_that_reads_nothing_pauses_its_speech():
    async def test(service, backend):
        _, connection, speech = await begin(service, backend)
        connection.pause()
        while "pause" not in speech.calls:
            speech.say(b"x" * 100_000)
            await asyncio.sleep(0.001)
        connection.resume()
        while "resume" not in speech.calls:
            await asyncio.sleep(0.001)

    run(test)
