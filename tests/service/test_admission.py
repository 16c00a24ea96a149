import pytest
from simulation import Simulation, engine_rate

from speechpool.service.admission import PATIENCE, Admission

MEAN_SECONDS = 40.5 * 0.4
SENTENCE = 60  # characters


def overload(load, *, seed=0, seconds=120, client=lambda number: "", **settings):
    """Play arrivals through at a part of the engine's rate, and return the listeners: all, and those that were served."""
    simulation = Simulation(seed=seed, **settings)
    simulation.poisson(load * engine_rate(2) / MEAN_SECONDS, seconds, client)
    listeners = simulation.run()
    return listeners, [each for each in listeners if not each.throttled]


def served(admission, claim, now, *, characters=SENTENCE, cost=0.05, seconds=0.3):
    """Let a task have its first window."""
    assert admission.begin(claim, now)
    admission.sentence(claim, characters, now)
    claim.deadline = now + seconds
    admission.step(claim, seconds, cost)
    return claim


def crowd(admission, count, *, client="", now=0.0, text=True):
    """Let as many of `count` tasks come at once as there is room for."""
    claims = []
    for _ in range(count):
        claim = admission.open(client, now)
        if claim is None:
            break
        claim.expect(SENTENCE, last=True)
        if text and not admission.begin(claim, now):
            admission.close(claim)
            break
        if text:
            admission.sentence(claim, SENTENCE, now)
        claims.append(claim)
    return claims


# ------------------------------------------------------------------------------------------ played through
@pytest.mark.parametrize("gap", [None, 0.5])
@pytest.mark.parametrize("seed", [1, 2])
def test_at_70_percent_everybody_is_served_in_time(gap, seed):
    listeners, taken = overload(0.7, seed=seed, gap=gap)
    assert len(listeners) > 150
    assert taken == listeners
    assert sum(each.underruns for each in taken) == 0
    assert max(each.first_audio for each in taken) < 0.5


@pytest.mark.parametrize("load", [1.3, 3.0])
@pytest.mark.parametrize("gap", [None, 0.5])
def test_beyond_the_rate_some_are_throttled_and_nobody_else_is_late(load, gap):
    listeners, taken = overload(load, seed=1, gap=gap)
    needed = 1 - 1 / load
    assert needed - 0.1 < 1 - len(taken) / len(listeners) < needed + 0.1  # no more than has to be
    assert sum(each.underruns for each in taken) == 0
    assert max(each.first_audio for each in taken) < 1.0
    early = sum(each.throttled == "open" for each in listeners)
    assert early > 0.8 * (len(listeners) - len(taken))


def test_when_everything_takes_twice_as_long_those_who_come_later_do_not_suffer():
    listeners, taken = overload(0.7, seed=1, slow_from=60.0)
    assert all(not each.throttled for each in listeners if each.came < 60)
    later = [each for each in listeners if each.came > 70]
    assert 0.2 < sum(bool(each.throttled) for each in later) / len(later) < 0.6
    assert sum(each.underruns for each in taken) == 0
    assert max(each.first_audio for each in taken) < 1.0


def test_without_a_limit_everybody_is_late():
    listeners, taken = overload(1.3, seed=1, max_first_audio=None)
    assert taken == listeners
    assert sum(each.underruns > 0 for each in taken) > len(taken) / 2


def test_a_client_that_asks_for_little_is_not_throttled_with_one_that_asks_for_too_much():
    listeners, _ = overload(2.0, seed=3, client=lambda number: "modest" if number % 10 == 0 else "greedy")
    share = {
        client: sum(bool(each.throttled) for each in listeners if each.client == client)
        / sum(each.client == client for each in listeners)
        for client in ("modest", "greedy")
    }
    assert share["modest"] < 0.05
    assert share["greedy"] > 0.4


def test_a_hundred_waiting_tasks_of_one_client_do_not_delay_the_one_of_another():
    simulation = Simulation(seed=1)
    greedy = [simulation.arrive(0.0, 40, "greedy") for _ in range(100)]
    modest = simulation.arrive(0.001, 40, "modest")
    simulation.run()
    waited = [each.first_audio for each in greedy if not each.throttled]
    assert 5 < len(waited) < 60  # the rest would have waited too long
    assert not modest.throttled
    assert modest.first_audio < 0.3 < max(waited) < 1.0
    assert sum(each.underruns for each in simulation.listeners) == 0


# ------------------------------------------------------------------------------------------ single rules
def test_a_task_that_is_alone_is_always_taken():
    admission = Admission(1, max_first_audio=0.001)
    claim = admission.open("", 0.0)
    served(admission, claim, 0.0, cost=5.0)  # slower than it plays
    admission.close(claim)
    assert admission.open("", 10.0) is not None
    assert admission.open("", 10.0) is None


