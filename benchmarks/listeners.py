"""Listeners of the local speech service: does anybody run out of audio, and who is turned away?

A service with engine `hibari` in a process of its own, two workers. Texts of 1 to 80 words arrive as Poisson at 70 %
and at 130 % of what the engine makes, which is measured first, by two threads and nothing else. Below 100 % at most 64
listeners are open at once, playing included; above it as many as come, because 64 may be fewer than the engine can
serve. Each plays in real time from its first sound on; it has an underrun when the next piece comes later than the last
one was played. First audio counts from run-task to the first audio frame, over a connection that is open.

At 70 % nobody shall have an underrun. At 130 % some must be throttled, at once, and those that are taken shall hear as
if nothing were. What else runs on the machine takes from the rate: its mean number of cores stands beside each row, and
a row above 0.3 is void. So is one whose engine was measured while others ran.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

WORKERS = 2
LISTENERS = 64
LOADS = (0.7, 1.3)
SAMPLE_RATE = 24000
BYTES_A_SECOND = {"pcm": 2 * SAMPLE_RATE, "mp3": 64_000 // 8}
LIMIT = 120.0
VOID_ABOVE = 0.3
"""Cores that all other programs may take on average."""
SENTENCES = (
    "Your parcel has left our warehouse and will be with you tomorrow between nine and eleven.",
    "Thank you.",
    "I have found three trains that leave this afternoon, and the fastest of them takes less than two hours.",
    "Would you like to hear more?",
    "The weather stays dry until the evening, then clouds come in from the west.",
    "Please hold the line while I look for the right person.",
    "That is a good question, and the answer depends on how much time you have.",
    "We are open from Monday to Friday.",
    "First turn left at the church, then follow the river until you see the old bridge.",
    "No problem at all.",
    "Your account was charged twelve dollars on the third of May, and the receipt was sent by mail.",
    "Is there anything else that I can do for you today?",
)


def text_of(words, chance):
    """Return a text of so many words."""
    taken = []
    start = chance.randrange(len(SENTENCES))
    while len(taken) < words:
        taken += SENTENCES[start % len(SENTENCES)].split()
        start += 1
    return " ".join(taken[:words]).rstrip(".,?") + "."


# ------------------------------------------------------------------------------------------ the service
def engine_rate(engine, seconds):
    """Return the seconds of audio that the workers make in a second, and the mean length of a text in seconds."""
    from speechpool.service.engines import Sentence
    from speechpool.service.sentences import Sentences

    made, texts = [0.0] * WORKERS, [0] * WORKERS
    begin = time.perf_counter()

    def work(number):
        chance = random.Random(number)
        while time.perf_counter() < begin + seconds:
            cut = Sentences()
            text = text_of(chance.randint(1, 80), chance)
            for sentence in (*cut.feed(text), *cut.flush()):
                for chunk in engine.synthesize(Sentence(text=sentence.strip(), voice=engine.voices()["heart"])):
                    made[number] += len(chunk.samples) / engine.sample_rate
            texts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(made) / (time.perf_counter() - begin), sum(made) / sum(texts)


async def serve(seconds):
    """Measure the engine, say where the service listens, and serve until standard input ends."""
    from speechpool.service import LocalBackend, SpeechService
    from speechpool.service.engines.hibari import HibariEngine
    from speechpool.service.limits import ServiceSettings

    engine = HibariEngine()
    engine.load()
    engine_rate(engine, 0.5)  # warm
    rate, text_seconds = engine_rate(engine, seconds)
    settings = ServiceSettings(submission_rate=None)
    async with SpeechService(LocalBackend(engine, workers=WORKERS), port=0, settings=settings) as service:
        print(json.dumps({"port": service.port, "rate": rate, "text_seconds": text_seconds}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


# ------------------------------------------------------------------------------------------ what else runs
class Others:
    """CPU of all programs but this one and the service, between two moments; Linux only."""

    def __init__(self, pid):
        self._pid = pid
        self._begin = self._look()

    def _look(self):
        ticks = os.sysconf("SC_CLK_TCK")
        try:
            user, nice, system, *_ = map(int, Path("/proc/stat").read_text().split()[1:5])
            ours = [
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in (os.getpid(), self._pid)
            ]
        except OSError:
            return None
        busy = user + nice + system - sum(int(each[11]) + int(each[12]) for each in ours)
        return busy / ticks, time.monotonic()

    def cores(self):
        """Return the mean number of cores that they took since the beginning."""
        end = self._look()
        if self._begin is None or end is None:
            return None
        return max(0.0, (end[0] - self._begin[0]) / (end[1] - self._begin[1]))


# ------------------------------------------------------------------------------------------ the listeners
@dataclass(eq=False)
class Listener:
    """One task, and who plays it."""

    audio_format: str
    asked: float = 0.0
    first_audio: float | None = None
    plays_until: float = 0.0
    underruns: int = 0
    dry: float = 0.0  # seconds
    failed: str = ""
    failed_after: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    connection: object = None
    text: str = ""

    def on_text(self, data):
        event = json.loads(data)
        name = event["header"]["event"]
        if name == "task-started":
            self.send("continue-task", {"input": {"text": self.text}})
            self.send("finish-task", {"input": {}})
        elif name == "task-failed":
            self.failed = event["header"]["error_code"]
            self.failed_after = time.perf_counter() - self.asked
            self.over.set()
        elif name == "task-finished":
            self.over.set()

    def on_binary(self, data):
        now = time.perf_counter()
        if self.first_audio is None:
            self.first_audio = now - self.asked
            self.plays_until = now
        elif now > self.plays_until:
            self.underruns += 1
            self.dry += now - self.plays_until
            self.plays_until = now
        self.plays_until += len(data) / BYTES_A_SECOND[self.audio_format]

    def on_closed(self, closed):
        if not self.over.is_set():
            self.failed = self.failed or f"closed: {closed}"
        self.over.set()

    def send(self, action, payload):
        header = {"action": action, "task_id": f"{id(self):032x}", "streaming": "duplex"}
        self.connection.send(json.dumps({"header": header, "payload": payload}).encode())

    async def listen(self, url):
        from speechpool.transport import connect

        self.connection = await connect(url, self, headers={"Authorization": "bearer k"})
        self.asked = time.perf_counter()
        wanted = {"text_type": "PlainText", "voice": "heart", "format": self.audio_format, "sample_rate": SAMPLE_RATE}
        if self.audio_format == "mp3":
            wanted["bit_rate"] = 64
        self.send("run-task", {"input": {}, "model": "cosyvoice-v3-flash", "parameters": wanted})
        async with asyncio.timeout(LIMIT):
            await self.over.wait()
        self.connection.close()
        await self.connection.wait_closed()
        if not self.failed:
            await asyncio.sleep(max(0.0, self.plays_until - time.perf_counter()))


async def play(service, audio_format, load, seconds, seed):
    """Let listeners come for so long, and return what they heard."""
    chance = random.Random(seed)
    url = f"ws://127.0.0.1:{service['port']}/api-ws/v1/inference"
    interval = service["text_seconds"] / (load * service["rate"])
    most = LISTENERS if load < 1 else math.inf
    listeners, open_now, turned_away, peak = [], set(), 0, 0
    loop = asyncio.get_running_loop()
    due = loop.time()
    end = due + seconds
    while (due := due + chance.expovariate(1 / interval)) < end:
        text = text_of(chance.randint(1, 80), chance)
        await asyncio.sleep(max(0.0, due - loop.time()))
        if len(open_now) >= most:
            turned_away += 1
            continue
        listeners.append(Listener(audio_format, text=text))
        task = loop.create_task(listeners[-1].listen(url))
        open_now.add(task)
        task.add_done_callback(open_now.discard)
        peak = max(peak, len(open_now))
    for listener in listeners:  # until they have their audio; the rest is only played
        await listener.over.wait()
    for task in open_now:
        task.cancel()
    await asyncio.gather(*open_now, return_exceptions=True)
    return summary(listeners, audio_format=audio_format, load=load, peak=peak, turned_away=turned_away)


def summary(listeners, **known):
    throttled = [each for each in listeners if each.failed.startswith("Throttling")]
    failed = [each.failed for each in listeners if each.failed and each not in throttled]
    served = [each for each in listeners if not each.failed]
    first = sorted(each.first_audio for each in served)
    return known | {
        "listeners": len(listeners),
        "throttled": len(throttled) / len(listeners),
        "throttled_after_p50": statistics.median(each.failed_after for each in throttled) if throttled else None,
        "throttled_after_max": max((each.failed_after for each in throttled), default=None),
        "failed": failed,
        "underruns": sum(each.underruns > 0 for each in served),
        "dry_seconds": sum(each.dry for each in served),
        **{f"first_audio_p{part}": first[min(len(first) - 1, len(first) * part // 100)] for part in (50, 95, 99)},
    }


# ------------------------------------------------------------------------------------------ the report
def measure(formats, loads, seconds, engine_seconds, tell):
    command = [sys.executable, __file__, "--serve", str(engine_seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            others = Others(child.pid)
            service = json.loads(child.stdout.readline())
            engine_others = others.cores()
            tell(f"{service['rate']:.1f} s of audio are made in a second; a text lasts {service['text_seconds']:.1f} s")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                rows = []
                for audio_format in formats:
                    runner.run(play(service, audio_format, 0.3, 4.0, 0))  # the service learns
                    for load in loads:
                        tell(f"{audio_format} at {load:.0%} ...")
                        others = Others(child.pid)
                        row = runner.run(play(service, audio_format, load, seconds, 1))
                        rows.append(row | {"others": others.cores()})
        finally:
            child.stdin.close()
            child.wait(30)
    busy = [each for each in (engine_others, *(row["others"] for row in rows)) if each is not None]
    return {
        "engine_rate": service["rate"],
        "engine_others": engine_others,
        "void": bool(busy) and max(busy) > VOID_ABOVE,
        "text_seconds": service["text_seconds"],
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "seconds": seconds,
        "rows": rows,
    }


def table(result):
    lines = [
        "format  load  listeners  open  throttled  told after   first audio p50 / p95 / p99   underruns",
    ]
    for row in result["rows"]:
        after = f"{1000 * row['throttled_after_p50']:.0f} ms" if row["throttled_after_p50"] is not None else "-"
        first = " / ".join(f"{1000 * row[f'first_audio_p{part}']:.0f}" for part in (50, 95, 99))
        lines.append(
            f"{row['audio_format']:6}  {row['load']:4.0%}  {row['listeners']:9}  {row['peak']:4}  "
            f"{row['throttled']:9.1%}  {after:>10}   {first + ' ms':27}   "
            f"{row['underruns']} ({row['dry_seconds']:.2f} s)"
        )
        if row["others"] is not None and row["others"] > VOID_ABOVE:
            lines.append(f"        void: other programs took {row['others']:.1f} cores")
        if row["failed"]:
            lines.append(f"        failed: {', '.join(sorted(set(row['failed'])))}")
        if row["turned_away"]:
            lines.append(f"        {row['turned_away']} more came while {LISTENERS} were open")
    if result["engine_others"] is not None and result["engine_others"] > VOID_ABOVE:
        lines.append(f"void: the engine was measured while other programs took {result['engine_others']:.1f} cores")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", default="pcm,mp3", help="which, of pcm and mp3 (both)")
    parser.add_argument("--loads", default=",".join(map(str, LOADS)), help="parts of the engine's rate (0.7,1.3)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long listeners come, for each row (30)")
    parser.add_argument("--engine-seconds", type=float, default=5.0, help="how long the engine is measured (5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(asked.serve))
        return
    result = measure(
        asked.formats.split(","),
        [float(load) for load in asked.loads.split(",")],
        asked.seconds,
        asked.engine_seconds,
        lambda line: print(line, file=sys.stderr),
    )
    print(json.dumps(result) if asked.json else table(result))


if __name__ == "__main__":
    main()
