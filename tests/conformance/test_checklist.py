"""The checklist for a compatible server, protocol.md section 14, clause by clause and by its words.

Not served yet, so not here: the dialect of Qwen-TTS-realtime ("`session.created` first; base64 deltas;
`session.finished` then close; 1007 on an unknown model"). A handshake at `/api-ws/v1/realtime` is answered 404.

"Must work with the unmodified SDKs" is test_official_sdk.py.
"""

import asyncio
import json

import pytest
from raw_client import KEY, Client, Relay, audio, name, run
from services import Tone

from speechpool import (
    AsyncSpeechPool,
    ConnectFailed,
    ConnectionLost,
    Deadlines,
    Endpoint,
    FirstAudioTimeout,
    LocalQuota,
    PoolTimeout,
    RateLimited,
    SpeechPoolError,
    Unauthorized,
    Voice,
)
from speechpool.service import ServiceSettings
from speechpool.service.engines.marker import check, marker_length
from speechpool.transport import connect

PATH = "/api-ws/v1/inference"
TEXT = "Hello there. How are you?"
LONG = "A long text. " * 500
INVALID = "InvalidParameter"
VOICE = Voice("cosyvoice-v3-flash", "longanyang", format="pcm", sample_rate=24000)
SOON = 0.1
"""Seconds in which nothing happens; the clocks of these tests are set to as little."""


# ------------------------------------------------------------------------------------------ the door
@pytest.mark.parametrize("path", [PATH, f"{PATH}/", f"/some/where{PATH}"])
def test_accept_any_path_that_ends_so_with_or_without_a_slash(path):
    """Accept any path ending `/api-ws/v1/inference` with or without `/`."""

    async def test(service):
        client = await Client.dial(service, path=path)
        await client.begin()

    run(test)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_401_without_authorization(headers):
    """401 without `Authorization`."""

    async def test(service):
        with pytest.raises(Unauthorized) as caught:
            await Client.dial(service, headers=headers)
        assert caught.value.status == 401

    run(test)


def test_ignore_an_origin_header():
    """Ignore an `Origin` header (websocket-client sends one)."""

    async def test(service):
        origin = f"http://127.0.0.1:{service.port}"  # websocket-client makes it of the address it connects to
        client = await Client.dial(service, headers={"Authorization": f"Bearer {KEY}", "Origin": origin})
        await client.begin()

    run(test)


