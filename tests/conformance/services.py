"""The services that the official SDK is tried on, all in this process, and the SDK's process beside it.

A service is named after what it is for. Each limit and each fault has one of its own, so that all cases run at once.
"""

import asyncio
import json
import os
import ssl
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

import numpy as np

from speechpool.protocol.cosyvoice import FAILURES
from speechpool.protocol.events import Word
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.engines import Chunk
from speechpool.service.engines.hibari import HibariEngine
from speechpool.service.faults import Faults
from speechpool.service.sentences import is_speakable
from speechpool.service.voices import VOICES

__all__ = ["KEY", "PITCH", "SECONDS_PER_CHARACTER", "Tone", "play", "serving"]

KEY = "conformance"
PITCH = 440.0
"""Hertz of the tone."""
SECONDS_PER_CHARACTER = 0.05
LIMIT = 90.0
"""Seconds for all cases of one run; they need about ten."""


class Tone:
    """An engine whose every character lasts 50 ms, so that a stream's length can be told in advance."""

    name = "tone"
    profile = None
    sample_rate = 24000

    def load(self):
        """Do nothing."""

    def voices(self):
        return VOICES

    def speaks(self, text):
        return is_speakable(text)

    def synthesize(self, sentence):
        seconds = SECONDS_PER_CHARACTER * len(sentence.text) / sentence.rate
        time = np.arange(round(seconds * self.sample_rate)) / self.sample_rate
        samples = np.rint(8000 * np.sin(2 * np.pi * PITCH * sentence.pitch * time)).astype(np.int16)
        half = len(samples) // 2
        yield Chunk(samples[:half])
        yield Chunk(samples[half:], tuple(_words(sentence.text, seconds)))


def _words(text, seconds):
    at = 0
    for word in text.split():
        at = text.index(word, at)
        end = at + len(word)
        yield Word(word, at, end, round(1000 * seconds * at / len(text)), round(1000 * seconds * end / len(text)))
        at = end


@cache
def hibari():
    """The real voice, loaded once for all runs."""
    return HibariEngine()


def _blueprints():
    """What each service is made of: its engine, the settings that are not the provider's, its faults."""
    unlimited = {"submission_rate": None}
    made = {
        "marker": ("marker", unlimited, ()),
        "tone": (Tone(), unlimited, ()),
        "hibari": (hibari(), unlimited, ()),
        "pooled": ("marker", unlimited, ()),
        "shared": ("marker", unlimited, ()),  # by the tasks of one connection
        "hurried": ("marker", unlimited | {"text_gap": 0.5, "idle_timeout": 0.5}, ()),
        "limited": ("marker", {"submission_rate": 0.01}, ()),
        "single": ("marker", unlimited | {"max_tasks_per_key": 1}, ()),
        "older": ("marker", unlimited | {"older_events": True}, ()),
    }
    for fault in ("refuse:403", "refuse:429,1", "refuse:503", "invalid-action", "duplicate-finish"):
        made[fault] = ("marker", unlimited, (fault,))
    for code in FAILURES:
        made[f"fail:{code}"] = ("marker", unlimited, (f"fail@started:{code}",))
    return made


@asynccontextmanager
async def serving(context=None):
    """All services by name, over TLS where `context` is given."""
    async with AsyncExitStack() as stack:
        services = {}
        for name, (engine, settings, faults) in _blueprints().items():
            service = SpeechService(
                LocalBackend(engine, max_first_audio=None),  # all cases at once are a crowd
                port=0,
                api_key=KEY,
                settings=ServiceSettings(**settings),
                faults=Faults.parse(faults) if faults else None,
                ssl=context,
            )
            services[name] = await stack.enter_async_context(service)
        yield services


def play(python, folder, authority=None, *, trusted=True, cases=(), refusals=()):
    """Run cases of `official_sdk.py` with the interpreter `python`; in a process of its own.

    Args:
        python: The path of an interpreter that has the SDK.
        folder: Where its audio goes.
        authority: A `trustme.CA`: everything goes over TLS.
        trusted: The SDK trusts it.
        cases: Their names; none: all.
        refusals: Arguments for `provoke`, by the names of what is wrong with them.

    Returns:
        The facts by case, and what the services counted.
    """
    folder, environment = Path(folder), _environment()
    context = None
    if authority is not None:
        context = _server_context(authority)
    if authority is not None and trusted:
        bundle = folder / "authority.pem"
        authority.cert_pem.write_to_path(bundle)
        # The first is read by websocket-client, the second by Python's ssl module, and so by everything else.
        environment |= {"WEBSOCKET_CLIENT_CA_BUNDLE": str(bundle), "SSL_CERT_FILE": str(bundle)}
    order = {"cases": list(cases), "refusals": dict(refusals)}
    return asyncio.run(_play(str(python), folder, order, context, environment))


def _environment():
    """This process's, without proxies, and with the key."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"SPEECH_KEY": KEY}


async def _play(python, folder, order, context, environment):
    async with asyncio.timeout(LIMIT), serving(context) as services:
        order["urls"] = {name: service.url for name, service in services.items()}
        facts = await _run(python, folder, order, environment)
        counts = {name: service.counts for name, service in services.items()}
    return facts, counts


def _server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def _run(python, folder, order, environment):
    script = Path(__file__).with_name("official_sdk.py")
    (folder / "order.json").write_text(json.dumps(order))
    process = await asyncio.create_subprocess_exec(python, str(script), str(folder), stdout=sys.stderr, env=environment)
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    assert status == 0, "the process of the SDK failed; see its output above"
    return json.loads((folder / "facts.json").read_text())
