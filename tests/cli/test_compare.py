"""`speechpool compare`: two reports, and what is worse."""

import copy
import json

import pytest
from commands import error_line, run_here

DELAY = {"p50": 0.1, "p90": 0.15, "p95": 0.2, "p99": 0.3, "max": 1.0}
TOTAL = {
    "first_packet": DELAY,
    "first_audible": DELAY,
    "end_to_end": DELAY,
    "longest_gap": DELAY,
    "error_rate": 0.0,
    "reuse": 1.0,
    "goodput": 1.0,
}
REPORT = {"version": 1, "targets": {"pool": {"total": TOTAL, "stages": []}}, "tester": {"invalid": None}}


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    def compare(after, *more):
        (tmp_path / "a.json").write_text(json.dumps(REPORT))
        (tmp_path / "b.json").write_text(after if isinstance(after, str) else json.dumps(after))
        return run_here(monkeypatch, capsys, tmp_path, "compare", "a.json", "b.json", *more)

    return compare


def changed(path, value):
    report = copy.deepcopy(REPORT)
    at = report
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return report


def test_what_stays_is_no_change(here):
    done = here(REPORT)
    assert done.returncode == 0
    assert "worse" not in done.stdout


@pytest.mark.parametrize(
    ("path", "value", "worse"),
    [
        (("first_packet", "p99"), 0.34, True), (("first_packet", "p99"), 0.32, False), (("first_packet", "p99"), 0.1, False),
        (("error_rate",), 0.01, True), (("reuse",), 0.9, True), (("goodput",), 0.999, False), (("reuse",), None, False),
    ],
)  # fmt: skip
def test_what_is_worse_ends_with_99(here, path, value, worse):
    done = here(changed(("targets", "pool", "total", *path), value))
    assert done.returncode == (99 if worse else 0)
    assert ("worse" in done.stdout) is worse


def test_as_json_and_with_a_tolerance(here):
    report = changed(("targets", "pool", "total", "first_packet", "p99"), 0.34)
    done = here(report, "--tolerance", "0.2", "--json")
    assert done.returncode == 0
    assert {row["what"] for row in json.loads(done.stdout)["rows"]} >= {"first_packet.p99", "reuse"}


def test_an_invalid_run_is_said(here):
    done = here(changed(("tester", "invalid"), "the tester was in the way."))
    assert "b.json is invalid: the tester was in the way." in done.stderr


def test_what_is_no_report_is_said(here):
    assert "is no JSON" in error_line(here("{"), 2)
    assert "is no report" in error_line(here({"version": 7}), 2)
    assert "no target in common" in error_line(here(changed(("targets",), {"fresh": {}})), 2)
