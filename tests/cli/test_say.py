"""`speechpool say` against a real service."""

import asyncio
import itertools
import json
import select
import signal
import socket
import stat
import subprocess
import threading
import time
import wave
from pathlib import Path

import pytest
from commands import SPEECHPOOL, Serving, clean_environment, error_line, fits, run, run_here, seconds_of, started, until

from speechpool.service import LocalBackend, SpeechService
from speechpool.service.engines import load_engine
from speechpool.service.faults import Faults
from speechpool.service.session import SpeechSession

KEY = "a-key-of-its-own"
TEXT = "The harbour was quiet, and the old clock struck eleven."


@pytest.fixture(scope="module")
def url():
    with Serving("hibari", api_key=KEY) as service:
        yield service.url


@pytest.fixture
def say(url, monkeypatch, capsys, tmp_path):
    def say(*arguments, **options):
        captured = options.pop("captured", capsys)
        place = ("--endpoint", url, "--api-key", KEY)
        return run_here(monkeypatch, captured, tmp_path, "say", *arguments, *place, **options)

    return say


# ------------------------------------------------------------------------------------ audio
@pytest.mark.parametrize("name", ["speech.mp3", "speech.wav", "SPEECH.MP3"])
def test_a_file_decodes_and_its_length_fits_the_text(say, tmp_path, name):
    done = say(TEXT, "-o", name, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert not done.stderr
    seconds = seconds_of(tmp_path / name)
    assert fits(seconds, TEXT)
    assert seconds == pytest.approx(summary["seconds"], abs=0.1)
    assert summary["outcome"] == "completed"
    assert summary["bytes"] == (tmp_path / name).stat().st_size
    assert summary["characters"] == len(TEXT)
    assert sum(summary["parts"].values()) == pytest.approx(summary["first_packet_delay"])
    assert 0 < summary["first_packet_delay"] <= summary["end_to_end"]
    assert len(summary["request_id"]) == 32


def test_the_header_of_a_wav_file_knows_its_length(say, tmp_path):
    say(TEXT, "-o", "speech.wav", "--sample-rate", "16000")
    with wave.open(str(tmp_path / "speech.wav")) as file:  # refuses the header of a stream
        assert file.getframerate() == 16000
        assert file.getnframes() * 2 == (tmp_path / "speech.wav").stat().st_size - 44


def test_pcm_is_the_wav_without_its_header(say, tmp_path):
    say(TEXT, "-o", "speech.wav")
    done = say(TEXT, "-o", "speech.pcm")
    assert "speech.pcm: " in done.stdout
    assert (tmp_path / "speech.pcm").read_bytes() == (tmp_path / "speech.wav").read_bytes()[44:]


def test_standard_output_carries_nothing_but_audio(url, tmp_path):
    place = ("--endpoint", url, "--api-key", KEY)
    done = run("say", "-o", "-", "--json", *place, stdin=TEXT.encode(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.mp3").write_bytes(done.stdout)
    assert fits(seconds_of(tmp_path / "out.mp3"), TEXT)
    assert json.loads(done.stderr)["bytes"] == len(done.stdout)


def test_a_dash_reads_standard_input_too_and_a_byte_order_mark_is_not_spoken(say):
    done = say("-", "-o", "speech.mp3", "--json", stdin=b"\xef\xbb\xbf" + TEXT.encode())
    assert json.loads(done.stdout)["characters"] == len(TEXT)


def test_rate_and_words(say):
    slow, fast = (
        json.loads(say(TEXT, "-o", "speech.wav", "--rate", rate, "--words", "--json").stdout) for rate in (0.8, 1.6)
    )
    assert slow["seconds"] > 1.5 * fast["seconds"]
    assert [word["text"].strip(".,") for word in fast["words"]] == TEXT.replace(",", "").replace(".", "").split()
    assert fast["words"][-1]["end_time"] <= 1000 * fast["seconds"] + 50


def test_what_stood_there_is_replaced_and_a_link_stays(say, tmp_path):
    (tmp_path / "target.mp3").write_bytes(b"old")
    (tmp_path / "speech.mp3").symlink_to("target.mp3")
    assert say(TEXT, "-o", "speech.mp3").returncode == 0
    assert (tmp_path / "speech.mp3").is_symlink()
    assert fits(seconds_of(tmp_path / "target.mp3"), TEXT)


def test_a_device_is_written_and_stays_a_device(say):
    assert say(TEXT, "-o", "/dev/null", "--format", "wav").returncode == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_reader_that_goes_away_is_no_error(url, tmp_path):
    command = [*SPEECHPOOL, "say", "-", "-o", "-", "--format", "wav", "--endpoint", url, "--api-key", KEY]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(f"{TEXT} ".encode() * 20)
        process.stdin.close()
        process.stdout.read(100)
        process.stdout.close()
        assert process.wait(20) == 0
        assert not process.stderr.read()


def test_without_an_endpoint_it_starts_a_service_for_the_call(monkeypatch, capsys, tmp_path):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8765)) == 0:
            pytest.skip("a service runs on this machine's default port")
    settings = {"SPEECHPOOL_SERVICE__API_KEY": "of another service"}
    done = run_here(monkeypatch, capsys, tmp_path, "say", TEXT, "-o", "speech.mp3", **settings)
    assert done.returncode == 0, done.stderr
    assert fits(seconds_of(tmp_path / "speech.mp3"), TEXT)


def test_endpoint_and_key_come_from_the_environment(url, monkeypatch, capsys, tmp_path):
    settings = {"SPEECHPOOL_ENDPOINT__URL": url, "DASHSCOPE_API_KEY": KEY}
    done = run_here(monkeypatch, capsys, tmp_path, "say", TEXT, "-o", "speech.mp3", **settings)
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------------------------------------ as it arrives
class OneWindow:
    """The real engine, held after its first window of sound until `gate` opens."""

    def __init__(self, engine):
        self._engine = engine
        self.name, self.profile, self.sample_rate = engine.name, engine.profile, engine.sample_rate
        self.load, self.voices, self.speaks = engine.load, engine.voices, engine.speaks
        self.gate = threading.Event()
        self.windows = 0

    def synthesize(self, sentence):
        for chunk in self._engine.synthesize(sentence):
            self.windows += 1
            yield chunk
            assert self.gate.wait(30)


@pytest.mark.parametrize("words", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_audio_arrives_after_one_window_of_synthesis_however_long_the_text(tmp_path, words):
    text = " ".join(itertools.islice(itertools.cycle(TEXT.split()), words))
    engine = OneWindow(load_engine("hibari"))

    def parts():
        return [file for file in tmp_path.iterdir() if file.name.endswith(".part") and file.stat().st_size > 44]

    async def scenario():
        async with SpeechService(LocalBackend(engine), port=0) as service:
            process = await asyncio.create_subprocess_exec(
                *SPEECHPOOL, "say", text, "-o", "speech.wav", "--endpoint", service.url, "--json",
                cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE,
            )  # fmt: skip
            try:
                await asyncio.to_thread(until, parts)
                # The file grows while the engine waits: nothing but its first window was needed.
                assert engine.windows == 1
                assert not (tmp_path / "speech.wav").exists()
            finally:
                engine.gate.set()
            out, _ = await process.communicate()
            return json.loads(out)

    summary = asyncio.run(scenario())
    assert summary["characters"] == len(text)
    assert engine.windows > 1
    assert fits(seconds_of(tmp_path / "speech.wav"), text)
    assert not parts()


# ------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["", "-o", "a.mp3"], 2, ["empty"]),
        ([" \n", "-o", "a.mp3"], 2, ["empty"]),
        (["Hello."], 2, ["-o hello.mp3", "--play"]),
        (["Hello.", "-o", "a.flac"], 2, ["'a.flac'", ".mp3 .wav .pcm .opus", "--format"]),
        (["Hello.", "-o", "a"], 2, ["'a'", ".mp3 .wav .pcm .opus"]),
        (["Hello.", "-o", "a.mp3", "--format", "flac"], 2, ["'flac'", "pcm, wav, mp3, opus"]),
        (["Hello.", "-o", "a.mp3", "--rate", "3"], 2, ["rate = 3.0", "0.5 to 2"]),
        (["Hello.", "-o", "a.mp3", "--volume", "101"], 2, ["volume = 101", "0 to 100"]),
        (["Hello.", "-o", "a.mp3", "--sample-rate", "12345"], 2, ["12345", "48000"]),
        (["Hello.", "-o", "a.mp3", "--endpoint", "http://localhost"], 2, ["'http://localhost'", "ws://"]),
        (
            ["Hello.", "-o", "a.mp3", "--endpoint", "wss://u:secret@example.com"],
            2,
            ["example.com", "DASHSCOPE_API_KEY"],
        ),
        (
            ["Hello.", "-o", "a.mp3", "--endpoint", "ws://127.0.0.1:1"],
            3,
            ["127.0.0.1:1", "speechpool service --port 1"],
        ),
        (["Hello.", "-o", "no/a.mp3"], 7, ["no/a.mp3", "no directory"]),
        (["Hello.", "-o", ".", "--format", "mp3"], 7, ["is a directory"]),
        (["Hello.", "--play"], 2, ["ffplay, mpv, aplay, afplay", "PATH"]),
    ],
    ids=lambda value: " ".join(value[:4]).strip() if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_a_code(monkeypatch, capsys, tmp_path, arguments, code, said):
    monkeypatch.setenv("PATH", "/nowhere")
    line = error_line(run_here(monkeypatch, capsys, tmp_path, "say", *arguments), code)
    for part in said:
        assert part in line
    assert "secret" not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", ["empty"]),
        (b"caf\xe9", ["UTF-8", "0xe9", "at 3"]),
        (b"word " * 40_001, ["200,005", "200,000", "cut it"]),
        ("言".encode() * 100_001, ["200,002", "Han"]),
        (b"x" * 800_001, ["800,000 bytes", "200,000"]),
    ],
    ids=["empty", "latin-1", "too long", "too long in Han", "far too long"],
)
def test_bad_standard_input(monkeypatch, capsys, tmp_path, stdin, said):
    line = error_line(run_here(monkeypatch, capsys, tmp_path, "say", "-o", "a.mp3", stdin=stdin), 2)
    for part in said:
        assert part in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--api-key", "wrong"], 4, ["401", "key"]),
        (["--voice", "nobody"], 5, ["'nobody'", "--voice"]),
        (["-o", "/dev/full", "--format", "wav"], 7, ["/dev/full", "No space left"]),
    ],
    ids=["wrong key", "unknown voice", "full disk"],
)
def test_what_only_the_run_can_tell_is_one_line_too(url, monkeypatch, capsys, tmp_path, arguments, code, said):
    (tmp_path / "a.mp3").write_bytes(b"old")
    usual = ("-o", "a.mp3", "--endpoint", url, "--api-key", KEY)
    line = error_line(run_here(monkeypatch, capsys, tmp_path, "say", TEXT, *usual, *arguments), code)
    for part in said:
        assert part in line
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.mp3", b"old")]


