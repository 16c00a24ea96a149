"""`speechpool check` beside a real Prometheus: with it everything is proved, and its two items fail where it is not set up."""

import json
import time
from urllib.parse import urlsplit

import pytest
from checked import Checked, deployment, evidence

from prometheus_process import LIMIT, Prometheus
from speechpool.monitoring import rules
from speechpool.ops.checklist import TITLES
from speechpool.ops.watching import rules_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200), pytest.mark.keeps_descriptors]
ITEMS = ("--only", "alerts", "--only", "monitoring")


@pytest.fixture
def checked(monkeypatch, capsys, tmp_path):
    with deployment(tmp_path):
        yield Checked(monkeypatch, capsys, tmp_path)


def metrics_of(checked):
    line = next(line for line in (checked.folder / "speechpool.toml").read_text().splitlines() if "metrics" in line)
    return urlsplit(json.loads(line.partition("=")[2])[0]).netloc


def test_everything_passes_a_strict_check(checked, tmp_path):
    (tmp_path / "prometheus").mkdir()
    with Prometheus(tmp_path / "prometheus", [metrics_of(checked)], rules.written()) as prometheus:
        prometheus.wait("count(speechpool_tasks_total)", bool)
        prometheus.wait("speechpool:pool_utilisation:5m", bool)  # the rules were evaluated
        items = checked.items("--strict", "--prometheus", prometheus.url)
        assert {item["verdict"] for item in items.values()} == {"pass"}, items
        assert items.keys() == TITLES.keys()
        assert f"all {len(rules.ALERTS)} alerts" in evidence(items["alerts"], "pass")


def test_no_rules_and_no_targets_fail(checked, tmp_path):
    (tmp_path / "prometheus").mkdir()
    with Prometheus(tmp_path / "prometheus") as prometheus:
        prometheus.wait("vector(1)", bool)
        items = checked.items(*ITEMS, "--prometheus", prometheus.url)
        assert "has loaded none of our alerts" in evidence(items["alerts"], "fail")
        assert "no series speechpool_tasks_total" in evidence(items["monitoring"], "fail")


def test_some_rules_and_broken_ones_fail(checked, tmp_path):
    (tmp_path / "prometheus").mkdir()
    first, broken = rules.ALERTS[:2]
    # Two series on each side of one comparison: that only fails when it is evaluated.
    many = 'label_replace(vector(1), "a", "1", "", "") or label_replace(vector(1), "a", "2", "", "")'
    written = [
        {"alert": first.name, "expr": "vector(0) > 1"},
        {"alert": broken.name, "expr": f"({many}) > on() ({many})"},
    ]
    groups = {"groups": [{"name": "some", "rules": written}]}
    with Prometheus(tmp_path / "prometheus", rules=json.dumps(groups)) as prometheus:
        prometheus.wait("vector(1)", bool)
        end = time.monotonic() + LIMIT
        while not rules_of(prometheus.url).alerts[broken.name]:
            assert time.monotonic() < end, "the rules were never evaluated"
            time.sleep(0.3)
        items = checked.items("--only", "alerts", "--prometheus", prometheus.url)
        said = evidence(items["alerts"], "fail")
        assert f"cannot evaluate {broken.name}: found duplicate series" in said
        assert f"not the alerts {rules.ALERTS[2].name}" in said
        assert first.name not in said.replace(broken.name, "")
