"""The plan of a load test: what begins when follows from the seed, and rates are what was asked for."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechpool.errors import SettingsError
from speechpool.load.expect import parse
from speechpool.load.plan import Stage, parse_stages, plan, preset
from speechpool.load.record import Listener, Record
from speechpool.load.runner import Result
from speechpool.load.summary import percentile, summary
from speechpool.load.targets import pool_for, size_for
from speechpool.load.texts import CORPUS, read, sampler
from speechpool.protocol import SentenceBegin
from speechpool.synthesis import Endpoint

SILENCE, LOUD = bytes(4800), b"\x00\x40" * 2400  # a tenth of a second each, at 24,000


def test_the_preset_goes_up_to_twice_the_peak_and_takes_150_seconds():
    stages = preset(30, 2.0)
    assert sum(stage.seconds for stage in stages) == 150
    assert [stage.rate for stage in stages] == [7.5, 7.5, 15.0, 22.5, 30.0, 30.0, 15.0]
    assert [stage.judged for stage in stages] == [False] + [True] * 6
    assert sum(stage.seconds for stage in preset(30, 2.0, 0.1)) == pytest.approx(15)


def test_stages_are_read():
    assert parse_stages("30s:10, 2m:100") == (Stage("30s:10", 30.0, 10.0), Stage("2m:100", 120.0, 100.0))
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


def test_texts_follow_from_the_seed_and_a_file_is_checked(tmp_path):
    one, other = sampler(CORPUS, 3), sampler(CORPUS, 3)
    assert [one() for _ in range(20)] == [other() for _ in range(20)]
    (tmp_path / "texts").write_text("First.\n\n Second. \n")
    assert read(tmp_path / "texts") == ("First.", "Second.")
    (tmp_path / "empty").write_text("\n")
    for name, words in (("empty", "is empty"), ("missing", "cannot be read")):
        with pytest.raises(SettingsError, match=words):
            read(tmp_path / name)


def test_targets():
    assert size_for(300) == 698
    with pytest.raises(SettingsError, match="choose of pool, fresh"):
        pool_for("best", Endpoint.local(1), 5)


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
    assert total["first_packet"] == {"p50": 0.49, "p90": 0.89, "p95": 0.94, "p99": 0.98, "max": 0.99}
    assert total["real_time_factor"] == pytest.approx(0.5)
    assert total["goodput"] == 0.51
    assert whole["targets"]["pool"]["stages"][0]["tasks"] == 1
    assert whole["tester"]["invalid"] is None


def test_a_tester_that_was_in_the_way_says_so():
    late = Result(records=[Record(stage=0, target="pool", planned=0.0, late=0.01)], seconds=1.0)
    assert "10.0 ms late" in summary(late, (Stage("a", 1.0, 1.0),), {})["tester"]["invalid"]
    busy = Result(records=[Record(stage=0, target="pool", planned=0.0)], seconds=10.0, processor=9.5)
    assert "95%" in summary(busy, (Stage("a", 1.0, 1.0),), {})["tester"]["invalid"]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("first_packet.p99<990ms", True), ("first_packet.p99<0.98s", False), ("first_packet.p99<=0.98s", True),
        ("first_packet.p50@2x>0.4s", True), ("error_rate<1.1%", True), ("error_rate<0.1%", False), ("reuse >= 89 %", True),
        ("tasks>=100", True), ("foreign<1", True), ("first_packet.p99@nowhere<1s", False), ("goodput>0.5", True),
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
