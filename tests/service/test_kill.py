"""The service is killed under load and comes back: every task ends, nobody storms, the floor heals by itself."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter

import pytest
from killed_service import Process

from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.errors import SpeechPoolError
from speechpool.transport import connect

TASKS, AWAY, FAST = 200, 5.0, 5
"""FAST: how much longer than promised things may take on a machine that does other work, too."""
VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm")


class Dials:
    """Opens connections, and writes down when each handshake began and ended."""

    def __init__(self):
        self.running = self.most_running = 0
        self.opened = []

    async def __call__(self, url, owner, **options):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            connection = await connect(url, owner, **options)
        finally:
            self.running -= 1
        self.opened.append(asyncio.get_running_loop().time())
        return connection


@pytest.mark.slow
def test_killed_under_two_hundred_tasks_and_back_five_seconds_later():
    async def main():
        loop = asyncio.get_running_loop()
        dials = Dials()
        service = Process()
        pool = AsyncSpeechPool(Endpoint.local(service.port), dial=dials, max_size=TASKS, max_waiting=10 * TASKS)
        async with pool:
            await pool.wait_ready()
            assert dials.most_running <= pool.settings.max_opening
            outcomes, heard, over = Counter(), set(), asyncio.Event()

            async def one(number):
                # Half of the tasks hear audio already when the service dies, half wait for text and have heard nothing.
                task = pool.task(VOICE)
                try:
                    async with task:
                        await task.send("One sentence that is long enough to be heard for a moment. And ")
                        if number % 2:
                            await task.flush()
                            async for _ in task:
                                heard.add(number)
                        else:
                            await over.wait()
                            await task.finish()
                finally:
                    outcomes[task.outcome] += 1

            tasks = [asyncio.create_task(one(number)) for number in range(TASKS)]
            async with asyncio.timeout(60):
                while len(heard) < TASKS / 2 or pool.stats.borrowed < TASKS:
                    await asyncio.sleep(0.05)
            handshakes = len(dials.opened)
            dials.most_running = 0
            await asyncio.to_thread(service.kill)
            killed = loop.time()

            async def callers():
                """Others go on asking, and must never wait for a service that is away."""
                while True:
                    begun = loop.time()
                    with contextlib.suppress(SpeechPoolError):
                        async with pool.borrow():
                            pass
                    asked.append((begun, loop.time() - begun))
                    await asyncio.sleep(0.05)

            asked = []
            asking = asyncio.create_task(callers())
            await asyncio.sleep(AWAY)
            assert pool.stats.outage is not None
            assert len(dials.opened) == handshakes
            back = await asyncio.to_thread(Process, service.port)
            returned = loop.time()
            async with asyncio.timeout(60):
                while pool.stats.idle + pool.stats.borrowed < TASKS:
                    await asyncio.sleep(0.01)
            healed = loop.time() - returned
            over.set()
            asking.cancel()
            await asyncio.gather(*tasks, asking, return_exceptions=True)
            first = dials.opened[handshakes]
            in_the_first_second = sum(when < first + 1.0 for when in dials.opened[handshakes:])
            waited = max(took for begun, took in asked if killed + 2.5 < begun < returned - 0.5)

            assert sum(outcomes.values()) == TASKS == pool.telemetry.tasks_started
            assert outcomes.keys() <= {"completed", "failed", "cancelled"}
            assert dials.most_running <= pool.settings.max_opening
            assert in_the_first_second <= pool.settings.max_size
            assert healed <= FAST * (pool.settings.open_backoff_cap + 1.0)
            assert waited < 0.5, "somebody waited for a service that was away"
            assert pool.stats.outage is None
            sys.stdout.write(
                f"{dict(outcomes)}, healed {healed:.2f} s after the return, {in_the_first_second} handshakes in the first "
                f"second, at most {dials.most_running} at once, longest wait in the outage {1000 * waited:.1f} ms\n"
            )
        assert await asyncio.to_thread(back.end) <= TASKS + pool.settings.max_replacing

    asyncio.run(main())
