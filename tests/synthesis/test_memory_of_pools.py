"""A pool of 1,000 connections opens, takes little memory and leaves nothing: what `benchmarks/memory.py` measures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_connection_takes_30_kb_and_leaves_no_descriptor():
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--no-tls", "--json"],
        stdout=subprocess.PIPE,
        timeout=100,
        check=True,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
    )
    cases = json.loads(done.stdout)["cases"]
    assert set(cases) == {"ws_asyncio", "ws_uvloop"}
    for case, figures in cases.items():
        assert 0 < figures["kib"] <= 30, case
        assert figures["descriptors_left"] == 0, case
