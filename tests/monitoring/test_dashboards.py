"""Dashboard and rules ask for metrics that exist, and say what to do; promtool agrees with the rules."""

import json
import os
import re
import shutil
import subprocess

import pytest
from test_catalogue import PAGE

from speechpool.monitoring import dashboards, rules
from speechpool.monitoring.catalogue import METRICS
from speechpool.monitoring.queries import names_in

BEGIN, END = "<!-- alerts: from speechpool.monitoring.rules -->\n", "<!-- end of the alerts -->"
NAMES = {one.name for one in METRICS}
SHOWN_ELSEWHERE = {
    "speechpool_tasks_started_total", "speechpool_real_time_factor", "speechpool_audio_seconds_total", "speechpool_audio_bytes_total",
    "speechpool_pool_min_size", "speechpool_pool_predicted_wait_seconds", "speechpool_pool_use_seconds", "speechpool_pool_opened_total",
    "speechpool_pool_borrows_per_connection", "speechpool_pool_double_returns_total", "speechpool_quota_limit", "speechpool_quota_running",
    "speechpool_quota_waiting", "speechpool_build_info",
}  # fmt: skip
"""For questions that a dashboard does not ask all the time."""


def promtool(*arguments):
    tool = shutil.which("promtool")
    if tool is None:
        assert not os.environ.get("CI"), "promtool is missing: make tools"
        pytest.skip("needs promtool: make tools")
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_every_question_is_about_a_metric_that_exists_and_no_metric_is_forgotten():
    questions = [question for panel in dashboards.PANELS for question in panel.questions]
    questions += [*rules.RECORDS.values(), *(alert.expression for alert in rules.ALERTS)]
    asked = set().union(*map(names_in, questions))
    assert asked <= NAMES
    assert asked | SHOWN_ELSEWHERE == NAMES
    recorded = set(re.findall(r"speechpool:[a-z_:0-9]+", " ".join(alert.expression for alert in rules.ALERTS)))
    assert recorded <= set(rules.RECORDS)


def test_the_dashboard_can_be_imported_anywhere():
    board = json.loads(dashboards.written())
    charts = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len(charts) == len(dashboards.PANELS)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for chart in charts:
        assert chart["datasource"]["uid"] == "${datasource}"
        assert chart["description"]
        assert chart["targets"]
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places)


def rendered():
    parts = []
    for alert in rules.ALERTS:
        parts.append(f"### {alert.name}\n\n*{alert.severity}.* {alert.summary}\n\n{alert.todo}\n")
    return "\n".join(parts)


def test_the_page_says_what_to_do_for_each_alert():
    before, _, rest = PAGE.read_text().partition(BEGIN)
    text, _, after = rest.partition(END)
    if os.environ.get("SPEECHPOOL_WRITE_METRICS"):
        PAGE.write_text(before + BEGIN + rendered() + END + after)
    else:
        assert text == rendered(), "run SPEECHPOOL_WRITE_METRICS=1 pytest tests/monitoring"


# ------------------------------------------------------------------------------------------ promtool
# For each alert: series (in promtool's notation, a value a minute) under which it fires and then resolves, and the minutes
# at which that is looked at.
GOOD, BAD = (
    'speechpool_tasks_total{pool="p", outcome="completed"}',
    'speechpool_tasks_total{pool="p", outcome="failed"}',
)
DELAY = 'speechpool_first_packet_delay_seconds_bucket{{pool="p", le="{}"}}'
LAG = 'speechpool_event_loop_lag_seconds_bucket{{pool="p", le="{}"}}'
CONNECTED = 'speechpool_tasks_connected_total{{pool="p", reused="{}"}}'
SCENES = {
    "SpeechErrorBudgetBurnsFast": ({GOOD: "0+95x60 5700+100x60", BAD: "0+5x60 300+0x60"}, 50, 119),
    "SpeechErrorBudgetBurns": ({GOOD: "0+99x400 39600+100x400", BAD: "0+1x400 400+0x400"}, 390, 799),
    "SpeechErrorBudgetBurnsSlowly": ({GOOD: "0+997x800 797600+1000x800", BAD: "0+3x800 2400+0x800"}, 780, 1599),
    "SpeechEndpointDown": ({'speechpool_pool_outage_seconds{pool="p"}': "0 31 91 0 0"}, 2, 4),
    "SpeechFirstPacketLate": ({DELAY.format("0.5"): "0+90x20 1800+100x20", DELAY.format("1.0"): "0+100x40", DELAY.format("+Inf"): "0+100x40"}, 18, 38),
    "SpeechBorrowersWait": ({'speechpool_pool_oldest_wait_seconds{pool="p"}': "2x10 0x10"}, 8, 15),
    "SpeechPoolNearlyFull": ({'speechpool_pool_used_seconds_total{pool="p"}': "0+54x30 1620+30x30"}, 28, 58),
    "SpeechConnectionsNotReused": ({CONNECTED.format("true"): "0+80x30 2400+100x30", CONNECTED.format("false"): "0+20x30 600+0x30"}, 28, 58),
    "SpeechLeasesLeak": ({'speechpool_pool_leaks_total{pool="p"}': "0 0 1 1x40"}, 5, 30),
    "SpeechThrottled": ({'speechpool_quota_throttled_total{pool="p", account="a", model="m"}': "0+2x20 40+0x20", 'speechpool_quota_granted_total{pool="p", account="a", model="m"}': "0+100x40"}, 18, 38),
    "SpeechTasksShed": ({GOOD: "0+98x20 1960+100x20", 'speechpool_tasks_total{pool="p", outcome="shed"}': "0+2x20 40+0x20"}, 18, 38),
    "SpeechEventLoopLate": ({LAG.format("0.1"): "0+90x20 1800+100x20", LAG.format("0.25"): "0+100x40", LAG.format("+Inf"): "0+100x40"}, 18, 38),
}  # fmt: skip


def test_there_is_a_scene_for_each_alert():
    assert list(SCENES) == [alert.name for alert in rules.ALERTS]


@pytest.fixture(scope="module")
def rule_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("rules") / "rules.yml"
    file.write_text(rules.written())
    return file


@pytest.mark.slow
def test_the_rules_are_well_formed(rule_file):
    done = promtool("check", "rules", rule_file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules.RECORDS) + len(rules.ALERTS)} rules found" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("alert", rules.ALERTS, ids=lambda alert: alert.name)
def test_it_fires_and_resolves(alert, rule_file, tmp_path):
    series, fires, resolves = SCENES[alert.name]
    labels = {"pool": "p", "severity": alert.severity}
    notes = {
        "summary": f"p: {alert.summary}",
        "description": alert.todo,
        "runbook_url": rules.GUIDE + alert.name.lower(),
    }
    checks = [
        {
            "eval_time": f"{fires}m",
            "alertname": alert.name,
            "exp_alerts": [{"exp_labels": labels, "exp_annotations": notes}],
        },
        {"eval_time": f"{resolves}m", "alertname": alert.name, "exp_alerts": []},
    ]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    case = {"interval": "1m", "input_series": inputs, "alert_rule_test": checks}
    file = tmp_path / "case.yml"
    file.write_text(
        json.dumps({"rule_files": [str(rule_file)], "evaluation_interval": "1m", "tests": [case]})
    )  # JSON is YAML
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