@pytest.mark.parametrize(
    ("sent", "code", "said"), [(signal.SIGINT, 130, b"interrupted"), (signal.SIGTERM, 143, b"terminated")]
)
def test_an_interrupt_cancels_the_task_and_leaves_nothing_half_written(url, monkeypatch, tmp_path, sent, code, said):
    received = []
    on_text = SpeechSession.on_text
    monkeypatch.setattr(SpeechSession, "on_text", lambda self, data: received.append(data) or on_text(self, data))
    (tmp_path / "a.wav").write_bytes(b"old")
    text = f"{TEXT} " * 300
    with started("say", text, "-o", "a.wav", "--endpoint", url, "--api-key", KEY, cwd=tmp_path) as process:
        until(lambda: any(file.stat().st_size > 1000 for file in tmp_path.glob(".*.part")))
        process.send_signal(sent)
        assert process.wait(10) == code
        assert process.stderr.read() == b"speechpool: error: " + said + b"\n"
    assert [b"cancel" in frame for frame in received].count(True) == 1  # on the wire, not by the end of the connection
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.wav", b"old")]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_before_the_run_leaves_nothing_either(url, monkeypatch, capsys, tmp_path, sent, code):
    def run(main):
        main.close()
        signal.raise_signal(sent)

    monkeypatch.setattr("speechpool.cli.loop.run", run)  # when the file is open, and no event loop runs yet
    done = run_here(monkeypatch, capsys, tmp_path, "say", TEXT, "-o", "a.wav", "--endpoint", url)
    error_line(done, code)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_gets_through_while_nobody_reads_the_pipe(url, tmp_path):
    text = f"{TEXT} " * 300
    with started(
        "say", text, "-o", "-", "--format", "wav", "--endpoint", url, "--api-key", KEY, cwd=tmp_path
    ) as process:
        assert select.select([process.stdout], [], [], 20)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


