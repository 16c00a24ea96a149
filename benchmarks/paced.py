"""Streams at the pace of speech: speechpool beside bare picows and an epoll client in C.

600 and 2,000 streams run at once, task after task: four seconds of 16 kHz speech each, a frame of 3,200 bytes every 100
ms. The server (floor.c, on the second core) plans each frame and writes the planned time into it; the client is a
process of its own on the first core, new for each measurement.

  floor     floor_client.c: what the kernel takes for so many wake-ups, and hardly anything else
  picows    the WebSocket library by itself, its callback doing the protocol
  sink      pool.task(voice, sink=...): audio by plain calls, the whole library with its telemetry
  stream    async for chunk in pool.stream(text, voice), likewise
  sambert   the same with a voice of Sambert's, which takes its text in one piece; 600 only

What counts is the CPU time of the client's process, and how late a frame is handed over against its plan. The server's
own lateness is in that, and stands beside it. The clients are measured in turn, again and again; a ratio, or an excess
of lateness, is the median of those within one repeat, so that a moment in which the machine is slow meets all of them.
A goal that is missed is printed with a profile.

With --priority both processes come before all other programs (SCHED_RR, where this is root). Where others run beside,
this is what makes lateness mean anything, and the CPU of a frame is steadier; they are slower meanwhile.

Needs Linux, two cores, gcc and libssl-dev, and the extras [all,dev].
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from children import HERE, Child, Failure, compiled, interrupt, say, two_cores, versions
from clients import cpu_of, machine_cpu

INTERVAL_MS = 100
STREAMS = (600, 2000)
CLIENTS = ("floor", "picows", "sink", "stream", "sambert")
SAMBERT_STREAMS = 600
BRIEF_CORES = 4
"""Cores that the provider's guide gives to 600 Sambert tasks at once."""
CPU_GOALS = {"sink": 1.25, "stream": 1.6}
"""At most so many times bare picows."""
LATE_GOAL_MS = 2.0
"""Milliseconds that the p99 of the lateness may lie above that of bare picows."""
LEAST_FRAMES = 0.97
"""Part of the planned frames that must have come: with less, the client or the server did not keep up."""


class Bench:
    """The server, and one client at a time."""

    def __init__(self, cores, *, priority=False):
        self.client_core, self.server_core = cores
        self.priority = priority
        self.folder = tempfile.TemporaryDirectory(prefix="paced-")
        self.children = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            child.stop()
        self.folder.cleanup()

    def start(self):
        folder = Path(self.folder.name)
        self.floor_client = compiled("floor_client.c", folder)
        command = [str(compiled("floor.c", folder)), "server", "--interval", str(INTERVAL_MS)]
        self.server = Child("server", command)
        self.children.append(self.server)
        self.place(self.server, self.server_core)
        self.port = self.server.line(10).removeprefix("READY ")

    def place(self, child, core):
        child.pin({core})
        if self.priority:
            try:
                os.sched_setscheduler(child.pid, os.SCHED_RR, os.sched_param(1))
            except PermissionError:
                say("note: real-time priority is for root alone here; measured without it")
                self.priority = False

    def command(self, client):
        if client == "floor":
            return [str(self.floor_client)]
        return [sys.executable, str(HERE / "paced_clients.py"), client]

    def run(self, client, streams, warm, seconds, *more):
        """Start a client, and return what it has answered."""
        arguments = ["--port", self.port, "--server-pid", self.server.pid, "--streams", streams]
        arguments += ["--warm", warm, "--seconds", seconds, *more]
        child = Child(client, [*self.command(client), *map(str, arguments)])
        self.children.append(child)
        try:
            self.place(child, self.client_core)
            return child.answer(warm + seconds + 60)
        finally:
            child.stop()
            self.children.remove(child)

    def measure(self, client, streams, warm, seconds):
        before = self._spent()
        sample = self.run(client, streams, warm, seconds)
        self.server.answer(5)  # what was before the window
        server = self.server.answer(5)
        frames = sample["frames"] / (streams * sample["seconds"] * 1000 / INTERVAL_MS)
        if frames < LEAST_FRAMES:
            say(f"note: {client}, {streams} streams: only {frames:.0%} of the frames came in time")
        return {
            "cores": sample["cpu"] / sample["seconds"],
            "us_a_frame": 1e6 * sample["cpu"] / sample["frames"],
            "p50_ms": sample["p50_us"] / 1000,
            "p99_ms": sample["p99_us"] / 1000,
            "server_p99_ms": server["p99_us"] / 1000,
            "tasks": sample["tasks"],
            "frames": frames,
            "others_busy": max(0.0, self._others(before)),
        }

    def _spent(self):
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = time.process_time() + ended.ru_utime + ended.ru_stime + cpu_of(self.server.pid)
        return time.monotonic(), machine_cpu(), own

    def _others(self, before):
        at, machine, own = (now - then for now, then in zip(self._spent(), before, strict=True))
        return (machine - own) / at


