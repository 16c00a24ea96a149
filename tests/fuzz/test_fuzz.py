"""Random and mutated frames and handshakes against a running service: it may refuse, and nothing else may happen.

It must not crash, write a traceback, close with a code that means something else, forget a connection or grow; and
streams that run meanwhile must get each byte that is theirs. A failure prints the conversation that repeats it;
`SPEECHPOOL_FUZZ=SEED` draws others.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from random import Random

import pytest
import uvloop
from fuzz_attack import KEY, Attack, chosen

from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.service.engines.marker import check, marker_length
from speechpool.transport.websocket import CLOSING_LIMIT

SCRIPT = Path(__file__).with_name("fuzzed_service.py")
PCM = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
SENTENCE = "The quick brown fox jumps over the lazy dog. "
LISTENERS = 6
SLACK = 4 * 2**20
"""Bytes that the service may grow in the second half: what 24 attackers and 6 listeners can hold at one moment."""


class Fuzzed:
    """The service in a process of its own."""

    def __init__(self, process, port, log):
        self.process, self.port, self._log = process, port, log

    @property
    def memory(self):
        """Bytes that it holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])

    def health(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=10) as answer:
            return json.load(answer)

    def log(self):
        return self._log.read_text(errors="replace")


@pytest.fixture
def fuzzed(tmp_path):
    log = tmp_path / "service.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, str(SCRIPT)], stdout=subprocess.PIPE, stderr=stderr, text=True)
    with process:
        try:
            yield Fuzzed(process, int(process.stdout.readline()), log)
        finally:
            process.kill()


def test_3_000_cases_leave_the_service_and_its_listeners_alone(fuzzed):
    attack, streams = run(fuzz(fuzzed, "fast", 3_000))
    assert not attack.findings, "\n".join(attack.findings.values())
    assert streams > 0
    assert_unharmed(fuzzed)
    assert len(attack.kinds) >= 30 or attack.cases < 3_000  # each kind of frame and of handshake has come up


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_100_000_cases_leave_its_memory_flat(fuzzed, capsys):
    figures = {}
    attack, streams = run(fuzz(fuzzed, "slow", 100_000, figures))
    with capsys.disabled():
        sys.stdout.write(f"\n{attack.cases} cases, {streams} streams beside them, memory {figures}\n")
    assert not attack.findings, "\n".join(attack.findings.values())
    assert_unharmed(fuzzed)
    assert figures["after"] - figures["half"] < SLACK, figures


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def fuzz(service, default_seed, cases, figures=None):
    """Attack, and listen meanwhile; returns the attack and how many streams were heard to their end."""
    seed, number = chosen(default_seed)
    attack = Attack(service.port, seed)
    if number is not None:
        await attack.talk(number)
        return attack, 1
    async with listeners(service.port) as heard:
        await attack.run(cases // 2)
        half = service.memory
        await attack.run(cases - cases // 2)
    if figures is not None:
        figures.update(half=half, after=service.memory)
    return attack, len(heard)


@contextlib.asynccontextmanager
async def listeners(port):
    """Streams one after another on well-behaved connections; none is lost, and each byte is compared."""
    over, heard = asyncio.Event(), []

    async def listen(pool, number):
        random = Random(number)
        while not over.is_set():
            text = SENTENCE * random.randint(1, 20)
            audio = bytearray()
            async with pool.stream(text, PCM) as stream:
                async for chunk in stream:
                    audio += chunk
            assert check(bytes(audio), stream.request_id) == len(audio) == marker_length(text)
            heard.append(len(audio))

    endpoint = Endpoint(f"ws://127.0.0.1:{port}", api_key=KEY)
    async with AsyncSpeechPool(endpoint, max_size=LISTENERS, borrow_timeout=60.0, retry=0) as pool:
        await pool.wait_ready()
        async with asyncio.TaskGroup() as group:
            for number in range(LISTENERS):
                group.create_task(listen(pool, number))
            try:
                yield heard
            finally:
                over.set()
        assert pool.stats.opened == LISTENERS, pool.stats.discarded  # nobody's connection had to be replaced


def assert_unharmed(service):
    """It runs, says so, holds nothing more, and has said nothing that a stranger should make it say."""
    health = settled(service)
    assert (health["status"], health["connections"], health["tasks_running"]) == ("ok", 0, 0), health
    service.process.terminate()
    assert service.process.wait(15) == 0
    log = service.log()
    for word in ("Traceback", "ERROR:", "CRITICAL:", "Fatal", f"Bearer {KEY}", "brown fox"):
        assert word not in log, log[max(0, log.index(word) - 2000) :][:6000]


def settled(service):
    # The longest limit that may still run is that of a close which nobody answers.
    deadline = time.monotonic() + CLOSING_LIMIT + 5
    while (health := service.health())["connections"] and time.monotonic() < deadline:
        time.sleep(0.05)
    return health
