"""How much of its engine the local speech service delivers: speech a second over sockets beside the bare engine.

One process holds the engine (`hibari`, a worker for each core) and a service with it. In turn, again and again, either
the engine speaks by itself, a thread a worker, each sentence encoded to mp3 and thrown away; or the service speaks the
same kind of texts, as mp3, to 16 callers of a pool of ours that listen as fast as they can, task after task. Both are
counted in bytes of mp3 at 64 kbit/s. The callers, who are a process of their own, take their part of the same cores,
and that counts against the service.

What other programs take from the cores is taken out: a rate is speech for each second of a core that was left to us. A
ratio is the median of those within one repeat. Needs Linux and the extras [all,dev].
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

from children import HERE, Child, Failure, interrupt, say, versions
from clients import machine_cpu
from listeners import text_of

CALLERS = 16
WORDS = (5, 60)
"""Of a text, from and to."""
SAMPLE_RATE, BIT_RATE = 24000, 64
BYTES_A_SECOND = BIT_RATE * 1000 / 8
GOAL = 0.85
"""Least part of the engine's speech that the service shall deliver."""
CUT_OFF = 0.5
"""Seconds in which the service lays down what it has begun, when its callers have gone."""


# ------------------------------------------------------------------------------------ the process of engine and service
def speak(engine, workers, seconds):
    """Return the seconds of speech that so many threads make and encode, and how long they took."""
    from speechpool.service.encoding import new_encoder
    from speechpool.service.engines import Sentence
    from speechpool.service.sentences import Sentences

    made = [0] * workers
    begun = time.perf_counter()

    def work(number):
        chance, voice = random.Random(number), engine.voices()["heart"]
        while True:
            encoder = new_encoder("mp3", SAMPLE_RATE, source_rate=engine.sample_rate, bit_rate=BIT_RATE)
            cut, text = Sentences(), text_of(chance.randint(*WORDS), chance)
            for sentence in (*cut.feed(text), *cut.flush()):
                for chunk in engine.synthesize(Sentence(text=sentence.strip(), voice=voice)):
                    made[number] += len(encoder.encode(chunk.samples))
                    if time.perf_counter() > begun + seconds:  # what is begun counts no further than it has come
                        return
            made[number] += len(encoder.flush())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"speech": sum(made) / BYTES_A_SECOND, "seconds": time.perf_counter() - begun}