def rows_of(clients, streams):
    return [
        (client, count)
        for count in streams
        for client in clients
        if client != "sambert" or count == SAMBERT_STREAMS
    ]  # fmt: skip


def run(bench, rows, repeats, warm, seconds):
    """Return the samples of each row, one a repeat. Every other repeat goes backwards, against drift."""
    samples = {row: [] for row in rows}
    for repeat in range(repeats):
        for client, streams in rows if repeat % 2 == 0 else reversed(rows):
            sample = bench.measure(client, streams, warm, seconds)
            samples[client, streams].append(sample)
            say(
                f"repeat {repeat + 1}/{repeats}  {client:8} {streams:5} streams  {sample['cores']:5.1%} of a core, "
                f"late p99 {sample['p99_ms']:.2f} ms (server {sample['server_p99_ms']:.2f})"
            )
    return samples


# ------------------------------------------------------------------------------------ results
def middle(values):
    """Return the median, the lowest and the highest."""
    values = list(values)
    return [round(value, 4) for value in (statistics.median(values), min(values), max(values))]


def judged(samples):
    """Return the goals by name: what was reached, and whether that is enough."""
    found = {}

    def add(name, values, goal):
        reached = middle(values)
        found[name] = {"reached": reached, "at_most": goal, "met": reached[0] <= goal}

    for (client, streams), values in samples.items():
        if client == "sambert":
            add(f"sambert_{streams}_cores", (sample["cores"] for sample in values), 1.0)
        beside = samples.get(("picows", streams))
        if client in CPU_GOALS and beside:
            pairs = list(zip(values, beside, strict=True))
            name = f"{client}_over_picows_{streams}"
            add(f"{name}_cpu", (a["us_a_frame"] / b["us_a_frame"] for a, b in pairs), CPU_GOALS[client])
            add(f"{name}_late_ms", (a["p99_ms"] - b["p99_ms"] for a, b in pairs), LATE_GOAL_MS)
    return found


def report(samples, repeats, cores):
    return {
        "goals": judged(samples),
        "rows": {
            f"{client}_{streams}": {"client": client, "streams": streams}
            | {name: middle(sample[name] for sample in values) for name in values[0]}
            for (client, streams), values in samples.items()
        },
        "repeats": repeats,
        "brief_cores": BRIEF_CORES,
        "cores": cores,
        "versions": versions(),
    }


def profiles_of_missed(bench, result, warm, seconds):
    """Return a profile of each client that has missed a goal of CPU, with the most streams of those."""
    missed = {}
    for name, goal in result["goals"].items():
        if not goal["met"] and name.endswith(("_cpu", "_cores")):
            client, *_ = name.split("_")
            streams = next(word for word in name.split("_") if word.isdecimal())
            missed[client] = max(missed.get(client, 0), int(streams))
    for client, streams in missed.items():
        say(f"a goal of {client} was missed; where its time goes with {streams} streams ...")
        found = bench.run(client, streams, warm, seconds, "--profile")
        bench.server.answer(5)
        bench.server.answer(5)
        yield f"{client}, {streams} streams", found["profile"]


