"""Faults on demand: what `--fault` may say, when the dice let it strike, and what a client then sees."""

import asyncio
import json
from types import SimpleNamespace

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from scripted import FakeConnection, ScriptedBackend, instruction

from speechpool.errors import SettingsError
from speechpool.protocol.cosyvoice import FAILURES
from speechpool.protocol.cosyvoice.failures import is_retryable
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.service.counts import Counts
from speechpool.service.faults import FAULTS, PHASES, Fault, Faults, HandshakeFault, parse_fault
from speechpool.service.faulty import with_faults
from speechpool.service.session import SpeechSession
from speechpool.testing.clock import run as run_on_virtual_clock
from speechpool.transport import Closed, connect

AUDIO = b"the audio"


# ------------------------------------------------------------------------------------------ what it may say
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("handshake-delay=100ms", Fault("handshake-delay", "", 0.1)),
        ("handshake-delay:2s", Fault("handshake-delay", "", 2.0)),
        ("handshake-stall", Fault("handshake-stall")),
        ("refuse", Fault("refuse", "", 503)),
        ("refuse:429,2", Fault("refuse", "", 429, 2.0)),
        ("refuse:429,500ms~10%", Fault("refuse", "", 429, 0.5, probability=0.1)),
        ("drop", Fault("drop", "mid-audio")),
        ("drop@finished~0.05", Fault("drop", "finished", probability=0.05)),
        ("close@idle:4000", Fault("close", "idle", 4000)),
        ("fail@started:Throttling.BurstRate", Fault("fail", "started", code="Throttling.BurstRate")),
        ("fail:418", Fault("fail", "starting", code="418")),
        (" delay@mid-audio ", Fault("delay", "mid-audio", 1.0)),
    ],
)
def test_a_fault_is_read(text, fault):
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dorp", "Did you mean 'drop'?"),
        ("quux", "Known are: refuse, "),
        ("", "KIND[@PHASE][:VALUE][~PROBABILITY]"),
        ("drop@midaudio", "Did you mean 'mid-audio'?"),
        ("stall@idle", "cannot strike at 'idle'"),
        ("refuse@idle:503", "leave out '@idle'"),
        ("drop:3", "takes no value"),
        ("refuse:200", "400 to 599"),
        ("refuse:4²9", "400 to 599"),
        ("refuse:429,soon", "100ms or 2s"),
        ("close:1006", "3000 to 4999"),
        ("delay:3", "with its unit"),
        ("delay:nans", "with its unit"),
        ("delay:2h", "with its unit"),
        ("delay:3601s", "0 to 3600s"),
        ("fail:Internal", "Did you mean 'InternalError'?"),
        ("drop~0", "above 0"),
        ("drop~101%", "at most 1"),
        ("drop~nan", "at most 1"),
    ],
)
def test_a_wrong_fault_says_what_would_be_right(text, words):
    with pytest.raises(SettingsError) as caught:
        parse_fault(text)
    assert words in str(caught.value)


@given(st.text(max_size=40) | st.from_regex(r"[a-z-]{1,20}(@[a-z-]{0,12})?([:=][0-9a-z,.]{0,8})?(~[0-9.%]{0,5})?"))
def test_any_text_is_a_fault_or_a_settings_error(text):
    try:
        fault = parse_fault(text)
    except SettingsError:
        return
    assert parse_fault(str(fault)) == fault


@st.composite
def faults(draw):
    kind = draw(st.sampled_from(FAULTS))
    text = kind.name + (f"@{draw(st.sampled_from(kind.phases))}" if kind.phases else "")
    values = {
        "time": st.floats(0, 3600).map(lambda seconds: f"{seconds!r}s"),
        "status[,seconds]": st.integers(400, 599).map(str) | st.just("429,1.5"),
        "close code": st.integers(3000, 4999).map(str),
        "error code": st.sampled_from(sorted(FAILURES)),
    }
    if kind.value:
        text += ":" + draw(values[kind.value])
    return text + draw(st.floats(0.001, 1).map(lambda share: f"~{share!r}") | st.just(""))


