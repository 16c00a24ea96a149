"""A voice agent that can be interrupted: words of a language model in, audio out, and a user who barges in.

    speechpool service &
    python examples/voice_agent.py

The model, the loudspeaker and the user are played; put yours in their place.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator

from speechpool import AsyncSpeechPool, Endpoint, Voice

RATE = 24000
VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=RATE)
CONVERSATION = [
    # What the agent answers, and after how many seconds the user interrupts.
    ("Good morning. How can I help you?", None),
    ("Our opening hours are from nine to five on weekdays, from ten to four on Saturdays, and on Sundays we", 0.8),
    ("I see. You only want to know about today. We close at five.", None),
]


async def model(answer: str) -> AsyncIterator[str]:
    """Yield an answer word by word, as a language model writes it."""
    for word in answer.split():
        await asyncio.sleep(0.02)
        yield word + " "


class Loudspeaker:
    """Plays PCM as fast as it is heard, and is never more than 200 ms ahead: what it has cannot be taken back."""

    def __init__(self) -> None:
        self.begun: float | None = None
        self.seconds = 0.0

    async def play(self, pcm: bytes) -> None:
        if self.begun is None:
            self.begun = time.monotonic()
        self.seconds += len(pcm) / (2 * RATE)
        await asyncio.sleep(self.begun + self.seconds - time.monotonic() - 0.2)


async def say(pool: AsyncSpeechPool, answer: str) -> None:
    """Speak one answer. Cancelled, it leaves the `async with`: the server stops, and the connection stays warm."""
    asked, loudspeaker = time.monotonic(), Loudspeaker()
    try:
        async with pool.stream(model(answer), VOICE) as stream:
            async for chunk in stream:
                if loudspeaker.begun is None:
                    print(f"agent: {answer!r}, first audio after {1000 * (time.monotonic() - asked):.0f} ms")
                await loudspeaker.play(chunk)
        print(f"       spoken, {loudspeaker.seconds:.1f} s of audio")
    except asyncio.CancelledError:
        print(f"       interrupted, {loudspeaker.seconds:.1f} s of audio were played")
        raise


async def converse(endpoint: Endpoint) -> None:
    async with AsyncSpeechPool(endpoint, max_size=2) as pool:
        for answer, interrupted_after in CONVERSATION:
            speaking = asyncio.create_task(say(pool, answer))
            _, unheard = await asyncio.wait([speaking], timeout=interrupted_after)
            if unheard:
                print("user:  starts to speak")
                speaking.cancel()
                await asyncio.wait([speaking])
            else:
                speaking.result()
        print(f"connections opened: {pool.stats.opened}, for {len(CONVERSATION)} answers")


def main() -> None:
    parser = argparse.ArgumentParser(description="Hold a short conversation, with an interruption.")
    parser.add_argument("--endpoint", default="ws://127.0.0.1:8765", help="the speech server (%(default)s)")
    chosen = parser.parse_args()
    asyncio.run(converse(Endpoint(chosen.endpoint, api_key=os.getenv("DASHSCOPE_API_KEY", "local"))))


if __name__ == "__main__":
    main()
