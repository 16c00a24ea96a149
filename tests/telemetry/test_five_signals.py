"""Each signal has one definition, one target, one verdict, and says why."""

import json

import pytest

from speechpool.telemetry import Telemetry


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def telemetry(clock):
    return Telemetry("voices", clock)


def end(telemetry, outcome="completed", times=1, **more):
    for _ in range(times):
        telemetry.task_started()
        telemetry.task_ended(outcome, telemetry._clock(), **more)


def spoken(delay=0.2, **more):
    parts = {"queue": 0.01, "connect": 0.0, "start": 0.03, "synthesis": delay - 0.04}
    usual = {"text_wait": 1.5, "end_to_end": 2.0, "audio_seconds": 4.0, "connected": True, "reused": True}
    return {"first_packet_delay": delay, **parts, **usual, **more}


def window(telemetry):
    return telemetry.report().window


# ------------------------------------------------------------------------------------------ first packet delay
def test_first_packet_delay_within_its_target(telemetry):
    end(telemetry, times=200, **spoken(0.2))
    signal = window(telemetry).first_packet_delay
    assert (signal.verdict, signal.reason, signal.tasks) == ("ok", "", 200)
    assert signal.p50 == pytest.approx(0.2, rel=0.13)
    assert signal.mean == pytest.approx(0.2)
    assert signal.queue + signal.connect + signal.start + signal.synthesis == pytest.approx(signal.mean)
    assert signal.text_wait == pytest.approx(1.5)


def test_first_packet_delay_is_judged_at_p99(telemetry):
    end(telemetry, times=990, **spoken(0.2))
    end(telemetry, times=10, **spoken(3.0))
    assert window(telemetry).first_packet_delay.verdict == "ok"
    end(telemetry, times=1, **spoken(3.0))
    assert window(telemetry).first_packet_delay.verdict == "missed"


@pytest.mark.parametrize(
    ("part", "remedy"),
    [("queue", "max_size"), ("connect", "min_size"), ("start", "accept"), ("synthesis", "slow to speak")],
)
def test_a_late_first_packet_names_the_part_that_made_it_late(telemetry, part, remedy):
    end(telemetry, times=95, **spoken(0.2))  # mostly synthesis: must not hide what the slow ones suffered from
    slow = dict.fromkeys(("queue", "connect", "start", "synthesis"), 0.1) | {part: 0.7}
    end(telemetry, times=5, **spoken(1.0, **slow))
    signal = window(telemetry).first_packet_delay
    assert signal.verdict == "missed"
    assert f"{part} took 70% of the 5 tasks beyond 500 ms (700 ms on average)" in signal.reason
    assert remedy in signal.reason


def test_a_p99_of_few_tasks_says_so(telemetry):
    end(telemetry, times=3, **spoken(0.2))
    end(telemetry, **spoken(2.0))
    assert "(the slowest of 4 tasks)" in window(telemetry).first_packet_delay.reason
    assert "the one task beyond 500 ms" in window(telemetry).first_packet_delay.reason


def test_unknown_parts_are_not_blamed(telemetry):
    end(telemetry, first_packet_delay=2.0)
    assert "not reported" in window(telemetry).first_packet_delay.reason


def test_a_cancelled_task_with_audio_has_a_first_packet_but_no_end(telemetry):
    end(telemetry, "cancelled", **spoken(0.2))
    signals = window(telemetry)
    assert signals.first_packet_delay.tasks == 1
    assert signals.end_to_end_latency.tasks == 0


# ------------------------------------------------------------------------------------------ end-to-end latency
def test_end_to_end_latency_is_shown_with_the_real_time_factor(telemetry):
    end(telemetry, **spoken(end_to_end=2.0, audio_seconds=4.0))
    end(telemetry, **spoken(end_to_end=1.0, audio_seconds=6.0))
    end(telemetry, **spoken(end_to_end=9.0, audio_seconds=None))  # an mp3 of unknown length
    signal = window(telemetry).end_to_end_latency
    assert (signal.verdict, signal.tasks, signal.target) == ("shown", 3, "")
    assert signal.real_time_factor == pytest.approx(0.3)
    assert signal.p99 == pytest.approx(9.0, rel=0.13)


