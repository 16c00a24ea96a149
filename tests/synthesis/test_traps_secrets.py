"""No key and no header in anything that people see: errors with their chains, text forms, statistics, logs."""

import asyncio
import base64
import logging
import pickle
import traceback

import pytest
from harness import VOICE, Server, pool_and_server, run, run_virtual, settle

from raw_peer import raw_server
from speechpool import AsyncSpeechPool, Deadlines, Endpoint, SpeechPoolError, Unauthorized
from speechpool.errors import ConnectFailed, RateLimited
from speechpool.protocol.cosyvoice import RunTask
from speechpool.testing.memory import MemoryNetwork
from speechpool.transport import Refusal

CANARY = "sk-canary-0123456789"
HEADER = "header-canary-0123456789"
PASSWORD = "password-canary-0123456789"
ECHO = f"Invalid key {CANARY} (Authorization: Bearer {CANARY}; X-Team: {HEADER})".encode()
SECRETS = [CANARY, HEADER, PASSWORD, "canary", *(base64.b64encode(f"user:{PASSWORD}".encode()).decode(),)]


def everything_of(error):
    """All that is ever shown of an error: text forms, attributes, and the same of whatever it was raised from."""
    said, seen, todo = [], set(), [error]
    while todo:
        one = todo.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        said += [str(one), repr(one), repr(one.args), repr(getattr(one, "__notes__", ()))]
        if isinstance(one, SpeechPoolError):
            said.append(repr(vars(one)))
        todo += [one.__cause__, one.__context__, *vars(one).values()]
    said += traceback.format_exception(error)
    return "\n".join(said)


def assert_clean(*said):
    for text in said:
        for secret in SECRETS:
            assert secret not in str(text)


def forms_of(pool):
    """Text forms of everything that a user holds of a pool."""
    objects = [
        pool, pool.endpoint, pool.stats, pool.settings, pool.deadlines, pool.report(), pool.explain(), pool._pool,
        pool._pool._jobs, pool._host, pool.telemetry, pool.borrow(), pool.task(VOICE), pool.stream("Hi.", VOICE),
    ]  # fmt: skip
    return [form(one) for one in objects for form in (repr, str)]


def endpoint_of(url, **options):
    return Endpoint(url, api_key=CANARY, headers={"X-Team": HEADER}, **options)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Unauthorized), (403, Unauthorized), (429, RateLimited), (503, ConnectFailed)]
)
def test_t80_a_refused_handshake_shows_no_key_even_where_the_server_repeats_it(status, kind, caplog):
    caplog.set_level(logging.INFO)

    async def main():
        network = MemoryNetwork()
        server = await Server(network).start()
        pool = AsyncSpeechPool(
            endpoint_of(server.listener.url), dial=network.connect, heartbeat=None, max_size=1, borrow_timeout=1.0
        )
        server.refusal = Refusal(status, ECHO, {"Retry-After": "1"})
        with pytest.raises(kind) as caught:  # while it is entered
            async with pool:
                pass
        assert_clean(everything_of(caught.value))
        assert "Invalid key ***" in str(caught.value)
        server.refusal = None
        pool = AsyncSpeechPool(
            endpoint_of(server.listener.url), dial=network.connect, heartbeat=None, max_size=1, borrow_timeout=1.0
        )
        async with pool:
            await pool.synthesize("Hello.", VOICE)
            server.refusal = Refusal(status, ECHO)
            network.cut()
            await asyncio.sleep(0.1)
            with pytest.raises(SpeechPoolError) as caught:  # and afterwards, from behind a queue or an outage
                await pool.synthesize("Hello.", VOICE)
            assert_clean(everything_of(caught.value), *forms_of(pool))

    run_virtual(main())
    assert_clean(caplog.text)


@pytest.mark.parametrize("status", [401, 429])
def test_t80_nor_over_a_real_socket_with_the_errors_of_the_library_below(status, caplog):
    caplog.set_level(logging.INFO)
    asked = []

    async def handler(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%s" % (status, len(ECHO), ECHO))

    async def main():
        async with raw_server(handler) as port:
            with pytest.raises(ConnectFailed) as caught:
                async with AsyncSpeechPool(
                    endpoint_of(f"ws://127.0.0.1:{port}"), deadlines=Deadlines(connect=0.3), max_size=1
                ):
                    pass
            return caught.value

    error = run(main())
    assert CANARY in asked[0]
    assert HEADER in asked[0]
    assert_clean(everything_of(error), caplog.text)
    assert_clean(everything_of(pickle.loads(pickle.dumps(error))))


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_t80_nor_the_password_of_a_proxy(scheme, caplog):
    caplog.set_level(logging.INFO)

    async def handler(reader, writer):
        if scheme == "http":
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n" + request)
        else:
            await reader.readexactly(2)
            writer.write(b"\5\xff")

    async def main():
        async with raw_server(handler) as port:
            endpoint = endpoint_of("ws://example.com", proxy=f"{scheme}://user:{PASSWORD}@127.0.0.1:{port}")
            assert_clean(repr(endpoint), endpoint.display, endpoint.account)
            with pytest.raises(ConnectFailed) as caught:
                async with AsyncSpeechPool(endpoint, max_size=1):
                    pass
            return caught.value

    error = run(main())
    assert f"{scheme}://127.0.0.1" in str(error)
    assert_clean(everything_of(error), caplog.text)


def test_t80_what_a_key_function_gives_is_shown_no_more_than_a_key(caplog):
    caplog.set_level(logging.INFO)

    async def main():
        network = MemoryNetwork()
        server = await Server(network).start()
        endpoint = Endpoint(server.listener.url, api_key=lambda: f"{CANARY}\nsecond line")
        with pytest.raises(SpeechPoolError) as caught:
            async with AsyncSpeechPool(endpoint, dial=network.connect, heartbeat=None, max_size=1):
                pass
        assert_clean(everything_of(caught.value), repr(endpoint))

    run_virtual(main())
    assert_clean(caplog.text)


def test_t80_errors_of_tasks_leases_and_leaks_show_no_key(caplog):
    caplog.set_level(logging.INFO)

    async def main():
        async with pool_and_server(retry=1, leak_after=5.0, borrow_timeout=1.0, max_size=1) as (pool, server):
            errors = []
            server.hooks[RunTask] = lambda session, _: session.fail("InternalError", "no") or True
            with pytest.raises(SpeechPoolError) as caught:
                await pool.synthesize("Hello.", VOICE)
            errors.append(caught.value)
            server.hooks[RunTask] = lambda session, _: session.connection.abort() or True
            with pytest.raises(SpeechPoolError) as caught:
                await pool.synthesize("Hello.", VOICE)
            errors.append(caught.value)
            server.hooks.clear()
            async with pool.borrow() as lease:
                said = [repr(lease), repr(lease._held()), repr(lease._held().connection), *forms_of(pool)]
                with pytest.raises(SpeechPoolError) as caught:
                    await pool.synthesize("Hello.", VOICE)
                errors.append(caught.value)
                await asyncio.sleep(10)  # until it is reported
            assert_clean(*said, *(everything_of(error) for error in errors))
            await settle()

    run_virtual(main())
    assert "leak" in caplog.text or "held" in caplog.text
    assert_clean(caplog.text)
