"""How users write it; only the type checker reads this file (`make check`)."""

from collections.abc import AsyncIterator
from typing import assert_type

from speechpool import (
    AsyncSpeechPool,
    Audio,
    Endpoint,
    Finished,
    SentenceBegin,
    SentenceEnd,
    Speech,
    SpeechPool,
    Voice,
    Word,
)


async def tokens() -> AsyncIterator[str]:
    yield "Hello."


async def asynchronous(pool: AsyncSpeechPool, voice: Voice) -> None:
    speech = await pool.synthesize("Hello.", voice)
    assert_type(speech, Speech)
    assert_type(speech.audio, bytes)
    assert_type(speech.words, tuple[Word, ...])
    for text in ("Hello.", ["Hel", "lo."], tokens()):
        async with pool.stream(text, voice) as stream:
            async for chunk in stream:
                assert_type(chunk, bytes)
    async with pool.borrow(timeout=5.0) as lease, lease.task(voice) as task:
        await task.send("Hello.")
        await task.finish()
        async for event in task:
            match event:
                case Audio(data):
                    assert_type(data, bytes)
                case SentenceBegin() | SentenceEnd() | Finished():
                    pass
    assert_type(pool.stats.idle, int)


def blocking(voice: Voice) -> None:
    with SpeechPool(Endpoint.local(), max_size=4) as pool:
        assert_type(pool.synthesize("Hello.", voice), Speech)
        with pool.stream(["Hel", "lo."], voice) as stream:
            for chunk in stream:
                assert_type(chunk, bytes)