@given(faults())
def test_every_fault_is_its_own_text(text):
    fault = parse_fault(text)
    assert parse_fault(str(fault)) == fault


def test_the_table_is_sound():
    assert len({kind.name for kind in FAULTS}) == len(FAULTS)
    for kind in FAULTS:
        assert set(kind.phases) <= set(PHASES)
        assert parse_fault(kind.name) is not None
        assert bool(kind.value) == bool(kind.default)


# ------------------------------------------------------------------------------------------ the dice
def test_a_probability_is_kept_and_repeatable():
    def thrown(seed):
        dice = Faults.parse(["drop~30%", "stall"], seed)
        return [[fault.kind for fault in dice.at("mid-audio")] for _ in range(2000)]

    first = thrown(1)
    assert first == thrown(1) != thrown(2)
    assert all("stall" in kinds for kinds in first)
    assert 500 < sum("drop" in kinds for kinds in first) < 700


def test_the_dice_of_one_fault_do_not_hang_on_the_others():
    alone, together = Faults.parse(["drop~0.5"]), Faults.parse(["drop~0.5", "close@finished~0.5"])
    for _ in range(50):
        together.at("finished")
        assert len(alone.at("mid-audio")) == len(together.at("mid-audio"))


def test_faults_of_the_handshake_add_up():
    faults = Faults.parse(["handshake-delay:1s", "handshake-delay:500ms", "refuse:429,2", "refuse:503", "stall"])
    assert faults.handshake() == HandshakeFault(delay=1.5, status=429, retry_after=2.0)
    assert Faults.parse(["handshake-stall"]).handshake() == HandshakeFault(stall=True)
    assert Faults.parse(["handshake-drop"]).handshake() == HandshakeFault(drop=True)
    assert Faults.parse(["stall"]).handshake() == HandshakeFault()


def test_a_service_without_faults_of_sessions_has_no_middleman():
    session = object()
    assert with_faults(session, None) is session
    assert with_faults(session, Faults.parse(["refuse:429"])) is session
    assert with_faults(session, Faults.parse(["drop"])) is not session


def test_every_error_of_the_provider_can_be_asked_for_and_knows_whether_to_retry():
    for name, (code, message) in FAILURES.items():
        assert parse_fault(f"fail:{name}").code == name
        assert message
        again = code.startswith(
            ("Throttling", "Internal", "limit_", "Limit", "System", "Service", "Gateway", "Request")
        )
        again |= code in {"ModelServiceFailed", "ResponseTimeout", "ModelServingError", "ModelUnavailable"}
        assert is_retryable(code, message) == again, code


# ------------------------------------------------------------------------------------------ what a client sees
def run(test, *faults, runner=run_on_virtual_clock, **settings):
    async def whole():
        t = SimpleNamespace(backend=ScriptedBackend(), connection=FakeConnection(), counts=Counts())
        session = SpeechSession(t.backend, ServiceSettings(linger=0.2, **settings), t.counts, set())
        t.owner = with_faults(session, Faults.parse(faults))
        t.owner.on_connected(t.connection)
        try:
            await test(t)
        finally:
            t.owner.on_closed(Closed(None, "end of test", clean=False))

    runner(whole())


async def turn():
    for _ in range(3):
        await asyncio.sleep(0)


async def whole_task(t, task_id="a", *, cancel=False):
    """A task as a client sees it that sends without looking: one sentence, two frames of audio, then the end."""
    t.owner.on_text(instruction("run-task", task_id))
    await turn()
    speech = t.backend.speeches[-1]
    t.owner.on_text(instruction("continue-task", task_id, text="Hello."))
    speech.say(AUDIO, b"more")
    await turn()
    if cancel:
        t.owner.on_text(instruction("finish-task", task_id, directive="cancel"))
    else:
        t.owner.on_text(instruction("finish-task", task_id))
        speech.listener.on_finished(5)
    await turn()
    return speech


def seen(connection):
    """The frames in short: B for audio, else the first letters of the event's words; "?" for what is no JSON."""
    names = []
    for binary, data in connection.frames:
        try:
            names.append("B" if binary else _short(json.loads(data)))
        except ValueError:
            names.append("?")
    return " ".join(names)


