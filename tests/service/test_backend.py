import asyncio
import logging
import math
import subprocess
import sys
import threading

import miniaudio
import numpy as np
import pytest
from speaking_kit import LIMIT, Heard, run, say, wish

from speechpool.audio import SAMPLE_RATES, pcm_seconds
from speechpool.errors import SettingsError
from speechpool.protocol.events import Word
from speechpool.service.backend import BackendRefusal, LocalBackend
from speechpool.service.engines import Chunk
from speechpool.service.engines.hibari import HibariEngine
from speechpool.service.voices import VOICES
from speechpool.text import count_characters

THROTTLED = ("Throttling.RateQuota", "Requests rate limit exceeded, please try again later.")
TWO = "Hello there. How are you today?"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Beeper:
    """A synthesis engine under the control of its test: one chunk of 0.1 s for each word."""

    name = "beeper"
    profile = None
    sample_rate = 24000

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.made = 0

    def load(self):
        pass

    def voices(self):
        return VOICES

    def speaks(self, text):
        return "你" not in text

    def synthesize(self, sentence):
        for number, word in enumerate(sentence.text.split()):
            self.entered.set()
            assert self.open.wait(LIMIT)
            if word == "boom":
                raise RuntimeError(sentence.text)
            if word == "mute":
                return
            self.made += 1
            begin = sentence.text.index(word)
            times = Word(word, begin, begin + len(word), number * 100, number * 100 + 100)
            yield Chunk(np.full(2400, number + 1, np.int16), (times,))


@pytest.fixture(scope="module")
def voice():
    engine = HibariEngine()
    engine.load()
    return engine


# ------------------------------------------------------------------------------------------ the real voice
def test_a_task_is_told_in_order(voice):
    async def scenario(backend):
        heard = await say(backend, TWO, format="mp3", sample_rate=22050)
        assert heard.kinds == ["begin", "audio", "end", "begin", "audio", "end", "finished"]
        assert [event[1:] for event in heard.events if event[0] == "begin"] == [
            (0, "Hello there."),
            (1, "How are you today?"),
        ]
        assert heard.ends[-1][4] == heard.events[-1][1] == count_characters(TWO)

    run(scenario, voice)


@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
def test_mp3_lasts_as_long_as_pcm(voice, sample_rate):
    async def scenario(backend):
        text = f"{TWO} The weather is rather nice, and so are we."
        pcm = await say(backend, text, sample_rate=sample_rate)
        mp3 = await say(backend, text, sample_rate=sample_rate, format="mp3")
        wav = await say(backend, text, sample_rate=sample_rate, format="wav")
        seconds = pcm_seconds(len(pcm.audio), sample_rate)
        decoded = miniaudio.mp3_read_s16(mp3.audio)
        assert decoded.sample_rate == sample_rate
        assert decoded.num_frames / sample_rate == pytest.approx(seconds, rel=0.05)
        assert wav.audio[44:] == pcm.audio
        assert wav.audio.count(b"RIFF") == 1

    run(scenario, voice)


def test_alone_and_under_load_sound_the_same(voice):
    async def scenario(backend):
        texts = [f"{TWO} This is number {number}, and it goes on for a while." for number in range(8)]
        alone = [(await say(backend, text)).audio for text in texts[:3]]
        together = await asyncio.gather(*(say(backend, text, task_id=text) for text in texts))
        assert [heard.audio for heard in together[:3]] == alone
        assert len({heard.audio for heard in together}) == 8

    run(scenario, voice, workers=2)


def test_seed_voice_and_pitch_make_a_difference_and_pieces_make_none(voice):
    async def scenario(backend):
        plain = await say(backend, TWO)
        assert (await say(backend, *TWO.split("t"))).audio != b""
        assert (await say(backend, "Hello th", "ere. How a", "re you today?")).audio == plain.audio
        for change in ({"seed": 1}, {"voice": "longanyang"}, {"pitch": 1.2}, {"rate": 1.5}):
            assert (await say(backend, TWO, **change)).audio != plain.audio

    run(scenario, voice)


def test_words_are_timed_over_the_whole_task(voice):
    async def scenario(backend):
        heard = await say(backend, TWO)
        words = [word for event in heard.ends for word in event[3]]
        assert [word.text for word in words] == TWO.split()
        times = [time for word in words for time in (word.begin_time, word.end_time)]
        assert times == sorted(times)
        assert times[-1] <= 1000 * pcm_seconds(len(heard.audio), 24000)
        assert words[2].begin_index == 0  # positions are those in the sentence

    run(scenario, voice)