# ------------------------------------------------------------------------------------------ what is accepted
def test_do_not_require_the_payload_of_continue_task_to_hold_only_input():
    """Do not require `continue-task.payload` to hold only `input`."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        names = {"task_group": "audio", "task": "tts", "function": "SpeechSynthesizer", "model": "m", "more": [1]}
        client.send("continue-task", {**names, "input": {"text": TEXT}})
        client.finish()
        assert len(audio(await client.until("task-finished"))) == marker_length(TEXT)

    run(test)


@pytest.mark.parametrize(
    "parameters",
    [
        {"format": "Default"},
        {"sample_rate": 0},
        {"format": "Default", "sample_rate": 0},
        {"type": 0},
        {"type": 3},
        {"seed": 0},
        {"seed": 65535},
        {"enable_ssml": True},
        {"text_type": "SSML"},
        {"nobody_knows_it": {"a": [None]}, "other": 1},
    ],
    ids=json.dumps,
)
def test_accept(parameters):
    """Accept `format: "Default"`, `sample_rate: 0`, `type`, `seed`, `enable_ssml: true` with plain text, `text_type`
    `SSML`, unknown parameters.
    """

    async def test(service):
        client = await Client.dial(service)
        await client.begin(**parameters)
        client.text("<speak>Hello there.</speak>" if "text_type" in parameters else "Hello there.")
        client.finish()
        assert audio(await client.until("task-finished"))

    run(test, engine=Tone())


# ------------------------------------------------------------------------------------------ the events of CosyVoice
def test_cosyvoice_events_come_in_their_order():
    """`task-started` → (begin, synthesis + **one** binary each, end) per sentence → `task-finished`."""

    async def test(service):
        client = await Client.dial(service)
        client.run_task()
        frames = await client.until("task-started")
        client.text(TEXT)
        client.finish()
        frames += await client.until("task-finished")
        kinds = [name(frame) if name(frame) != "result-generated" else output(frame)["type"] for frame in frames]
        assert (kinds[0], kinds[-1]) == ("task-started", "task-finished")
        words = " ".join(kinds[1:-1]).replace("sentence-synthesis audio", "s").replace("sentence-", "")
        assert words == "begin s s end begin s s end"
        indices = [output(frame)["sentence"]["index"] for frame in frames if name(frame) == "result-generated"]
        assert indices == sorted(indices)
        assert set(indices) == {0, 1}
        assert output(frames[1])["original_text"] == "Hello there."

    run(test)


def output(frame):
    return frame["payload"]["output"]


def test_sambert_events():
    """Sambert: sentence events need `sentence.begin_time/end_time`; `task-finished.payload.output` must be `null`."""

    async def test(service):
        client = await Client.dial(service)
        names = {"task_group": "audio", "task": "tts", "function": "SpeechSynthesizer", "model": "sambert-zhichu-v1"}
        wish = {"parameters": {"format": "pcm", "sample_rate": 16000}, "input": {"text": TEXT}}
        client.send("run-task", {**names, **wish}, streaming="out")
        started, *between, finished = await client.until("task-finished")
        assert name(started) == "task-started"
        assert len(audio(between)) == marker_length(TEXT)
        told = [output(frame)["sentence"] for frame in between if isinstance(frame, dict)]
        assert all(0 <= sentence["begin_time"] <= sentence["end_time"] for sentence in told)
        assert finished["payload"]["output"] is None

    run(test)


def test_task_finished_comes_within_the_10_seconds_the_sdk_waits_after_a_cancel():
    """`task-finished` within the 10 s the SDK waits after a cancel."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        client.text(LONG)
        while name(await client.got.get()) != "audio":
            pass
        client.finish(directive="cancel")
        async with asyncio.timeout(10):
            heard = audio(await client.until("task-finished"))
        assert len(heard) < marker_length(LONG)
        await client.begin("b")  # and the connection is free

    run(test, profile="paced")


def test_task_started_comes_within_10_seconds_of_run_task():
    """`task-started` within 10 s of `run-task`."""

    async def test(service):
        client = await Client.dial(service)
        async with asyncio.timeout(10):
            await client.begin()

    run(test)


# ------------------------------------------------------------------------------------------ enforced
def test_the_values_that_are_enforced_are_the_providers():
    """Enforce, with configurable values."""
    settings = ServiceSettings()
    assert (settings.text_gap, settings.idle_timeout) == (23, 60)
    assert (settings.max_send, settings.max_task) == (20_000, 200_000)
    assert (settings.submission_rate, settings.max_instruction) == (3, 100)


@pytest.mark.parametrize("texts", [[], ["Half a sentence"], [TEXT]])
def test_23_s_text_gap(texts):
    """23 s text gap → `CLIENT_ERROR`."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        for text in texts:
            client.text(text)
        assert await client.failure() == ("CLIENT_ERROR", "request timeout after 0.1 seconds.")

    run(test, text_gap=SOON)


@pytest.mark.parametrize("tasks", [0, 1])
def test_60_s_idle_close(tasks):
    """60 s idle close."""

    async def test(service):
        client = await Client.dial(service)
        for _ in range(tasks):
            await client.begin()
            client.finish()
            await client.until("task-finished")
        assert (await client.closed).code == 1000

    run(test, idle_timeout=3 * SOON)


def test_run_task_while_a_task_runs():
    """`run-task` while a task runs → `task-failed` `InvalidParameter` + `Invalid action('run-task')! …`, then close."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        client.run_task("b")
        (frame,) = await client.until("task-failed")
        assert frame["header"]["error_code"] == INVALID
        assert frame["header"]["error_message"] == "Invalid action('run-task')! Please follow the protocol!"
        assert frame["header"]["task_id"] == "b"  # who sent it must find its own id
        await client.closed

    run(test)


def test_continue_task_before_task_started():
    """`continue-task` before `task-started` → `task-failed`."""

    async def test(service):
        client = await Client.dial(service)
        client.text("Hello.")
        assert (await client.failure())[0] == INVALID

    run(test)


