"""`speechpool load` against a service that runs."""

import json
import signal

import pytest
from commands import Serving, error_line, run_here, started


@pytest.fixture(scope="module")
def service():
    with Serving("marker") as service:
        yield service


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    return lambda *arguments: run_here(monkeypatch, capsys, tmp_path, "load", *arguments)


def test_a_short_run_reports_and_its_expectations_hold(service, here, tmp_path):
    done = here(
        "--url", service.url, "--stages", "1s:20,1s:40", "--target", "pool,fresh", "--json", "a.json", "--jsonl", "a.jsonl", "--html", "a.html",
        "--expect", "error_rate<0.1%", "--expect", "first_packet.p99<5s", "--expect", "foreign<1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "a.json").read_text())
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    pool, fresh = report["targets"]["pool"]["total"], report["targets"]["fresh"]["total"]
    assert pool["tasks"] == fresh["tasks"] == len(records) / 2 > 30
    assert pool["outcomes"] == {"completed": pool["tasks"]}
    assert (pool["reuse"], pool["foreign"]) == (1.0, 0)
    assert fresh["reuse"] < 0.5
    assert len(report["expectations"]) == 6
    page = (tmp_path / "a.html").read_text()
    assert f"<td>{pool['tasks']}</td>" in page
    assert f"{1000 * pool['first_packet']['p99']:.1f} ms" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "all judged" in done.stdout


def test_an_expectation_that_fails_ends_with_99(service, here):
    done = here("--url", service.url, "--stages", "500ms:20", "--expect", "reuse<5%", "--json", "-")
    assert done.returncode == 99
    assert json.loads(done.stdout)["expectations"][0]["holds"] is False


def test_the_closed_loop_and_barge_in(service, here, tmp_path):
    (tmp_path / "texts").write_text(
        "This sentence goes on and on and on. " * 100
    )  # so that something is left to break off
    flags = ("--concurrency", "3", "--seconds", "1", "--barge-in", "0.5", "--texts", "texts")
    done = here("--url", service.url, *flags, "--json", "-")
    assert done.returncode == 0
    total = json.loads(done.stdout)["targets"]["pool"]["total"]
    assert total["outcomes"].keys() == {"completed", "cancelled"}


def test_the_checklist_takes_the_report(service, here, monkeypatch, capsys, tmp_path):
    here("--url", service.url, "--concurrency", "3", "--seconds", "0.5", "--expect", "foreign<1", "--json", "a.json")
    done = run_here(
        monkeypatch, capsys, tmp_path, "check", "--load-report", "a.json", "--peak", "1", "--only", "load", "--json"
    )
    (item,) = json.loads(done.stdout)["items"]
    said = [one["evidence"] for one in item["findings"] if one["verdict"] == "pass"]
    assert "It went up to 3 tasks at once, 3.00 times the peak of 1." in said
    assert "All 1 expectations hold." in said


def test_peak_measures_the_tasks_first(service, here):
    done = here("--url", service.url, "--peak", "2", "--scale-time", "0.01", "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    stages = report["targets"]["pool"]["stages"]
    assert [stage["name"] for stage in stages] == ["warm-up", "0.5x", "1x", "1.5x", "2x", "2x hold", "1x again"]
    assert stages[2]["rate"] == pytest.approx(2 / report["setting"]["task_seconds"])


def test_bad_wishes_are_said(service, here):
    assert "--i-own-this-target" in error_line(here("--url", "wss://example.com/api"), 2)
    assert "cannot be read" in error_line(here("--url", service.url, "--expect", "what"), 2)
    assert "choose poisson or constant" in error_line(here("--url", service.url, "--arrivals", "x"), 2)
    assert "choose of pool, fresh" in error_line(here("--url", service.url, "--stages", "1s:1", "--target", "x"), 2)
    assert "--stages" in error_line(here("--url", service.url, "--stages", "x"), 2)


def test_ctrl_c_ends_with_a_report_of_what_there_is(service, tmp_path):
    import subprocess
    import time

    arguments = ["load", "--url", service.url, "--stages", "60s:50", "--json", "a.json"]
    with started(*arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        time.sleep(3)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=30)
    assert child.returncode == 130
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["interrupted"] is True
    assert report["targets"]["pool"]["total"]["tasks"] > 0
    assert b"all judged" in out