def test_text_that_no_engine_speaks_is_refused_and_named(voice):
    async def scenario(backend):
        for text in ("你好", "Hello 你好."):
            heard = await say(backend, text)
            [(kind, code, message)] = heard.events
            assert (kind, code) == ("failed", "InvalidParameter")
            assert "No loaded engine speaks Han text" in message

    run(scenario, voice)


@pytest.mark.parametrize(
    ("installed", "remedy"), [(True, "Start the service with"), (False, "Run: pip install 'speech")]
)
def test_a_refusal_says_how_to_get_an_engine_that_speaks_it(monkeypatch, installed, remedy):
    monkeypatch.setattr("speechpool.service.backend.find_spec", lambda name: name if installed else None)

    async def scenario(backend):
        heard = await say(backend, "你好")
        assert remedy in heard.events[0][2]
        assert heard.events[0][2].endswith("with --engine auto.")

    run(scenario, Beeper())


# ------------------------------------------------------------------------------------------ order and ends
def test_complete_sentences_are_spoken_before_the_finish_and_tails_are_not():
    async def scenario(backend):
        heard = Heard()
        speech = backend.open("task", wish(), heard)
        speech.text("One two. And th")
        async with asyncio.timeout(LIMIT):
            await heard.first_audio.wait()
        while not heard.ends:
            await asyncio.sleep(0.001)
        speech.text("ree")
        speech.flush()
        while len(heard.ends) < 2:
            await asyncio.sleep(0.001)
        assert [event[2] for event in heard.ends] == ["One two.", "And three"]
        assert not heard.over.is_set()
        speech.finish()
        await heard.until_over()
        assert heard.events[-1] == ("finished", len("One two. And three"))

    run(scenario, Beeper())


def test_a_tail_that_may_be_a_sentence_is_spoken_after_a_moment():
    async def scenario(backend):
        heard = Heard()
        speech = backend.open("task", wish(), heard)
        speech.text("It costs 30.")
        async with asyncio.timeout(LIMIT):
            await heard.first_audio.wait()
        speech.cancel()

    run(scenario, Beeper())


def test_a_late_finish_sends_the_last_bytes_before_its_end():
    async def scenario(backend):
        late, early = Heard(), await say(backend, "One two.", format="mp3", sample_rate=8000)
        speech = backend.open("task", wish(format="mp3", sample_rate=8000), late)
        speech.text("One two.")
        while not late.ends:
            await asyncio.sleep(0.001)
        speech.finish()
        await late.until_over()
        assert late.kinds[-3:] == ["end", "audio", "finished"]
        assert early.kinds[-2:] == ["end", "finished"]
        assert late.audio == early.audio

    run(scenario, Beeper())


def test_a_task_without_text_finishes_and_one_without_words_fails():
    async def scenario(backend):
        assert (await say(backend)).events == [("finished", 0)]
        assert (await say(backend, "… !")).events[0][:2] == ("failed", "InvalidParameter")

    run(scenario, Beeper())


def test_punctuation_alone_is_counted_but_no_sentence():
    async def scenario(backend):
        heard = await say(backend, "One. ", "…", " 😀 ")
        assert heard.kinds == ["begin", "audio", "end", "finished"]
        assert heard.ends[0][4] == heard.events[-1][1] == len("One. … 😀 ")

    run(scenario, Beeper())


def test_no_samples_are_no_success():
    async def scenario(backend):
        heard = await say(backend, "mute")
        assert heard.events[-1][:2] == ("failed", "InvalidParameter")

    run(scenario, Beeper())


def test_what_was_fine_is_spoken_before_a_refusal():
    async def scenario(backend):
        heard = await say(backend, "One two. 你好。")
        assert heard.kinds == ["begin", "audio", "end", "failed"]

    run(scenario, Beeper())


def test_an_engine_that_fails_is_reported_without_what_was_to_be_said(caplog):
    async def scenario(backend):
        heard = await say(backend, "one boom")
        assert heard.events[-1] == ("failed", "InternalError", "The engine failed; try again.")
        assert (await say(backend, "Fine.")).kinds[-1] == "finished"

    with caplog.at_level(logging.INFO):
        run(scenario, Beeper())
    assert "RuntimeError" in caplog.text
    assert "one boom" not in caplog.text


# ------------------------------------------------------------------------------------------ cancel, pause, load
def test_nothing_comes_after_a_cancel():
    async def scenario(backend):
        heard = Heard()
        speech = backend.open("task", wish(), heard)
        speech.text("one two three four five. Six.")
        async with asyncio.timeout(LIMIT):
            await heard.first_audio.wait()
        speech.cancel()
        count = len(heard.events)
        assert (await say(backend, "Other.")).kinds[-1] == "finished"
        speech.text("More.")
        speech.flush()
        speech.finish()
        await asyncio.sleep(0)
        assert len(heard.events) == count
        assert backend.speaking == 0

    run(scenario, Beeper(), workers=1)


