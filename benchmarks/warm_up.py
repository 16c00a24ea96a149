"""How long a pool of 100 takes until all its connections are open, beside the official SDK's pool.

Two services run in processes of their own: one that answers a handshake at once, and one that takes 100 ms for each, as
a server behind some distance does. Against the slow one our pool is compared with ten handshakes one after another of
the same run, once with the default of 8 dials at once (`max_opening`) and once with 20. Against the quick one it is
compared with dashscope's SpeechSynthesizerObjectPool(max_size=100), which opens one connection after another and looks
every 100 ms whether it is there.

Ours is the median of `--repeats` pools; the official one is built once, in a process of its own, as it can be built
only once. Needs the extras [all,dev].

    python benchmarks/warm_up.py [--json] [--no-official]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

SIZE, HANDSHAKES, DELAY = 100, 10, "100ms"
DEFAULT_OPENING, MANY_OPENING = 8, 20
"""Dials at once: the default of PoolSettings, and what fits 100 connections into the time of five handshakes."""
LIMIT = 120
"""Seconds that the official pool may take."""


# ------------------------------------------------------------------------------------ the other processes
def serve(fault):
    """Run a service until its standard input ends; prints its port."""
    from speechpool.service import LocalBackend, ServiceSettings, SpeechService
    from speechpool.service.faults import Faults, parse_fault

    async def main():
        faults = Faults([parse_fault(f"handshake-delay:{fault}")]) if fault else None
        settings = ServiceSettings(submission_rate=None)
        async with SpeechService(LocalBackend("marker"), port=0, settings=settings, faults=faults) as service:
            print(service.port, flush=True)
            await asyncio.to_thread(sys.stdin.read)

    _run(main())


def build_official(port):
    """Build the official pool and print how long it took; it leaves threads behind, so the process is cut off."""
    import dashscope
    from dashscope.audio.tts_v2 import SpeechSynthesizerObjectPool

    dashscope.api_key = "local"
    dashscope.base_websocket_api_url = f"ws://127.0.0.1:{port}/api-ws/v1/inference"
    begun = time.perf_counter()
    SpeechSynthesizerObjectPool(max_size=SIZE)
    print(time.perf_counter() - begun, flush=True)
    os._exit(0)


@contextlib.contextmanager
def started(*arguments):
    """Another process of this script, with its first line of output."""
    command = [sys.executable, __file__, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
            process.stdin.close()
            process.wait(10)
        finally:
            process.kill()


# ------------------------------------------------------------------------------------ measuring
async def pool_ready(port, max_opening):
    """Seconds from the making of our pool until all its connections are open."""
    from speechpool import AsyncSpeechPool, Endpoint

    begun = time.perf_counter()
    endpoint = Endpoint(f"ws://127.0.0.1:{port}", api_key="local")
    async with AsyncSpeechPool(endpoint, max_size=SIZE, max_opening=max_opening) as pool:
        await pool.wait_ready()
        took = time.perf_counter() - begun
        assert pool.stats.idle == SIZE, pool.stats
    return took


async def one_by_one(port):
    """Seconds that ten handshakes take, one after another."""
    from speechpool.transport import connect

    class Nobody:
        def on_text(self, data): ...
        def on_binary(self, data): ...
        def on_closed(self, closed): ...

    headers = {"Authorization": "Bearer local"}
    url = f"ws://127.0.0.1:{port}/api-ws/v1/inference"
    begun = time.perf_counter()
    opened = [await connect(url, Nobody(), headers=headers) for _ in range(HANDSHAKES)]
    took = time.perf_counter() - begun
    for connection in opened:
        connection.close()
        await connection.wait_closed()
    return took


async def measure_ours(port, slow_port, repeats):
    """Median seconds by row, and `spread`, the lowest and the highest of each."""
    rows = {"one_by_one": [], "delayed_default": [], "delayed_many": [], "ours": []}
    for _ in range(repeats):
        rows["one_by_one"].append(await one_by_one(slow_port))
        rows["delayed_default"].append(await pool_ready(slow_port, DEFAULT_OPENING))
        rows["delayed_many"].append(await pool_ready(slow_port, MANY_OPENING))
        rows["ours"].append(await pool_ready(port, DEFAULT_OPENING))
    figures = {name: statistics.median(values) for name, values in rows.items()}
    ratios = [many / ten for many, ten in zip(rows["delayed_many"], rows["one_by_one"], strict=True)]
    spread = {name: [min(values), max(values)] for name, values in rows.items()}
    return figures | {"many_over_one_by_one": statistics.median(ratios), "spread": spread}


def measure(repeats, official):
    """All figures: seconds, and `ratio`, how many times sooner ours is ready than the official one."""
    with started("--serve", "") as port, started("--serve", DELAY) as slow_port:
        figures = _run(measure_ours(port, slow_port, repeats))
        if official:
            with started("--build-official", port) as took:
                figures["official"] = float(took)
            figures["ratio"] = figures["official"] / figures["ours"]
    return figures


def _run(main):
    import uvloop

    return uvloop.run(main)


# ------------------------------------------------------------------------------------ showing
TITLES = {
    "one_by_one": f"{HANDSHAKES} handshakes one by one, {DELAY} each",
    "delayed_default": f"our pool of {SIZE}, {DELAY} each, max_opening={DEFAULT_OPENING} (default)",
    "delayed_many": f"our pool of {SIZE}, {DELAY} each, max_opening={MANY_OPENING}",
    "ours": f"our pool of {SIZE}, no delay",
    "official": f"official pool of {SIZE}, no delay",
}


def show(figures):
    for name, title in TITLES.items():
        if name in figures:
            print(f"{title:58} {figures[name] * 1000:9.0f} ms")
    if "ratio" in figures:
        print(f"{'official over ours, no delay':58} {figures['ratio']:9.0f} times (goal: 50)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    parser.add_argument("--no-official", action="store_true", help="leave the official pool out: it takes ten seconds")
    parser.add_argument("--repeats", type=int, default=5, help="pools of ours for each row")
    parser.add_argument("--serve", metavar="DELAY", help=argparse.SUPPRESS)
    parser.add_argument("--build-official", metavar="PORT", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
    elif arguments.build_official is not None:
        build_official(arguments.build_official)
    else:
        figures = measure(arguments.repeats, not arguments.no_official)
        print(json.dumps(figures)) if arguments.json else show(figures)


if __name__ == "__main__":
    main()
