"""A pool of 100 is ready soon: what `benchmarks/warm_up.py` measures is compared within one run, never with a clock."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "warm_up.py"


def figures(*arguments):
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--json", *arguments],
        stdout=subprocess.PIPE,
        timeout=100,
        check=True,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
    )
    return json.loads(done.stdout)


def test_100_connections_open_sooner_than_ten_one_by_one():
    found = figures("--no-official", "--repeats", "1")
    assert found["delayed_many"] < found["one_by_one"]
    assert found["ours"] < found["delayed_many"]


@pytest.mark.slow
def test_100_connections_open_fifty_times_sooner_than_the_official_pool_of_100():
    assert figures()["ratio"] >= 50