@pytest.mark.parametrize("kind", ["begin", "audio", "end"])
def test_a_listener_may_cancel_from_inside_any_call(kind):
    async def scenario(backend):
        heard = Heard()
        speech = backend.open("task", wish(), heard)
        heard.on_each = lambda seen: speech.cancel() if seen == kind else None
        speech.text("One two. Three four.")
        speech.finish()
        await say(backend, "Other words come after it.")
        assert heard.events[-1][0] == kind
        assert [event[0] for event in heard.events].count(kind) == 1

    run(scenario, Beeper(), workers=1)


def test_a_pause_stops_the_making_of_audio():
    engine = Beeper()

    async def scenario(backend):
        heard = Heard()
        speech = backend.open("task", wish(), heard)
        speech.pause()
        speech.text("one two three.")
        assert (await say(backend, "Other.")).kinds[-1] == "finished"
        assert engine.made == 1  # the other one's
        assert heard.events == []
        speech.resume()
        speech.finish()
        await heard.until_over()
        assert engine.made == 4

    run(scenario, engine, workers=1)


def test_a_paused_task_claims_nothing_and_its_next_sentence_does():
    ending = threading.Event()

    class Ending(Beeper):
        def synthesize(self, sentence):
            yield from super().synthesize(sentence)
            ending.set()

    async def scenario(backend):
        heard = Heard()
        speech = backend.open("task", wish(), heard)

        def pause(kind):
            # Not before the last step runs: a sentence that is paused between two steps does not end.
            if kind == "audio" and ending.wait(LIMIT):
                speech.pause()

        heard.on_each = pause
        speech.text("One.")
        async with asyncio.timeout(LIMIT):
            while not heard.ends:
                await asyncio.sleep(0.001)
        [claim] = backend._admission._claims
        assert claim.paused
        speech.resume()
        speech.text("Two. ")
        assert not claim.paused
        heard.on_each = lambda kind: None
        speech.finish()
        await heard.until_over()

    run(scenario, Ending(), workers=1)


def test_a_full_queue_refuses_with_the_providers_words():
    engine = Beeper()

    async def scenario(backend):
        engine.open.clear()
        listeners = [Heard() for _ in range(3)]
        speeches = [backend.open("task", wish(), heard) for heard in listeners]
        speeches[0].text("One.")
        assert await asyncio.to_thread(engine.entered.wait, LIMIT)  # the worker is busy with the first
        speeches[1].text("Two.")
        with pytest.raises(BackendRefusal) as refused:
            backend.open("task", wish(), Heard())
        speeches[2].text("Three.")  # was opened before the queue was full
        assert (refused.value.code, refused.value.message) == THROTTLED
        assert listeners[2].events == [("failed", *THROTTLED)]
        engine.open.set()
        for speech, heard in list(zip(speeches, listeners, strict=True))[:2]:
            speech.finish()
            assert (await heard.until_over()).kinds[-1] == "finished"

    run(scenario, engine, workers=1, max_queue=2)


def test_a_task_that_cannot_be_served_in_time_is_refused_at_once_and_that_of_another_client_is_not():
    engine = Beeper()

    async def scenario(backend):
        engine.open.clear()  # nothing is ever served
        crowd = []
        with pytest.raises(BackendRefusal) as refused:
            for _ in range(100):
                crowd.append(backend.open("task", wish(), Heard(), client="greedy"))
                crowd[-1].text("One two three.")
        assert (refused.value.code, refused.value.message) == THROTTLED
        assert 2 < len(crowd) < 50
        heard = Heard()
        modest = backend.open("task", wish(), heard, client="modest")
        modest.text("One.")
        assert heard.events == []
        for speech in (modest, *crowd):
            speech.cancel()
        assert backend._admission.open_claims == 0
        engine.open.set()
        assert (await say(backend, "One.")).kinds[-1] == "finished"

    run(scenario, engine, workers=1)


def test_a_task_is_asked_anew_when_its_text_comes_late():
    engine = Beeper()

    async def scenario(backend):
        clock = backend._scheduler._clock = Clock()
        engine.open.clear()
        heard = Heard()
        late = backend.open("task", wish(), heard)
        clock.now = 10.0
        for _ in range(2):
            backend.open("task", wish(), Heard()).text("One two three.")
        late.text("One")
        assert heard.events == []  # no whole sentence yet
        late.text(" two.")
        assert heard.events == [("failed", *THROTTLED)]
        assert backend._admission.open_claims == 2
        engine.open.set()

    run(scenario, engine, workers=1, max_first_audio=0.2)


