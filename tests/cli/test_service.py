"""`speechpool service` as a process: what it says, how it ends."""

import asyncio
import contextlib
import functools
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from commands import run_here

from speechpool.cli.service import service as verb
from speechpool.service import ServiceSettings
from speechpool.service.faults import FAULTS
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
    return functools.partial(run_here, monkeypatch, capsys, tmp_path)


@pytest.fixture
def announced(here, monkeypatch):
    """The verb in this process, with a service that ends as soon as it has said where it listens."""

    async def run(service, *, drain, on_listening):
        async with service:
            on_listening(service)

    monkeypatch.setattr("speechpool.service.running.run", run)
    return lambda *arguments, **environment: here(
        "service", *(arguments or ["--port", "0", "--engine", "marker"]), **environment
    )


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


def test_json_says_the_same_for_programs(announced):
    facts = json.loads(announced("--port", "0", "--engine", "marker", "--json").stdout)
    assert facts["url"] == f"ws://127.0.0.1:{facts['port']}/api-ws/v1/inference"
    assert facts["engine"] == "marker"


def test_it_says_which_limits_hold_and_what_goes_wrong(announced):
    usual = announced().stderr
    assert "3 task starts/s of one key and model (--submission-rate none turns it off)" in usual
    assert "pauses in a text 23 s (--text-gap), idle connections 60 s (--idle-timeout)." in usual
    assert "Faults" not in usual
    none = ("--submission-rate", "none", "--text-gap", "none", "--idle-timeout", "none")
    off = announced("--port", "0", "--engine", "marker", *none, "--fault", "drop~10%").stderr
    assert "Limits, as the provider documents them: all turned off." in off
    assert "Faults: drop@mid-audio~0.1." in off


def test_the_defaults_of_the_flags_are_those_of_the_settings():
    defaults = {name: each.default for name, each in inspect.signature(verb).parameters.items()}
    for each in ServiceSettings.describe():
        if each.name in defaults:
            given = defaults[each.name]
            assert (float(given) if isinstance(given, str) else given) == each.default, each.name


@pytest.mark.parametrize("as_json", [False, True])
def test_voices_are_listed_without_a_service(here, as_json):
    done = here("service", "--engine", "marker", "--voices", *(["--json"] if as_json else []))
    assert done.returncode == 0
    if as_json:
        voices = json.loads(done.stdout)
        assert {"name", "pitch", "formant", "origin"} == set(voices[0])
        assert "longanyang" in [voice["name"] for voice in voices]
    else:
        lines = done.stdout.splitlines()
        assert lines[0].split() == ["name", "pitch", "formant", "origin"]
        assert any(line.startswith("longanyang ") for line in lines)


def test_its_help_lists_every_flag_group_and_fault(here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    done = here("service", "--help")
    for kind in FAULTS:
        assert kind.name in done.stdout
    for words in ("--tls-cert", "--max-connections-per-address", "Limits, as the provider documents them", "mid-audio"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fault", "dorp"], ["dorp", "Did you mean 'drop'"]),
        (["--submission-rate", "many"], ["many", "none"]),
        (["--text-gap", "0"], ["text_gap", "minimum"]),
        (["--idle-timeout", "nan"], ["idle_timeout"]),
        (["--allow-origin", "example.com"], ["example.com", "no origin"]),
        (["--max-connections-per-key", "0"], ["--max-connections-per-key"]),
    ],
)
def test_a_wrong_flag_is_one_line(here, arguments, words):
    line = one_error(here("service", "--engine", "marker", "--port", "0", *arguments), 2)
    for part in words:
        assert part in line


def test_the_file_may_hold_lists_and_limits(announced, tmp_path):
    (tmp_path / "speechpool.toml").write_text(
        '[service]\nengine = "marker"\nport = 0\ntext_gap = "none"\nsubmission_rate = 5\nfault = ["drop~0.5"]\n'
    )
    said = announced("--drain", "1").stderr
    assert "5 task starts/s" in said
    assert "--text-gap" not in said
    assert "drop@mid-audio~0.5" in said
    for several in ("delay~0.5, stall", '["delay~0.5", "stall"]'):
        said = announced("--drain", "1", SPEECHPOOL_SERVICE__FAULT=several).stderr
        assert "Faults: delay@starting:1s~0.5, stall@mid-audio." in said
        assert "drop" not in said


def test_a_port_in_use_is_one_line(here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = here("service", "--port", port, "--engine", "marker")
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


def test_flags_win_over_the_environment_and_that_over_the_file(announced, here, tmp_path):
    (tmp_path / "speechpool.toml").write_text('[service]\nengine = "nowhere"\nport = 1\n')
    done = announced("--engine", "marker", "--port", "0", SPEECHPOOL_SERVICE__PORT="2")
    assert done.stdout.startswith("listening on")  # both port and engine of the flags
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
    for words in ("service", "Exit codes", "130", "143", "a file cannot be written"):
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
