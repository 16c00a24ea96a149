"""Runs `speechpool` the way a user does, in an environment without settings of its own."""

import asyncio
import contextlib
import functools
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import miniaudio
import pytest
import typer
import uvloop

from speechpool.cli import main
from speechpool.cli.app import build
from speechpool.service import LocalBackend, ServiceSettings, SpeechService

_build = functools.cache(build)
_get_command = functools.cache(typer.main.get_command)
"""Made once: most of the time of a verb that does little."""
SPEECHPOOL = [sys.executable, "-m", "speechpool"]


def clean_environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPEECHPOOL_", "DASHSCOPE_"))}
    return kept | more


def run(*arguments, cwd, stdin=b"", timeout=60, **environment):
    """Run a verb to its end; nothing may ever end in a traceback."""
    done = subprocess.run(
        [*SPEECHPOOL, *map(str, arguments)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
        env=clean_environment(**environment),
    )
    done.stderr = done.stderr.decode()
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run_here(monkeypatch, captured, cwd, *arguments, stdin=b"", hush=True, **environment):
    """Run a verb in this process, which is quicker than a new one. `captured` is capsys, or capfd."""
    for name in [*os.environ]:
        if name.startswith(("SPEECHPOOL_", "DASHSCOPE_")):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # meant for a process of its own
    if not hush:
        monkeypatch.setattr("speechpool.cli.loop._hush", lambda: None)
    monkeypatch.setattr("speechpool.cli.app.build", _build)
    monkeypatch.setattr(typer.main, "get_command", _get_command)
    monkeypatch.setattr(sys, "argv", ["speechpool", *map(str, arguments)])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    logger = logging.getLogger("speechpool")
    level, on_term = logger.level, signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as left:
            main()
    finally:
        logger.setLevel(level)
        signal.signal(signal.SIGTERM, on_term)
    out, err = captured.readouterr()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(arguments, left.value.code, out, err)


class Serving:
    """A service in a thread of this process: for clients that run in this process, too."""

    def __init__(self, engine, **options):
        self._engine = engine
        self._options = options
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), name="service")

    async def _run(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        settings = ServiceSettings(submission_rate=None)
        backend = LocalBackend(self._engine, max_first_audio=None)  # a busy machine must not refuse a test's task
        try:
            async with SpeechService(backend, **{"port": 0, "settings": settings} | self._options) as service:
                self.url, self.port, self.counts = service.url, service.port, service.counts
                self._listening.set()
                await self._over.wait()
        finally:
            self._listening.set()

    def __enter__(self):
        self._thread.start()
        assert self._listening.wait(30)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)


@contextlib.contextmanager
def started(*arguments, cwd, **options):
    """Start a verb in a process group of its own, and end it at the end whatever it does."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
    process = subprocess.Popen(
        [*SPEECHPOOL, *map(str, arguments)], cwd=cwd, env=clean_environment(), start_new_session=True, **options
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def error_line(done, code):
    """The one line that explains why a verb ended with `code`."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, (done.returncode, lines)
    assert len(lines) == 1, lines
    assert lines[0].startswith("speechpool: error: ")
    return lines[0].removeprefix("speechpool: error: ")


def until(met, seconds=20):
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def seconds_of(path):
    decoded = miniaudio.decode(Path(path).read_bytes(), output_format=miniaudio.SampleFormat.SIGNED16, nchannels=1)
    assert max(decoded.samples) > 1000, "silence"
    return decoded.num_frames / decoded.sample_rate


def fits(seconds, text):
    """Whether some audio may be `text`: people speak some 15 letters a second, and pause at the ends of sentences."""
    return 0.04 * len(text) < seconds < 0.16 * len(text) + 0.5
