"""Manners, pauses and replacements, as they are heard: through the backend that speaks on this machine."""

import asyncio

import numpy as np
import pytest
from speaking_kit import Heard, run, say, wish

from speechpool.service.engines import Chunk
from speechpool.service.engines.hibari import HibariEngine
from speechpool.service.ssml import parse_ssml
from speechpool.service.voices import VOICES
from speechpool.text import count_characters


class Noting:
    """An engine that notes its sentences and makes 0.1 s for each."""

    name = "noting"
    profile = None
    sample_rate = 24000

    def __init__(self):
        self.heard = []

    def load(self):
        pass

    def voices(self):
        return VOICES

    def speaks(self, text):
        return "你" not in text

    def synthesize(self, sentence):
        self.heard.append(sentence)
        yield Chunk(np.ones(2400, np.int16))

    @property
    def texts(self):
        return [sentence.text for sentence in self.heard]


@pytest.fixture(scope="module")
def voice():
    engine = HibariEngine()
    engine.load()
    return engine


async def perform(backend, markup, **changes):
    heard = Heard()
    asked = wish(**changes)
    speech = backend.open("task", asked, heard)
    document = f"<speak>{markup}</speak>"
    speech.passages(parse_ssml(document, voice=asked.voice, rate=asked.rate, pitch=asked.pitch, volume=asked.volume))
    speech.finish()
    await heard.until_over()
    if heard.kinds[-1] == "finished":
        assert heard.events[-1] == ("finished", count_characters(document, ssml=True))
    return heard


def words(heard):
    return [word for event in heard.ends for word in event[3]]


# ------------------------------------------------------------------------------------------ the real voice
def test_a_pause_adds_exactly_its_silence(voice):
    async def scenario(backend):
        plain = await say(backend, "Hello there. How are you?")
        paused = await perform(backend, "Hello there.<break time='500ms'/> How are you?")
        first = len((await say(backend, "Hello there.")).audio)
        silence = bytes(24000)
        assert paused.audio == plain.audio[:first] + silence + plain.audio[first:]
        assert [event[2] for event in paused.ends] == ["Hello there.", "How are you?"]
        later = [word.begin_time - 500 for word in words(paused)[2:]]
        assert later == pytest.approx([word.begin_time for word in words(plain)[2:]], abs=1)
        assert words(paused)[:2] == words(plain)[:2]

    run(scenario, voice)


def test_a_pause_before_everything_belongs_to_the_first_sentence(voice):
    async def scenario(backend):
        plain = await say(backend, "Hello there.")
        paused = await perform(backend, "<break time='1s'/>Hello there.<break time='250ms'/>")
        assert paused.audio == bytes(48000) + plain.audio + bytes(12000)
        assert paused.kinds == ["begin", "audio", "end", "finished"]
        assert [word.begin_time for word in words(paused)] == [word.begin_time + 1000 for word in words(plain)]

    run(scenario, voice)


def test_prosody_changes_how_long_a_passage_is(voice):
    async def scenario(backend):
        text = "The weather is rather nice today."
        plain = await perform(backend, text)
        assert plain.audio == (await say(backend, text)).audio
        quick = await perform(backend, f"<prosody rate='150%'>{text}</prosody>")
        slow = await perform(backend, f"<prosody rate='x-slow'>{text}</prosody>")
        assert 0.55 < len(quick.audio) / len(plain.audio) < 0.8
        assert 1.6 < len(slow.audio) / len(plain.audio) < 2.4

    run(scenario, voice)


def test_volume_changes_how_loud_a_passage_is(voice):
    async def scenario(backend):
        def loudness(heard):
            samples = np.frombuffer(heard.audio, np.int16).astype(float)
            return np.sqrt((samples**2).mean())

        plain = await perform(backend, "Hello there.")
        soft = await perform(backend, "<prosody volume='-6dB'>Hello there.</prosody>")
        silent = await perform(backend, "<prosody volume='silent'>Hello there.</prosody>")
        assert loudness(soft) / loudness(plain) == pytest.approx(0.5, rel=0.03)
        assert len(silent.audio) == len(plain.audio)
        assert not any(silent.audio)

    run(scenario, voice)


