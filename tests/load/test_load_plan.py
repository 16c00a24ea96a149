"""The plan of a load test: what begins when follows from the seed, and rates are what was asked for."""

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechpool.errors import SettingsError
from speechpool.load.callers import Behaviour, Caller, calls
from speechpool.load.expect import parse
from speechpool.load.judgement import judged, warnings
from speechpool.load.percentiles import percentile
from speechpool.load.plan import Arrival, Stage, parse_stages, plan, preset, soak
from speechpool.load.record import Listener, Record
from speechpool.load.recovery import recovered
from speechpool.load.runner import Result
from speechpool.load.summary import summary
from speechpool.load.sweep import knee
from speechpool.load.table import COLUMNS, table
from speechpool.load.targets import Setup, size_for, target_for
from speechpool.load.texts import CORPUS, read
from speechpool.protocol import SentenceBegin

SILENCE, LOUD = bytes(4800), b"\x00\x40" * 2400  # a tenth of a second each, at 24,000


def test_the_preset_goes_up_to_twice_the_peak_and_takes_150_seconds():
    stages = preset(30, 2.0)
    assert sum(stage.seconds for stage in stages) == 150
    assert [stage.rate for stage in stages] == [7.5, 7.5, 15.0, 22.5, 30.0, 30.0, 15.0]
    assert [stage.judged for stage in stages] == [False] + [True] * 6
    assert sum(stage.seconds for stage in preset(30, 2.0, 0.1)) == pytest.approx(15)


def test_stages_are_read():
    assert parse_stages("30s:10, 2m:100") == (Stage("30s:10", 30.0, 10.0), Stage("2m:100", 120.0, 100.0))
    pause = parse_stages("2s:5,70s:0,2s:5")
    assert [one.at > 72 for one in plan(pause, 1)].count(True) == pytest.approx(10, abs=9)  # nobody comes in between
    assert not [one for one in plan(pause, 1) if 2 <= one.at < 72]
    for wrong in ("30:10", "30s", "s:1", "30s:-1", "0s:1", "30s:0", "30x:1", ""):
        with pytest.raises(SettingsError, match="--stages"):
            parse_stages(wrong)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), rate=st.floats(1, 200), kind=st.sampled_from(["poisson", "constant"]))
def test_arrivals_keep_their_rate_and_their_order(seed, rate, kind):
    stages = (Stage("a", 20.0, rate), Stage("b", 10.0, 2 * rate))
    arrivals = plan(stages, seed, kind)
    assert arrivals == plan(stages, seed, kind)
    assert [one.at for one in arrivals] == sorted(one.at for one in arrivals)
    for number, (begin, end) in enumerate([(0, 20), (20, 30)]):
        here = [one for one in arrivals if one.stage == number]
        assert all(begin <= one.at < end for one in here)
        assert abs(len(here) - 20 * rate) <= (5 * math.sqrt(20 * rate) + 1 if kind == "poisson" else 2)


def test_a_soak_is_the_peak_in_parts():
    stages = soak(30, 2.0, 600.0)
    assert [stage.judged for stage in stages] == [False] + [True] * 6
    assert {stage.rate for stage in stages[1:]} == {15.0}
    assert sum(stage.seconds for stage in stages[1:]) == pytest.approx(600)


def test_callers_follow_from_the_seed_and_a_file_is_checked(tmp_path):
    like = Behaviour(CORPUS, barge_in=0.5, slow=0.2)
    arrivals = [Arrival(float(n), 0) for n in range(400)]
    drawn = calls(arrivals, like, 3)
    assert drawn == calls(arrivals, like, 3) != calls(arrivals, like, 4)
    assert {one.caller.text for one in drawn} == set(CORPUS)
    assert sum(one.caller.leaves for one in drawn) == pytest.approx(200, abs=50)
    assert sum(one.caller.slow for one in drawn) == pytest.approx(80, abs=40)
    (tmp_path / "texts").write_text("First.\n\n Second. \n")
    assert read(tmp_path / "texts") == ("First.", "Second.")
    (tmp_path / "empty").write_text("\n")
    for name, words in (("empty", "is empty"), ("missing", "cannot be read")):
        with pytest.raises(SettingsError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [("One moment, please.", ["One", " moment,", " please."]), ("你好 ok。", ["你", "好", " ok", "。"])],
)
def test_text_comes_word_by_word(text, pieces):
    assert list(Caller(text).pieces()) == [text]
    assert list(Caller(text, tokens_per_second=10).pieces()) == pieces