# ------------------------------------------------------------------------------------------ error rate
def test_few_tasks_cannot_prove_a_low_error_rate(telemetry):
    end(telemetry, times=2999)
    signal = window(telemetry).error_rate
    assert (signal.verdict, signal.rate) == ("too few tasks", 0.0)
    assert "2,999" in signal.reason
    end(telemetry)
    assert window(telemetry).error_rate.verdict == "ok"


def test_few_tasks_can_fail_it_already(telemetry):
    end(telemetry, times=50)
    end(telemetry, "failed", times=2, error="ConnectionLost")
    assert window(telemetry).error_rate.verdict == "too few tasks"  # 2 of 3,000 would still be fine
    end(telemetry, "failed", error="InternalError")
    signal = window(telemetry).error_rate
    assert signal.verdict == "missed"
    assert "3 of 53 tasks failed, 2 of them with ConnectionLost" in signal.reason
    assert signal.errors == {"ConnectionLost": 2, "InternalError": 1}


def test_the_error_target_is_below_one_in_a_thousand(telemetry):
    end(telemetry, times=3996)
    end(telemetry, "failed", times=3)
    assert window(telemetry).error_rate.verdict == "ok"
    end(telemetry, "failed")
    assert window(telemetry).error_rate.rate == 0.001
    assert window(telemetry).error_rate.verdict == "missed"


def test_cancelled_and_shed_are_shown_apart(telemetry):
    end(telemetry, times=5)
    end(telemetry, "cancelled", times=70)
    end(telemetry, "shed", times=9)
    signal = window(telemetry).error_rate
    assert (signal.completed, signal.failed, signal.cancelled, signal.shed, signal.rate) == (5, 0, 70, 9, 0.0)


def test_cancelled_tasks_alone_are_no_data(telemetry):
    end(telemetry, "cancelled", times=70)
    assert window(telemetry).error_rate.verdict == "no data"


# ------------------------------------------------------------------------------------------ pool utilisation
def peak_of(telemetry, clock, borrowed, max_size):
    telemetry.utilisation.changed(borrowed, max_size, clock.now)
    clock.now += 20
    return window(telemetry).pool_utilisation


@pytest.mark.parametrize("borrowed", [12, 14, 16])
def test_a_peak_of_60_to_80_percent_is_right(telemetry, clock, borrowed):
    assert peak_of(telemetry, clock, borrowed, 20).verdict == "ok"


def test_a_pool_too_large_is_told_its_size(telemetry, clock):
    signal = peak_of(telemetry, clock, 38, 100)
    assert signal.verdict == "missed"
    assert (
        "peak 38 % is below 60 %: max_size 100 is larger than this load needs; 1.6 x peak would be 61" in signal.reason
    )


def test_a_pool_too_small_is_told_its_size(telemetry, clock):
    signal = peak_of(telemetry, clock, 19, 20)
    assert signal.verdict == "missed"
    assert "peak 95 % is above 80 %: raise max_size from 20 to 31" in signal.reason


def test_a_pool_of_one_is_not_told_to_shrink(telemetry, clock):
    telemetry.utilisation.changed(1, 1, clock.now)
    clock.now += 5
    telemetry.utilisation.changed(0, 1, clock.now)
    clock.now += 10
    assert "no smaller max_size" in window(telemetry).pool_utilisation.reason


def test_utilisation_without_pool_time_or_borrowers_is_no_data(telemetry, clock):
    assert "no pool" in window(telemetry).pool_utilisation.reason
    telemetry.utilisation.changed(5, 10, clock.now)
    clock.now += 5
    signal = window(telemetry).pool_utilisation
    assert (signal.verdict, signal.mean, signal.peak) == ("no data", pytest.approx(0.5), None)
    assert "ten seconds have not passed" in signal.reason
    telemetry.utilisation.changed(0, 10, clock.now)
    clock.now += 100
    assert "nothing was borrowed" in window(telemetry).pool_utilisation.reason


