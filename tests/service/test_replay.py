import asyncio
import random
import statistics
import sys

import miniaudio
import numpy as np
import pytest
from speaking_kit import Heard, run, say, wish

from speechpool.audio import SAMPLE_RATES, pcm_seconds
from speechpool.service.engines.replay import PROFILES, ReplayEngine, _speech, spoken_seconds
from speechpool.service.pacing import Pacer

TEXT = "This is a sentence of some length. And here is another one, in any language: 你好！"


@pytest.fixture(scope="module")
def loaded():
    engine = ReplayEngine(profile="unpaced")
    engine.load()
    return engine


@pytest.fixture
def make(loaded):
    def make(profile, seed=0):
        engine = ReplayEngine(profile=profile, seed=seed)
        engine._speech, engine._recordings = loaded._speech, loaded._recordings
        return engine

    return make


def delays(make, profile, count, seed=0):
    engine = make(profile, seed)
    wanted = {"audio_format": "pcm", "sample_rate": 24000, "bit_rate": None, "rate": 1.0, "volume": 50}
    return [engine.open("task", **wanted).take("Hello.", awaited=True).delay for _ in range(count)]


# ------------------------------------------------------------------------------------------ the model
def test_healthy_delays_have_the_median_and_the_tail_of_the_design(make):
    drawn = sorted(delays(make, "healthy", 4000))
    assert statistics.median(drawn) == pytest.approx(0.180, rel=0.05)
    assert drawn[int(0.99 * len(drawn))] == pytest.approx(0.350, rel=0.1)


def test_documented_paces_stay_in_the_documents():
    draw = random.Random(1)
    paces = [PROFILES["documented"](draw) for _ in range(500)]
    assert all(0.2 <= pace.delay <= 0.8 and 0.1 <= pace.factor <= 0.5 for pace in paces)


def test_the_seed_decides_the_delays(make):
    assert delays(make, "healthy", 20, seed=1) == delays(make, "healthy", 20, seed=1)
    assert delays(make, "healthy", 20, seed=1) != delays(make, "healthy", 20, seed=2)


@pytest.mark.parametrize("audio_format", ["pcm", "mp3"])
@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
def test_chunks_come_at_the_real_time_factor(make, audio_format, sample_rate):
    track = make("healthy").open(
        "task", audio_format=audio_format, sample_rate=sample_rate, bit_rate=None, rate=1.0, volume=50
    )
    take = track.take(TEXT, awaited=True)
    chunks = list(take.chunks)
    assert take.interval == pytest.approx(0.1, abs=0.025)
    assert take.interval / chunks[0][1] == pytest.approx(0.3)
    assert sum(seconds for _, seconds in chunks) == pytest.approx(spoken_seconds(TEXT), abs=0.08)


def test_the_length_follows_text_and_rate():
    assert spoken_seconds("x" * 100) == pytest.approx(6.3)
    assert spoken_seconds("x" * 100, 2.0) == pytest.approx(3.15)
    assert spoken_seconds("你" * 50) == pytest.approx(6.3)


# ------------------------------------------------------------------------------------------ what is heard
@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
def test_it_replays_decodable_speech_in_every_format(make, sample_rate):
    async def scenario(backend):
        pcm = await say(backend, TEXT, sample_rate=sample_rate)
        assert pcm.kinds == ["begin", "audio", "end"] * 2 + ["finished"]
        seconds = pcm_seconds(len(pcm.audio), sample_rate)
        assert np.abs(np.frombuffer(pcm.audio, "<i2").astype(int)).max() > 5000
        wav = await say(backend, TEXT, sample_rate=sample_rate, format="wav")
        assert wav.audio[44:] == pcm.audio
        mp3 = miniaudio.mp3_read_s16((await say(backend, TEXT, sample_rate=sample_rate, format="mp3")).audio)
        assert mp3.num_frames / sample_rate == pytest.approx(seconds, rel=0.05)

    run(scenario, make("unpaced"))


def test_a_long_text_goes_round_and_round(make):
    async def scenario(backend):
        text = "The same words again and again, for a very long time. " * 8
        pcm = await say(backend, text, sample_rate=8000)
        assert pcm_seconds(len(pcm.audio), 8000) > 20
        mp3 = miniaudio.mp3_read_s16((await say(backend, text, sample_rate=8000, format="mp3")).audio)
        assert mp3.num_frames / 8000 == pytest.approx(pcm_seconds(len(pcm.audio), 8000), rel=0.05)

    run(scenario, make("unpaced"))


def test_words_lie_inside_of_the_audio(make):
    async def scenario(backend):
        heard = await say(backend, TEXT)
        words = [word for end in heard.ends for word in end[3]]
        times = [time for word in words for time in (word.begin_time, word.end_time)]
        assert times == sorted(times)
        assert times[-1] <= round(1000 * pcm_seconds(len(heard.audio), 24000)) + 1

    run(scenario, make("unpaced"))


def test_the_first_audio_comes_after_the_delay_and_the_rest_at_its_pace(make):
    async def scenario(backend):
        loop, heard = asyncio.get_running_loop(), Heard()
        begin = loop.time()
        speech = backend.open("task", wish(), heard)
        speech.text("One sentence of words.")
        speech.finish()
        await heard.until_over()
        # Only the lower bounds: a busy machine may be late, the pacer is never early.
        [delay] = delays(make, "healthy", 1)
        assert heard.first_audio_at - begin >= delay - 0.001
        chunks = [event for event in heard.events if event[0] == "audio"]
        assert loop.time() - begin >= delay + 0.1 * (len(chunks) - 1) - 0.001

    run(scenario, make("healthy"))


def test_pause_and_cancel_hold(make):
    async def scenario(backend):
        heard, other = Heard(), Heard()
        speech = backend.open("task", wish(), heard)
        speech.text("One sentence of some words.")
        await heard.first_audio.wait()
        speech.pause()
        count = len(heard.events)
        await asyncio.sleep(0.05)
        assert len(heard.events) == count
        speech.resume()
        speech.finish()
        assert (await heard.until_over()).kinds[-1] == "finished"
        gone = backend.open("task", wish(), other)
        gone.text("One sentence of some words.")
        await other.first_audio.wait()
        gone.cancel()
        count = len(other.events)
        await asyncio.sleep(0.05)
        assert len(other.events) == count

    run(scenario, make("unpaced"))


def test_a_tone_stands_in_where_the_voice_is_not_installed(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "hibari.tts", None)
    tone = _speech()
    assert len(tone) == 8 * 24000
    assert 8000 < np.abs(tone).max() <= 9000
    assert "A tone is replayed" in caplog.text


# ------------------------------------------------------------------------------------------ the timer
def test_one_timer_serves_all_and_nothing_is_early():
    async def main():
        loop = asyncio.get_running_loop()
        pacer, fired, done = Pacer(), [], asyncio.Event()
        now = pacer.now
        timers = []
        call_at = loop.call_at
        loop.call_at = lambda *args, **rest: timers.append(args[0]) or call_at(*args, **rest)
        for number in range(1000):
            when = now + 0.02 + number * 0.00002

            def note(when=when):
                fired.append((when, loop.time()))
                if len(fired) == 1000:
                    done.set()

            pacer.at(when, note)
        await done.wait()
        assert len(timers) <= 7
        assert all(at >= when - 0.0006 for when, at in fired)
        pacer.at(pacer.now + 0.01, lambda: fired.append("late"))
        pacer.close()
        await asyncio.sleep(0.03)
        assert fired[-1] != "late"

    asyncio.run(main())