def test_targets(monkeypatch):
    setup = Setup(url="ws://127.0.0.1:1", api_key="k", model="m", voice="v", size=5)
    assert "api_key" not in repr(setup)
    assert size_for(300) == 698
    with pytest.raises(SettingsError, match="choose of pool, fresh, sdk, sdk-pool"):
        target_for("best", setup)
    monkeypatch.setattr("speechpool.load.sdk.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="pip install dashscope"):
        target_for("sdk", setup)


# ------------------------------------------------------------------------------------------ what a listener notices
def test_gaps_underruns_and_the_first_audible_sample(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("speechpool.load.record.time.monotonic", lambda: now[0])
    record = Record(stage=0, target="pool", planned=1.0, late=0.25)
    listen = Listener(record, 98.0, "Hello there.", 24000)
    listen(SILENCE)  # at 100: a second after the plan
    now[0] += 0.05
    listen(LOUD)  # in time: 0.1 s were there
    now[0] += 0.4
    listen(LOUD)  # 0.45 s after the first, when 0.2 s had been played
    assert record.first_packet == pytest.approx(1.0)
    assert record.first_packet_sent == pytest.approx(0.75)
    assert record.first_audible == pytest.approx(1.05)
    assert record.longest_gap == pytest.approx(0.4)
    assert record.underrun == pytest.approx(0.25)
    assert record.audio_seconds == pytest.approx(0.3)
    assert not record.foreign
    listen(SentenceBegin(0, "Hello there."))
    assert not record.foreign
    listen(SentenceBegin(1, "Somebody else's."))
    assert record.foreign
    assert listen.ahead() == pytest.approx(0.0)  # it has played 0.3 s of the 0.45 that have passed


def test_a_slow_listener_says_nothing_of_gaps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("speechpool.load.record.time.monotonic", lambda: now[0])
    record = Record(stage=0, target="pool", planned=1.0)
    listen = Listener(record, 98.0, "Hello there.", 24000, slow=True)
    listen(LOUD)
    assert listen.ahead() == pytest.approx(0.1)
    now[0] += 5
    listen(LOUD)
    assert (record.longest_gap, record.underrun) == (None, None)
    assert record.audio_seconds == pytest.approx(0.2)


# ------------------------------------------------------------------------------------------ numbers and expectations
def report():
    stages = (Stage("warm-up", 1.0, 1.0, judged=False), Stage("1x", 1.0, 1.0), Stage("2x", 1.0, 1.0))
    result = Result(seconds=10.0, processor=1.0, lags=[0.001] * 10)
    for number in range(100):
        stage = 1 + number % 2
        delay = number / 100
        result.records.append(
            Record(
                stage=stage, target="pool", planned=float(number), first_packet=delay, end_to_end=1.0, audio_seconds=2.0,
                outcome="failed" if number == 99 else "completed", error="Oops" if number == 99 else None, reused=number > 9,
            )
        )  # fmt: skip
    result.records.append(Record(stage=0, target="pool", planned=0.0, outcome="failed"))  # warm-up
    return summary(result, stages, {"seed": 1})


def test_the_summary_leaves_the_warm_up_out():
    whole = report()
    total = whole["targets"]["pool"]["total"]
    assert total["tasks"] == 100
    assert total["outcomes"] == {"completed": 99, "failed": 1}
    assert total["error_rate"] == 0.01
    assert total["errors"] == {"Oops": 1}
    assert total["reuse"] == pytest.approx(89 / 99)
    assert total["first_packet"] == {
        "p50": 0.49,
        "p90": 0.89,
        "p95": 0.94,
        "p99": 0.98,
        "mean": pytest.approx(0.495),
        "max": 0.99,
    }
    assert total["real_time_factor"] == pytest.approx(0.5)
    assert total["goodput"] == 0.51
    assert whole["targets"]["pool"]["stages"][0]["tasks"] == 1
    assert whole["tester"]["invalid"] is None


def test_what_a_target_does_not_tell_is_null():
    records = [Record(stage=0, target="sdk", planned=0.0, outcome="completed", first_packet=0.2) for _ in range(3)]
    target = summary(Result(records=records, seconds=1.0), (Stage("a", 1.0, 1.0),), {})["targets"]["sdk"]
    assert target["total"]["reuse"] is None
    assert target["stages"][0]["utilisation"] is None
    assert target["total"]["parts"] == {"late": 0.0, "connection": None, "start": None, "synthesis": None}
    assert not parse("reuse>95%").holds(target)


def test_stages_are_judged_by_the_five_signals_and_how_much_was_used_only_warns():
    target = report()["targets"]["pool"]
    warm_up, one, two = target["stages"]
    assert judged(warm_up) == []
    assert judged(one) == ["first_packet.p99<500ms", "reuse>95%"]
    assert judged(two) == ["first_packet.p99<500ms", "error_rate<0.1%", "reuse>95%"]
    for used, words in ((0.3, "30% of the connections were used"), (0.9, "a larger --max-size"), (0.7, ""), (None, "")):
        told = list(warnings({"pool": {"stages": [one | {"utilisation": used}]}}))
        assert len(told) == bool(words)
        assert all(words in text for text in told)


def test_a_table_of_tasks():
    head, line, *rest = table([Record(stage=1, target="pool", planned=0.5, outcome="completed")]).splitlines()
    assert head.split(",") == list(COLUMNS)
    assert dict(zip(COLUMNS, line.split(","), strict=True)) | {
        "planned": "0.5",
        "first_packet": "",
        "reused": "",
    } == dict(zip(COLUMNS, line.split(","), strict=True))
    assert not rest


def test_a_tester_that_was_in_the_way_says_so():
    late = Result(records=[Record(stage=0, target="pool", planned=0.0, late=0.01)], seconds=1.0)
    assert "10.0 ms late" in summary(late, (Stage("a", 1.0, 1.0),), {})["tester"]["invalid"]
    busy = Result(records=[Record(stage=0, target="pool", planned=0.0)], seconds=10.0, processor=9.5)
    late.starved = 0.4
    assert (
        "Others had the processors for 40% of the time"
        in summary(late, (Stage("a", 1.0, 1.0),), {})["tester"]["invalid"]
    )
    assert "95%" in summary(busy, (Stage("a", 1.0, 1.0),), {})["tester"]["invalid"]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("first_packet.p99<990ms", True), ("first_packet.p99<0.98s", False), ("first_packet.p99<=0.98s", True),
        ("first_packet.p50@2x>0.4s", True), ("error_rate<1.1%", True), ("error_rate<0.1%", False), ("reuse >= 89 %", True),
        ("tasks>=100", True), ("first_packet.mean<0.5s", True), ("recovery<5s", False), ("foreign<1", True), ("first_packet.p99@nowhere<1s", False), ("goodput>0.5", True),
    ],
)  # fmt: skip
def test_expectations(text, holds):
    assert parse(text).holds(report()["targets"]["pool"]) is holds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("first_packet", "cannot be read"), ("first_packet<500ms", "needs one of .p50"), ("first_packet.p98<1s", "needs one of"),
        ("speed.p99<1s", "there is no 'speed'"), ("reuse.p99>95%", "has no percentiles"), ("first_packet.p99<5", "takes ms or s"),
        ("error_rate<5ms", "takes % or no unit"), ("tasks>5%", "takes no unit"), ("first_packet.p99=5ms", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_expectation_is_said(text, words):
    with pytest.raises(SettingsError, match=words):
        parse(text)


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_value_of_nearest_rank(values, q):
    found = percentile(values, q)
    assert sum(value <= found for value in values) >= q / 100 * len(values)
    assert sum(value < found for value in values) < q / 100 * len(values)


# ------------------------------------------------------------------------------------------ recovery and the knee
def followed(*waits, outcome="completed"):
    """Ten tasks a second after the hold, with these first packets in each second."""
    stages = (Stage("2x", 10.0, 20.0), Stage("1x again", float(len(waits)), 10.0))
    records = [
        Record(stage=1, target="pool", planned=10 + second + n / 10, first_packet=wait, outcome=outcome)
        for second, wait in enumerate(waits)
        for n in range(10)
    ]
    return recovered(records, stages, 0.5)


def test_recovery_is_the_first_second_from_which_all_is_well():
    assert followed(*[0.2] * 10) == {"after": "2x", "limit": 0.5, "seconds": 0}
    assert followed(2.0, 1.0, 0.6, *[0.2] * 10)["seconds"] == 3
    assert followed(2.0, *[0.2] * 3, 0.7, *[0.2] * 10)["seconds"] == 5  # it was not over yet
    assert followed(*[0.6] * 8)["seconds"] is None
    assert followed(*[0.2] * 8, outcome="failed")["seconds"] is None
    assert recovered([], (Stage("a", 1.0, 1.0),), 0.5) is None
    assert recovered([], (Stage("a", 1.0, 1.0), Stage("b", 1.0, 2.0)), 0.5) is None


@settings(max_examples=50, deadline=None)
@given(limit=st.floats(0.1, 5000), first=st.floats(1, 500))
def test_bisection_finds_the_knee(limit, first):
    tried = []

    async def holds(rate):
        tried.append(rate)
        return rate <= limit

    good, bad = asyncio.run(knee(holds, first))
    if good is None or bad is None:
        assert limit < first / 32 or limit > first * 512
    else:
        assert good <= limit < bad <= 1.05 * good
    assert len(tried) < 20


def test_what_several_processes_or_runs_took_is_added_up():
    one = Result(
        records=[Record(stage=0, target="pool", planned=0.0)],
        processor=1.0,
        starved=0.1,
        seconds=5.0,
        used={"pool": {0: [0.5]}},
    )
    other = Result(processor=2.0, seconds=4.0, interrupted=True, used={"pool": {0: [0.7], 1: [0.2]}})
    beside, after = Result(), Result()
    for part in (one, other):
        beside.add(part)
        after.add(part, later=True)
    assert (beside.processor, beside.seconds, beside.starved, beside.interrupted) == (2.0, 5.0, 0.1, True)
    assert (after.processor, after.seconds, after.starved) == (3.0, 9.0, 0.1)
    assert beside.used == {"pool": {0: [0.5, 0.7], 1: [0.2]}}
    assert one.used == {"pool": {0: [0.5]}}
