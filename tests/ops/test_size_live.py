"""What `size` predicts, beside what a pool under load and a monitor have measured."""

import asyncio
import json
import subprocess
import sys

import pytest

from speechpool import AsyncSpeechPool, Endpoint, Voice, monitoring
from speechpool.ops.measured import of_monitor
from speechpool.service import LocalBackend, ServiceSettings, SpeechService

pytestmark = pytest.mark.slow

TEXTS = "Yes, of course.\nPlease wait.\nGo on, I listen.\nThat is right.\n"
VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm")


def speechpool(*arguments, where):
    done = subprocess.run(
        [sys.executable, "-m", "speechpool", *arguments],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(200)
def test_a_busy_run_is_predicted(tmp_path):
    (tmp_path / "texts").write_text(TEXTS)
    speechpool(
        "load", "--stages", "45s:11", "--max-size", "8", "--texts", "texts", "--json", "run.json", where=tmp_path
    )
    told = json.loads(speechpool("size", "--report", "run.json", "--peak", "8", "--json", where=tmp_path))
    (stage,) = told["predictions"]
    assert stage["max_size"] == 8
    # Otherwise the run says nothing about waiting.
    assert stage["utilisation"] >= 0.7
    assert stage["wait_p95"] >= 0.020
    assert stage["predicted_utilisation"] == pytest.approx(stage["utilisation"], abs=0.10)
    assert stage["wait_p95"] / 2 <= stage["predicted_wait_p95"] <= 2 * stage["wait_p95"]


@pytest.mark.keeps_descriptors  # those of onnxruntime
def test_a_monitor_tells_the_peak():
    async def talk(pool):
        loop = asyncio.get_running_loop()
        end = loop.time() + 14
        while loop.time() < end:
            await pool.synthesize("Yes, of course.", VOICE)

    async def main():
        settings = ServiceSettings(submission_rate=None)
        async with SpeechService(LocalBackend(engine="replay"), port=0, settings=settings) as service:
            async with AsyncSpeechPool(Endpoint(service.url, api_key="any"), max_size=5) as pool:
                with monitoring.serve(pool, 0) as monitor:
                    await asyncio.gather(*(talk(pool) for _ in range(3)))
                    return await asyncio.to_thread(of_monitor, monitor.url)

    measured = asyncio.run(main())
    assert measured.peak == pytest.approx(3.0, abs=0.3)
    assert 0.3 < measured.task_seconds < 1.5
