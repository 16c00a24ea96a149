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
TEXT = "The harbour was quiet."
LONG = f"{TEXT} " * 500
"""Minutes of speech: it is cancelled long before its end."""


@pytest.fixture(autouse=True)
def _interruptible():
    """A shell starts its background jobs deaf to SIGINT, and what they start inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def received(monkeypatch):
    """What clients send to a service of this process."""
    frames = []
    on_text = SpeechSession.on_text
    monkeypatch.setattr(SpeechSession, "on_text", lambda self, data: frames.append(data) or on_text(self, data))
    return frames


def stopped(program, directory, sent, received, service):
    """Run a program against a service, stop it when each of its tasks has sent its text, and return how it ended."""
    tasks = 3 if "range(3)" in program else 1
    with service:
        program = program.replace("Endpoint.local()", f"Endpoint.local({service.port})")
        process = subprocess.Popen(
            [sys.executable, "-c", program],
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
    # Threads that print at once may leave two lines in one.
    return process.returncode, sorted(re.findall(r"call \d: (?:closed|\d+)", out)), err


def cancels(received):
    return sum(b"cancel" in frame for frame in received)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_drained_tasks_end_by_themselves(tmp_path, received, sent):
    slow_to_end = Serving("marker", faults=Faults.parse(["delay@finishing:500ms"]))
    program = DRAINED.replace('"longanyang")', '"longanyang", format="pcm")')  # what that engine speaks
    code, lines, err = stopped(program, tmp_path, sent, received, slow_to_end)
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in lines] == ["call 0", "call 1", "call 2"]
    assert cancels(received) == 0


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_cancelled_program_cancels_its_task_on_the_server(tmp_path, received, sent, expected):
    code, _, err = stopped(CANCELLED.replace(TEXT, LONG), tmp_path, sent, received, Serving("hibari"))
    assert (code, err) == (expected, "")
    assert cancels(received) == 1


def test_threads_get_an_error_when_the_main_thread_leaves(tmp_path, received):
    code, lines, err = stopped(THREADS.replace(TEXT, LONG), tmp_path, signal.SIGTERM, received, Serving("hibari"))
    assert (code, err) == (143, "")
    assert lines == ["call 0: closed", "call 1: closed", "call 2: closed"]
    assert cancels(received) == 3
