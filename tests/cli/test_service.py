"""`speechpool service` as a process: what it says, how it ends."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from speechpool.cli import main
from speechpool.transport import connect

SPEECHPOOL = [sys.executable, "-m", "speechpool"]


def speechpool(*arguments, env=None, cwd=None):
    done = subprocess.run(
        [*SPEECHPOOL, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | (env or {}),
        cwd=cwd,
    )
    assert "Traceback" not in done.stderr or "--debug" in arguments, done.stderr
    return done


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """The command in this process, in an empty directory: for what ends before a service starts."""
    monkeypatch.chdir(tmp_path)
    # The command sets logging up for its process, which this one is not.
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["speechpool", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, caught.value.code, out, err)

    return run


@contextlib.contextmanager
def service(*arguments, env=None, cwd=None):
    process = subprocess.Popen(
        [*SPEECHPOOL, "service", "--port", "0", "--engine", "marker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (env or {}),
        cwd=cwd,
    )
    try:
        yield process, process.stdout.readline().rstrip("\n")
    finally:
        process.kill()
        process.communicate()


def page(url, path):
    base = url.replace("ws://", "http://").removesuffix("/api-ws/v1/inference")
    with urllib.request.urlopen(base + path, timeout=5) as answer:
        return json.load(answer)


def one_error(done, code):
    assert done.returncode == code, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("speechpool: error: ")
    return lines[0]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_leaves_with_0(sign):
    with service() as (process, line):
        start, _, url = line.rpartition(" ")
        assert start == "listening on"
        assert url.startswith("ws://127.0.0.1:")
        assert url.endswith("/api-ws/v1/inference")
        health = page(url, "/healthz")
        assert (health["status"], health["engine"]) == ("ok", "marker")
        process.send_signal(sign)
        out, err = process.communicate(timeout=10)
        assert process.returncode == 0
        assert out == ""
        assert "Traceback" not in err
        assert "speechpool say" in err


def test_json_says_the_same_for_programs():
    with service("--json") as (_, line):
        facts = json.loads(line)
        assert facts["url"] == f"ws://127.0.0.1:{facts['port']}/api-ws/v1/inference"
        assert facts["engine"] == "marker"


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = speechpool("service", "--port", port, "--engine", "marker")
        assert f"port {port}" in one_error(done, 2)
        assert "--port 0" in done.stderr


def test_other_machines_need_a_key(here):
    assert "--api-key" in one_error(here("service", "--host", "0.0.0.0", "--engine", "marker"), 2)


def test_the_key_comes_from_the_environment_and_is_never_shown():
    with service("--host", "127.0.0.1", env={"SPEECHPOOL_SERVICE__API_KEY": "sesame"}) as (process, line):
        url = line.split()[-1]
        request = urllib.request.Request(url.replace("ws:", "http:"), headers={"Authorization": "Bearer other"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5)
        assert caught.value.code == 401
        caught.value.close()
        process.terminate()
        out, err = process.communicate(timeout=10)
        assert "sesame" not in out + err


def test_flags_win_over_the_environment_and_that_over_the_file(here, tmp_path):
    (tmp_path / "speechpool.toml").write_text('[service]\nengine = "nowhere"\nport = 1\n')
    with service("--engine", "marker", cwd=tmp_path, env={"SPEECHPOOL_SERVICE__PORT": "2"}) as (_, line):
        assert line.startswith("listening on")  # both port and engine of the flags
    assert "nowhere" in one_error(here("service"), 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [("[service]\nprot = 1\n", "service.prot"), ("[service]\nport = 70000\n", "service.port"), ("[service", "no TOML")],
)
def test_a_wrong_file_is_one_line(here, tmp_path, content, words):
    (tmp_path / "speechpool.toml").write_text(content)
    assert words in one_error(here("service"), 2)
    assert here("service", "--help").returncode == 0


def test_an_unknown_engine_names_the_known_ones(here):
    assert "marker" in one_error(here("service", "--engine", "nobody"), 2)


@pytest.mark.parametrize("arguments", [["serve"], ["service", "--port", "many"], ["service", "--what"]])
def test_wrong_usage_is_one_line(here, arguments):
    one_error(here(*arguments), 2)


def test_help_lists_verbs_and_exit_codes(here):
    done = here("--help")
    assert done.returncode == 0
    for words in ("service", "Exit codes", "130", "a file cannot be written"):
        assert words in done.stdout


def test_version(here):
    done = here("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "speechpool")


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [("typer", ["--help"], "speechpool[cli]"), ("numpy", ["service", "--engine", "marker"], "speechpool[service]")],
)
def test_a_missing_extra_says_how_to_install_it(tmp_path, missing, arguments, extra):
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError(name={missing!r})")
    done = speechpool(*arguments, env={"PYTHONPATH": str(tmp_path)})
    assert f"pip install '{extra}'" in one_error(done, 2)


def test_an_unexpected_error_is_one_line_and_debug_shows_more(tmp_path):
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('broken installation')")
    line = one_error(speechpool("service", env={"PYTHONPATH": str(tmp_path)}), 1)
    assert "broken installation" in line
    assert "--debug" in line
    done = speechpool("--debug", "service", env={"PYTHONPATH": str(tmp_path)})
    assert "Traceback" in done.stderr


def test_sigterm_lets_a_running_task_finish():
    class Client:
        def __init__(self):
            self.names = asyncio.Queue()

        def on_text(self, data):
            self.names.put_nowait(json.loads(data)["header"]["event"])

        def on_binary(self, data):
            pass

        def on_closed(self, closed):
            self.names.put_nowait(closed.code)

    def instruction(action, **payload):
        header = {"action": action, "task_id": "a", "streaming": "duplex"}
        return json.dumps({"header": header, "payload": {"input": {}} | payload}).encode()

    async def task(process, url):
        client = Client()
        connection = await connect(url, client, headers={"Authorization": "Bearer any"})
        wish = {"voice": "longanyang", "format": "pcm", "sample_rate": 24000}
        connection.send(instruction("run-task", model="m", parameters=wish))
        assert await client.names.get() == "task-started"
        process.terminate()
        while (await asyncio.to_thread(page, url, "/healthz"))["status"] != "draining":
            await asyncio.sleep(0.01)
        connection.send(instruction("continue-task", input={"text": "The last words."}))
        connection.send(instruction("finish-task"))
        names = []
        while not names or isinstance(names[-1], str):
            names.append(await client.names.get())
        return names

    with service() as (process, line):
        names = asyncio.run(asyncio.wait_for(task(process, line.split()[-1]), 20))
        assert names[-2:] == ["task-finished", 1001]
        assert process.wait(10) == 0
