"""A pool with traffic behind it, for the tests of monitoring."""

import asyncio
import contextlib
import json
import threading
import urllib.error
import urllib.request

from speechpool import AsyncSpeechPool, Endpoint, Voice
from speechpool.limits import LocalQuota
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.faults import Faults

KEY = "sk-3b1f0e7c5a9d4826"
SECRET = "The purple giraffe signs the contract."
PCM = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)


@contextlib.asynccontextmanager
async def pool_with_traffic(tasks=20, faults=("fail@mid-audio~10%",), **options):
    async with running_service(faults) as service:
        options = {"max_size": 5, "quota": LocalQuota()} | options
        async with AsyncSpeechPool(Endpoint(service.url, api_key=KEY), **options) as pool:
            await pool.wait_ready()
            await traffic(pool, tasks)
            yield pool


def running_service(faults=()):
    settings = ServiceSettings(submission_rate=None)
    return SpeechService(LocalBackend("marker"), port=0, settings=settings, faults=Faults.parse(faults, seed=3))


async def traffic(pool, tasks):
    return await asyncio.gather(*(pool.synthesize(SECRET, PCM) for _ in range(tasks)), return_exceptions=True)


def get(url, **headers):
    """Status, headers and body, in this thread."""
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


async def ask(url, **headers):
    return await asyncio.to_thread(get, url, **headers)


def parsed(body):
    return json.loads(body)["pools"]


def names_of_threads():
    return {thread.name for thread in threading.enumerate()}