# ------------------------------------------------------------------------------------------ connection reuse
def test_reuse_counts_tasks_that_got_a_connection(telemetry):
    end(telemetry, times=96, **spoken())
    end(telemetry, times=4, **spoken(reused=False))
    end(telemetry, "shed", times=50)
    signal = window(telemetry).connection_reuse
    assert (signal.verdict, signal.ratio, signal.connected) == ("ok", 0.96, 100)


def test_exactly_95_percent_misses_and_says_what_to_do(telemetry):
    end(telemetry, times=95, **spoken())
    end(telemetry, times=5, **spoken(reused=False))
    signal = window(telemetry).connection_reuse
    assert signal.verdict == "missed"
    assert "5 of 100 tasks" in signal.reason
    assert "min_size" in signal.reason


# ------------------------------------------------------------------------------------------ the report
def test_no_tasks_at_all(telemetry):
    report = telemetry.report()
    assert [signal.verdict for signal in report.signals] == ["no data"] * 5
    assert all(signal.reason for signal in report.signals)
    assert "0 tasks" in str(report)
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_report_has_the_five_signals_in_order(telemetry):
    assert [signal.name for signal in telemetry.report().signals] == [
        "first packet delay",
        "end-to-end latency",
        "error rate",
        "pool utilisation",
        "connection reuse",
    ]


def test_window_and_lifetime_are_told_apart(telemetry, clock):
    end(telemetry, times=10, **spoken(2.0))
    clock.now += 120
    end(telemetry, times=200, **spoken(0.2))
    report = telemetry.report()
    assert report.window.first_packet_delay.verdict == "ok"
    assert report.lifetime.first_packet_delay.verdict == "missed"
    assert (report.window.tasks, report.lifetime.tasks) == (200, 210)
    assert (report.window_seconds, report.lifetime_seconds) == (60, 120)
    assert [signal.name for signal in report.lifetime.missed] == ["first packet delay"]
    text = str(report)
    assert "ok / missed" in text
    assert "first packet delay, since the start: p99 is" in text


def test_every_line_of_the_report_says_something(telemetry, clock):
    telemetry.utilisation.changed(5, 20, clock.now)
    end(telemetry, times=500, **spoken(0.2, characters=100, audio_bytes=1000, retries=1))
    end(telemetry, "failed", times=3, error="ConnectionLost", connected=True)
    clock.now += 15
    text = str(telemetry.report())
    for part in (
        "voices: 503 tasks in the last 15 s",
        "p99 < 500 ms",
        "60-80 %",
        "mean 25 %, peak 25 %",
        "0.596 % (3 of 503)",
        "99.4 % (500 of 503)",
        "queue 10 ms + connect 0 ms + start 30 ms + synthesis 160 ms; text wait 1.50 s, outside",
        "500 completed, 3 failed, 0 cancelled, 0 shed; 500 retries",
    ):
        assert part in text


def test_the_report_survives_json(telemetry, clock):
    telemetry.utilisation.changed(5, 20, clock.now)
    end(telemetry, times=3, **spoken())
    clock.now += 15
    loaded = json.loads(json.dumps(telemetry.report().to_dict(), allow_nan=False))
    assert loaded["name"] == "voices"
    assert loaded["window"]["first_packet_delay"]["target"] == "p99 < 500 ms"
    assert loaded["lifetime"]["connection_reuse"]["ratio"] == 1.0


# ------------------------------------------------------------------------------------------ counters
def test_running_tasks_retries_and_volume(telemetry):
    telemetry.task_started()
    telemetry.task_started()
    telemetry.segment_retried("first_audio")
    telemetry.task_ended("completed", 1000.0, characters=10, audio_bytes=500, audio_seconds=1.5, retries=1)
    assert (telemetry.tasks_running, telemetry.tasks_started) == (1, 2)
    signals = window(telemetry)
    assert (signals.characters, signals.audio_bytes, signals.audio_seconds, signals.retries) == (10, 500, 1.5, 1)
    assert signals.retried == {"first_audio": 1}


def test_a_failure_without_a_code_is_counted_as_unknown(telemetry):
    end(telemetry, "failed")
    assert telemetry.error_codes == {"unknown": 1}


def test_an_unknown_outcome_is_a_bug_and_says_so(telemetry):
    with pytest.raises(ValueError, match="'done' is unknown"):
        telemetry.task_ended("done", 1000.0)
