"""The programs of docs/shutdown.md, stopped by signals while their tasks run."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Serving, clean_environment, until

from speechpool.service.faults import Faults
from speechpool.service.session import SpeechSession

PAGE = Path(__file__).parents[2] / "docs" / "shutdown.md"
DRAINED, CANCELLED, THREADS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def received(monkeypatch):
    """What clients send to a service of this process."""
    frames = []
    on_text = SpeechSession.on_text
    monkeypatch.setattr(SpeechSession, "on_text", lambda self, data: frames.append(data) or on_text(self, data))
    return frames


def stopped(program, directory, sent, received, fault):
    """Run a program against a service, stop it when each of its tasks has sent its text, and return how it ended."""
    tasks = 1 if program is CANCELLED else 3
    with Serving("marker", faults=Faults.parse([fault])) as service:
        process = subprocess.Popen(
            [sys.executable, "-c", program.replace("Endpoint.local()", f"Endpoint.local({service.port})")],
            cwd=directory,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: sum(b"finish-task" in frame for frame in received) == tasks)
            process.send_signal(sent)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
            process.communicate()
    return process.returncode, sorted(out.splitlines()), err


def cancels(received):
    return sum(b"cancel" in frame for frame in received)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_drained_tasks_end_by_themselves(tmp_path, received, sent):
    code, lines, err = stopped(DRAINED, tmp_path, sent, received, "delay@finishing:500ms")
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in lines] == ["call 0", "call 1", "call 2"]
    assert cancels(received) == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_program_cancels_its_task_on_the_server(tmp_path, received, sent):
    code, _, err = stopped(CANCELLED, tmp_path, sent, received, "stall@finishing")
    assert (code, err) == (143, "")
    assert cancels(received) == 1


def test_threads_get_an_error_when_the_main_thread_leaves(tmp_path, received):
    code, lines, err = stopped(THREADS, tmp_path, signal.SIGTERM, received, "stall@finishing")
    assert (code, err) == (143, "")
    assert lines == ["call 0: closed", "call 1: closed", "call 2: closed"]
    assert cancels(received) == 3