def test_continue_task_between_run_task_and_task_started():
    """`continue-task` before `task-started` → `task-failed`, though the task is known already."""

    async def test(service):
        client = await Client.dial(service)
        client.run_task()
        client.text("Hello.")
        assert await client.failure() == (INVALID, "Invalid action('continue-task')! Please follow the protocol!")

    run(test)


async def moment(client):
    """What comes in a moment."""
    await asyncio.wait([client.closed], timeout=SOON)
    return [client.got.get_nowait() for _ in range(client.got.qsize())]


@pytest.mark.parametrize("action", ["continue-task", "finish-task"])
def test_with_a_wrong_task_id(action):
    """Or with a wrong `task_id` → `task-failed`."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        client.send(action, {"input": {"text": "Hello."}}, "another")
        assert (await client.failure())[0] == INVALID

    run(test)


def test_a_second_text_with_ssml():
    """Second text with SSML → `Text request limit violated, expected 1.`"""

    async def test(service):
        client = await Client.dial(service)
        await client.begin(enable_ssml=True)
        client.text("<speak>Hello</speak>")
        client.text("<speak>there.</speak>")
        assert await client.failure() == (INVALID, "Text request limit violated, expected 1.")

    run(test)


@pytest.mark.parametrize("payload", [{"input": {"text": ""}}, {"input": {"text": " \n"}}, {"input": {}}])
def test_empty_text(payload):
    """Empty text."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        client.send("continue-task", payload)
        assert await client.failure() == (INVALID, "Please ensure input text is valid.")

    run(test)


