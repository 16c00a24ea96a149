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


def report(setting, **pool):
    return {"version": 1, "setting": setting, "targets": {"pool": pool}}


def test_from_a_report_and_as_json(here, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(report({"peak": 50, "task_seconds": 2.0})))
    told = json.loads(here("--report", "a.json", "--json", "--machines", "2").stdout)
    assert (told["peak"], told["chosen"]["max_size"]) == (25.0, 40)


def test_what_is_missing_is_said(here, tmp_path):
    (tmp_path / "b.json").write_text("{}")
    assert "--task-seconds" in error_line(here("--peak", "5"), 2)
    assert "is no report" in error_line(here("--report", "b.json"), 2)
    assert "cannot be read" in error_line(here("--report", "c.json"), 2)
    assert "must be above 0" in error_line(here("--peak", "0", "--task-seconds", "1"), 2)
    (tmp_path / "d.json").write_text(json.dumps(report({"peak": 20}, stages=[{}])))
    assert "is damaged" in error_line(here("--report", "d.json"), 2)
    assert "give one" in error_line(here("--report", "d.json", "--monitor", "http://127.0.0.1:9/"), 2)


@pytest.mark.parametrize("instead", [{"stages": "9s:9"}, {"rate": 9.0}, {"concurrency": 9}, {"sweep": True}])
def test_a_report_of_a_run_without_a_peak_does_not_invent_one(here, tmp_path, instead):
    # `--peak` has a default, which stands in the setting of such a run, too.
    (tmp_path / "a.json").write_text(json.dumps(report({"peak": 20, "task_seconds": 2.0} | instead)))
    assert "add --peak" in error_line(here("--report", "a.json"), 2)
    assert json.loads(here("--report", "a.json", "--peak", "5", "--json").stdout)["peak"] == 5.0


def test_a_report_is_predicted(here, tmp_path):
    stage = {"name": "2x", "judged": True, "tasks": 400, "seconds": 50.0, "rate": 8.0, "utilisation": 0.8,
             "held": [0.9, 1.0, 1.1], "connection": {"p95": 0.5}}  # fmt: skip
    few = stage | {"name": "short", "tasks": 99}
    setting = {"peak": 8, "task_seconds": 1.0, "size": 10}
    told = report(setting, total={"held": [0.9, 1.0, 1.1]}, stages=[few, stage])
    (tmp_path / "a.json").write_text(json.dumps(told))
    (told,) = json.loads(here("--report", "a.json", "--json").stdout)["predictions"]
    assert (told["stage"], told["max_size"], told["utilisation"], told["wait_p95"]) == ("2x", 10, 0.8, 0.5)
    assert 0.75 < told["predicted_utilisation"] < 0.85
    assert 0.1 < told["predicted_wait_p95"] < 1.0
    assert "beside what would have been predicted" in here("--report", "a.json").stdout


def test_a_page_with_a_chart(here, tmp_path):
    assert here("--peak", "20", "--task-seconds", "2", "--html", "a.html").returncode == 0
    page = (tmp_path / "a.html").read_text()
    assert "32 connections for 20 tasks at once" in page
    assert page.count("<rect") == page.count("<tr") - 1 == 7
    assert "cannot write" in error_line(here("--peak", "2", "--task-seconds", "2", "--html", "no/a.html"), 7)


def test_a_monitor_that_is_not_there(here):
    assert "no monitor answers" in error_line(here("--monitor", "http://127.0.0.1:9/"), 3)
