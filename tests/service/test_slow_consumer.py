"""One of fifty consumers never reads: the others finish as fast as without it, and what waits for it is bounded."""

import asyncio
import contextlib
import json
import subprocess
import sys
from statistics import median

import pytest

from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.limits import LocalQuota
from speechpool.service.engines.marker import check, marker_length

CONSUMERS, TURNS = 50, 5
PCM = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
SENTENCE = "The quick brown fox jumps over the lazy dog. "
SHORT, LONG = SENTENCE * 15, SENTENCE * 100
BOUND = 512 * 1024
"""What `SpeechStream` promises."""
ALIKE = 1.25


@contextlib.contextmanager
def service_process():
    """A service that speaks a chunk each 10 ms, so that time is the server's and not the processor's."""
    command = [
        sys.executable,
        "-m",
        "speechpool",
        "service",
        "--engine",
        "marker",
        "--profile",
        "paced",
        "--port",
        "0",
        "--json",
    ]
    limits = ["--submission-rate", "none", "--max-first-audio", "none"]
    with subprocess.Popen([*command, *limits], stdout=subprocess.PIPE, text=True) as child:
        try:
            yield json.loads(child.stdout.readline())["url"]
        finally:
            child.terminate()
            child.stdout.read()


async def speak(pool):
    loop = asyncio.get_running_loop()
    begun = loop.time()
    speech = await pool.synthesize(SHORT, PCM)
    assert check(speech.audio, speech.request_id) == marker_length(SHORT)
    return loop.time() - begun


async def turn(pool):
    """The time that a consumer takes, as the median of 49."""
    return median(await asyncio.gather(*(speak(pool) for _ in range(CONSUMERS - 1))))


@pytest.mark.slow
def test_one_of_fifty_that_never_reads_slows_nobody_down_and_holds_half_a_megabyte():
    async def main(url):
        pool = AsyncSpeechPool(Endpoint(url, api_key="k"), max_size=CONSUMERS, borrow_timeout=60.0, quota=LocalQuota())
        async with pool:
            await pool.wait_ready()
            await turn(pool)  # what happens once
            without, beside, held = [], [], []
            for _ in range(TURNS):
                without.append(await turn(pool))
                async with pool.stream(LONG, PCM) as idle:
                    while idle.audio_bytes < BOUND / 2:  # it reads nothing, so its socket is held by now
                        await asyncio.sleep(0.01)
                    beside.append(await turn(pool))
                    held.append(idle.audio_bytes)
                    assert idle.outcome is None
            sys.stdout.write(
                f"medians: without {median(without):.3f} s, beside {median(beside):.3f} s, at most {max(held) / 1024:.0f} KiB held\n"
            )
            assert median(beside) < ALIKE * median(without)
            assert max(held) < BOUND
            assert pool.stats.opened == CONSUMERS

    with service_process() as url:
        asyncio.run(main(url))
