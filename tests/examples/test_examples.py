"""Every example runs as its first lines say, against a `speechpool service` with the limits that it has by default."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import wave
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAM = Path(__file__).parents[1] / "dashscope" / "brief_program.txt"
LIMIT = 30.0


def environment(key):
    """No variable that would configure anything; a key of its own, since the service counts the task starts of each."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DASHSCOPE_", "COSYVOICE_"))}
    return kept | {"DASHSCOPE_API_KEY": key, "PYTHONUNBUFFERED": "1"}


@contextmanager
def running(command, key="examples", **options):
    process = subprocess.Popen(command, env=environment(key), text=True, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)


@pytest.fixture(scope="module")
def endpoint():
    command = [sys.executable, "-m", "speechpool", "service", "--engine", "replay", "--port", "0", "--json"]
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as service:
        yield f"ws://127.0.0.1:{json.loads(service.stdout.readline())['port']}"


def run(name, *arguments, folder=None, **variables):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=LIMIT,
        env=environment(name) | variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_brief(endpoint, tmp_path):
    said = run("brief.py", folder=tmp_path, DASHSCOPE_WEBSOCKET_BASE_URL=endpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result_0.mp3", "result_1.mp3", "result_2.mp3"]
    assert all(path.stat().st_size > 1000 for path in tmp_path.iterdir())
    assert said.count("First packet delay: ") == 3


def test_brief_is_the_program_of_the_documentation_but_for_four_lines():
    _, program = (EXAMPLES / "brief.py").read_text().split('"""\n', 1)[1].split("import os\n", 1)
    ours, theirs = ("import os\n" + program).splitlines(), PROGRAM.read_text().rstrip().splitlines()
    assert len(ours) == len(theirs)
    changed = [one for one, other in zip(ours, theirs, strict=True) if one != other]
    assert [re.split(r"[ =]", line)[0] for line in changed] == [
        "from",
        "from",
        "dashscope.api_key",
        "dashscope.base_websocket_api_url",
    ]


@pytest.mark.slow
def test_voice_agent(endpoint):
    said = run("voice_agent.py", "--endpoint", endpoint)
    lines = [re.sub(r"[0-9.]+ (m?s)", r"N \1", line.strip()) for line in said.splitlines()]
    assert [line.partition(",")[0] for line in lines if not line.startswith("agent")] == [
        "spoken",
        "user:  starts to speak",
        "interrupted",
        "spoken",
        "connections opened: 2",  # the interruption has cost none
    ]


def test_sambert_batch(endpoint, tmp_path):
    texts = tmp_path / "lines.txt"
    texts.write_text("One.\n\nTwo.\nThree.\nFour.\n")
    said = run("sambert_batch.py", str(texts), "--output", "audio", "--endpoint", endpoint, folder=tmp_path)
    assert said.endswith("4 of 4 lines spoken\n")
    files = sorted((tmp_path / "audio").iterdir())
    assert [file.name for file in files] == ["000.wav", "001.wav", "002.wav", "003.wav"]
    for file in files:
        with wave.open(str(file)) as audio:
            assert audio.getframerate() == 16000
            assert audio.getnframes() > 1000


def test_sambert_batch_tells_of_what_failed(endpoint, tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "sambert_batch.py", "--model", "sambert-nobody-v1", "--endpoint", endpoint],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=LIMIT,
        env=environment("failures"),
    )
    assert done.returncode == 1
    assert done.stdout == "0 of 4 lines spoken\n"
    assert len(done.stderr.splitlines()) == 4


def test_java_style_pool(endpoint):
    variables = {"COSYVOICE_OBJECTPOOL_SIZE": "3", "DASHSCOPE_CONNECTION_POOL_SIZE": "4"}
    audio, state = run("java_style_pool.py", "--callers", "4", "--endpoint", endpoint, **variables).splitlines()
    sizes = json.loads(audio.partition(": ")[2])
    assert len(sizes) == 4
    assert min(sizes) > 1000
    assert state == "active 0, idle 3, max total 3; opened 3"