def _short(event):
    kind = event["payload"].get("output", {}).get("type") or event["header"]["event"]
    return "failed" if kind == "task-failed" else "".join(word[0] for word in kind.split("-"))


WHOLE = "ts sb ss B ss B se tf"


def test_a_task_without_its_fault_is_untouched():
    async def test(t):
        await whole_task(t)
        assert seen(t.connection) == WHOLE
        assert t.connection.audio == AUDIO + b"more"
        assert t.connection.closed is None

    run(test, "drop@cancelling", "refuse:503")


AFTER = {
    "idle": "",
    "starting": "",
    "started": "ts",
    "first-audio": "ts",
    "mid-audio": "ts sb ss B",
    "finishing": "ts sb ss B ss B se",
    "finished": WHOLE,
}


@pytest.mark.parametrize("phase", AFTER)
@pytest.mark.parametrize("fault", ["drop@{}", "close@{}:1011"])
def test_a_socket_is_dropped_or_closed_at_each_moment(fault, phase):
    async def test(t):
        if phase != "idle":
            await whole_task(t)
        assert seen(t.connection) == AFTER[phase]
        assert t.connection.aborted == fault.startswith("drop")
        assert fault.startswith("drop") or t.connection.closed.code == 1011

    run(test, fault.format(phase))


def test_a_cancel_is_a_moment_of_its_own():
    async def test(t):
        await whole_task(t, "a")
        assert not t.connection.aborted
        await whole_task(t, "b", cancel=True)
        assert t.connection.aborted
        assert seen(t.connection) == f"{WHOLE} ts sb ss B ss B se"

    run(test, "drop@cancelling")


@pytest.mark.parametrize("phase", ["starting", "started", "first-audio", "mid-audio", "finishing"])
def test_a_stalled_connection_sends_nothing_more(phase):
    async def test(t):
        await whole_task(t)
        await whole_task(t, "b")
        assert seen(t.connection) == AFTER[phase]
        assert t.connection.closed is None

    run(test, f"stall@{phase}")


@pytest.mark.parametrize("phase", ["starting", "started", "first-audio", "mid-audio", "finishing"])
@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("throttle@{}", *FAILURES["Throttling.RateQuota"]),
        ("fail@{}:418", "InvalidParameter", "[tts:]Engine return error code: 418"),
    ],
)
def test_a_task_fails_at_each_moment_and_its_connection_closes(fault, code, message, phase):
    async def test(t):
        speech = await whole_task(t)
        assert seen(t.connection) == f"{AFTER[phase]} failed".strip()
        header = t.connection.events[-1]["header"]
        assert (header["event"], header["error_code"], header["error_message"]) == ("task-failed", code, message)
        assert header["task_id"] == "a"
        await asyncio.sleep(0.3)
        assert t.connection.closed.code == 1000
        assert t.counts.running == 0
        if phase != "finishing":
            assert speech.calls[-1] == "cancel"
            assert t.counts.tasks["shed" if "throttle" in fault else "failed"] == 1

    run(test, fault.format(phase))


def test_a_run_task_is_refused_as_if_a_task_ran():
    async def test(t):
        await whole_task(t)
        (event,) = t.connection.events
        assert event["header"]["error_code"] == "InvalidParameter"
        assert event["header"]["error_message"] == "Invalid action('run-task')! Please follow the protocol!"

    run(test, "invalid-action")


@pytest.mark.parametrize("phase", ["starting", "first-audio", "mid-audio", "finishing"])
def test_a_delay_holds_back_all_that_follows_in_order(phase):
    async def test(t):
        await whole_task(t)
        assert seen(t.connection) == AFTER[phase]
        await asyncio.sleep(1.9)
        assert seen(t.connection) == AFTER[phase]
        await asyncio.sleep(0.2)
        assert seen(t.connection) == WHOLE

    run(test, f"delay@{phase}:2s")


