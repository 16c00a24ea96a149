"""Run the benchmarks, and write docs/benchmarks.md, its chart and the figures behind it.

    make bench                                             # all, within 25 minutes
    .venv/bin/python benchmarks/run.py --only paced        # one of them, the others stay on the page as they were
    .venv/bin/python benchmarks/run.py --quick             # short, four minutes; writes nothing without --output
    .venv/bin/python benchmarks/run.py --render            # measure nothing, write the page from docs/benchmarks.json

Each benchmark is a command of its own, which the page names; they run one after another, because all want both cores.
How much other programs took from the machine meanwhile is measured and stands beside every part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from children import HERE, Failure, interrupt, say
from clients import machine_cpu
from page import chart, page, rows_of

DOCS = HERE.parent / "docs"
LIMIT = 900
"""Seconds that one benchmark may take."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One benchmark.

    Attributes:
        name: That of its rows, and of its file where `script` does not name another.
        title: Its heading; `about` stands below it.
        seconds: What it takes, and with `--quick`: for the progress bar.
        arguments: Of its command.
        quick: Of its command where it shall be short.
    """

    name: str
    script: str = ""
    title: str
    about: str
    seconds: tuple[float, float]
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--quick",)

    @property
    def file(self):
        return f"{self.script or self.name}.py"

    @property
    def command(self):
        return " ".join((".venv/bin/python", f"benchmarks/{self.file}", *self.arguments))


PARTS = (
    Part(
        name="task_cost",
        title="CPU of a task",
        about="100 callers run task after task, 40 frames each, as fast as they can: the library beside bare picows "
        "and the official SDK's object pool. `uncounted` is `stream` with its telemetry cut out.",
        seconds=(150, 50),
    ),
    Part(
        name="task_cost_wss",
        script="task_cost",
        title="CPU of a task over TLS",
        about="The same over wss. What encryption and its system calls take is the same for all, so that ratios are "
        "nearer to 1; the goals are those of ws.",
        seconds=(170, 55),
        arguments=("--tls", "--repeats", "5"),
        quick=("--tls", "--quick"),
    ),
    Part(
        name="paced",
        title="Streams at the pace of speech",
        about="600 and 2,000 streams at once, a frame of 100 ms each 100 ms, the client on one core and the server on "
        "the other. Every frame is a wake-up here, so that what the library does for each weighs most. Lateness is "
        "that of a frame against its plan, and has the server's own in it. `floor` is an epoll loop in C. Python's "
        "garbage is collected a second before the window: a full collection, which growing to 2,000 streams calls for, "
        "stops a client for some 130 ms, and is not in these figures.",
        seconds=(640, 60),
        arguments=("--priority",),
    ),
    Part(
        name="service_throughput",
        title="The local service beside its engine",
        about="Speech that the service delivers as mp3 to 16 callers, over what its engine makes and encodes by itself "
        "on the same cores, for each second of a core that other programs left.",
        seconds=(65, 15),
    ),
    Part(
        name="first_packet",
        title="First audio over a round trip of 50 ms",
        about="From the call to the first audio, less the round trips that the protocol needs; what is left is the "
        "proxy's, which all have, and the client's. A warm pool saves the handshake of every call.",
        seconds=(60, 20),
    ),
    Part(
        name="import_time",
        title="Import",
        about="CPU of a Python that imports it, less that of one that imports nothing. `packages` are asyncio, uvloop, "
        "picows and msgspec alone.",
        seconds=(25, 6),
    ),
    Part(
        name="pool_cycle",
        title="Borrow and return",
        about="Cycles on connections that do nothing, 32 tasks (contended) or 16 (uncontended) on 16 connections. "
        "LiveKit's pool lets nobody wait, so it is in the second only; aio-websocket-pool opens real sockets, "
        "so it is in neither.",
        seconds=(30, 6),
        quick=("--repeats", "1", "--cycles", "2000"),
    ),
    Part(
        name="warm_up",
        title="Until a pool of 100 is ready",
        about="From the making of the pool until all its connections are open.",
        seconds=(35, 8),
        quick=("--no-official", "--repeats", "1"),
    ),
    Part(
        name="memory",
        title="Memory of an idle connection",
        about="Growth of the resident memory of a client with a pool of 1,000.",
        seconds=(20, 10),
        quick=("--no-tls",),
    ),
    Part(
        name="dropin",
        title="The drop-in classes",
        about="A program of the official SDK with 100 threads, with its classes and with ours.",
        seconds=(110, 50),
    ),
    Part(
        name="listeners",
        title="Listeners of the local service",
        about="Listeners come as Poisson at 70 % and at 130 % of what the engine makes, and play what they hear. It "
        "needs a machine of its own: a row during which other programs took more than 0.3 cores is void.",
        seconds=(180, 20),
        quick=("--formats", "pcm", "--loads", "0.7", "--seconds", "5", "--engine-seconds", "2"),
    ),
)


# ------------------------------------------------------------------------------------ one benchmark
def run_part(part, quick, tell):
    """Return what it has printed, or an error, with how long it took and what others took meanwhile."""
    begun, machine, own = time.monotonic(), machine_cpu(), cpu_of_children()
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    command = [sys.executable, str(HERE / part.file), "--json", *(part.quick if quick else part.arguments)]
    environment = os.environ | {"NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    told = []
    reader = threading.Thread(target=listen, args=(process.stderr, told, tell), daemon=True)
    reader.start()
    try:
        output = read_within(process, LIMIT)
    except BaseException:
        stop(process)
        raise
    reader.join(5)
    seconds = time.monotonic() - begun
    others = max(0.0, (machine_cpu() - machine - (cpu_of_children() - own)) / seconds)
    found = {"at": at, "seconds": round(seconds, 1), "others": round(others, 2), "quick": quick}
    try:
        return found | {"result": json.loads(output)}
    except json.JSONDecodeError:
        why = told[-1] if told else f"it ended with exit code {process.returncode} and printed nothing"
        return found | {"error": why}


def listen(stream, told, tell):
    for line in stream:
        if line.strip():
            told.append(line.strip())
            tell(line.strip())


def read_within(process, limit):
    timer = threading.Timer(limit, process.kill)
    timer.start()
    try:
        output = process.stdout.read()
        process.wait()
        return output
    finally:
        timer.cancel()


def stop(process):
    """End it as Ctrl-C does, so that it stops its own processes; if it does not listen, at once."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def cpu_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ------------------------------------------------------------------------------------ all of them
