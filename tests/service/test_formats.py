"""Every format that the official SDK names, from both kinds of engines, heard by decoders that are not ours."""

import io

import miniaudio
import numpy as np
import pytest
import soundfile
from dashscope.audio.tts_v2 import AudioFormat
from ogg_kit import pages
from speaking_kit import run, say

from speechpool import Voice
from speechpool.audio import default_sample_rate, stream_seconds
from speechpool.protocol.cosyvoice import RunTask
from speechpool.protocol.cosyvoice.frames import Parameters
from speechpool.service.engines.hibari import HibariEngine
from speechpool.service.engines.recordings import kilobits
from speechpool.service.engines.replay import ReplayEngine
from speechpool.service.limits import ServiceSettings
from speechpool.service.wishes import speech_parameters

TEXT = "Hello there. How are you today?"
ALL = [each for each in AudioFormat if each is not AudioFormat.DEFAULT]


@pytest.fixture(
    scope="module", params=[HibariEngine, lambda: ReplayEngine(profile="unpaced")], ids=["hibari", "replay"]
)
def engine(request):
    engine = request.param()
    engine.load()
    return engine


PLAIN = {}


async def plain_samples(backend):
    """What the engine of `backend` says, as it is."""
    if backend.engine not in PLAIN:
        PLAIN[backend.engine] = np.frombuffer((await say(backend, TEXT)).audio, "<i2")
    return PLAIN[backend.engine]


def wanted(audio_format):
    """What the SDK sends for a format: it tells the bit rate of opus only."""
    bit_rate = audio_format.bit_rate if audio_format.format == "opus" else None
    return {"format": audio_format.format, "sample_rate": audio_format.sample_rate, "bit_rate": bit_rate}


def decode(audio_format, data):
    if audio_format == "pcm":
        return np.frombuffer(data, "<i2"), None
    if audio_format == "wav":  # its lengths are open: the header of a stream cannot know them
        assert data[4:8] == data[40:44] == b"\xff\xff\xff\xff"
        closed = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:40] + (len(data) - 44).to_bytes(4, "little")
        return soundfile.read(io.BytesIO(closed + data[44:]), dtype="int16")
    return soundfile.read(io.BytesIO(data), dtype="int16")


def chosen_by(**parameters):
    return speech_parameters(RunTask("task", "model", Parameters(voice="v", **parameters)), ServiceSettings())


def loudness(samples, sample_rate):
    """The loudness of 50 ms, every 10 ms."""
    energy = np.add.reduceat(samples.astype(float) ** 2, np.arange(0, len(samples), sample_rate // 100))
    return np.sqrt(np.convolve(energy, np.ones(5), "valid"))


def alike(ours, theirs):
    """How well two courses of loudness agree, where one may be late by the delay of an encoder."""
    length = min(len(ours), len(theirs)) - 20
    return max(np.corrcoef(ours[late : late + length], theirs[:length])[0, 1] for late in range(20))


@pytest.mark.parametrize("audio_format", ALL, ids=lambda each: each.name)
def test_every_format_of_the_sdk_is_spoken_and_has_its_length(engine, audio_format):
    async def scenario(backend):
        heard = await say(backend, TEXT, **wanted(audio_format))
        plain = await plain_samples(backend)
        samples, sample_rate = decode(audio_format.format, heard.audio)
        assert sample_rate in {None, audio_format.sample_rate}
        sample_rate = audio_format.sample_rate
        missing = len(samples) / sample_rate - len(plain) / 24000
        frame = 1152 if sample_rate >= 32000 else 576
        if audio_format.format == "mp3":
            # The delays of LAME and of the decoder come on top; replay rounds two sentences to whole frames.
            assert -frame * (engine.name == "replay") <= missing * sample_rate <= 2 * frame + 1105
        else:
            assert abs(missing) < (0.021 if audio_format.format == "opus" and engine.name == "replay" else 0.0001)
        assert alike(loudness(samples, sample_rate), loudness(plain, 24000)) > 0.95
        assert heard.kinds == ["begin", "audio", "end"] * 2 + ["finished"]

    run(scenario, engine)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 24000, 44100, 48000])
def test_mp3_has_the_same_length_for_another_decoder(engine, sample_rate):
    async def scenario(backend):
        data = (await say(backend, TEXT, format="mp3", sample_rate=sample_rate)).audio
        decoded = miniaudio.mp3_read_s16(data)
        other, _ = soundfile.read(io.BytesIO(data))
        assert decoded.sample_rate == sample_rate
        assert abs(decoded.num_frames - len(other)) <= 2 * 1152 + 1105
        assert stream_seconds("mp3", sample_rate, data[:64], len(data)) == pytest.approx(
            decoded.num_frames / sample_rate, abs=0.08
        )

    run(scenario, engine)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 24000, 48000])
def test_opus_tells_its_length_and_ends(engine, sample_rate):
    async def scenario(backend):
        heard = await say(backend, TEXT, format="opus", sample_rate=sample_rate, bit_rate=32)
        spoken = len(await plain_samples(backend)) / 24000
        *_, last = pages(heard.audio)
        assert last.flags == 4
        seconds = stream_seconds("opus", sample_rate, heard.audio, len(heard.audio))
        assert seconds == pytest.approx(spoken, abs=0.0001 if engine.name == "hibari" else 0.021)
        # Headers come with the first sound.
        first = next(event[1] for event in heard.events if event[0] == "audio")
        assert len(list(pages(first))) >= 3

    run(scenario, engine)


def test_clients_cannot_fill_the_memory_of_replay_with_bit_rates():
    assert len({kilobits("opus", 24000, wanted) for wanted in range(6, 511)}) < 20
    assert [kilobits("opus", 24000, wanted) for wanted in (None, 16, 32, 63, 64, 510)] == [32, 16, 32, 48, 64, 510]
    assert [kilobits(each, 8000, 256) for each in ("pcm", "mp3")] == [0, 64]


def test_opus_goes_round_and_round_without_a_gap():
    engine = ReplayEngine(profile="documented")
    engine.load()
    track = engine.open("task", audio_format="opus", sample_rate=24000, bit_rate=64, rate=1.0, volume=50)
    data, seconds = b"", 0.0
    for text in ("word " * 60, "And one more sentence."):
        for chunk, length in track.take(text, awaited=False).chunks:
            data, seconds = data + chunk, seconds + length
    data += track.flush()
    found = list(pages(data))
    assert [page.number for page in found] == list(range(len(found)))
    assert found[-1].position - 312 == round(48000 * seconds)
    decoded, _ = soundfile.read(io.BytesIO(data))
    assert len(decoded) == round(24000 * seconds) > 24000 * 15


@pytest.mark.parametrize("audio_format", ["pcm", "wav", "mp3", "opus"])
def test_a_client_that_leaves_the_rate_open_gets_what_its_voice_says(audio_format):
    for sent in ({"format": audio_format, "sample_rate": 0}, {"format": audio_format}):
        chosen = chosen_by(**sent)
        assert chosen.format == audio_format
        assert chosen.sample_rate == Voice("m", "v", format=audio_format).effective_sample_rate
        assert chosen.sample_rate == default_sample_rate(audio_format)


def test_the_default_of_the_sdk_is_the_default_of_a_voice():
    default = AudioFormat.DEFAULT
    chosen = chosen_by(format=default.format, sample_rate=default.sample_rate)
    voice = Voice("m", "v")
    assert (chosen.format, chosen.sample_rate) == (voice.format, voice.effective_sample_rate) == ("mp3", 22050)
