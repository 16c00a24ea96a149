"""`service --monitor`: the live page of the service itself shows what its clients met."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from speechpool import Endpoint, SpeechPool, TaskFailed, Voice

VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm")
TEXT = "A word that nobody else says: zanzibarian."


@pytest.fixture
def facts():
    command = [sys.executable, "-m", "speechpool", "service", "--engine", "marker", "--port", "0", "--monitor", "0",
               "--submission-rate", "none", "--fault", "fail@starting:InvalidParameter~25%", "--json"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def read(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


@pytest.mark.keeps_descriptors
def test_the_page_counts_what_the_clients_counted(facts):
    outcomes = {"completed": 0, "failed": 0}
    with SpeechPool(Endpoint(facts["url"], api_key="any"), max_size=2) as pool:
        for _ in range(12):
            try:
                pool.synthesize(TEXT, VOICE)
                outcomes["completed"] += 1
            except TaskFailed:
                outcomes["failed"] += 1
        (served,) = json.loads(read(f"{facts['monitor']}snapshot.json"))["pools"]
    assert min(outcomes.values()) > 0
    rate = served["report"]["lifetime"]["error_rate"]
    assert {name: rate[name] for name in outcomes} == outcomes
    assert rate["errors"] == {"InvalidParameter": outcomes["failed"]}
    assert served["pool"] == "service"
    assert served["stats"]["max_size"] == 2000
    assert served["report"]["lifetime"]["connection_reuse"]["connected"] == 12
    reuse = served["report"]["lifetime"]["connection_reuse"]
    assert served["stats"]["reused"] == reuse["reused"] > 0
    assert served["stats"]["borrows"] == reuse["connected"]
    assert served["report"]["lifetime"]["first_packet_delay"]["tasks"] == outcomes["completed"]
    assert f"{outcomes['failed']} InvalidParameter" in served["explained"]
    assert len(served["slowest"]) == 10
    page, metrics = read(facts["monitor"]), read(f"{facts['monitor']}metrics")
    assert "<title>" in page
    assert f'speechpool_tasks_total{{outcome="completed",pool="service"}} {outcomes["completed"]}.0' in metrics
    assert "zanzibarian" not in json.dumps(served) + metrics
