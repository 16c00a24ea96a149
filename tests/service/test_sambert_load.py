"""The provider's figure for one machine: 600 Sambert tasks at once, none failing. The service is a process of its own."""

import asyncio
import sys
from contextlib import asynccontextmanager

import pytest

from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.settings import Deadlines

AT_ONCE = 600
VOICES = [
    Voice(f"sambert-{name}-v1", format=kind) for name in ("zhichu", "zhiqi", "zhiying") for kind in ("wav", "mp3")
]
TEXT = "Today is a wonderful day to build something people love. How are you?"

SERVICE = """
import asyncio, sys
from speechpool.service import LocalBackend, ServiceSettings, SpeechService

async def main():
    backend = LocalBackend("replay", profile="healthy", seed=1)
    async with SpeechService(backend, port=0, settings=ServiceSettings(submission_rate=None)) as service:
        print(service.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(service.counts.tasks, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def serving():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        if process.returncode is None:
            process.stdin.close()
        await process.wait()
        process._transport.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_600_sambert_tasks_at_once():
    async def main():
        async with serving() as (url, process):
            deadlines = Deadlines(connect=60.0, start=30.0)  # for a machine that does other things, too
            async with AsyncSpeechPool(
                Endpoint(url, api_key="key"), max_size=AT_ONCE, deadlines=deadlines, borrow_timeout=60.0, retry=0
            ) as pool:
                await pool.wait_ready()
                lengths = {}
                together = 0

                async def caller(n):
                    nonlocal together
                    voice = VOICES[n % len(VOICES)]
                    for _ in range(3):
                        speech = await pool.synthesize(TEXT, voice)
                        together = max(together, pool.stats.borrowed + 1)
                        assert speech.characters == len(TEXT)
                        lengths.setdefault(voice.format, set()).add(len(speech.audio))

                await asyncio.gather(*(caller(n) for n in range(AT_ONCE)))
                stats = pool.stats
            process.stdin.close()
            counted = (await process.stdout.read()).decode()
        assert "'completed': 1800" in counted, counted
        assert "'failed': 0" in counted, counted
        assert together > AT_ONCE * 0.9
        assert stats.opened == AT_ONCE  # no connection was used up
        assert {kind: len(found) for kind, found in lengths.items()} == {"wav": 1, "mp3": 1}

    asyncio.run(main())
