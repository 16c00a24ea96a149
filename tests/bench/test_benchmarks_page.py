"""docs/benchmarks.md is made by the run, from figures that are kept beside it, and tells how to get each again."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS, BENCHMARKS = ROOT / "docs", ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from page import chart, page, used_up  # noqa: E402  # it is a program, not a package
from rows import ROWS, Row  # noqa: E402


def run(*arguments, timeout=60):
    command = [sys.executable, str(BENCHMARKS / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


class Part:
    name, title, about, command = "import_time", "Import", "What it costs.", "python benchmarks/import_time.py"


def results(result, **more):
    found = {"at": "2026-01-01 00:00 UTC", "seconds": 1.0, "others": 0.25, "quick": False, "result": result}
    return {"machine": "2 cores", "parts": {"import_time": found | more}}


IMPORTS = {"ms": {"nothing": [9, 9, 9], "pool": [100, 90, 120]}, "pool_over_dashscope": [0.25, 0.2, 0.3], "goal": 1 / 3}


def test_the_page_and_the_chart_are_those_of_the_figures(tmp_path):
    shutil.copy(DOCS / "benchmarks.json", tmp_path)
    done = run("--render", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("benchmarks.md", "benchmarks.svg"):
        assert (tmp_path / name).read_text() == (DOCS / name).read_text(), f"{name}: run benchmarks/run.py --render"


def test_every_command_of_the_page_exists_and_explains_itself():
    commands = re.findall(r"^    \.venv/bin/python (\S+)(.*)$", (DOCS / "benchmarks.md").read_text(), re.MULTILINE)
    assert len(commands) == len(json.loads((DOCS / "benchmarks.json").read_text())["parts"]) > 0
    for script, arguments in commands:
        known = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True)
        assert "--json" in known.stdout, script
        for flag in re.findall(r"--\S+", arguments):
            assert flag in known.stdout, (script, flag)


def test_every_benchmark_of_the_run_has_rows():
    listed = re.search(r"^benchmarks: (.*)$", run("--help").stdout, re.MULTILINE)[1].split(", ")
    assert set(listed) == set(ROWS)
    assert all((BENCHMARKS / f"{name.removesuffix('_wss')}.py").is_file() for name in listed)


def test_the_page_holds_every_row_with_its_spread_its_goal_and_the_verdict():
    text = page(results(IMPORTS), [Part])
    assert "| import of pool, CPU | 100 ms | 90 - 120 |  |  |" in text
    assert "| pool over dashscope | 0.25 | 0.20 - 0.30 | at most 0.33 | met |" in text
    assert "1 goals: 1 met, 0 missed." in text
    assert "    python benchmarks/import_time.py\n" in text
    assert "other programs took 0.25 cores" in text


def test_a_missed_goal_is_said_and_its_profile_stands_on_the_page():
    missed = IMPORTS | {"pool_over_dashscope": [0.4, 0.3, 0.5], "profiles": {"pool": "ncalls\n   99 slow_thing"}}
    text = page(results(missed), [Part])
    assert "1 goals: 0 met, 1 missed." in text
    assert text.count("**missed**") == 2  # among the goals, and where it belongs
    assert "   99 slow_thing" in text


def test_what_was_not_measured_is_said():
    failed = results(IMPORTS)
    del failed["parts"]["import_time"]["result"]
    failed["parts"]["import_time"]["error"] = "import_time: gcc is missing"
    assert "Not measured: import_time: gcc is missing" in page(failed, [Part])
    assert "Not measured here: import_time." in page({"machine": "", "parts": {}}, [Part])


def test_a_void_row_meets_no_goal():
    row = {"audio_format": "pcm", "load": 0.7, "underruns": 0, "throttled": 0, "first_audio_p95": 0.2, "others": 1.5}
    dry, *_ = ROWS["listeners"]({"rows": [row]})
    assert (dry.met, dry.void) == (None, "other programs took 1.5 cores")
    dry, *_ = ROWS["listeners"]({"rows": [row | {"others": 0.1}]})
    assert dry.met is True


@pytest.mark.parametrize(
    ("below", "median", "met", "used"), [(True, 1.0, True, 0.5), (True, 3.0, False, 1.5), (False, 1.0, False, 2.0)]
)
def test_the_chart_shows_how_much_of_a_goal_is_used_up(below, median, met, used):
    row = Row(what="x", reached=(median, None, None), goal=2.0, below=below)
    assert (row.met, used_up(row)[0]) == (met, used)


def test_the_chart_has_a_bar_for_each_goal():
    drawn = chart(results(IMPORTS), [Part])
    assert drawn.count("<rect") == 2  # the paper and one bar
    assert "pool over dashscope" in drawn
    assert "0.25 (&lt;= 0.33)" in drawn


def test_wrong_usage_says_what_there_is():
    done = run("--only", "paced,nothing")
    assert done.returncode == 2
    assert "unknown nothing; known are task_cost, task_cost_wss, paced" in done.stderr
    assert run("--output", "no/such/folder").returncode == 2


@pytest.mark.slow
def test_a_short_run_measures_and_writes_all_three_files(tmp_path):
    done = run("--quick", "--only", "import_time,pool_cycle", "--output", tmp_path, timeout=110)
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "benchmarks.json").read_text())["parts"]
    assert set(kept) == {"import_time", "pool_cycle"}
    assert "This was a short run" in (tmp_path / "benchmarks.md").read_text()
    assert (tmp_path / "benchmarks.svg").read_text().startswith("<svg")
    assert "ours over the faster real pool" in done.stdout


@pytest.mark.slow
def test_paced_streams_arrive_whole_and_are_measured_for_every_client():
    command = [sys.executable, BENCHMARKS / "paced.py", "--json", "--quick", "--streams", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    result = json.loads(done.stdout)
    rows = {row["client"]: row for row in result["rows"].values()}
    assert set(rows) == {"floor", "picows", "sink", "stream"}
    assert all(row["frames"][0] > 0.9 and row["us_a_frame"][0] > 0 for row in rows.values())
    assert set(result["goals"]) == {
        f"{client}_over_picows_20_{what}" for client in ("sink", "stream") for what in ("cpu", "late_ms")
    }
