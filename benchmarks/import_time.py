"""What it costs to import the library, beside its three packages alone and the official SDK.

Each import is a Python of its own, again and again, all in turn; what counts is the CPU time of that process, less
that of one that imports nothing. Byte code is compiled before, files are in the cache of the system. A ratio is the
median of those within one repeat.

  speechpool    import speechpool, which loads nothing before it is used
  pool          from speechpool import AsyncSpeechPool, Endpoint, Voice: with the event loop and the WebSocket library
  packages      import asyncio, uvloop, picows, msgspec: what of it is not ours
  dashscope     import dashscope and its tts_v2: the official SDK

Needs the extra [dev].
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

from children import versions

STATEMENTS = {
    "nothing": "pass",
    "speechpool": "import speechpool",
    "pool": "from speechpool import AsyncSpeechPool, Endpoint, Voice",
    "packages": "import asyncio, uvloop, picows, msgspec",
    "dashscope": "import dashscope; from dashscope.audio.tts_v2 import SpeechSynthesizer",
}
GOAL = 1 / 3
"""At most so much of the official SDK's."""


def cpu_ms(statement):
    child = subprocess.Popen([sys.executable, "-c", statement])
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"import_time: `{statement}` failed; its own message stands above")
    return 1000 * (used.ru_utime + used.ru_stime)


def measure(repeats):
    """Return the milliseconds of each import, less those of nothing, by name."""
    samples = {name: [] for name in STATEMENTS}
    for statement in STATEMENTS.values():
        cpu_ms(statement)  # compile
    for repeat in range(repeats):
        found = {name: cpu_ms(STATEMENTS[name]) for name in (STATEMENTS if repeat % 2 == 0 else reversed(STATEMENTS))}
        for name, value in found.items():
            samples[name].append(value if name == "nothing" else value - found["nothing"])
    return samples


def middle(values):
    """Return the median, the lowest and the highest."""
    values = list(values)
    return [round(value, 4) for value in (statistics.median(values), min(values), max(values))]


def report(samples, repeats):
    ratio = middle(ours / theirs for ours, theirs in zip(samples["pool"], samples["dashscope"], strict=True))
    return {
        "ms": {name: middle(values) for name, values in samples.items()},
        "pool_over_dashscope": ratio,
        "goal": GOAL,
        "met": ratio[0] <= GOAL,
        "repeats": repeats,
        "versions": versions(),
    }


def show(result):
    for name, (median, low, high) in result["ms"].items():
        print(f"{name:12}{median:8.0f} ms of CPU  ({low:.0f} - {high:.0f})   {STATEMENTS[name]}")
    median, low, high = result["pool_over_dashscope"]
    verdict = "met" if result["met"] else "missed"
    print(f"\npool over dashscope  {median:.2f} ({low:.2f} - {high:.2f})  goal <= {GOAL:.2f}  {verdict}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 repeats")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    parser.add_argument("--repeats", type=int, help="how often each is imported (9, or 2 with --quick)")
    asked = parser.parse_args()
    repeats = asked.repeats if asked.repeats is not None else 2 if asked.quick else 9
    if repeats < 1:
        parser.error(f"--repeats {repeats}: at least 1")
    try:
        result = report(measure(repeats), repeats)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(json.dumps(result, indent=2)) if asked.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