def show(result):
    print(f"{'client':10}{'streams':>8}{'% of a core':>13}{'lowest - highest':>20}{'us a frame':>12}"
          f"{'late p50 / p99 ms':>20}{'server p99 ms':>15}{'others':>8}")  # fmt: skip
    for row in result["rows"].values():
        cores, low, high = (100 * value for value in row["cores"])
        late, others = f"{row['p50_ms'][0]:.2f} / {row['p99_ms'][0]:.2f}", row["others_busy"][0]
        print(f"{row['client']:10}{row['streams']:8}{cores:13.1f}{f'{low:.1f} - {high:.1f}':>20}"
              f"{row['us_a_frame'][0]:12.1f}{late:>20}{row['server_p99_ms'][0]:15.2f}{others:8.2f}")  # fmt: skip
    print(f"\n{'goal':36}{'median':>8}{'lowest - highest':>20}{'at most':>9}")
    for name, goal in result["goals"].items():
        reached, low, high = goal["reached"]
        verdict = "met" if goal["met"] else "missed"
        print(f"{name:36}{reached:8.2f}{f'{low:.2f} - {high:.2f}':>20}{goal['at_most']:9.2f}  {verdict}")
    sambert = result["rows"].get(f"sambert_{SAMBERT_STREAMS}")
    if sambert:
        print(f"\n{SAMBERT_STREAMS} Sambert tasks at once: {sambert['cores'][0]:.2f} cores, "
              f"the guide's {BRIEF_CORES} cores: {sambert['cores'][0] / BRIEF_CORES:.3f} of them")  # fmt: skip
    found = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    priority = ", before all other programs" if result["priority"] else ""
    print(f"\n{result['repeats']} repeats{priority}; {found}")
    for name, profile in result.get("profiles", {}).items():
        print(f"\nWhere the time goes, {name}:\n{profile}")


# ------------------------------------------------------------------------------------ the command
def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python benchmarks/paced.py                        some eleven minutes, a table\n"
        "  python benchmarks/paced.py --quick --json         within 50 s, 600 streams, for programs\n"
        "  python benchmarks/paced.py --clients picows,sink --streams 2000\n\n"
        "exit status: 0 measured (a missed goal is no error), 1 not measured, 2 wrong usage, 130 interrupted",
    )
    parser.add_argument("--quick", action="store_true", help="600 streams, one repeat, shorter windows")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    parser.add_argument("--priority", action="store_true", help="come before all other programs, if root")
    parser.add_argument("--repeats", type=int, help="how often everything is measured (5, or 1 with --quick)")
    parser.add_argument("--clients", default=",".join(CLIENTS), help=f"which, of {','.join(CLIENTS)} (all)")
    parser.add_argument("--streams", help="how many at once, with commas (600,2000; 600 with --quick)")
    asked = parser.parse_args()
    asked.clients = [name.strip() for name in asked.clients.split(",")]
    unknown = [name for name in asked.clients if name not in CLIENTS]
    if unknown:
        parser.error(f"--clients: unknown {', '.join(unknown)}; known are {', '.join(CLIENTS)}")
    try:
        asked.streams = [int(count) for count in asked.streams.split(",")] if asked.streams else None
    except ValueError:
        parser.error(f"--streams {asked.streams}: numbers with commas between them, such as 600,2000")
    asked.streams = asked.streams or (STREAMS[:1] if asked.quick else STREAMS)
    asked.repeats = asked.repeats if asked.repeats is not None else 1 if asked.quick else 5
    if asked.repeats < 1 or min(asked.streams) < 1:
        parser.error("--repeats and --streams: at least 1")
    return asked


def benchmark(asked):
    warm, seconds = (5.0, 2.0) if asked.quick else (7.0, 4.0)
    with Bench(two_cores(), priority=asked.priority) as bench:
        bench.start()
        samples = run(bench, rows_of(asked.clients, asked.streams), asked.repeats, warm, seconds)
        result = report(samples, asked.repeats, os.cpu_count()) | {"priority": bench.priority}
        result["profiles"] = dict(profiles_of_missed(bench, result, warm, seconds))
    if asked.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


def main():
    asked = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        return benchmark(asked)
    except KeyboardInterrupt:
        say("interrupted; the client and the server are stopped")
        return 130
    except Failure as failure:
        say(f"paced: {failure}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
