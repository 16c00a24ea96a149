"""Load with churn, cancels, faults and restarts: `benchmarks/soak.py`, an hour in little."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from soak import Found, Sample, Soak, verdict  # noqa: E402  # it is a program, not a package
from soak_callers import PHASES  # noqa: E402

GOOD = Sample(
    seconds=60.0, memory=50 * 2**20, descriptors=28, threads=3, asyncio_tasks=33, objects=43_000, tasks=100, restarts=1, reuse=1.0
)  # fmt: skip


def found(**changes):
    """Ten rests of a good run, but for the changes."""
    whole = Found(
        samples=[GOOD] * 10, started=100, counted={"completed": 80, "failed": 20}, outcomes={"completed": 80, "failed": 20},
        reused=97, borrowed=100, broken_off_share=0.2, faults=5, restarts=1,
    )  # fmt: skip
    return replace(whole, **changes)


def bad(whole):
    return [what for what, holds, _ in verdict(whole) if not holds]


def test_a_good_run_passes():
    assert bad(found()) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"samples": [GOOD] * 5 + [replace(GOOD, memory=58 * 2**20)] * 5}, "memory is flat"),
        ({"samples": [GOOD] * 9 + [replace(GOOD, descriptors=29)]}, "descriptors stay"),
        ({"samples": [GOOD] * 9 + [replace(GOOD, threads=4)]}, "threads stay"),
        ({"samples": [GOOD] * 9 + [replace(GOOD, asyncio_tasks=34)]}, "asyncio tasks stay"),
        ({"started": 101}, "outcomes add up"),
        ({"counted": {"completed": 81, "failed": 19}}, "outcomes add up"),
        ({"problems": ["task 1: the record at 0 belongs to another task."]}, "nothing is mixed up"),
        ({"reused": 94}, "connections are used again"),
        ({"broken_off_share": 0.1}, "connections are used again"),
        ({"faults": 0}, "something went wrong"),
        ({"restarts": 0}, "something went wrong"),
    ],
)
def test_each_promise_can_be_broken(changes, what):
    assert bad(found(**changes)) == [what]


def test_a_few_seconds_of_chaos_mix_nothing_up():
    soak = Soak(3.0, round_seconds=1.0, seed=7)
    seen = asyncio.run(soak.run())
    assert seen.problems == []
    assert seen.started == sum(seen.outcomes.values()) > 0
    assert seen.counted == seen.outcomes
    assert seen.restarts > 0
    assert len({one.descriptors for one in seen.samples}) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_minute_of_it(tmp_path):
    file = tmp_path / "soak.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "soak.py"), "--seconds", "60", "--json", str(file)],
        capture_output=True, text=True, timeout=240, check=False, env=os.environ | {"NO_PROXY": "127.0.0.1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(file.read_text())
    assert len(seen["broken_off"]) == 2 * len(PHASES)  # in every phase, in both ways
    sys.stdout.write(done.stdout)
