"""A real Prometheus scrapes a pool under load: its numbers are those of the report, and every question has an answer."""

import asyncio
import json
import math
from urllib.parse import urlsplit

import pytest
from monitored import ask, get, pool_with_traffic, traffic

from prometheus_process import Prometheus
from speechpool import monitoring
from speechpool.limits import LocalQuota
from speechpool.monitoring import dashboards, rules
from speechpool.telemetry.histogram import FIRST_PACKET_EDGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def concrete(question):
    """As Grafana would send it."""
    for name in ("job", "instance", "pool"):
        question = question.replace(f'{name}=~"${name}"', f'{name}=~".*"')
    return question.replace("$__rate_interval", "1m")


def test_it_agrees_with_the_report_and_answers_every_question(tmp_path):
    faults = ["fail@starting~5%", "drop@started~5%", "throttle@starting~3%"]

    async def main():
        async with pool_with_traffic(1, faults, quota=LocalQuota(400.0), max_size=10, borrow_timeout=0.2) as pool:
            with (
                monitoring.serve(pool, 0) as monitor,
                Prometheus(tmp_path, [urlsplit(monitor.url).netloc], rules.written()) as prometheus,
            ):
                await asyncio.to_thread(prometheus.wait, "up", lambda found: found and found[0][1] == 1)
                for _ in range(40):
                    await traffic(pool, 20)
                    await asyncio.sleep(0.2)
                report, stats = pool.report().lifetime, pool.stats
                total = sum(report.error_rate.__getattribute__(o) for o in ("completed", "failed", "cancelled", "shed"))
                await asyncio.to_thread(
                    prometheus.wait, "sum(speechpool_tasks_total)", lambda found: found and found[0][1] == total
                )
                await asyncio.to_thread(compare, prometheus, report, stats)
                await asyncio.to_thread(questions, prometheus)
                assert (await ask(f"{monitor.url}healthz"))[0] == 200

    asyncio.run(main())


def compare(prometheus, report, stats):
    outcomes = {labels["outcome"]: value for labels, value in prometheus.ask("speechpool_tasks_total")}
    assert outcomes == {name: getattr(report.error_rate, name) for name in ("completed", "failed", "cancelled", "shed")}
    assert outcomes["failed"] > 0
    states = {labels["state"]: value for labels, value in prometheus.wait("speechpool_pool_connections", len)}
    assert states == {"idle": stats.idle, "borrowed": 0, "opening": 0, "closing": 0}
    reasons = {labels["reason"]: value for labels, value in prometheus.ask("speechpool_pool_closed_total")}
    assert reasons == dict(stats.discarded)
    assert prometheus.ask("sum(speechpool_pool_borrows_total{result=~'reused|new'})")[0][1] == stats.borrows
    assert prometheus.ask("speechpool_tasks_connected_total{reused='true'}")[0][1] == report.connection_reuse.reused
    assert prometheus.ask("speechpool_characters_total")[0][1] == report.characters
    for q, ours in (
        (0.5, report.first_packet_delay.p50),
        (0.95, report.first_packet_delay.p95),
        (0.99, report.first_packet_delay.p99),
    ):
        theirs = prometheus.ask(f"histogram_quantile({q}, speechpool_first_packet_delay_seconds_bucket)")[0][1]
        assert bucket(theirs) == bucket(ours), (q, theirs, ours)


def bucket(value):
    return next((edge for edge in FIRST_PACKET_EDGES if value <= edge), math.inf)


def questions(prometheus):
    asked = [concrete(question) for panel in dashboards.PANELS for question in panel.questions]
    asked += [condition.value for alert in rules.ALERTS for condition in alert.conditions]
    asked += [*rules.RECORDS, *rules.RECORDS.values()]
    without = [question for question in asked if not prometheus.wait(question, bool)]
    assert without == []
    health = json.loads(get(f"{prometheus.url}/api/v1/rules")[2])["data"]["groups"]
    broken = [rule for group in health for rule in group["rules"] if rule["health"] != "ok"]
    assert broken == []
