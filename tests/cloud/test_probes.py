"""The probes work: they run against the local service, whose answers are known, and cost no more than they may."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cloud_facts import Fact, markdown
from cloud_wire import Budget, TooExpensive

from speechpool.service import LocalBackend, ServiceSettings, SpeechService

PROBES = Path(__file__).with_name("test_cloud.py")
GAP, IDLE = 1.0, 0.8


@pytest.fixture(scope="module")
def run_of_the_probes(tmp_path_factory):
    """What came out, the exit code, and the facts by question."""
    path = tmp_path_factory.mktemp("cloud") / "facts.json"

    async def main():
        settings = ServiceSettings(text_gap=GAP, idle_timeout=IDLE, submission_rate=None)
        async with SpeechService(LocalBackend("hibari"), port=0, settings=settings) as service:
            environment = os.environ | {
                "DASHSCOPE_API_KEY": "local-secret",
                "SPEECHPOOL_CLOUD_URL": f"ws://127.0.0.1:{service.port}",
                "SPEECHPOOL_CLOUD_FACTS": str(path),
                "SPEECHPOOL_CLOUD_IDLE": str(IDLE),
                "SPEECHPOOL_CLOUD_GAP": str(GAP),
                "SPEECHPOOL_CLOUD_PAUSE": "0",
                "NO_PROXY": "127.0.0.1",
            }
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(PROBES)]
            process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            return out.decode(), process.returncode

    out, code = asyncio.run(main())
    return out, code, {fact["question"]: fact for fact in json.loads(path.read_text())}


@pytest.mark.slow
def test_every_question_gets_an_answer(run_of_the_probes):
    out, code, facts = run_of_the_probes
    assert code == 0, out
    seen = {question: fact["seen"] for question, fact in facts.items()}
    assert seen["run-task during a task"].startswith("InvalidParameter: Invalid action('run-task')!"), seen
    assert seen["close code and reason after task-failed"].startswith("close 1000 "), seen
    assert seen["where word timestamps are"] == "sentence-end", seen
    assert seen["do pings extend the idle time"].startswith("no: close 1000 "), seen
    assert seen["life of a warm connection that never ran a task"].startswith("close 1000 "), seen
    assert seen["is the clock between texts stopped while audio flows"].startswith("yes: CLIENT_ERROR"), seen
    assert "kbit/s came" in seen["mp3 with bit_rate 96"], seen
    assert seen["form of the rate limit"] == "not seen"


@pytest.mark.slow
def test_the_table_is_printed_and_holds_no_key(run_of_the_probes):
    out, _, facts = run_of_the_probes
    assert "| question | what was seen | date | model |" in out
    assert "local-secret" not in out
    assert "local-secret" not in json.dumps(facts)


def test_they_are_not_collected_unless_named():
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", str(PROBES.parent)]
    environment = os.environ | {"DASHSCOPE_API_KEY": "local-secret"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "test_probes.py" in done.stdout
    assert "test_cloud.py" not in done.stdout


def test_the_budget_refuses_what_would_pass_it():
    budget = Budget(10)
    budget.spend("你好Hi")  # a Han character counts 2
    assert budget.spent == 6
    with pytest.raises(TooExpensive):
        budget.spend("Hello")
    assert budget.spent == 6


def test_a_cell_keeps_its_table_whole():
    assert markdown([Fact("q", "a|b\nc", "2026-01-01", "m", "u")]).splitlines()[2] == "| q | a\\|b c | 2026-01-01 | m |"
