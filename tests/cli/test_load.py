"""`speechpool load` against a service that runs."""

import copy
import csv
import functools
import json
import signal
import subprocess
from importlib.metadata import version
from importlib.resources import files

import jsonschema
import pytest
from commands import Serving, children, error_line, is_running, run_here, started, until

from speechpool.service.faults import Faults


@pytest.fixture(scope="module")
def service():
    with Serving("marker") as service:
        yield service


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    return lambda *arguments: run_here(monkeypatch, capsys, tmp_path, "load", *arguments)


@functools.cache
def schema():
    text = files("speechpool.load").joinpath("report.schema.json").read_text("utf-8")
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return jsonschema.Draft202012Validator(json.loads(text))


def valid(text):
    """A report, which has the form that is promised."""
    report = json.loads(text)
    schema().validate(report)
    return report


def test_the_schema_is_shown_and_refuses_what_is_no_report(here, service):
    assert json.loads(here("--schema").stdout) == schema().schema
    report = valid(here("--url", service.url, "--stages", "200ms:20", "--json", "-").stdout)
    for spoil in (
        lambda one: one.update(version=2),
        lambda one: one.pop("tester"),
        lambda one: one["targets"]["pool"]["total"].pop("reuse"),
        lambda one: one["targets"]["pool"]["total"].update(surprise=1),
        lambda one: one["targets"]["pool"]["stages"][0].update(rate="fast"),
        lambda one: one["targets"]["pool"]["total"]["first_packet"].update(p50=-1),
    ):
        spoilt = copy.deepcopy(report)
        spoil(spoilt)
        assert not schema().is_valid(spoilt)