def test_digits_are_read_one_by_one_and_are_one_word(voice):
    async def scenario(backend):
        single = await say(backend, "In 1 9 8 4 it was.")
        digits = await perform(backend, "In <say-as interpret-as='digits'>1984</say-as> it was.")
        assert digits.audio == single.audio
        assert len(words(single)) == 7
        assert [word.text for word in words(digits)] == ["In", "1984", "it", "was."]
        year = words(digits)[1]
        assert (year.begin_index, year.end_index) == (3, 7)
        assert (year.begin_time, year.end_time) == (words(single)[1].begin_time, words(single)[4].end_time)
        assert digits.ends[0][2] == "In 1984 it was."

    run(scenario, voice)


def test_a_replacement_is_spoken_and_the_text_is_told_as_it_was_sent(voice):
    async def scenario(backend):
        asked = (("WWW", "World Wide Web"),)
        replaced = await say(backend, "The W", "WW is old. Yes.", replacements=asked)
        other = await say(backend, "The World Wide Web is old. Yes.")
        assert replaced.audio == other.audio
        assert [event[2] for event in replaced.ends] == ["The WWW is old.", "Yes."]
        assert [word.text for word in words(replaced)] == ["The", "WWW", "is", "old.", "Yes."]
        assert replaced.events[-1] == ("finished", len("The WWW is old. Yes."))

    run(scenario, voice)


# ------------------------------------------------------------------------------------------ what an engine is told
def test_an_engine_is_told_what_is_spoken_and_how():
    engine = Noting()

    async def scenario(backend):
        await perform(
            backend,
            "<prosody rate='2.0' pitch='high'>One <sub alias='two'>2</sub>.</prosody>"
            "<lang xml:lang='fr'>Trois. Quatre.</lang><phoneme alphabet='py' ph='si4'>four</phoneme>",
            rate=1.5,
            volume=40,
            language_hints=("de",),
            pronunciations=(("four", "wu3"),),
        )

    run(scenario, engine)
    one, three, four, five = engine.heard
    assert (one.text, one.rate, one.pitch, one.volume, one.language) == ("One two.", 2.0, pytest.approx(1.15), 40, "de")
    assert [(each.text, each.language, each.rate) for each in (three, four)] == [
        ("Trois.", "fr", 1.5),
        ("Quatre.", "fr", 1.5),
    ]
    assert (five.text, five.language, five.pronunciations[0]) == ("four", "de", ("four", "si4"))


def test_replacements_also_work_inside_markup_but_not_in_readings():
    engine = Noting()

    async def scenario(backend):
        pairs = (("One", "1"), ("Two", "2"), ("Three", "…"))
        await perform(backend, "One <sub alias='One'>Two</sub> One. Three.", replacements=pairs)

    run(scenario, engine)
    assert engine.texts == ["1 One 1."]


def test_what_is_replaced_decides_whether_it_can_be_spoken():
    engine = Noting()

    async def scenario(backend):
        assert (await say(backend, "你好.", replacements=(("你好", "hello"),))).kinds[-1] == "finished"
        assert (await say(backend, "Hello.", replacements=(("Hello", "你好"),))).kinds == ["failed"]
        assert (await say(backend, "Hello.", replacements=(("Hello", "..."),))).kinds == ["failed"]

    run(scenario, engine)
    assert engine.texts == ["hello."]


def test_a_passage_that_cannot_be_spoken_is_no_success_because_of_its_pause():
    class Mute(Noting):
        def synthesize(self, sentence):
            yield from ()

    async def scenario(backend):
        heard = await perform(backend, "Hello.<break/>")
        assert heard.events[-1][:2] == ("failed", "InvalidParameter")

    run(scenario, Mute())


def test_a_pause_may_be_cancelled():
    engine = Noting()

    async def scenario(backend):
        heard = Heard()
        speech = backend.open("task", wish(), heard)
        heard.on_each = lambda kind: speech.cancel() if kind == "audio" else None
        speech.passages(parse_ssml("<speak><break time='10s'/>Hello.</speak>", voice="heart"))
        assert (await say(backend, "Other words.")).kinds[-1] == "finished"
        await asyncio.sleep(0)
        assert heard.kinds == ["begin", "audio"]

    run(scenario, engine, workers=1)
    assert engine.texts == ["Other words."]


@pytest.mark.parametrize("engine", ["marker", "replay"])
def test_paced_engines_leave_pauses_out(engine):
    async def scenario(backend):
        plain = await say(backend, "One. Two.")
        paused = await perform(backend, "<break/>One.<break time='500ms'/> Two.<break/>")
        assert len(paused.audio) == len(plain.audio)
        assert paused.kinds == plain.kinds
        assert [event[2] for event in paused.ends] == ["One.", "Two."]

    run(scenario, engine)