# ------------------------------------------------------------------------------------ a service that comes back
def test_a_service_that_is_restarted_costs_a_retry(monkeypatch, capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    first = Serving("marker", port=port, faults=Faults.parse(["stall@started"]))
    second = Serving("marker", port=port)
    over = threading.Event()

    def restart():
        with first:
            up.set()
            until(lambda: first.counts.running or sum(first.counts.tasks.values()))
        time.sleep(0.3)  # nobody listens: dials are refused, and come again after a while
        with second:
            over.wait(30)

    up = threading.Event()
    thread = threading.Thread(target=restart)
    thread.start()
    try:
        assert up.wait(10)
        place = ("--endpoint", f"ws://127.0.0.1:{port}")
        done = run_here(monkeypatch, capsys, tmp_path, "say", TEXT, "-o", "a.pcm", "--json", *place)
    finally:
        over.set()
        thread.join()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["retries"] == 1
    assert second.counts.tasks["completed"] == 1
    assert (tmp_path / "a.pcm").stat().st_size > 1000


# ------------------------------------------------------------------------------------ players
def player(directory, name, script):
    file = directory / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return {"PATH": f"{file.parent}:/bin:/usr/bin"}


@pytest.mark.parametrize(
    ("name", "script"),
    [("ffplay", "cat > played.wav"), ("afplay", 'cp "$1" played.wav')],
    ids=["by a pipe", "by a file"],
)
def test_a_player_gets_the_audio(say, tmp_path, name, script):
    done = say(TEXT, "--play", "-o", "speech.pcm", **player(tmp_path, name, script))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "played.wav").read_bytes()[44:] == (tmp_path / "speech.pcm").read_bytes()


def test_a_player_that_fails_says_why(say, tmp_path):
    line = error_line(say(TEXT, "--play", **player(tmp_path, "ffplay", "echo no sound card >&2; exit 3")), 7)
    assert line == "the player ffplay ended with code 3: no sound card"


def test_a_player_that_is_closed_does_not_end_the_file(say, tmp_path):
    text = f"{TEXT} " * 10
    done = say(text, "--play", "-o", "speech.wav", **player(tmp_path, "ffplay", "head -c 100 > /dev/null"))
    assert done.returncode == 0, done.stderr
    assert fits(seconds_of(tmp_path / "speech.wav"), text)