def test_what_a_delay_holds_back_goes_before_a_close():
    async def test(t):
        await whole_task(t)
        assert seen(t.connection) == ""
        await asyncio.sleep(0.3)
        assert seen(t.connection) == "failed"
        assert t.connection.closed.code == 1000

    run(test, "delay@starting:2s", "throttle")


def test_a_slow_reader_reads_on_after_its_pause():
    async def test(t):
        await whole_task(t)
        assert t.connection.reads == ["pause"]
        await asyncio.sleep(0.6)
        assert t.connection.reads == ["pause", "resume"]

    run(test, "slow-read@started:500ms")


def test_audio_comes_before_task_started():
    async def test(t):
        await whole_task(t)
        assert seen(t.connection) == f"B {WHOLE}"

    run(test, "early-audio")


@pytest.mark.parametrize("after", [0.0, 0.5])
def test_audio_comes_after_the_end_of_a_cancelled_task(after):
    async def test(t):
        await whole_task(t, cancel=True)
        if after:
            assert seen(t.connection) == WHOLE
            await whole_task(t, "b")
            await asyncio.sleep(after)
        await turn()
        assert seen(t.connection) == f"{WHOLE} {WHOLE} ss B" if after else f"{WHOLE} ss B"
        assert t.connection.events[-1]["header"]["task_id"] == "a"

    run(test, f"late-audio:{after}s")


def test_task_finished_comes_twice():
    async def test(t):
        await whole_task(t)
        await turn()
        assert seen(t.connection) == f"{WHOLE} tf"
        assert t.connection.events[-1] == t.connection.events[-2]

    run(test, "duplicate-finish")


def test_what_comes_later_comes_after_every_task_on_uvloop_too():
    async def test(t):
        for task_id in "ab":
            await whole_task(t, task_id)
            await turn()
        assert seen(t.connection) == f"{WHOLE} tf {WHOLE} tf"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # its handle of a call without delay has no time
        run(test, "duplicate-finish", runner=runner.run)


@pytest.mark.parametrize(("phase", "at"), [("starting", 0), ("first-audio", 1), ("mid-audio", 4), ("finishing", 7)])
def test_one_event_names_another_task_or_is_cut(phase, at):
    async def foreign(t):
        await whole_task(t)
        ids = [None if binary else json.loads(data)["header"]["task_id"] for binary, data in t.connection.frames]
        assert seen(t.connection) == WHOLE
        assert [n for n, task_id in enumerate(ids) if task_id not in {None, "a"}] == [at]

    async def cut(t):
        await whole_task(t)
        expected = WHOLE.split()
        expected[at] = "?"
        assert seen(t.connection).split() == expected

    run(foreign, f"wrong-id@{phase}")
    run(cut, f"broken-json@{phase}")


# ------------------------------------------------------------------------------------------ over a socket
class Client:
    def __init__(self):
        self.frames = []
        self.heard = asyncio.Event()
        self.closed = asyncio.get_running_loop().create_future()

    def on_text(self, data):
        self.frames.append((False, data))
        self.heard.set()

    def on_binary(self, data):
        self.frames.append((True, data))

    def on_closed(self, closed):
        self.closed.set_result(closed)


@pytest.mark.parametrize(
    ("fault", "code", "frames"),
    [
        ("drop@started", None, "ts"),
        ("drop@mid-audio", None, "ts sb ss B"),
        ("close@finishing:4001", 4001, "ts sb ss B se"),
        ("throttle", 1000, "failed"),
    ],
)
def test_a_fault_reaches_a_real_client(fault, code, frames):
    async def main():
        async with SpeechService(LocalBackend("marker"), port=0, faults=Faults.parse([fault])) as service:
            client = Client()
            connection = await connect(service.url, client, headers={"Authorization": "Bearer k"})
            parameters = {"format": "pcm", "sample_rate": 24000}
            connection.send(instruction("run-task", parameters=parameters))
            await client.heard.wait()
            connection.send_all([
                (False, instruction("continue-task", text="Hello.")),
                (False, instruction("finish-task")),
            ])  # fmt: skip
            closed = await client.closed
            assert closed.code == code
            assert seen(client) == frames
            await connection.wait_closed()

    asyncio.run(main())
