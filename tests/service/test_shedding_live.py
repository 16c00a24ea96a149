"""The local service throttles as the provider does; a pool finds out what it carries, and sheds the rest at once."""

import asyncio
import time

import pytest

from shedding_kit import CARRIED, WARM_UP, Callers, WatchedQuota, holds
from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.submissions import Submissions

SECONDS = 45.0
VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=16000)


@pytest.fixture
def answers(monkeypatch):
    """When the service answered a submission, and whether it throttled it."""
    seen, start = [], Submissions.start

    def watched(self, client, model, now):
        try:
            start(self, client, model, now)
        except Exception:
            seen.append((time.monotonic(), True))
            raise
        seen.append((time.monotonic(), False))

    monkeypatch.setattr(Submissions, "start", watched)
    return seen


@pytest.mark.slow
@pytest.mark.keeps_descriptors  # those of onnxruntime
@pytest.mark.timeout(150)
def test_a_service_that_throttles_is_used_to_the_full_and_the_rest_is_shed_at_once(answers):
    async def main():
        quota = WatchedQuota()
        backend = LocalBackend("replay", profile="healthy", seed=1)
        settings = ServiceSettings(submission_rate=float(CARRIED))
        async with (
            SpeechService(backend, port=0, settings=settings) as service,
            AsyncSpeechPool(Endpoint(service.url, api_key="key"), max_size=60, quota=quota, borrow_timeout=3.0) as pool,
        ):
            await pool.wait_ready()
            callers = Callers(lambda: pool.synthesize("Good.", VOICE), quota, time.monotonic)
            since = await callers.ask(SECONDS)
            late = [throttled for when, throttled in answers if when >= since]
            figures = callers.figures(since, sum(late) / len(late))
            print(f"\n{figures}")  # noqa: T201  # figures to be quoted, with -s
            holds(figures)

    assert SECONDS > WARM_UP
    asyncio.run(main())
