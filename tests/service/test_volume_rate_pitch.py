"""Volume, rate and pitch mean what the provider says they mean, measured on the real voice."""

import numpy as np
import pytest
from speaking_kit import run, say

from speechpool.service.engines.hibari import HibariEngine

TEXTS = (
    "The birch canoe slid on the smooth planks, and the crew cheered from the shore.",
    "Hello there, how are you?",
    "It cost $25.50 on March 3rd, 2024.",
)


@pytest.fixture(scope="module")
def engine():
    engine = HibariEngine()
    engine.load()
    return engine


KNOWN = {}


async def spoken(backend, text, **changes):
    key = (text, *changes.items())
    if key not in KNOWN:
        KNOWN[key] = np.frombuffer((await say(backend, text, **changes)).audio, "<i2").astype(float)
    return KNOWN[key]


def loudness(samples):
    return np.sqrt((samples**2).mean())


@pytest.mark.parametrize("volume", [0, 1, 10, 25, 40, 50])
def test_the_volume_is_linear(engine, volume):
    async def scenario(backend):
        for text in TEXTS:
            plain = await spoken(backend, text)
            heard = await spoken(backend, text, volume=volume)
            assert len(heard) == len(plain)
            assert loudness(heard) / loudness(plain) == pytest.approx(volume / 50, abs=0.0005)

    run(scenario, engine)


@pytest.mark.parametrize("volume", [75, 100])
def test_a_high_volume_is_linear_up_to_the_limiter(engine, volume):
    async def scenario(backend):
        for text in TEXTS:
            plain = await spoken(backend, text)
            heard = await spoken(backend, text, volume=volume)
            below = np.abs(plain) * volume / 50 < 0.8 * 32767 - 2
            assert below.mean() > 0.99
            # One step of 16 bits, and half a one of `plain`, made larger.
            assert np.abs(heard[below] - plain[below] * volume / 50).max() <= 0.5 + volume / 100
            assert np.abs(heard).max() <= 32767

    run(scenario, engine)


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.25, 1.5, 2.0])
def test_the_rate_divides_the_length(engine, rate):
    async def scenario(backend):
        for text in TEXTS:
            plain, heard = await spoken(backend, text), await spoken(backend, text, rate=rate)
            # The voice knows frames of 12.5 ms.
            assert len(heard) / 24000 == pytest.approx(len(plain) / 24000 / rate, abs=0.0126)

    run(scenario, engine)


@pytest.mark.parametrize("pitch", [0.5, 0.75, 1.25, 1.5, 2.0])
def test_the_pitch_multiplies_the_fundamental_and_leaves_the_length(engine, pitch):
    async def scenario(backend):
        ratios = []
        for text in TEXTS:
            plain, heard = await spoken(backend, text), await spoken(backend, text, pitch=pitch)
            assert len(heard) == len(plain)
            before, after = fundamentals(plain), fundamentals(heard)
            ratios += [after[at] / before[at] for at in before.keys() & after.keys()]
        assert len(ratios) > 80
        assert np.median(ratios) == pytest.approx(pitch, rel=0.005)
        # Autocorrelation errs by an octave here and there, and nothing else may.
        assert np.mean(np.abs(np.array(ratios) / pitch - 1) < 0.03) > 0.75

    run(scenario, engine)


def fundamentals(samples, *, width=1920, step=480):
    """Return the fundamental frequency by position, where there is clearly one between 40 and 900 Hz."""
    window = np.hanning(width)
    fading = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * width)) ** 2)[:width]
    lags = slice(24000 // 900, 24000 // 40)
    found = {}
    for begin in range(0, len(samples) - width, step):
        part = samples[begin : begin + width]
        if np.abs(part).max() < 4000:
            continue
        alike = np.fft.irfft(np.abs(np.fft.rfft((part - part.mean()) * window, 2 * width)) ** 2)[:width] / fading
        best = lags.start + int(np.argmax(alike[lags]))
        if alike[best] > 0.6 * alike[0]:
            left, middle, right = alike[best - 1 : best + 2]
            found[begin] = 24000 / (best + (left - right) / 2 / (left - 2 * middle + right))
    return found
