"""`speechpool demo` with the real voice."""

import contextlib
import json
import os
import signal

import pytest
from commands import Serving, children, error_line, fits, is_running, run, run_here, seconds_of, started, until

from speechpool import Endpoint

TEXTS = ("First sentence.", "Second sentence.", "Third sentence.")
SIGNALS = ("first packet delay", "end-to-end latency", "error rate", "pool utilisation", "connection reuse")


def check_files(directory):
    assert sorted(file.name for file in directory.iterdir()) == ["result_0.mp3", "result_1.mp3", "result_2.mp3"]
    for number, text in enumerate(TEXTS):
        assert fits(seconds_of(directory / f"result_{number}.mp3"), text)


@pytest.fixture(scope="module")
def service():
    with Serving("hibari") as service:
        yield service


@pytest.fixture
def demo(service, monkeypatch, capsys, tmp_path):
    """The verb in this process, and its service, too, which would be a child."""

    @contextlib.asynccontextmanager
    async def running_service(engine=None):
        assert engine == "hibari"
        yield Endpoint(service.url, api_key="any")

    monkeypatch.setattr("speechpool.cli.child.running_service", running_service)
    return lambda *arguments: run_here(monkeypatch, capsys, tmp_path, "demo", *arguments)


def test_it_speaks_and_shows_the_five_signals(tmp_path):
    done = run("demo", "--requests", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    check_files(tmp_path / "demo")
    lines = done.stdout.decode().splitlines()
    rows = {name: line for name in SIGNALS for line in lines if line.startswith(name)}
    assert list(rows) == list(SIGNALS)
    assert "p99 < 500 ms" in rows["first packet delay"]
    assert "60-80 %" in rows["pool utilisation"]
    assert "100 % (4 of 4)" in rows["connection reuse"]
    assert "0 % (0 of 4)" in rows["error rate"]
    assert any("4 tasks are too few" in line for line in lines)  # a reason for what cannot be judged
    assert any("speechpool say" in line for line in lines)


def test_it_tells_everything_as_json(demo, tmp_path):
    (tmp_path / "texts").write_text("One more sentence.\n\nAnd another one.\n")
    done = demo("--requests", "2", "--output", "a/b", "--texts", "texts", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    check_files(tmp_path / "a" / "b")
    told = json.loads(done.stdout)
    assert [file["text"] for file in told["files"]] == list(TEXTS)
    assert (told["tasks"], told["failures"]) == (5, [])
    assert told["plan"]["rate"] * told["plan"]["sentences"] == pytest.approx(told["pace"]["rate"] / 2)
    assert told["report"]["lifetime"]["error_rate"]["completed"] == 5


@pytest.mark.slow
def test_the_whole_demo(tmp_path):
    done = run("demo", "--json", cwd=tmp_path, timeout=100)
    assert done.returncode == 0, done.stderr
    check_files(tmp_path / "demo")
    told = json.loads(done.stdout)
    lifetime = told["report"]["lifetime"]
    assert lifetime["tasks"] == 33
    assert lifetime["connection_reuse"]["verdict"] == "ok"
    for name, one in lifetime.items():
        if isinstance(one, dict) and one.get("verdict") == "missed":
            assert one["reason"], name


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--texts", "nowhere"], 2, ["nowhere", "No such file"]),
        (["--texts", "empty"], 2, ["empty", "one sentence a line"]),
        (["--texts", "."], 2, ["directory"]),
        (["--output", "empty"], 7, ["empty", "--output"]),
        (["--output", "empty/demo"], 7, ["empty/demo", "--output"]),
        (["--requests", "0"], 2, ["--requests"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else None,
)
def test_bad_input_is_one_line_and_a_code(monkeypatch, capsys, tmp_path, arguments, code, said):
    (tmp_path / "empty").touch()
    line = error_line(run_here(monkeypatch, capsys, tmp_path, "demo", *arguments), code)
    for part in said:
        assert part in line


@pytest.mark.parametrize(
    ("engine", "code", "said"), [("nobody", 2, ["nobody", "hibari"]), ("marker", 5, ["'mp3'", "'marker'"])]
)
def test_what_only_the_service_can_tell_is_one_line_too(monkeypatch, capsys, tmp_path, engine, code, said):
    line = error_line(run_here(monkeypatch, capsys, tmp_path, "demo", "--engine", engine), code)
    for part in said:
        assert part in line
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_file_that_cannot_be_written_is_named(demo, tmp_path):
    (tmp_path / "demo" / "result_1.mp3").mkdir(parents=True)
    line = error_line(demo(), 7)
    assert "demo/result_1.mp3 cannot be written" in line
    assert not list(tmp_path.rglob("*.part"))


# ------------------------------------------------------------------------------------ early ends
def service_of(demo):
    """The child that is the service, as soon as the demo says that it runs."""
    assert demo.stdout.readline().startswith(b"A speech service runs")
    (child,) = children(demo.pid)
    return child


def until_it_speaks(demo, directory):
    file = directory / "demo" / "result_2.mp3"
    until(lambda: file.exists() or demo.poll() is not None, 40)
    assert file.exists(), demo.stderr.read()


@pytest.mark.parametrize(
    ("phase", "sent"),
    [
        ("starting", signal.SIGINT),
        ("starting", signal.SIGTERM),
        pytest.param("speaking", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("speaking", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_leaves_no_child_and_no_half_written_file(tmp_path, sent, phase):
    code, said = {signal.SIGINT: (130, b"interrupted"), signal.SIGTERM: (143, b"terminated")}[sent]
    with started("demo", cwd=tmp_path) as demo:
        if phase == "starting":
            until(lambda: children(demo.pid))
            (child,) = children(demo.pid)
        else:
            child = service_of(demo)
            until_it_speaks(demo, tmp_path)
        os.killpg(demo.pid, sent)  # as a terminal does
        assert demo.wait(15) == code
        assert demo.stderr.read() == b"speechpool: error: " + said + b"\n"
        assert not is_running(child)
    if phase == "speaking":
        check_files(tmp_path / "demo")


def test_a_demo_that_is_killed_takes_its_service_along(tmp_path):
    with started("demo", cwd=tmp_path) as demo:
        child = service_of(demo)
        demo.kill()
        demo.wait()
        until(lambda: not is_running(child))


def test_a_service_that_dies_fails_the_demo_with_a_reason(tmp_path):
    with started("demo", cwd=tmp_path) as demo:
        os.kill(service_of(demo), signal.SIGKILL)
        said = demo.communicate(timeout=20)[1].decode()
    assert demo.returncode == 3
    assert said.startswith("speechpool: error: the local service ended with code -9")
    assert len(said.splitlines()) == 1
