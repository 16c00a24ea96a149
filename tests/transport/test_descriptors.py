"""Too few descriptors: said before the pool is opened, survived when they run out, at both ends.

What lowers the limit runs in a child process.
"""

import contextlib
import itertools
import json
import resource
import socket
import ssl
import subprocess
import sys
import textwrap
import time

import pytest

from speechpool.errors import ConnectFailed, SettingsError
from speechpool.transport import descriptors


@pytest.fixture
def limits(monkeypatch):
    def pretend(soft, hard, used):
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(descriptors, "_used", lambda: used)

    return pretend


def test_a_program_may_take_what_the_hard_limit_allows():
    code = """
        import resource
        from speechpool.transport.descriptors import raise_soft_limit
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
        raise_soft_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_what_fits_is_fine(limits):
    limits(1024, 4096, 40)
    descriptors.check_descriptors(1024 - 40 - descriptors.RESERVE, "max_size = 968")


def test_a_pool_beyond_the_soft_limit_is_refused_with_every_number_and_the_remedy(limits):
    limits(1024, 4096, 40)
    with pytest.raises(SettingsError) as raised:
        descriptors.check_descriptors(1004, "max_size = 1000 (and max_replacing = 4)")
    assert str(raised.value) == (
        "max_size = 1000 (and max_replacing = 4) needs up to 1004 descriptors, 1060 together with the 40 in use now and "
        "16 for the program's own files, but this process may open 1024 (its soft limit; the hard limit is 4096). "
        "Raise it with `ulimit -n 1060` or resource.setrlimit before the pool is opened, or lower max_size: there is "
        "room for 968 connections."
    )


def test_beyond_the_hard_limit_only_an_administrator_helps(limits):
    limits(1024, 4096, 40)
    with pytest.raises(SettingsError, match=r"let an administrator raise it to 5056 \(LimitNOFILE= of systemd\)"):
        descriptors.check_descriptors(5000, "max_size = 5000")


def test_what_is_open_already_is_not_counted_twice(limits):
    limits(1024, 4096, 540)  # 500 of them are the pool's
    descriptors.check_descriptors(960, "max_size = 960", held=500)
    with pytest.raises(SettingsError, match="room for 968 connections"):
        descriptors.check_descriptors(970, "max_size = 970", held=500)


def test_to_need_fewer_is_always_fine(limits):
    limits(1024, 4096, 1020)
    descriptors.check_descriptors(500, "max_size = 500", held=501)


def test_no_limit_no_check(limits, monkeypatch):
    limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY, 40)
    descriptors.check_descriptors(10**6, "max_size = 1000000")
    limits(16, 16, 40)
    monkeypatch.setattr(sys, "platform", "win32")
    descriptors.check_descriptors(10**6, "max_size = 1000000")


def test_what_is_in_use_is_counted():
    before = descriptors._used()
    with socket.socket(), socket.socket():
        assert descriptors._used() == before + 2


def test_only_a_shortage_is_taken_for_one():
    assert descriptors.shortage(OSError(24, "Too many open files")).errno == 24
    # An error of name look-ups or of TLS has numbers of its own.
    assert descriptors.shortage(socket.gaierror(24, "whatever")) is None
    assert descriptors.shortage(ssl.SSLCertVerificationError(24, "whatever")) is None
    assert descriptors.shortage(ConnectFailed("no")) is None
    assert descriptors.shortage(ValueError()) is None


PRELUDE = """
    import asyncio, json, os, resource, socket, sys, time, logging
    import uvloop
    from speechpool.errors import ConnectFailed
    from speechpool.transport import connect, serve

    def use_up(soft=64):
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return held

    class Owner:
        def on_connected(self, connection): pass
        def on_text(self, data): pass
        def on_binary(self, data): pass
        def on_closed(self, closed): pass

    def run(main, kind):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "uvloop" else None) as runner:
            runner.run(main)
"""
LOOPS = ("asyncio", "uvloop")


def program(body, *arguments):
    return [sys.executable, "-W", "error", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(body), *arguments]


def answer(body, *arguments):
    done = subprocess.run(program(body, *arguments), capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


DIALS = """
    async def attempt(url, proxy):
        try:
            await connect(url, Owner(), proxy=proxy, timeout=5.0)
        except ConnectFailed as error:
            return str(error), error.permanent
        return "open", None

    async def dial(url, proxy):
        held = use_up()
        short = [await attempt(url, proxy)]
        for _ in range(3):  # and with a few left: not every step of a dial meets the shortage in the same place
            os.close(held.pop())
            short.append(await attempt(url, proxy))
        for each in held:
            os.close(each)
        return short, await attempt(url, proxy)

    async def main():
        await asyncio.get_running_loop().getaddrinfo("localhost", 1)  # its thread is there, and its modules are loaded
        print(json.dumps([await dial(*case) for case in json.loads(sys.argv[2])]))

    run(main(), sys.argv[1])
