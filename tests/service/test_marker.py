import asyncio

import pytest
from speaking_kit import Heard, run, say, wish

from speechpool.errors import SettingsError
from speechpool.service.backend import BackendRefusal
from speechpool.service.engines.marker import RECORD, MarkerEngine, check, marker_length

TEXT = "First sentence. The second one is longer, 你好。"


def test_the_stream_names_its_task_and_has_the_length_of_its_text():
    async def scenario(backend):
        heard = await say(backend, TEXT, task_id="mine")
        assert check(heard.audio, "mine") == len(heard.audio) == marker_length(TEXT)
        assert len([event for event in heard.events if event[0] == "audio"]) > 4

    run(scenario, MarkerEngine())


def test_concurrent_tasks_do_not_mix():
    async def scenario(backend):
        heard = await asyncio.gather(*(say(backend, TEXT, task_id=str(number)) for number in range(20)))
        assert [check(one.audio, str(number)) for number, one in enumerate(heard)] == [marker_length(TEXT)] * 20

    run(scenario, MarkerEngine())


@pytest.mark.parametrize("profile", ["unpaced", "paced"])
def test_a_cancel_falls_into_the_middle(profile):
    async def scenario(backend):
        heard = Heard()
        speech = backend.open("task", wish(), heard)
        speech.text(TEXT)
        await heard.first_audio.wait()
        speech.cancel()
        length = len(heard.audio)
        await asyncio.sleep(0.03)
        assert check(heard.audio, "task") == length < marker_length(TEXT)

    run(scenario, MarkerEngine(profile=profile))


def test_foreign_missing_and_doubled_records_are_found():
    async def scenario(backend):
        data = (await say(backend, "Hello.", task_id="a")).audio
        other = (await say(backend, "Hello.", task_id="b")).audio
        assert check(data[:-5], "a") == len(data) - 5
        with pytest.raises(ValueError, match="at 0 belongs to another task"):
            check(data, "b")
        with pytest.raises(ValueError, match="at 32 belongs to another task"):
            check(data[:32] + other[32:], "a")
        with pytest.raises(ValueError, match="at 32 says that it belongs at 48"):
            check(data[:32] + data[32 + RECORD :], "a")
        with pytest.raises(ValueError, match="at 48 says that it belongs at 32"):
            check(data[:48] + data[32:], "a")

    run(scenario, MarkerEngine())


def test_only_pcm_can_carry_marks():
    async def scenario(backend):
        with pytest.raises(BackendRefusal, match="ask for pcm"):
            backend.open("task", wish(format="mp3"), Heard())

    run(scenario, MarkerEngine())


def test_chunks_hold_whole_records():
    with pytest.raises(SettingsError, match="multiple of 16"):
        MarkerEngine(chunk=100)