def test_the_first_audio_must_be_expected_within_the_limit():
    quick, slow = (len(crowd(Admission(2, max_first_audio=limit), 500)) for limit in (0.5, 2.0))
    assert 3 < quick < slow < 100


def test_more_workers_serve_more():
    few, many = (len(crowd(Admission(workers), 500)) for workers in (1, 8))
    assert many > 5 * few


def test_an_expensive_engine_is_learned():
    admission = Admission(2)
    at_first = len(crowd(Admission(2), 500))
    for number in range(20):
        now = 10.0 * number
        claim = served(admission, admission.open("", now), now, cost=0.3, seconds=0.3)
        admission.step(claim, 1.8, 1.0)
        admission.close(claim)
    assert len(crowd(admission, 500, now=500.0)) < at_first / 3


def test_a_task_without_text_holds_its_place_for_a_moment_only():
    admission = Admission(1)
    held = crowd(admission, 500, text=False)
    assert admission.open("", 0.5) is None
    assert admission.open("", 1.5) is not None
    assert len(held) > 2


def test_a_task_that_comes_with_its_text_too_late_asks_anew():
    admission = Admission(1)
    late = admission.open("", 0.0)
    assert crowd(admission, 500, now=5.0)
    assert not admission.begin(late, 5.0)


def test_a_task_that_waits_for_text_is_not_overdue():
    admission = Admission(1)
    for _ in range(3):
        admission.sentence_over(served(admission, admission.open("", 0.0), 0.0), SENTENCE, 4.0)
    assert admission.open("", 100.0) is not None


def test_tasks_that_wait_for_text_keep_their_place_for_a_moment_only():
    admission = Admission(1)
    claims = []
    for number in range(100):  # one after another, so that all are taken
        now = 10.0 * number
        claims.append(served(admission, admission.open("", now), now))
        claims[-1].expect(7)  # half a sentence more, which cannot be said yet
        admission.sentence_over(claims[-1], SENTENCE, 0.3)
    for claim in claims:
        claim.deadline = 1000.0
    assert admission.open("", 1000.5) is None  # all of them may go on
    assert admission.open("", 1001.5) is not None


def test_a_paused_task_claims_nothing():
    admission = Admission(1)
    claims = crowd(admission, 500)
    assert admission.open("", 0.0) is None
    for claim in claims:
        claim.paused = True
    assert admission.open("", 0.0) is not None


def test_a_closed_task_claims_nothing():
    admission = Admission(1)
    claims = crowd(admission, 500)
    admission.close(claims.pop())
    assert admission.open("", 0.0) is not None
    admission.close(claims[0])
    admission.close(claims[0])  # a second time does nothing
    assert admission.open_claims == len(claims)


def test_waiting_tasks_take_turns_by_client():
    admission = Admission(2)
    greedy = crowd(admission, 10, client="greedy")
    [modest] = crowd(admission, 1, client="modest")
    assert [each.deadline for each in greedy] == sorted({each.deadline for each in greedy})
    assert greedy[0].deadline == PATIENCE
    assert greedy[0].deadline < modest.deadline <= greedy[1].deadline


def test_a_listener_that_hears_nothing_is_given_a_moment_and_one_that_hears_is_not():
    admission = Admission(2)
    claim = served(admission, admission.open("", 0.0), 0.0)
    claim.deadline = 2.0
    assert not admission.sentence(claim, SENTENCE, 1.0)
    assert claim.deadline == 2.0
    assert admission.sentence(claim, SENTENCE, 3.0)
    assert claim.deadline == 3.0 + PATIENCE


def test_long_tasks_are_learned_and_make_room_for_fewer():
    """All that is known of a task that begins is how long others were."""
    short, long = Admission(1), Admission(1)
    for admission, sentences in ((short, 1), (long, 60)):
        for number in range(30):
            claim = admission.open("", 1000.0 * number)
            claim.expect(SENTENCE * sentences, last=True)
            admission.close(claim)
    counts = []
    for admission in (short, long):
        playing = 0
        while playing < 500 and (claim := admission.open("", 1e6)) is not None and admission.begin(claim, 1e6):
            admission.sentence(claim, SENTENCE, 1e6)
            claim.deadline = 1e6 + 2.0
            admission.step(claim, 0.3, 0.03)
            playing += 1
        counts.append(playing)
    assert counts[0] > counts[1] > 5


def test_nothing_is_learned_from_silence():
    admission = Admission(1)
    claim = admission.open("", 0.0)
    assert admission.begin(claim, 0.0)
    assert admission.sentence(claim, 0, 0.0)
    before = admission._cost.value, admission._first_cost.value, admission._opening.value
    admission.step(claim, 1.0, 0.0)
    assert not claim.waits
    assert (admission._cost.value, admission._first_cost.value, admission._opening.value) == before