async def serve(workers):
    """Serve until standard input ends, and let the engine speak by itself for each line, which says how long."""
    from speechpool.service import LocalBackend, ServiceSettings, SpeechService
    from speechpool.service.engines.hibari import HibariEngine

    engine = HibariEngine()
    engine.load()
    settings = ServiceSettings(submission_rate=None)
    backend = LocalBackend(engine, workers=workers, max_first_audio=None)  # nobody is refused here
    async with SpeechService(backend, port=0, settings=settings) as service:
        print(json.dumps({"port": service.port}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            # On a thread, so that the loop stays what it is while the service speaks.
            print(json.dumps(await asyncio.to_thread(speak, engine, workers, float(line))), flush=True)


# ------------------------------------------------------------------------------------ measuring
class Cores:
    """CPU that this process and another one take, and that is left to them by all others."""

    def __init__(self, pid):
        self._pid = pid
        self._begun = self._look()

    def _look(self):
        # Of the whole process: the threads of the engine are gone when it is read.
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), machine_cpu(), time.process_time(), spent

    def share(self):
        """Return the cores that were left on average, and those that this process and the other one took."""
        wall, machine, own, other = (now - then for now, then in zip(self._look(), self._begun, strict=True))
        others = max(0.0, machine - own - other)
        return os.cpu_count() - others / wall, own / wall, other / wall


class Load:
    """Callers of a pool who listen as fast as they can."""

    def __init__(self, pool):
        import speechpool

        self.pool, self.bytes, self.tasks = pool, 0, 0
        self.voice = speechpool.Voice(
            "cosyvoice-v3-flash", "heart", format="mp3", sample_rate=SAMPLE_RATE, bit_rate=BIT_RATE
        )

    async def listen(self, number):
        chance = random.Random(number)
        while True:
            async for chunk in self.pool.stream(text_of(chance.randint(*WORDS), chance), self.voice):
                self.bytes += len(chunk)
            self.tasks += 1

    async def run(self, warm, seconds, pid):
        callers = [asyncio.ensure_future(self.listen(number)) for number in range(CALLERS)]
        try:
            await asyncio.sleep(warm)
            cores, heard, tasks, begun = Cores(pid), self.bytes, self.tasks, time.perf_counter()
            done, _ = await asyncio.wait(callers, timeout=seconds)
            took = time.perf_counter() - begun
            if done:
                raise Failure(f"a caller of the service has failed: {done.pop().exception()}")
            left, own, service = cores.share()
            speech = (self.bytes - heard) / BYTES_A_SECOND
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
        await asyncio.sleep(CUT_OFF)
        return {
            "rate": speech / took,
            "rate_a_core": speech / took / left,
            "cores_left": left,
            "service_cores": service,
            "callers_cores": own,
            "tasks": self.tasks - tasks,
        }


async def engine_sample(child, seconds):
    cores = Cores(child.pid)
    found = await asyncio.to_thread(child.ask, str(seconds), seconds + 30)
    left, _, took = cores.share()
    rate = found["speech"] / found["seconds"]
    return {"rate": rate, "rate_a_core": rate / left, "cores_left": left, "engine_cores": took}


async def measure(child, port, repeats, warm, seconds):
    from speechpool import AsyncSpeechPool, Endpoint

    samples = {"engine": [], "service": []}
    await engine_sample(child, 1.0)  # the first sentences are slower
    async with AsyncSpeechPool(Endpoint(f"ws://127.0.0.1:{port}", api_key="local"), max_size=CALLERS) as pool:
        load = Load(pool)
        for repeat in range(repeats):
            for name in ("engine", "service") if repeat % 2 == 0 else ("service", "engine"):
                if name == "engine":
                    sample = await engine_sample(child, seconds)
                else:
                    sample = await load.run(warm, seconds, child.pid)
                samples[name].append(sample)
                say(
                    f"repeat {repeat + 1}/{repeats}  {name:8} {sample['rate']:6.1f} s of speech a second, "
                    f"{sample['rate_a_core']:5.1f} for each of {sample['cores_left']:.2f} cores that were left"
                )
    return samples


# ------------------------------------------------------------------------------------ results
def middle(values):
    """Return the median, the lowest and the highest."""
    values = list(values)
    return [round(value, 3) for value in (statistics.median(values), min(values), max(values))]


def report(samples, repeats):
    pairs = list(zip(samples["service"], samples["engine"], strict=True))
    ratio = middle(service["rate_a_core"] / engine["rate_a_core"] for service, engine in pairs)
    return {
        "service_over_engine": ratio,
        "goal": GOAL,
        "met": ratio[0] >= GOAL,
        "plain_service_over_engine": middle(service["rate"] / engine["rate"] for service, engine in pairs),
        "rows": {
            name: {figure: middle(sample[figure] for sample in values) for figure in values[0]}
            for name, values in samples.items()
        },
        "callers": CALLERS,
        "repeats": repeats,
        "versions": versions(),
    }


def show(result):
    print(f"{'':10}{'speech s a second':>20}{'a core of those left':>22}{'cores left':>12}{'its own':>9}{'callers':>9}")
    for name, row in result["rows"].items():
        own, callers = row[f"{name}_cores"][0], row.get("callers_cores", [0])[0]
        print(f"{name:10}{row['rate'][0]:20.1f}{row['rate_a_core'][0]:22.1f}{row['cores_left'][0]:12.2f}"
              f"{own:9.2f}{callers:9.2f}")  # fmt: skip
    verdict = "met" if result["met"] else "missed"
    ratio, low, high = result["service_over_engine"]
    print(
        f"\nthe service over its engine   {ratio:.2f} ({low:.2f} - {high:.2f})   goal >= {result['goal']:g}  {verdict}"
    )
    found = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    print(f"{result['callers']} callers, {result['repeats']} repeats; {found}")


# ------------------------------------------------------------------------------------ the command
def parse():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit status: 0 measured (a missed goal is no error), 1 not measured, 2 wrong usage, 130 interrupted",
    )
    parser.add_argument("--quick", action="store_true", help="one repeat of two seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")
    parser.add_argument("--repeats", type=int, help="how often both are measured (5, or 1 with --quick)")
    parser.add_argument("--serve", type=int, metavar="WORKERS", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.repeats = asked.repeats if asked.repeats is not None else 1 if asked.quick else 5
    if asked.repeats < 1:
        parser.error(f"--repeats {asked.repeats}: at least 1")
    return asked


def benchmark(asked):
    import uvloop

    if sys.platform != "linux":
        raise Failure(f"this needs Linux (/proc), not {sys.platform}")
    warm, seconds = (1.0, 2.0) if asked.quick else (1.5, 4.0)
    command = [sys.executable, str(HERE / "service_throughput.py"), "--serve", str(os.cpu_count())]
    child = Child("the service", command)
    try:
        port = child.answer(60)["port"]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            samples = runner.run(measure(child, port, asked.repeats, warm, seconds))
    finally:
        child.stop()
    result = report(samples, asked.repeats)
    if asked.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


def main():
    asked = parse()
    if asked.serve is not None:
        import uvloop

        uvloop.run(serve(asked.serve))
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        return benchmark(asked)
    except KeyboardInterrupt:
        say("interrupted; the service is stopped")
        return 130
    except Failure as failure:
        say(f"service_throughput: {failure}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