def test_every_task_is_taken_without_a_limit():
    engine = Beeper()

    async def scenario(backend):
        engine.open.clear()
        listeners = [Heard() for _ in range(100)]
        for heard in listeners:
            speech = backend.open("task", wish(), heard)
            speech.text("One.")
            speech.finish()
        engine.open.set()
        for heard in listeners:
            assert (await heard.until_over()).kinds[-1] == "finished"
        assert backend._admission.open_claims == 0

    run(scenario, engine, workers=1, max_first_audio=None)


def test_the_cost_of_an_engine_is_learned_from_its_steps():
    async def scenario(backend):
        before = backend._admission._cost.value
        for _ in range(20):
            await say(backend, "One two three four five.")
        assert backend._admission._cost.value < before / 1.5  # next to nothing

    run(scenario, Beeper())


def test_closing_drops_what_runs():
    engine = Beeper()

    async def main():
        backend = LocalBackend(engine, workers=1)
        await backend.start()
        heard = Heard()
        backend.open("task", wish(), heard).text("one two three.")
        await backend.close()
        count = len(heard.events)
        await asyncio.sleep(0.01)
        assert len(heard.events) == count
        assert not any(thread.name.startswith("speechpool-voice") for thread in threading.enumerate())
        with pytest.raises(BackendRefusal, match="not ready"):
            backend.open("task", wish(), Heard())

    asyncio.run(main())


def test_a_backend_may_be_started_again():
    async def main():
        backend = LocalBackend(Beeper(), workers=1)
        for _ in range(2):
            await backend.start()
            assert (await say(backend, "One.")).kinds[-1] == "finished"
            await backend.close()

    asyncio.run(main())


FORGETFUL = """
import asyncio
from speechpool.service.backend import LocalBackend, SpeechParameters

class Deaf:
    def __getattr__(self, name):
        return lambda *rest: None

async def main():
    backend = LocalBackend("hibari", workers=2)
    await backend.start()
    for number in range(8):
        wish = SpeechParameters(voice="heart", format="pcm", sample_rate=24000)
        backend.open(str(number), wish, Deaf()).text("These words are never heard by anybody at all. " * 20)
    await asyncio.sleep(0.2)
    return backend

loop = asyncio.new_event_loop()  # stays open: closing it would stop the workers, too
kept = loop.run_until_complete(main())
"""


def test_a_forgotten_backend_lets_its_program_end():
    done = subprocess.run([sys.executable, "-c", FORGETFUL], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voice": "nobody"}, r"^InvalidParameter: \[tts:\]Engine return error code: 418$"),
        ({"format": "opus", "sample_rate": 22050}, "22050 is not offered for opus; choose one of 8000, 16000, 24000"),
        ({"format": "flac"}, "flac"),
        ({"sample_rate": 12345}, "12345"),
        ({"volume": 101}, "volume 101"),
        ({"rate": 0.4}, "rate 0.4"),
        ({"pitch": 2.1}, "pitch 2.1"),
        ({"seed": -1}, "seed -1"),
        ({"bit_rate": 5}, "bit_rate 5"),
        ({"rate": math.nan}, "rate nan"),
    ],
)
def test_what_cannot_be_served_is_refused(change, message):
    async def scenario(backend):
        with pytest.raises(BackendRefusal, match=message) as refused:
            backend.open("task", wish(**change), Heard())
        assert refused.value.code == "InvalidParameter"

    run(scenario, Beeper())


def test_any_model_is_taken():
    async def scenario(backend):
        for model in ("cosyvoice-v3-flash", "sambert-zhichu-v1", "anything"):
            assert (await say(backend, "One.", model=model)).kinds[-1] == "finished"

    run(scenario, Beeper())


def test_settings_of_the_backend_are_checked():
    with pytest.raises(SettingsError, match="max_queue = 0"):
        LocalBackend(Beeper(), max_queue=0)
    for seconds in (0, -1, math.nan, math.inf):
        with pytest.raises(SettingsError, match="max_first_audio"):
            LocalBackend(Beeper(), max_first_audio=seconds)
    with pytest.raises(SettingsError, match="'nothing' is unknown"):
        LocalBackend("nothing")


def test_what_it_is():
    backend = LocalBackend("replay", profile="documented")
    assert (backend.name, backend.engine, backend.profile) == ("local", "replay", "documented")
    assert [voice.name for voice in backend.voices()] == sorted(VOICES)
