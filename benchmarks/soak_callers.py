"""What the callers of a soak do: speak in every way there is, break off in every phase, and check what they hear."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress

from speechpool import Voice
from speechpool.errors import SpeechPoolError
from speechpool.service.engines.marker import check, marker_length

__all__ = ["PHASES", "Callers"]

VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
SENTENCE = "The quick brown fox jumps over the lazy dog. "
PHASES = ("waiting", "starting", "sending", "first audio", "mid audio", "finishing")
"""Where a caller breaks off."""
BREAK_OFF = 0.25
"""Share of the tasks that are to be broken off; a fifth is, since some are over before their phase comes."""
THINK = 1.5
"""Seconds at most between two tasks of a caller."""


class Callers:
    """Many of them on one pool, until they are stopped; `rest` holds them between two tasks.

    Attributes:
        outcomes: Tasks by outcome, as each caller saw its own.
        broken_off: Those of them that were broken off, by phase and form.
        problems: What must not happen, in words.
    """

    def __init__(self, pool, number, *, seed=0):
        self.pool, self.seed = pool, seed
        self.outcomes, self.broken_off, self.problems = Counter(), Counter(), []
        self._go, self._busy = asyncio.Event(), 0
        self._stopped = False
        self._tasks = [asyncio.create_task(self._caller(each)) for each in range(number)]

    def go(self):
        """Let them call."""
        self._go.set()

    async def rest(self):
        """Let the tasks that run come to their end, and no other begin."""
        self._go.clear()
        while self._busy:
            await asyncio.sleep(0.01)

    async def stop(self):
        """End all callers after their present task."""
        self._stopped = True
        self._go.set()
        await asyncio.gather(*self._tasks)

    # ------------------------------------------------------------------------------------ one caller
    async def _caller(self, number):
        choice = random.Random(f"{self.seed} {number}")
        while True:
            await self._go.wait()
            if self._stopped:
                return
            self._busy += 1
            try:
                await self._call(choice)
            except SpeechPoolError:
                pass  # the outcome says it
            except Exception as error:  # whatever it is, the others go on
                self.problems.append(f"{type(error).__name__}: {error}")
            finally:
                self._busy -= 1
            await asyncio.sleep(choice.uniform(0, THINK))

    async def _call(self, choice):
        text = SENTENCE * choice.randint(1, 4)
        if choice.random() < BREAK_OFF:
            await self._broken_off(text, choice.choice(PHASES), choice.choice(("cancel()", "asyncio")))
            return
        await choice.choice((self._streamed, self._fed, self._to_a_sink, self._on_a_lease, self._slowly_read))(text)

    async def _streamed(self, text):
        stream = self.pool.stream(text, VOICE)
        await self._listen(stream, text)

    async def _slowly_read(self, text):
        stream = self.pool.stream(text, VOICE)
        await self._listen(stream, text, pause=0.02)

    async def _on_a_lease(self, text):
        async with self.pool.borrow() as lease:
            for _ in range(2):
                await self._listen(lease.stream(text, VOICE), text)

    async def _listen(self, stream, text, pause=0.0):
        audio = bytearray()
        try:
            async with stream:
                async for piece in stream:
                    audio += piece
                    await asyncio.sleep(pause)
        finally:
            self._ended(stream, audio)
        self._whole(stream, audio, text)

    async def _fed(self, text):
        await self._spoken(text, [], pause=0.01)

    async def _to_a_sink(self, text):
        audio = bytearray()

        def sink(event):
            if isinstance(event, bytes):
                audio.extend(event)

        task = self.pool.task(VOICE, sink=sink)
        try:
            async with task:
                await task.send(text)
                await task.finish()
                await task.wait()
        finally:
            self._ended(task, audio)
        self._whole(task, audio, text)

    async def _spoken(self, text, reached, *, pause=0.0):
        """Speak sentence by sentence; `reached` takes the moments as they come."""
        audio = bytearray()
        task = self.pool.task(VOICE)
        reached.append(task)
        try:
            await self._at("waiting", reached)
            async with task:
                await self._at("starting", reached)
                for _ in range(len(text) // len(SENTENCE)):
                    await task.send(SENTENCE)
                    await self._at("sending", reached)
                    await asyncio.sleep(pause)
                await task.finish()
                await self._at("first audio", reached)
                async for event in task:
                    audio += getattr(event, "data", b"")
                    if audio:
                        await self._at("mid audio", reached)
                    if len(audio) == marker_length(text):
                        await self._at("finishing", reached)
        finally:
            self._ended(task, audio)
        if task.outcome == "completed":
            self._whole(task, audio, text)

    @staticmethod
    async def _at(phase, reached):
        for wish in reached[:-1]:
            await wish(phase, reached[-1])

    async def _broken_off(self, text, phase, form):
        """Speak, and break off in a phase: by `cancel()`, or because the asyncio task of the caller is cancelled."""

        async def wish(here, task):
            if here != phase or task in done:
                return
            done.append(task)
            self.broken_off[phase, form] += 1
            if phase == "waiting":  # in the midst of the borrow, so somebody else has to do it
                others.append(asyncio.create_task(task.cancel() if form == "cancel()" else _cancel(caller)))
            elif form == "cancel()":
                await task.cancel()
            else:
                asyncio.current_task().cancel()
                await asyncio.sleep(0)

        done, others = [], []
        caller = asyncio.create_task(self._spoken(text, [wish]))
        with suppress(asyncio.CancelledError):
            await caller
        await asyncio.gather(*others)

    # ------------------------------------------------------------------------------------ what must hold
    def _ended(self, task, audio):
        self.outcomes[task.outcome] += 1
        if audio:
            try:
                check(bytes(audio), task.request_id)
            except ValueError as error:
                self.problems.append(f"task {task.request_id}: {error}")

    def _whole(self, task, audio, text):
        if len(audio) != marker_length(text):
            told = f"{len(audio)} bytes of audio instead of {marker_length(text)}"
            self.problems.append(f"task {task.request_id} {task.outcome}: {told}")


async def _cancel(caller):
    caller.cancel()