@pytest.mark.parametrize("letter", ["a", "\u4f60"], ids=["counts 1", "counts 2"])
def test_over_20_000(letter):
    """Over 20,000 in one send; just as many are taken."""

    async def test(service):
        weight = 2 if letter > "a" else 1
        client = await Client.dial(service)
        await client.begin()
        client.text(letter * (20_000 // weight))
        client.finish(directive="cancel")
        await client.until("task-finished")
        await client.begin("b")
        client.text(letter * (20_000 // weight + 1), "b")
        code, message = await client.failure()
        assert code == INVALID
        assert "20,000" in message

    run(test)


def test_over_200_000():
    """Over 200,000 in one task; just as many are taken."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        for _ in range(10):
            client.text("a" * 20_000)
        client.text("a")
        code, message = await client.failure()
        assert code == INVALID
        assert "200,000" in message

    run(test)


def test_per_account_submissions_per_second():
    """Per-account submissions per second → `task-failed` `Throttling.RateQuota`."""

    async def test(service):
        first = await Client.dial(service)
        await first.begin()
        client = await Client.dial(service)
        client.run_task()
        assert await client.failure() == (
            "Throttling.RateQuota",
            "Requests rate limit exceeded, please try again later.",
        )

    run(test, submission_rate=0.01)


def test_close_after_every_task_failed():
    """Close after every `task-failed`."""

    async def test(service):
        client = await Client.dial(service)
        client.run_task(voice="nobody")
        assert await client.failure() == (INVALID, "[tts:]Engine return error code: 418")
        assert client.closed.result().code == 1000
        while service.connections:
            await asyncio.sleep(0.001)

    run(test)


# ------------------------------------------------------------------------------------------ faults
@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_refuse(status):
    """Faults to inject: refuse (401, 403, 429, 503)."""

    async def test(service):
        with pytest.raises(ConnectFailed) as caught:
            await Client.dial(service)
        assert caught.value.status == status

    run(test, f"refuse:{status}")


def test_refuse_says_when_to_come_back():
    """429 with `Retry-After`."""

    async def test(service):
        with pytest.raises(RateLimited) as caught:
            await Client.dial(service)
        assert caught.value.retry_after == 7

    run(test, "refuse:429,7")


def test_delay_the_handshake():
    """Delay … the handshake."""

    async def test(service):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        client = await Client.dial(service)
        assert loop.time() - begun >= SOON
        await client.begin()

    run(test, "handshake-delay:100ms")


def test_stall_the_handshake():
    """… or stall the handshake."""

    async def test(service):
        with pytest.raises(ConnectFailed):
            await connect(service.url, Client(), headers={"Authorization": f"Bearer {KEY}"}, timeout=SOON)

    run(test, "handshake-stall")


def test_drop_the_socket_before_start():
    """Drop the socket before start."""

    async def test(service):
        client = await Client.dial(service)
        client.run_task()
        assert not (await client.closed).clean
        assert client.got.empty()

    run(test, "drop@starting")


@pytest.mark.parametrize(("phase", "last"), [("mid-audio", "audio"), ("finished", "task-finished")])
def test_drop_the_socket(phase, last):
    """Drop the socket … mid-audio, after finish."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        client.text(TEXT)
        client.finish()
        closed = await client.closed
        assert not closed.clean
        await client.until(last)
        assert client.got.empty()

    run(test, f"drop@{phase}")


@pytest.mark.parametrize(
    ("phase", "last"),
    [
        ("starting", []),
        ("started", ["task-started"]),
        ("mid-audio", ["audio"]),
        ("finishing", ["result-generated"]),
    ],
)
def test_silence(phase, last):
    """Silence (no events)."""

    async def test(service):
        client = await Client.dial(service)
        client.run_task()
        frames = await moment(client)
        if frames:
            client.text(TEXT)
            client.finish()
            frames += await moment(client)
        names = [name(frame) for frame in frames]
        assert names[-1:] == last
        assert "task-finished" not in names
        assert not client.closed.done()

    run(test, f"stall@{phase}")


def test_late_events_of_a_cancelled_task():
    """Late events of a cancelled task."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        client.text(LONG)
        while name(await client.got.get()) != "audio":
            pass
        client.finish(directive="cancel")
        await client.until("task-finished")
        while name(await client.got.get()) != "audio":
            pass

    run(test, "late-audio", profile="paced")


def test_duplicate_task_finished():
    """Duplicate `task-finished`."""

    async def test(service):
        client = await Client.dial(service)
        await client.begin()
        client.finish()
        (first,) = await client.until("task-finished")
        assert await client.got.get() == first

    run(test, "duplicate-finish")


def test_broken_json():
    """Broken JSON."""

    async def test(service):
        client = await Client.dial(service)
        client.run_task()
        assert isinstance(await client.got.get(), str)  # what can be read is a dictionary

    run(test, "broken-json@starting")


def test_audio_before_task_started():
    """Audio before `task-started`."""

    async def test(service):
        client = await Client.dial(service)
        client.run_task()
        assert [name(await client.got.get()) for _ in range(2)] == ["audio", "task-started"]

    run(test, "early-audio")


def test_slow_reading():
    """Slow reading."""

    async def test(service):
        loop = asyncio.get_running_loop()
        client = await Client.dial(service)
        await client.begin()
        begun = loop.time()
        client.finish()
        await client.until("task-finished")
        assert loop.time() - begun >= 0.9 * SOON

    run(test, "slow-read:100ms")


def test_half_open_tcp():
    """Half-open TCP: the socket stays, and nothing comes through it any more."""

    async def test(service):
        async with Relay(service.port) as relay, pool_of(service, port=relay.port, heartbeat=SOON) as pool:
            await pool.synthesize(TEXT, VOICE)
            relay.heard.clear()
            await relay.heard.wait()  # the peer answers a ping, so that its silence will mean something
            async with pool.task(VOICE) as task:
                await task.send("Half a sentence")
                relay.silence()
                with pytest.raises(ConnectionLost):
                    async for _ in task:
                        pass

    run(test)


# ------------------------------------------------------------------------------------------ and for a client runtime
def pool_of(service, *, port=None, **options):
    settings = {"max_size": 1, "retry": 0, **options}
    return AsyncSpeechPool(Endpoint.local(port or service.port, api_key=KEY), **settings)


@pytest.mark.parametrize("phase", ["starting", "finishing"])
def test_match_every_event_to_the_current_task_id(phase):
    """Match every event to the current `task_id`."""

    async def test(service):
        async with pool_of(service, deadlines=Deadlines(start=SOON, first_audio=SOON, gap=SOON)) as pool:
            with pytest.raises(SpeechPoolError):
                await pool.synthesize(TEXT, VOICE)
            assert pool.stats.idle == 0  # such a connection is never lent again

    run(test, f"wrong-id@{phase}")


def test_count_binary_frames_only_between_task_started_and_the_end():
    """Count binary frames only between `task-started` and the end."""

    async def test(service):
        async with pool_of(service, max_size=2) as pool:
            async with pool.task(VOICE) as task:
                await task.send(LONG)
                async for event in task:
                    if type(event).__name__ == "Audio":
                        break
                await task.cancel()
            for _ in range(2):  # while the audio of the cancelled task comes late
                speech = await pool.synthesize(TEXT, VOICE)
                assert check(speech.audio, speech.request_id) == marker_length(TEXT)

    run(test, "late-audio:20ms", profile="paced")


def test_mark_a_socket_dead_on_any_timeout_unless_task_finished_was_seen():
    """Mark a socket dead on any timeout … unless `task-finished` was seen."""

    async def test(service):
        async with pool_of(service, deadlines=Deadlines(first_audio=SOON)) as pool:
            for tasks in (1, 2):
                with pytest.raises(FirstAudioTimeout):
                    await pool.synthesize(TEXT, VOICE)
                assert pool.stats.idle == 0
                assert service.counts.connections == tasks  # each had one of its own

    run(test, "stall@started")


@pytest.mark.parametrize(("faults", "connections"), [([], 1), (["stall@started"], 2)])
def test_mark_a_socket_dead_on_a_cancelled_wait_unless_task_finished_was_seen(faults, connections):
    """Mark a socket dead on any … cancelled wait unless `task-finished` was seen."""

    async def test(service):
        async with pool_of(service, deadlines=Deadlines(cancel=SOON)) as pool, pool.borrow() as lease:
            for _ in range(2):
                async with lease.task(VOICE) as task:
                    await task.send(LONG)
            assert service.counts.connections == connections

    run(test, *faults, profile="paced")


def test_recycle_idle_sockets_and_close_the_old_one():
    """Recycle idle sockets before 60 s *and close the old one*."""

    async def test(service):
        async with pool_of(service, idle_timeout=2 * SOON) as pool:
            while service.counts.connections < 3:
                await asyncio.sleep(0.01)
                assert service.connections <= 2  # the new one, and the old one that it replaces
            assert pool.stats.closed >= 1

    run(test)


def test_wake_all_waiters_on_eof():
    """Wake all waiters on EOF."""

    async def test(service):
        async with pool_of(service, max_size=8) as pool:
            results = await asyncio.gather(*(pool.synthesize(TEXT, VOICE) for _ in range(8)), return_exceptions=True)
            assert [type(result) for result in results] == [ConnectionLost] * 8

    run(test, "drop@mid-audio")


def test_make_run_task_pass_rate_limiters():
    """Make … `run-task` pass rate limiters."""

    async def test(service):
        async with pool_of(service, max_size=4, quota=LocalQuota(20.0)) as pool:
            await asyncio.gather(*(pool.synthesize("Hello.", VOICE) for _ in range(24)))
        assert service.counts.tasks["shed"] == 0
        assert service.counts.tasks["completed"] == 24

    run(test, submission_rate=21.0)


def test_make_the_handshake_pass_rate_limiters():
    """Make handshake … pass rate limiters: the limit is on those at once, here."""

    async def test(service):
        now = most = 0

        async def dial(url, owner, **options):
            nonlocal now, most
            now += 1
            most = max(most, now)
            try:
                return await connect(url, owner, **options)
            finally:
                now -= 1

        async with pool_of(service, max_size=10, max_opening=3, dial=dial) as pool:
            await pool.wait_ready()
        assert most == 3

    run(test, "handshake-delay:10ms")


def test_bounded_wait_for_a_slot_with_a_clear_error():
    """Bounded wait for a slot with a clear error."""

    async def test(service):
        async with pool_of(service, borrow_timeout=SOON) as pool, pool.borrow():
            with pytest.raises(PoolTimeout, match=r"1") as caught:
                await pool.synthesize(TEXT, VOICE)
            assert (caught.value.borrowed, caught.value.idle) == (1, 0)

    run(test)


@pytest.mark.parametrize(("phase", "attempts"), [("started", 3), ("first-audio", 3), ("mid-audio", 1)])
def test_retry_only_before_the_first_audio(phase, attempts):
    """Retry only before the first audio."""

    async def test(service):
        async with pool_of(service, max_size=4, retry=2) as pool:
            with pytest.raises(SpeechPoolError):
                await pool.synthesize(TEXT, VOICE)
        assert sum(service.counts.tasks.values()) == attempts

    run(test, f"drop@{phase}")