"""


@pytest.mark.parametrize("kind", LOOPS)
def test_a_dial_without_descriptors_says_so_and_never_for_good(kind):
    urls = [f"{scheme}://{host}:9/" for scheme in ("ws", "wss") for host in ("127.0.0.1", "localhost")]
    proxies = [None, "http://127.0.0.1:9", "socks5://127.0.0.1:9"]
    cases = list(itertools.product(urls, proxies))
    for (_, proxy), (short, after) in zip(cases, answer(DIALS, kind, json.dumps(cases)), strict=True):
        assert "This process has too many open files: it may open 64 (its soft limit; the hard limit" in short[0][0]
        assert "Raise it with `ulimit -n 128`" in short[0][0]
        assert not any(permanent for _, permanent in short), short
        assert ("Check that it runs" if proxy else "refused the connection") in after[0]


CERTIFICATES = """
    from speechpool.transport import dialling

    held = use_up()
    try:
        dialling._default_tls()
        said = None
    except OSError as error:
        said = error.errno
    for each in held:
        os.close(each)
    print(json.dumps([said, dialling._default_tls().cert_store_stats()["x509_ca"]]))
"""


def test_the_certificates_are_not_kept_empty_because_no_file_could_be_opened():
    said, authorities = answer(CERTIFICATES)
    assert said == 24
    assert authorities > 0


POOL = """
    from speechpool import AsyncSpeechPool, Endpoint, SpeechPoolError

    async def main():
        dials = []

        async def dial(url, owner, **options):
            dials.append(time.monotonic())
            return await connect(url, owner, **options)

        listener = await serve(lambda _: __import__("speechpool").transport.Accepted(Owner()), "127.0.0.1", 0)
        endpoint = Endpoint(f"ws://127.0.0.1:{listener.port}", api_key="k")
        async with AsyncSpeechPool(endpoint, dial=dial, max_size=4, min_size=4, open_backoff=0.2, limits=None) as pool:
            await pool.wait_ready()
            for connection in listener.connections:
                connection.abort()
            held = use_up()
            while pool.stats.idle:
                await asyncio.sleep(0.01)
            # What the dead ones gave back belongs to others now.
            held += use_up()
            dials.clear()
            cpu = time.process_time()
            await asyncio.sleep(1.5)
            for _ in range(200):  # on a busy machine more may have failed before, and the pauses grow
                if dials:
                    break
                await asyncio.sleep(0.1)
            cpu, during = time.process_time() - cpu, len(dials)
            try:
                async with pool.borrow(timeout=0.1):
                    said = "lent"
            except SpeechPoolError as error:
                said = str(error)
            for each in held:
                os.close(each)
            start = time.monotonic()
            while pool.stats.idle < 4:
                await asyncio.sleep(0.05)
            healed = time.monotonic() - start
        listener.close()
        await listener.wait_closed()
        print(json.dumps([during, cpu, said, healed]))

    logging.basicConfig(level="WARNING", stream=sys.stderr)
    run(main(), "asyncio")
"""


def test_the_pool_paces_its_dials_when_descriptors_run_out_and_heals_when_they_come_back():
    during, cpu, said, healed = answer(POOL)
    assert 1 <= during <= 20  # pauses of 0.2 s and more between them, at most max_opening at once
    assert cpu < 0.5
    assert "too many open files" in said
    assert healed < 20


SERVES = """
    class Counting(logging.Handler):
        texts = []
        def emit(self, record):
            self.texts.append(record.getMessage())

    async def main():
        logging.getLogger().addHandler(Counting())
        listener = await serve(
            lambda _: __import__("speechpool").transport.Refusal(404), "127.0.0.1", 0, handshake_timeout=None
        )
        for each in use_up()[-8:]:
            os.close(each)
        print(listener.port, flush=True)
        loop = asyncio.get_running_loop()
        while (await loop.run_in_executor(None, sys.stdin.readline)) == "measure\\n":
            cpu = time.process_time()
            await asyncio.sleep(1.3)
            print(json.dumps([time.process_time() - cpu, Counting.texts]), flush=True)
        listener.close()
        await listener.wait_closed()

    run(main(), sys.argv[1])
"""


def ask(port):
    """What an HTTP request gets."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return sock.recv(12)


@pytest.mark.parametrize("kind", LOOPS)
def test_a_service_without_descriptors_rests_says_so_once_and_accepts_again(kind):
    child = subprocess.Popen(
        program(SERVES, kind), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with child, contextlib.ExitStack() as callers:
        port = int(child.stdout.readline())
        for _ in range(20):
            callers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        time.sleep(0.3)
        child.stdin.write("measure\n")
        child.stdin.flush()
        cpu, texts = json.loads(child.stdout.readline())
        assert cpu < 0.3  # of 1.3 s, with two tries or so
        (text,) = texts
        assert text.startswith("No connection can be accepted until some are closed; trying every 1 s. This process ")
        assert "too many open files: it may open 64" in text
        callers.close()
        assert ask(port) == b"HTTP/1.1 404"
        _, err = child.communicate("", timeout=30)
        assert child.returncode == 0
        assert err == ""
