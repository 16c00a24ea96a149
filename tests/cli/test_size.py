"""`speechpool size`."""

import json

import pytest
from commands import error_line, run_here


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    return lambda *arguments: run_here(monkeypatch, capsys, tmp_path, "size", *arguments)


def test_it_tells_what_to_set(here):
    done = here("--peak", "100", "--task-seconds", "3", "--submission-rate", "3")
    assert done.returncode == 0
    for words in (
        "160   62.5%",
        "<- advised",
        "max_size = 160",
        "SPEECHPOOL_POOL__MAX_SIZE=160",
        "no more than 9 tasks",
    ):
        assert words in done.stdout


def test_from_a_report_and_as_json(here, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"setting": {"peak": 50, "task_seconds": 2.0}}))
    told = json.loads(here("--report", "a.json", "--json", "--machines", "2").stdout)
    assert (told["peak"], told["chosen"]["max_size"]) == (25.0, 40)


def test_what_is_missing_is_said(here, tmp_path):
    (tmp_path / "b.json").write_text("{}")
    assert "--task-seconds" in error_line(here("--peak", "5"), 2)
    assert "is no report" in error_line(here("--report", "b.json"), 2)
    assert "cannot be read" in error_line(here("--report", "c.json"), 2)
    assert "must be above 0" in error_line(here("--peak", "0", "--task-seconds", "1"), 2)
