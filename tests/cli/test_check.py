"""`speechpool check` on a deployment in order, and on the same one with one thing spoiled: that item fails, with its reason."""

import json
import os
import shutil
import signal
import time

import pytest
import trustme
from checked import KEY, PROGRAM, Checked, deployment, evidence
from commands import Serving, error_line, run_here, started, until

from speechpool.cli.check import _NAMES
from speechpool.ops.checklist import BRIEF, TITLES
from speechpool.service import ServiceSettings

pytestmark = pytest.mark.keeps_descriptors
NEEDS_PROMETHEUS = {"alerts"}
"""What only a real Prometheus proves: test_check_live.py."""
OFFICIAL = """\
import signal
from dashscope.audio.tts_v2 import SpeechSynthesizerObjectPool

signal.signal(signal.SIGTERM, lambda *_: None)
pool = SpeechSynthesizerObjectPool(max_size=10)
synthesizer = pool.borrow_synthesizer("model", "voice")
try:
    synthesizer.call("Hello.")
finally:
    pool.return_synthesizer(synthesizer)
pool.shutdown()
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    with deployment(folder):
        yield folder


@pytest.fixture
def checked(running, monkeypatch, capsys, tmp_path):
    shutil.copytree(running, tmp_path, dirs_exist_ok=True)
    return Checked(monkeypatch, capsys, tmp_path)


def test_a_deployment_in_order_passes_everything_that_was_looked_at(checked):
    items = checked.items()
    assert list(items) == list(TITLES)
    assert list(items)[: len(BRIEF)] == list(BRIEF)
    verdicts = {name: item["verdict"] for name, item in items.items()}
    assert verdicts == {name: "not checked" if name in NEEDS_PROMETHEUS else "pass" for name in TITLES}, items
    assert "TLSv1.3" in evidence(items["region"], "pass")
    assert "environment variable DASHSCOPE_API_KEY" in evidence(items["key"], "pass")
    assert "2.00 times the peak of 6" in evidence(items["load"], "pass")
    assert checked.items("--strict", code=99)
    others = [flag for name in TITLES if name not in NEEDS_PROMETHEUS for flag in ("--only", name)]
    assert checked.run("--strict", *others).returncode == 0


# ------------------------------------------------------------------------------------ one thing spoiled
def key_in_file(checked):
    checked.change("speechpool.toml", "[endpoint]", f'[endpoint]\napi_key = "{KEY}"')


def key_in_source(checked):
    checked.change("program/main.py", 'Endpoint("wss://localhost")', f'Endpoint("wss://localhost", api_key="{KEY}")')


def key_in_another_file(checked):
    (checked.folder / "program" / "deploy.yaml").write_text(f"env:\n  KEY: {KEY}\n")


def too_small(checked):
    checked.change("speechpool.toml", "peak = 6", "peak = 9")


def far_too_small(checked):
    checked.change("speechpool.toml", "max_size = 10", "max_size = 5")


def slow_account(checked):
    checked.change("speechpool.toml", "submission_rate = 200", "submission_rate = 3")


def failed_returned(checked):
    (checked.folder / "program" / "main.py").write_text(OFFICIAL)


def never_closed(checked):
    checked.change("program/main.py", PROGRAM[PROGRAM.index("    async with") :], "    pool = AsyncSpeechPool(None)\n")


def not_trusted(checked):
    checked.change("speechpool.toml", 'tls_ca = "ca.pem"\n', "")


def another_authority(checked):
    trustme.CA().cert_pem.write_to_path(checked.folder / "ca.pem")


def no_metrics(checked):
    checked.change("speechpool.toml", 'metrics = ["http://', 'metrics = ["http://127.0.0.1:1/')


def no_utilisation(checked):
    path = checked.folder / "dashboards" / "speechpool.json"
    board = json.loads(path.read_text())
    board["panels"] = [panel for panel in board["panels"] if panel["title"] != "Utilisation"]
    path.write_text(json.dumps(board))


def half_loaded(checked):
    checked.change("speechpool.toml", "peak = 6", "peak = 8")


def broken_expectation(checked):
    expectation = {"expectation": "first_packet.p99<1ms", "target": "pool", "value": 0.02, "holds": False}
    checked.spoil_report(expectations=[expectation])


def many_errors(checked):
    checked.spoil_report(targets__pool__total__error_rate=0.02)


def invalid_run(checked):
    checked.spoil_report(tester__invalid="the tester took 99% of a processor, so it was in the way.")


def interrupted_run(checked):
    checked.spoil_report(interrupted=True)


def old_run(checked):
    checked.spoil_report(ended=time.time() - 40 * 86400)


def old_file(checked):
    checked.spoil_report(ended=None)
    long_ago = time.time() - 40 * 86400
    os.utime(checked.folder / "load.json", (long_ago, long_ago))


def no_retries(checked):
    checked.change("speechpool.toml", "[pool]", "[pool]\nretry = 0")


def no_backoff(checked):
    checked.change("speechpool.toml", "[pool]", "[pool]\nopen_backoff = 20.0")


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (key_in_file, "key", "speechpool.toml, where others can read it"),
        (key_in_source, "key", "written in main.py:10"),
        (key_in_another_file, "key", "written in deploy.yaml:2"),
        (too_small, "sizes", "more than 80 % are used at the peak"),
        (far_too_small, "sizes", "max_size is 5 (speechpool.toml), 0.83 times the peak of 6: tasks have to wait"),
        (slow_account, "rate", "no more than 0.3 run at once"),
        (failed_returned, "failed", "main.py:10 returns to the official SDK's object pool in `except` or `finally`"),
        (never_closed, "shutdown", "main.py:10 makes a pool that nothing closes"),
        (not_trusted, "region", "certificate authority is unknown"),
        (another_authority, "region", "certificate"),
        (no_metrics, "monitoring", "does not answer at 127.0.0.1:1"),
        (no_utilisation, "monitoring", "None of 1 dashboards of dashboards shows pool utilisation"),
        (half_loaded, "load", "1.50 times the peak of 8"),
        (broken_expectation, "load", "first_packet.p99<1ms (pool: 0.02)"),
        (many_errors, "load", "2.00% of the tasks fail"),
        (invalid_run, "load", "in the way"),
        (interrupted_run, "load", "was interrupted"),
        (old_run, "load", "40.0 days old; more than 30 prove nothing"),
        (old_file, "load", "40.0 days old, by the date of its file; more than 30 prove nothing"),
        (no_retries, "retries", "no task is tried again"),
        (no_backoff, "retries", "pauses do not grow"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_one_thing_spoiled_fails_its_item_with_the_reason(checked, spoil, name, reason):
    spoil(checked)
    items = checked.items("--only", name)
    assert items.keys() == {name}
    assert items[name]["verdict"] == "fail"
    assert reason in evidence(items[name], "fail")


def test_only_what_was_spoiled_turns(checked):
    good = {name: item["verdict"] for name, item in checked.items().items()}
    no_retries(checked)
    assert {name: item["verdict"] for name, item in checked.items().items()} == good | {"retries": "fail"}


def test_a_wrong_key_no_key_and_one_on_the_command_line(checked):
    wrong = checked.items("--only", "region", "--only", "key", key="sk-wrong")
    assert "HTTP 401" in evidence(wrong["region"], "fail")
    assert wrong["key"]["verdict"] == "pass"
    local = checked.items("--only", "key", key=None)
    assert "no key is set" in evidence(local["key"], "not checked")
    remote = checked.items("--only", "key", "--only", "region", "--region", "intl", key=None)
    assert "DASHSCOPE_API_KEY is not set" in evidence(remote["key"], "fail")
    assert "no key for dashscope-intl.aliyuncs.com" in evidence(remote["region"], "not checked")
    flag = checked.items("--only", "key", "--api-key", KEY, key=None)
    assert "on the command line" in evidence(flag["key"], "fail")


def test_limits_of_the_environment_are_smaller_than_the_pool(checked):
    items = checked.items("--only", "sizes", DASHSCOPE_CONNECTION_POOL_SIZE="4")
    assert "4 connections in total, fewer than the 10" in evidence(items["sizes"], "fail")


def test_doubts_are_warnings_and_fail_a_strict_check_only(checked):
    checked.spoil_report(setting__url="elsewhere.example")
    items = checked.items("--only", "load")
    assert "elsewhere.example" in evidence(items["load"], "warn")
    assert checked.items("--only", "load", "--strict", code=99)["load"]["verdict"] == "warn"


def test_a_service_that_closes_idle_connections_sooner_than_the_pool(monkeypatch, capsys, tmp_path):
    with Serving("marker", settings=ServiceSettings(idle_timeout=0.3)) as service:
        checked = Checked(monkeypatch, capsys, tmp_path)
        flags = ("--endpoint", service.url, "--watch-idle", "20", "--only", "idle")
        assert "closed an idle connection after 0." in evidence(checked.items(*flags)["idle"], "fail")
        watched = checked.items("--endpoint", service.url, "--watch-idle", "0.1", "--only", "idle")
        assert "only watched for 0.1" in evidence(watched["idle"], "not checked")


def test_without_evidence_nothing_passes(monkeypatch, capsys, tmp_path):
    items = Checked(monkeypatch, capsys, tmp_path).items()
    assert {item["verdict"] for item in items.values()} == {"not checked"}
    assert all(one["remedy"] for item in items.values() for one in item["findings"] if one["verdict"] != "pass")


def test_people_get_a_list_and_a_page(checked):
    no_retries(checked)
    done = checked.run("--html", "check.html")
    assert done.returncode == 99
    assert "fail         Transient failures are retried, with exponential backoff (retries)" in done.stdout
    assert "-> leave `retry` at its default of 2" in done.stdout
    assert done.stdout.rstrip().endswith("10 pass, 1 not checked, 0 warn, 1 fail")
    page = (checked.folder / "check.html").read_text()
    assert "10 pass, 1 not checked, 0 warn, 1 fail" in page
    assert page.count('<li class="item"') == len(TITLES)
    assert "://" not in page.replace("wss://", "")
    assert "<script" not in page


def test_ctrl_c_and_sigterm_end_the_watch(tmp_path):
    with Serving("marker") as service:
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with started("check", "--endpoint", service.url, "--watch-idle", "600", cwd=tmp_path) as process:
                until(lambda: service.counts.connections)
                process.send_signal(number)
                _, err = process.communicate(timeout=20)
                assert process.returncode == code, err
                assert len(err.splitlines()) == 1
            service.counts.connections = 0


def test_the_help_names_every_item():
    assert _NAMES.split(", ") == list(TITLES)


def test_what_cannot_be_used_is_one_line(monkeypatch, capsys, tmp_path):
    def line(*flags, code=2):
        return error_line(run_here(monkeypatch, capsys, tmp_path, "check", *flags), code)

    assert "items are: key, sizes" in line("--only", "keys")
    assert "must be above 0" in line("--peak", "0")
    assert "no folder" in line("--source", "nowhere")
    assert "no Python file" in line("--source", ".")
    assert "cannot be read" in line("--load-report", "nowhere.json")
    (tmp_path / "a.json").write_text('{"version": 1, "targets": {"pool": {}}, "setting": {}}')
    assert "is damaged" in line("--load-report", "a.json")
    assert "no folder" in line("--dashboards", "nowhere")
    assert "no URL of Prometheus" in line("--prometheus", "ftp://x")
    assert "cannot write" in line("--html", "nowhere/page.html", code=7)