def test_a_short_run_reports_and_its_expectations_hold(service, here, tmp_path):
    done = here(
        "--url", service.url, "--stages", "1s:20,1s:40", "--target", "pool,fresh", "--json", "a.json", "--jsonl", "a.jsonl", "--html", "a.html",
        "--expect", "error_rate<0.1%", "--expect", "first_packet.p99<5s", "--expect", "foreign<1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = valid((tmp_path / "a.json").read_text())
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    pool, fresh = report["targets"]["pool"]["total"], report["targets"]["fresh"]["total"]
    assert pool["tasks"] == fresh["tasks"] == len(records) / 2 > 30
    assert pool["outcomes"] == {"completed": pool["tasks"]}
    assert (pool["reuse"], pool["foreign"]) == (1.0, 0)
    assert fresh["reuse"] == 0
    assert [stage["missed"] for stage in report["targets"]["fresh"]["stages"]] == [["reuse>95%"]] * 2
    assert (report["build"]["engine"], report["build"]["dashscope"]) == ("marker", None)
    assert len(report["expectations"]) == 6
    page = (tmp_path / "a.html").read_text()
    assert f"<td>{pool['tasks']}</td>" in page
    assert f"{1000 * pool['first_packet']['p99']:.1f} ms" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "all judged" in done.stdout


@pytest.mark.parametrize("flag", ["--json", "--jsonl", "--csv", "--html"])
def test_a_file_that_cannot_be_written_is_said_before_the_run(service, here, tmp_path, flag):
    before = service.counts.connections
    assert "no directory nowhere" in error_line(here("--url", service.url, "--rate", "5", flag, "nowhere/a"), 7)
    assert "it is a directory" in error_line(here("--url", service.url, "--rate", "5", flag, str(tmp_path)), 7)
    assert service.counts.connections == before


def test_an_expectation_that_fails_ends_with_99(service, here):
    done = here("--url", service.url, "--stages", "500ms:20", "--expect", "reuse<5%", "--json", "-")
    assert done.returncode == 99
    assert valid(done.stdout)["expectations"][0]["holds"] is False


def test_the_closed_loop_and_barge_in(service, here, tmp_path):
    (tmp_path / "texts").write_text(
        "This sentence goes on and on and on. " * 100
    )  # so that something is left to break off
    flags = ("--concurrency", "3", "--seconds", "1", "--barge-in", "0.5", "--texts", "texts")
    done = here("--url", service.url, *flags, "--json", "-")
    assert done.returncode == 0
    total = valid(done.stdout)["targets"]["pool"]["total"]
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
    report = valid(done.stdout)
    stages = report["targets"]["pool"]["stages"]
    assert [stage["name"] for stage in stages] == ["warm-up", "0.5x", "1x", "1.5x", "2x", "2x hold", "1x again"]
    assert report["warnings"] == []
    assert stages[2]["rate"] == pytest.approx(2 / report["setting"]["task_seconds"])


def test_the_official_sdk_beside_ours(service, here, tmp_path):
    flags = (
        "--stages",
        "1s:15",
        "--target",
        "pool,sdk,sdk-pool",
        "--max-size",
        "10",
        "--csv",
        "a.csv",
        "--barge-in",
        "0.2",
    )
    done = here("--url", service.url, *flags, "--expect", "error_rate<0.1%", "--expect", "foreign<1", "--json", "-")
    assert done.returncode == 0, done.stdout + done.stderr
    targets = valid(done.stdout)["targets"]
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("pool", "sdk", "sdk-pool"):
        total = targets[name]["total"]
        mine = [row for row in rows if row["target"] == name]
        assert total["tasks"] == len(mine) > 5
        assert total["outcomes"].keys() <= {"completed", "cancelled"}
        assert total["audio_seconds"] == pytest.approx(
            sum(float(row["audio_seconds"]) for row in mine if row["outcome"] == "completed")
        )
        assert total["audio_seconds"] > 1
        told = name == "pool"  # the SDK tells neither reuse nor the parts of its delay: null, not nothing
        assert (total["reuse"] is not None, total["parts"]["connection"] is not None) == (told, told)
    # A synthesizer of its own waits 100 ms for its connection, whatever the network.
    assert valid(done.stdout)["build"]["dashscope"] == version("dashscope")
    assert targets["sdk"]["total"]["first_packet"]["p50"] > targets["pool"]["total"]["first_packet"]["p50"] + 0.05


def test_an_sdk_that_hangs_holds_nobody_up(here, monkeypatch):
    monkeypatch.setattr("speechpool.load.sdk.LIMIT", 0.5)
    with Serving("marker", faults=Faults.parse(["stall@mid-audio"])) as hanging:
        done = here("--url", hanging.url, "--stages", "200ms:20", "--target", "sdk", "--max-size", "10", "--json", "-")
    total = valid(done.stdout)["targets"]["sdk"]["total"]
    assert total["outcomes"] == {"failed": total["tasks"]}
    assert total["errors"].keys() <= {"TimeoutError", "Hangs"}


def test_workers_share_the_work(service, here):
    flags = ("--rate", "40", "--seconds", "1", "--workers", "2", "--max-size", "20")
    done = here("--url", service.url, *flags, "--json", "-")
    assert done.returncode == 0, done.stderr
    report = valid(done.stdout)
    total = report["targets"]["pool"]["total"]
    alone = json.loads(here("--url", service.url, *flags[:4], "--json", "-").stdout)["targets"]["pool"]["total"]
    assert total["outcomes"] == {"completed": total["tasks"]}
    assert (total["tasks"], total["characters"]) == (alone["tasks"], alone["characters"]) > (20, 500)  # the same plan
    assert report["targets"]["pool"]["stages"][0]["utilisation"] > 0
    closed = here("--url", service.url, "--concurrency", "3", "--seconds", "0.5", "--workers", "2", "--json", "-")
    assert valid(closed.stdout)["targets"]["pool"]["total"]["outcomes"].keys() == {"completed"}


def test_a_worker_that_cannot_begin_says_why(here):
    flags = ("--rate", "5", "--workers", "2", "--max-size", "4")
    with Serving("marker", api_key="sesame") as closed:
        assert "401" in error_line(here("--url", closed.url, "--api-key", "wrong", *flags), 4)
    assert "nothing listens there" in error_line(here("--url", "ws://127.0.0.1:9", *flags), 3)


def test_a_bad_network_and_callers_of_all_kinds(service, here):
    flags = ("--fault", "latency@both:30ms", "--slow", "0.3", "--tokens-per-second", "200", "--barge-in", "0.2")
    done = here("--url", service.url, "--rate", "20", "--seconds", "1", *flags, "--json", "-")
    assert done.returncode == 0, done.stderr
    report = valid(done.stdout)
    total = report["targets"]["pool"]["total"]
    assert total["outcomes"].keys() == {"completed", "cancelled"}
    assert total["first_packet"]["p50"] > 0.12  # two round trips of 60 ms, the words come meanwhile
    assert total["parts"]["start"] > 0.055
    assert report["setting"]["faults"] == ["latency@both:30ms"]
    assert "needs a ws:// URL" in error_line(
        here("--url", "wss://localhost:1", "--rate", "5", "--fault", "latency@both:1ms"), 2
    )


def test_a_sweep_ends_at_what_holds(service, here):
    flags = ("--peak", "2", "--max-size", "2", "--seconds", "0.3", "--sweep", "--expect", "tasks<12")
    done = here("--url", service.url, *flags, "--arrivals", "constant", "--json", "-")
    assert done.returncode == 0, done.stderr
    report = valid(done.stdout)
    # 0.3 s bring at most 11 tasks below 40 a second.
    assert report["sweep"]["rate"] == pytest.approx(38, rel=0.06)
    assert report["sweep"]["because"] == ["tasks<12"]
    assert report["sweep"]["fails_at"] > report["sweep"]["rate"]
    assert report["targets"]["pool"]["total"]["tasks"] == sum(
        stage["tasks"] for stage in report["targets"]["pool"]["stages"] if stage["judged"]
    )
    told = here("--url", service.url, *flags[:-1], "tasks<1")
    assert told.returncode == 99
    assert "No rate holds" in told.stdout


def test_a_soak_is_told_in_parts(service, here):
    done = here("--url", service.url, "--peak", "2", "--soak", "1.2", "--json", "-")
    stages = valid(done.stdout)["targets"]["pool"]["stages"]
    assert [stage["name"] for stage in stages] == ["warm-up", *(f"part {n} of 6" for n in range(1, 7))]


def test_bad_wishes_are_said(service, here):
    assert "--i-own-this-target" in error_line(here("--url", "wss://example.com/api"), 2)
    assert "cannot be read" in error_line(here("--url", service.url, "--expect", "what"), 2)
    assert "choose poisson or constant" in error_line(here("--url", service.url, "--arrivals", "x"), 2)
    assert "choose of pool, fresh, sdk, sdk-pool" in error_line(
        here("--url", service.url, "--stages", "1s:1", "--target", "x"), 2
    )
    assert "--stages" in error_line(here("--url", service.url, "--stages", "x"), 2)
    assert "exclude each other" in error_line(here("--url", service.url, "--rate", "1", "--sweep"), 2)
    assert "one --target" in error_line(here("--url", service.url, "--sweep", "--target", "pool,fresh"), 2)
    assert "twice" in error_line(here("--url", service.url, "--target", "pool,pool"), 2)
    assert "at least one to each" in error_line(here("--url", service.url, "--max-size", "2", "--workers", "3"), 2)


def ended(service):
    return sum(service.counts.tasks.values())


@pytest.mark.parametrize(
    ("signal_", "code", "flags"),
    [
        (signal.SIGINT, 130, ()),
        pytest.param(signal.SIGINT, 130, ("--workers", "2"), marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, ("--target", "pool,sdk"), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_signal_ends_with_a_report_of_what_there_is_and_no_process_is_left(service, tmp_path, signal_, code, flags):
    arguments = [
        "load",
        "--url",
        service.url,
        "--stages",
        "60s:50",
        "--max-size",
        "20",
        "--json",
        "a.json",
        "--jsonl",
        "a.jsonl",
    ]
    with started(*arguments, *flags, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        begun = ended(service)
        until(lambda: ended(service) > begun + 20)
        helpers = children(child.pid)
        child.send_signal(signal_)
        out, err = child.communicate(timeout=30)
    assert child.returncode == code
    assert b"Traceback" not in err
    report = valid((tmp_path / "a.json").read_text())
    assert report["interrupted"] is True
    assert report["targets"]["pool"]["total"]["tasks"] > 0
    assert report["targets"]["pool"]["total"]["outcomes"].keys() <= {"completed", "cancelled"}
    assert b"all judged" in out
    assert len(helpers) == {"--workers": 2, "--target": 1}.get(flags[0] if flags else "", 0)
    until(lambda: not any(is_running(helper) for helper in helpers))


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--workers", "2"), ("--target", "pool,sdk")])
def test_no_process_outlives_one_that_is_killed(service, tmp_path, flags):
    with started("load", "--url", service.url, "--stages", "60s:50", "--max-size", "20", *flags, cwd=tmp_path) as child:
        begun = ended(service)
        until(lambda: ended(service) > begun + 20)
        helpers = children(child.pid)
        child.kill()
        until(lambda: not any(is_running(helper) for helper in helpers))
    assert helpers
