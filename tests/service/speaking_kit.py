"""What the tests of the backend and its engines share: a listener that writes everything down."""

import asyncio

from speechpool.service.backend import LocalBackend, SpeechParameters

LIMIT = 30.0


class Heard:
    """A listener."""

    def __init__(self):
        self.events = []
        self.over = asyncio.Event()
        self.first_audio = asyncio.Event()
        self.first_audio_at = None
        self.on_each = lambda kind: None

    def _note(self, kind, *rest):
        assert not self.over.is_set(), f"{kind} after the end"
        self.events.append((kind, *rest))
        self.on_each(kind)

    def on_sentence_begin(self, index, text):
        self._note("begin", index, text)

    def on_audio(self, data):
        assert data
        self.first_audio_at = self.first_audio_at or asyncio.get_running_loop().time()
        self._note("audio", data)
        self.first_audio.set()

    def on_sentence_end(self, index, text, words, characters):
        self._note("end", index, text, words, characters)

    def on_finished(self, characters):
        self._note("finished", characters)
        self.over.set()

    def on_failed(self, code, message):
        self._note("failed", code, message)
        self.over.set()

    @property
    def audio(self):
        return b"".join(event[1] for event in self.events if event[0] == "audio")

    @property
    def kinds(self):
        """The kinds of events, several audio in a row as one."""
        kinds = [event[0] for event in self.events]
        return [kind for at, kind in enumerate(kinds) if at == 0 or kind != "audio" or kinds[at - 1] != "audio"]

    @property
    def ends(self):
        return [event for event in self.events if event[0] == "end"]

    async def until_over(self):
        async with asyncio.timeout(LIMIT):
            await self.over.wait()
        return self


def wish(**changes):
    return SpeechParameters(**{"voice": "heart", "format": "pcm", "sample_rate": 24000, **changes})


async def say(backend, *texts, task_id="task", **changes):
    heard = Heard()
    speech = backend.open(task_id, wish(**changes), heard)
    for text in texts:
        speech.text(text)
    speech.finish()
    return await heard.until_over()


def run(scenario, engine, **settings):
    async def main():
        backend = LocalBackend(engine, **settings)
        await backend.start()
        try:
            await scenario(backend)
        finally:
            await backend.close()
        assert backend.speaking == 0

    asyncio.run(main())
