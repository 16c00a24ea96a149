"""The window rolls by the time it is told; nothing is lost between the window and the lifetime."""

from hypothesis import given
from hypothesis import strategies as st

from speechpool.telemetry.totals import Totals, Window, count_label


def write(window, now, tasks=1):
    window.current(now).completed += tasks


def test_the_window_holds_the_last_minute_and_the_lifetime_everything():
    window = Window(60.0, 1000.0)
    write(window, 1000.0)
    write(window, 1030.0, 10)
    write(window, 1058.9, 100)
    assert window.recent(1059.0).completed == 111
    assert window.recent(1061.5).completed == 110
    assert window.recent(1091.0).completed == 100
    assert window.recent(2000.0).completed == 0
    assert window.lifetime(2000.0).completed == 111


def test_a_window_is_never_longer_than_it_says_and_at_most_a_second_shorter():
    window = Window(60.0, 0.0)
    write(window, 10.5)
    assert window.recent(69.99).completed == 1
    assert window.recent(70.5).completed == 0


def test_quiet_hours_cost_one_slice():
    window = Window(60.0, 0.0)
    write(window, 0.5)
    write(window, 100_000.5)
    assert len(window._slices) == 0
    assert window.lifetime(100_000.5).completed == 2


def test_reading_changes_nothing():
    window = Window(60.0, 0.0)
    write(window, 0.5, 3)
    for _ in range(3):
        assert window.recent(5.0).completed == 3
        assert window.lifetime(5.0).completed == 3


def test_a_clock_that_steps_back_loses_no_task():
    window = Window(60.0, 100.0)
    write(window, 150.0)
    write(window, 90.0)
    assert window.recent(150.0).completed == 2


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5)), max_size=60))
def test_the_window_agrees_with_a_list_of_tasks(steps):
    window, now, written = Window(60.0, 0.0), 0.0, []
    for pause, tasks in steps:
        now += pause
        write(window, now, tasks)
        written.append((now, tasks))
        recent = window.recent(now).completed
        surely = sum(tasks for when, tasks in written if when > now - 58.999)
        possibly = sum(tasks for when, tasks in written if when > now - 60.001)
        assert surely <= recent <= possibly
        assert window.lifetime(now).completed == sum(tasks for _, tasks in written)


def test_adding_totals_adds_every_field():
    one, two = Totals(), Totals()
    for totals in (one, two):
        totals.first_packet(0.7, (0.1, 0.2, 0.3, 0.1), 2.0)
        totals.finished(3.0, 6.0)
        for name in Totals.__slots__:
            if isinstance(getattr(totals, name), int | float) and not getattr(totals, name):
                setattr(totals, name, 1)
        count_label(totals.errors, "ConnectionLost")
        count_label(totals.retried, "gap")
    one.add(two)
    for name in Totals.__slots__:
        mine, its = getattr(one, name), getattr(two, name)
        if isinstance(its, int | float):
            assert mine == 2 * its, name
        elif isinstance(its, list):
            assert mine == [2 * each for each in its], name
        elif isinstance(its, dict):
            assert mine == {label: 2 * number for label, number in its.items()}, name
        else:
            assert mine.counts == [2 * each for each in its.counts], name


def test_a_peer_that_invents_error_codes_cannot_fill_the_memory():
    counts = {}
    for number in range(1000):
        count_label(counts, f"Code{number}")
    count_label(counts, "Code3")
    assert len(counts) == 65
    assert counts["other"] == 936
    assert counts["Code3"] == 2
