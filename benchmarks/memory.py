"""Memory of an idle connection in a pool of 1,000.

A service (engine `marker`) runs in a process of its own, over ws and over wss. A client process for each case opens and
closes a pool of 50 first, so that what is made once is there; then it opens one of 1,000. What its resident memory
(/proc/self/statm) has grown by after a garbage collection, over 1,000, is what one idle connection takes. Buffers of
the kernel are not in it. At the end the pool is closed, and the descriptors of the process are counted: as many as
before.

The goal stands for ws; wss, where TLS comes on top, is for information. Needs Linux and the extras [all,dev].
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import resource
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE, WARM_UP = 1000, 50
GOAL = 30.0
"""kB of 1,024 bytes for each connection, over ws."""
CASES = [(scheme, loop) for scheme in ("ws", "wss") for loop in ("asyncio", "uvloop")]
DESCRIPTORS = 4 * SIZE
"""What either process may need, and then some."""


class Failure(Exception):
    """Nothing could be measured; the text says why and what to do."""


# ------------------------------------------------------------------------------------ the service
def certify(folder):
    """Write a certificate for 127.0.0.1 with its key, and that of the authority, into a folder."""
    import trustme

    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "authority.pem")


def serve(folder):
    """Run a service until its standard input ends; prints its port. With a folder of certificates: over TLS."""
    from speechpool.service import LocalBackend, ServiceSettings, SpeechService

    context = None
    if folder:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(folder) / "server.pem")

    async def main():
        settings = ServiceSettings(submission_rate=None, max_connections=2 * SIZE)
        async with SpeechService(LocalBackend("marker"), port=0, settings=settings, ssl=context) as service:
            print(service.port, flush=True)
            await asyncio.to_thread(sys.stdin.read)

    _run(main(), "uvloop")


# ------------------------------------------------------------------------------------ the client
def resident():
    """Bytes of this process's memory that are in RAM."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def open_and_close(endpoint, size):
    """Bytes and seconds that a pool of this size has taken once all its connections are open."""
    from speechpool import AsyncSpeechPool

    before, begun = resident(), time.perf_counter()
    async with AsyncSpeechPool(endpoint, max_size=size, max_opening=20) as pool:
        await pool.wait_ready()
        took = time.perf_counter() - begun
        assert pool.stats.idle == size, pool.stats
        grown = resident() - before
    stats = pool.stats
    assert stats.size == 0, stats
    assert stats.closed == stats.opened == size, stats  # none was lost or opened twice
    return grown, took


async def client(port, authority):
    """Measure, and print it as JSON."""
    from speechpool import Endpoint

    context = ssl.create_default_context(cafile=authority) if authority else None
    url = f"{'wss' if authority else 'ws'}://127.0.0.1:{port}"
    endpoint = Endpoint(url, api_key="local", ssl=context)
    await open_and_close(endpoint, WARM_UP)
    await asyncio.sleep(0.1)  # the kernel needs a moment for the last sockets
    before = descriptors()
    grown, took = await open_and_close(endpoint, SIZE)
    await asyncio.sleep(0.1)
    figures = {"kib": grown / SIZE / 1024, "ready_seconds": took, "descriptors_left": descriptors() - before}
    print(json.dumps(figures), flush=True)


# ------------------------------------------------------------------------------------ measuring
@contextlib.contextmanager
def started(*arguments):
    """Another process of this script, with its first line of output."""
    command = [sys.executable, __file__, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline().strip()
            if not line:
                raise Failure(f"`{' '.join(command)}` ended by itself; its own message stands above")
            yield line
            process.stdin.close()
            process.wait(10)
        finally:
            process.kill()


def measure(schemes):
    """Figures by case, such as `ws_asyncio`."""
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        certify(Path(folder))
        for scheme in schemes:
            secure = scheme == "wss"
            with started("--serve", folder if secure else "") as port:
                for loop in [loop for each, loop in CASES if each == scheme]:
                    authority = Path(folder) / "authority.pem" if secure else ""
                    with started("--client", port, authority, loop) as line:
                        cases[f"{scheme}_{loop}"] = json.loads(line)
    return {
        "cases": cases,
        "goal_kib": GOAL,
        "met": all(figures["kib"] <= GOAL for case, figures in cases.items() if case.startswith("ws_")),
        "nothing_left": all(figures["descriptors_left"] == 0 for figures in cases.values()),
    }


def allow_descriptors():
    """Raise the soft limit for this process and those it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
            raise Failure(f"{DESCRIPTORS} descriptors are needed, and the hard limit is {hard}; raise it (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))


def _run(main, loop):
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        return runner.run(main)


# ------------------------------------------------------------------------------------ showing
def show(result):
    print(f"{f'a pool of {SIZE:,}':20}{'kB a connection':>16}{'ready within':>14}{'descriptors left':>18}")
    for case, figures in result["cases"].items():
        scheme, loop = case.split("_")
        goal = "" if scheme != "ws" else f"  goal <= {GOAL:g}  {'met' if figures['kib'] <= GOAL else 'missed'}"
        print(f"{f'{scheme}, {loop}':20}{figures['kib']:16.1f}{figures['ready_seconds']:12.1f} s"
              f"{figures['descriptors_left']:18}{goal}")  # fmt: skip


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    parser.add_argument("--no-tls", action="store_true", help="leave wss out")
    parser.add_argument("--serve", metavar="CERTIFICATES", help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=3, metavar=("PORT", "AUTHORITY", "LOOP"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.serve is not None:
        serve(arguments.serve)
    elif arguments.client:
        port, authority, loop = arguments.client
        _run(client(port, authority), loop)
    else:
        try:
            allow_descriptors()
            result = measure(["ws"] if arguments.no_tls else ["ws", "wss"])
        except Failure as failure:
            print(f"memory: {failure}", file=sys.stderr)
            return 1
        print(json.dumps(result)) if arguments.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
