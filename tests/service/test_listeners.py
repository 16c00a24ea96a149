"""Real listeners of the real voice over real sockets. Figures: benchmarks/listeners.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "listeners.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(800)]  # three tries, where other programs take the cores


@pytest.fixture(scope="module")
def rows():
    command = [sys.executable, str(BENCHMARK), "--json", "--formats", "pcm", "--loads", "0.7,1.3,2.5"]
    command += ["--seconds", "12", "--engine-seconds", "3"]
    for _ in range(3):
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240)
        result = json.loads(done.stdout)
        if not result["void"]:
            return {row["load"]: row for row in result["rows"]}
    pytest.skip("other programs take the cores, so that 70 % of the engine's rate means nothing")


def test_at_70_percent_nobody_runs_out_of_audio(rows):
    row = rows[0.7]
    assert row["listeners"] > 10
    assert row["failed"] == []
    assert row["underruns"] == 0
    assert row["throttled"] < 0.15  # none, on a machine that does nothing else
    assert row["first_audio_p50"] < 0.5


@pytest.mark.parametrize("load", [1.3, 2.5])
def test_beyond_the_engines_rate_those_that_are_taken_hear_all(rows, load):
    row = rows[load]
    assert row["failed"] == []
    assert row["throttled"] < 0.9
    assert row["underruns"] <= 0.05 * row["listeners"]
    assert row["first_audio_p95"] < 1.5


def test_far_beyond_the_engines_rate_many_are_throttled_at_once(rows):
    # At 130 % a dozen seconds may pass before the listeners' stock of audio is used up: the simulation shows that load.
    row = rows[2.5]
    assert row["throttled"] > 0.2
    assert row["throttled_after_p50"] < 0.1