def get(url):
    return urllib.request.urlopen(url, timeout=LIMIT)


@contextmanager
def web_server(name, endpoint, *arguments, key="fastapi"):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, EXAMPLES / name, "--endpoint", endpoint, "--port", str(port), *arguments]
    with running(command, key=key, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        while "Uvicorn running" not in server.stderr.readline():
            assert server.poll() is None
        yield f"127.0.0.1:{port}", server


def test_fastapi_stream(endpoint):
    with web_server("fastapi_stream.py", endpoint) as (host, _):
        base = f"http://{host}"
        with get(f"{base}/speech?text=Hello%20there.") as answer:
            assert answer.headers["Content-Type"] == "audio/mpeg"
            assert answer.read()[:2] == b"\xff\xf3"
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(f"{base}/speech?text=%20")
        with refused.value:
            assert refused.value.code == 400
        with get(f"{base}/speech?text={'A%20long%20text.%20' * 500}") as answer:
            assert answer.read(100)  # and the listener hangs up
        deadline = time.monotonic() + LIMIT
        while True:
            with get(f"{base}/health") as answer:
                if "20 idle" in answer.read().decode():
                    break
            assert time.monotonic() < deadline


def status(url):
    try:
        with get(url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def heard(caller):
    """Return the seconds of audio until an answer is over, and how it ended."""
    audio = 0
    while isinstance(message := caller.recv(LIMIT), bytes):
        audio += len(message)
    return audio / 32000, json.loads(message)["outcome"]


def test_fastapi_service(endpoint):
    with web_server("fastapi_service.py", endpoint, key="service") as (host, server):
        assert status(f"http://{host}/healthz")[0] == status(f"http://{host}/ready")[0] == 200
        assert status(f"http://{host}/speech?text=Hello.")[1][:2] == b"\xff\xf3"
        assert status(f"http://{host}/speech?text=%20")[0] == 400
        assert b'speechpool_tasks_total{outcome="completed"' in status(f"http://{host}/speechpool/metrics")[1]
        with connect(f"ws://{host}/conversation") as caller:
            for piece in "We are open ", "from nine to five. ", "And today, ":
                caller.send(json.dumps({"text": piece}))
            assert isinstance(caller.recv(LIMIT), bytes)  # spoken before the text has ended
            caller.send(json.dumps({"text": "too."}))
            caller.send(json.dumps({"finish": True}))
            seconds, outcome = heard(caller)
            assert seconds > 1
            assert outcome == "completed"
            caller.send(json.dumps({"text": "A long text. " * 500}))
            assert isinstance(caller.recv(LIMIT), bytes)
            caller.send(json.dumps({"stop": True}))
            assert heard(caller)[1] == "stopped"
            # A rollout: nobody new, and those who listen hear the end.
            caller.send(json.dumps({"text": "Just one moment, please. " * 20}))
            assert isinstance(caller.recv(LIMIT), bytes)
            drained = []
            draining = threading.Thread(target=lambda: drained.append(status(f"http://{host}/drain?at_least=0")))
            draining.start()
            while status(f"http://{host}/ready")[0] == 200:
                assert not drained
            assert not drained
            caller.send(json.dumps({"finish": True}))
            assert heard(caller)[1] == "completed"
            with pytest.raises(ConnectionClosed):
                caller.recv(LIMIT)
            assert caller.close_code == 1012
            draining.join(LIMIT)
            assert drained == [(200, b'"drained"')]
        server.send_signal(signal.SIGTERM)
        assert "Traceback" not in server.stderr.read()


@pytest.mark.parametrize(
    "name", ["fastapi_service.py", "fastapi_stream.py", "voice_agent.py", "sambert_batch.py", "java_style_pool.py"]
)
def test_options_are_explained(name):
    said = run(name, "--help")
    assert "--endpoint ENDPOINT" in said
    assert "ws://127.0.0.1:8765" in said


def test_all_examples_are_tested():
    tests = Path(__file__).read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in tests, example.name