def machine():
    """Describe this machine in a few words."""
    model, memory = platform.machine(), ""
    with contextlib.suppress(OSError):
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return f"{os.cpu_count()} cores ({model}){memory}, {platform.system()}, Python {platform.python_version()}"


def measure(parts, quick, console, keep):
    """Return the parts' results by name, show how far they are, and keep what there is after each."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    found = {}
    columns = (
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[line]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        total = sum(part.seconds[quick] for part in parts)
        bar = progress.add_task("", total=total, line="")
        before = 0.0
        for part in parts:
            progress.update(bar, description=part.name, completed=before, line="")
            ticking = threading.Event()
            mover = threading.Thread(target=move, args=(progress, bar, before, part.seconds[quick], ticking))
            mover.start()
            try:
                found[part.name] = run_part(part, quick, lambda line: progress.update(bar, line=line[:100]))
            finally:
                ticking.set()
                mover.join()
            before += part.seconds[quick]
            keep(found)
            for line in lines_of(part, found[part.name]):
                console.print(line, markup=False, highlight=False)
    return found


def move(progress, bar, before, expected, ended):
    """Advance the bar by the clock, up to what the part was expected to take."""
    begun = time.monotonic()
    while not ended.wait(0.5):
        progress.update(bar, completed=before + min(expected, time.monotonic() - begun))


def lines_of(part, found):
    """Tell a part as lines of a table."""
    yield f"\n{part.title}  ({part.command}; {found['seconds']:.0f} s, others took {found['others']:.2f} cores)"
    if "error" in found:
        yield f"  not measured: {found['error']}"
    for row in rows_of(part, found):
        verdict = "void" if row.void else {True: "met", False: "MISSED", None: ""}[row.met]
        yield f"  {row.what:66}{row.text(row.median):>12}  {row.spread:>20}  {row.wanted:>18}  {verdict}".rstrip()


def write(results, folder):
    """Write the figures, the page and the chart."""
    (folder / "benchmarks.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "benchmarks.md").write_text(page(results, PARTS), encoding="utf-8")
    (folder / "benchmarks.svg").write_text(chart(results, PARTS), encoding="utf-8")


def kept(folder):
    """Return the results that were written before."""
    try:
        return json.loads((folder / "benchmarks.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"parts": {}}


# ------------------------------------------------------------------------------------ the command
def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"benchmarks: {', '.join(part.name for part in PARTS)}\n\n"
        "exit status: 0 measured (a missed goal is no error), 1 something was not measured, 2 wrong usage, "
        "130 interrupted",
    )
    parser.add_argument("--only", metavar="NAMES", help="which benchmarks, with commas (all)")
    parser.add_argument("--quick", action="store_true", help="short windows and few repeats: does all of it work?")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the page is written (docs; not with --quick)"
    )
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page of what was measured")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object on standard output")
    asked = parser.parse_args()
    known = {part.name: part for part in PARTS}
    names = asked.only.split(",") if asked.only else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"--only: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    asked.parts = [known[name] for name in names]
    if asked.output is None and not asked.quick:
        asked.output = DOCS
    if asked.output is not None and not asked.output.is_dir():
        parser.error(f"--output {asked.output}: no such folder")
    if asked.render and asked.output is None:
        parser.error("--render writes a page: with --quick it needs --output")
    return asked


def benchmark(asked):
    from rich.console import Console

    results = kept(asked.output) if asked.output is not None else {"parts": {}}
    if asked.render:
        if not results["parts"]:
            raise Failure(f"{asked.output / 'benchmarks.json'} is not there; measure first")
        write(results, asked.output)
        return 0

    def keep(found):
        results["machine"] = machine()
        results["parts"] |= found
        if asked.output is not None:
            write(results, asked.output)

    found = measure(asked.parts, asked.quick, Console(stderr=asked.json, soft_wrap=True), keep)
    if asked.output is not None:
        say(f"\nwritten: {asked.output / 'benchmarks.md'}")
    if asked.json:
        print(json.dumps(results))
    return 1 if any("error" in part for part in found.values()) else 0


def main():
    asked = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        return benchmark(asked)
    except KeyboardInterrupt:
        say("interrupted; the benchmark that ran is stopped; those before it are kept")
        return 130
    except Failure as failure:
        say(f"run: {failure}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
