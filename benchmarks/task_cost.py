"""CPU per task: speechpool beside bare picows and the official SDK's object pool.

A task is one sentence in and 40 frames of 3,200 bytes out (four seconds of 16 kHz speech). 100 callers run task after
task over 100 warm connections against an epoll server in C (floor.c), which answers as fast as it can and is never the
limit: its busy share stands beside each row, and a row above 0.9 is void.

  picows      the WebSocket library by itself, its callback doing the protocol: what a task costs without any pool
  sink        pool.task(voice, sink=...): audio by plain calls
  stream      async for chunk in pool.stream(text, voice)
  official    dashscope's SpeechSynthesizerObjectPool of 100 with 100 caller threads, by callback
              (streaming_call + streaming_complete)
  ... 1 core  the client pinned to one core, the server to the other

The clients are measured in turn, again and again, so that a moment in which the machine is slow meets all of them. A
ratio is the median of the ratios within one repeat. CPU-microseconds differ between machines and moments by 30 %; the
ratios are what to look at. Needs Linux, two cores, gcc and libssl-dev, and the extras [all,dev].
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from children import HERE, Child, Failure, compiled, interrupt, say, two_cores, versions
from memory import certify

VOID_ABOVE = 0.9
QUICK_LIMIT = 46.0
"""Seconds after which --quick begins no further repeat that could pass 50."""

# name: (client, pinned to one core)
ROWS = {
    "picows": ("picows", False),
    "sink": ("sink", False),
    "stream": ("stream", False),
    "uncounted": ("uncounted", False),
    "official": ("official", False),
    "stream_one_core": ("stream", True),
    "official_one_core": ("official", True),
}
# name: (dividend, divisor, goal, whether the ratio must stay below it)
RATIOS = {
    "sink_over_picows": ("sink", "picows", 1.25, True),
    "stream_over_picows": ("stream", "picows", 1.6, True),
    "stream_over_uncounted": ("stream", "uncounted", 1.1, True),
    "official_over_stream": ("official", "stream", 12.0, False),
    "official_over_stream_one_core": ("official_one_core", "stream_one_core", 5.0, False),
}


# ------------------------------------------------------------------------------------ measuring
class Bench:
    """The server and the clients, from their start to their end."""

    def __init__(self, clients, cores, *, tls=False):
        self.clients, self.cores, self.tls = clients, cores, tls
        self.children = {}
        self.folder = tempfile.TemporaryDirectory(prefix="task_cost-")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in reversed(self.children.values()):  # the server last, or its clients complain
            child.stop()
        self.folder.cleanup()

    def start(self):
        folder = Path(self.folder.name)
        secure, authority = [], []
        if self.tls:
            certify(folder)
            secure, authority = ["--certificate", folder / "server.pem"], ["--authority", folder / "authority.pem"]
        command = [compiled("floor.c", folder), "server", "--port", "0", *secure]
        server = self.children["server"] = Child("server", list(map(str, command)), BATCH="1")
        word, _, port = server.line(10).partition(" ")
        if word != "READY":
            raise Failure(f"the server said {word!r} instead of READY")
        for name in self.clients:
            command = [sys.executable, str(HERE / "clients.py"), name, "--port", port, "--server-pid", str(server.pid)]
            self.children[name] = Child(name, [*command, *map(str, authority)])
        for name in self.clients:
            self.children[name].answer(60)

    def measure(self, client, one_core, warm, seconds):
        first, second = self.cores
        self.children[client].pin({first} if one_core else set(self.cores))
        self.children["server"].pin({second} if one_core else set(self.cores))
        return self.children[client].ask(f"{warm} {seconds}", warm + seconds + 60)


def run(bench, rows, repeats, limit, windows):
    """Return the samples of each row, one a repeat. Every other repeat goes backwards, against drift."""
    begun = time.monotonic()
    samples = {row: [] for row in rows}
    longest = 0.0
    for repeat in range(repeats):
        at = time.monotonic()
        if limit is not None and repeat and at - begun + longest > limit:
            say(f"stopped after {repeat} of {repeats} repeats to end in time")
            break
        for row in rows if repeat % 2 == 0 else reversed(rows):
            client, one_core = ROWS[row]
            sample = bench.measure(client, one_core, *windows["official" if client == "official" else "asyncio"])
            samples[row].append(sample)
            say(
                f"repeat {repeat + 1}/{repeats}  {row:18} {sample['cpu_us']:7.0f} us a task, "
                f"server busy {sample['server_busy']:.2f}"
            )
        longest = max(longest, time.monotonic() - at)
    return samples


# ------------------------------------------------------------------------------------ results
def spread(values):
    return [round(min(values), 3), round(max(values), 3)]


def summary(row, samples):
    client, one_core = ROWS[row]
    cpu = [sample["cpu_us"] for sample in samples]
    busy = statistics.median(sample["server_busy"] for sample in samples)
    return {
        "client": client,
        "one_core": one_core,
        "cpu_us": round(statistics.median(cpu), 1),
        "cpu_us_spread": spread(cpu),
        "tasks": sum(sample["tasks"] for sample in samples),
        "tasks_per_second": round(statistics.median(s["tasks"] / s["seconds"] for s in samples)),
        "client_busy": round(statistics.median(sample["client_busy"] for sample in samples), 3),
        "server_busy": round(busy, 3),
        "server_busy_highest": round(max(sample["server_busy"] for sample in samples), 3),
        "others_busy": round(statistics.median(sample["others_busy"] for sample in samples), 3),
        "void": busy > VOID_ABOVE,
    }


def ratio_of(samples, rows, name):
    """Return the median of the same-repeat ratios and their spread, or None where a row is missing or void."""
    dividend, divisor, _, _ = RATIOS[name]
    if any(row not in rows or rows[row]["void"] for row in (dividend, divisor)):
        return None, None
    ratios = [a["cpu_us"] / b["cpu_us"] for a, b in zip(samples[dividend], samples[divisor], strict=True)]
    return round(statistics.median(ratios), 3), spread(ratios)


def met(name, ratio):
    _, _, goal, below = RATIOS[name]
    return ratio <= goal if below else ratio >= goal


def report(samples, repeats, cores):
    rows = {row: summary(row, values) for row, values in samples.items()}
    ratios = {name: ratio_of(samples, rows, name) for name in RATIOS}
    return {
        "ratios": {name: ratio for name, (ratio, _) in ratios.items()},
        "ratios_spread": {name: width for name, (_, width) in ratios.items()},
        "goals": {name: {"at_most" if below else "at_least": goal} for name, (_, _, goal, below) in RATIOS.items()},
        "met": {name: None if ratio is None else met(name, ratio) for name, (ratio, _) in ratios.items()},
        "rows": rows,
        "repeats": repeats,
        "task": {"frames": 40, "frame_bytes": 3200, "connections": 100, "server": "floor.c with BATCH=1"},
        "cores": cores,
        "versions": versions(),
    }


def warn(result, wanted):
    for row, values in result["rows"].items():
        if values["void"]:
            say(f"VOID: {row}: the server was busy {values['server_busy']:.2f} of its core, above {VOID_ABOVE}: "
                "it may have been the limit, so ratios with this row are null")  # fmt: skip
        elif values["others_busy"] > 0.25:
            say(f"note: {row}: other processes used {values['others_busy']:.2f} of a core meanwhile")
    missing = [row for row in ROWS if row not in wanted]
    if missing:
        say(f"not measured: {', '.join(missing)}")


def show(result):
    print(f"{'client':20}{'CPU us a task':>14}{'lowest - highest':>20}{'tasks/s':>10}{'server busy':>13}")
    for values in result["rows"].values():
        name = values["client"] + (", 1 core" if values["one_core"] else "")
        low, high = values["cpu_us_spread"]
        note = "  VOID" if values["void"] else ""
        print(f"{name:20}{values['cpu_us']:14.0f}{f'{low:.0f} - {high:.0f}':>20}{values['tasks_per_second']:10}"
              f"{values['server_busy']:13.2f}{note}")  # fmt: skip
    print(f"\n{'ratio':32}{'median':>8}{'lowest - highest':>20}{'goal':>12}")
    for name, ratio in result["ratios"].items():
        _, _, goal, below = RATIOS[name]
        wanted = f"{'<=' if below else '>='} {goal:g}"
        if ratio is None:
            print(f"{name:32}{'-':>8}{'':>20}{wanted:>12}  not measured")
            continue
        low, high = result["ratios_spread"][name]
        verdict = "met" if result["met"][name] else "missed"
        print(f"{name:32}{ratio:8.2f}{f'{low:.2f} - {high:.2f}':>20}{wanted:>12}  {verdict}")
    found = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    print(f"\n{result['repeats']} repeats; {found}")


# ------------------------------------------------------------------------------------ the command
def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python benchmarks/task_cost.py                    some two minutes, a table\n"
        "  python benchmarks/task_cost.py --quick --json     within 50 s, for programs\n"
        "  python benchmarks/task_cost.py --clients picows,stream    while working on one of them\n\n"
        "exit status: 0 measured (a missed goal is no error), 1 not measured or void, 2 wrong usage, 130 interrupted",
    )
    parser.add_argument("--quick", action="store_true", help="shorter windows, 3 repeats, within 50 s")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    parser.add_argument("--tls", action="store_true", help="over wss, for information: the goals are those of ws")
    parser.add_argument("--repeats", type=int, help="how often everything is measured (7, or 3 with --quick)")
    names = dict.fromkeys(client for client, _ in ROWS.values())
    parser.add_argument("--clients", default=",".join(names), help=f"which, of {','.join(names)} (all)")
    arguments = parser.parse_args()
    arguments.clients = [name.strip() for name in arguments.clients.split(",") if name.strip()]
    unknown = [name for name in arguments.clients if name not in names]
    if unknown or not arguments.clients:
        parser.error(f"--clients: unknown {', '.join(unknown) or 'nothing'}; known are {', '.join(names)}")
    if arguments.repeats is None:
        arguments.repeats = 3 if arguments.quick else 7
    if arguments.repeats < 1:
        parser.error(f"--repeats {arguments.repeats}: at least 1")
    return arguments


def benchmark(arguments):
    begun = time.monotonic()
    cores = two_cores()
    rows = [row for row, (client, _) in ROWS.items() if client in arguments.clients]
    # (warm-up, window) in seconds. The official pool runs some 200 tasks a second, the others thousands.
    windows = (
        {"asyncio": (0.2, 0.7), "official": (0.4, 1.5)}
        if arguments.quick
        else {"asyncio": (0.4, 1.5), "official": (1.0, 3.0)}
    )
    with Bench(list(dict.fromkeys(arguments.clients)), cores, tls=arguments.tls) as bench:
        slow = " (the official pool needs ten seconds for 100)" if "official" in arguments.clients else ""
        say(f"opening the connections of {', '.join(arguments.clients)}{slow}")
        bench.start()
        limit = QUICK_LIMIT - (time.monotonic() - begun) if arguments.quick else None
        samples = run(bench, rows, arguments.repeats, limit, windows)
    result = report(samples, len(samples[rows[0]]), cores) | {"tls": arguments.tls}
    warn(result, rows)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 1 if any(values["void"] for values in result["rows"].values()) else 0


def main():
    arguments = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        return benchmark(arguments)
    except KeyboardInterrupt:
        say("interrupted; the clients and the server are stopped")
        return 130
    except Failure as failure:
        say(f"task_cost: {failure}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
