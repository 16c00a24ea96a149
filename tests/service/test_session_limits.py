"""What one session allows: rates, places, lengths, the order of instructions, and the older events."""

import asyncio
from types import SimpleNamespace

import pytest
from scripted import FakeConnection, ScriptedBackend, instruction

from speechpool.errors import SettingsError
from speechpool.protocol import Word
from speechpool.service import ServiceSettings
from speechpool.service.counts import Counts
from speechpool.service.session import SpeechSession
from speechpool.service.submissions import Submissions
from speechpool.testing.clock import run as run_on_virtual_clock
from speechpool.transport import Closed

RATE = ("Throttling.RateQuota", "Requests rate limit exceeded, please try again later.")
PLACES = ("Throttling.Concurrency", "Too many concurrent requests.")
INVALID = "InvalidParameter"


class House:
    """One service without a server: sessions that share a backend, the counts and the submissions."""

    def __init__(self, **settings):
        self.settings = ServiceSettings(linger=None, **settings)
        self.backend, self.counts, self.sessions = ScriptedBackend(), Counts(), set()
        self.submissions = Submissions(self.settings.submission_rate, self.settings.max_tasks_per_key)

    def connect(self, client="key"):
        session = SpeechSession(
            self.backend, self.settings, self.counts, self.sessions, submissions=self.submissions, client=client
        )
        connection = FakeConnection()
        session.on_connected(connection)

        async def start(task_id="a", **given):
            session.on_text(instruction("run-task", task_id, **given))
            assert await answer(client) == "task-started"

        client = SimpleNamespace(session=session, connection=connection, say=session.on_text, start=start)
        return client


def run(test, **settings):
    async def whole():
        house = House(**settings)
        await test(house)
        for session in list(house.sessions):
            session.on_closed(Closed(None, "end of test", clean=False))
        assert house.counts.running == 0
        assert house.submissions._running == {}

    run_on_virtual_clock(whole())


async def turn():
    for _ in range(3):
        await asyncio.sleep(0)


async def answer(client):
    """The last event: its name, or code and message where it is a failure."""
    await turn()
    header = client.connection.events[-1]["header"]
    if header["event"] == "task-failed":
        await asyncio.sleep(0.01)
        assert client.connection.closed.code == 1000
        return header["error_code"], header["error_message"]
    return header["event"]


# ------------------------------------------------------------------------------------------ rates and places
def test_three_submissions_a_second_are_the_default():
    async def test(house):
        clients = [house.connect() for _ in range(4)]
        for client in clients:
            client.say(instruction("run-task"))
        assert [await answer(client) for client in clients] == ["task-started"] * 3 + [RATE]
        assert house.counts.tasks["shed"] == 1
        assert house.counts.tasks["failed"] == 0
        assert house.counts.errors == {"Throttling.RateQuota": 1}
        await asyncio.sleep(0.4)
        again = house.connect()
        again.say(instruction("run-task"))
        assert await answer(again) == "task-started"

    run(test)


def test_the_rate_is_of_one_key_and_model():
    async def test(house):
        for key in ("one", "two"):
            for model in ("m", "n"):
                for expected in ("task-started", RATE):
                    client = house.connect(key)
                    client.say(instruction("run-task", payload=_payload(model)))
                    assert await answer(client) == expected

    run(test, submission_rate=1.0)


def _payload(model):
    return {"model": model, "input": {}, "parameters": {"voice": "longanyang"}}


def test_the_rate_counts_tasks_on_one_connection_too():
    async def test(house):
        client = house.connect()
        for number in range(3):
            await client.start(str(number))
            client.say(instruction("finish-task", str(number), directive="cancel"))
        client.say(instruction("run-task", "3"))
        assert await answer(client) == RATE
        assert client.connection.names == ["task-started", "task-finished"] * 3 + ["task-failed"]

    run(test)


@pytest.mark.parametrize("end", ["finish", "cancel", "drop", "fail", "malformed"])
def test_a_place_comes_back_however_its_task_ends(end):
    async def test(house):
        first, second, third = house.connect(), house.connect(), house.connect()
        await first.start()
        second.say(instruction("run-task"))
        assert await answer(second) == PLACES
        assert house.counts.tasks["shed"] == 1
        if end == "finish":
            first.say(instruction("finish-task"))
            house.backend.speeches[0].listener.on_finished(0)
        elif end == "cancel":
            first.say(instruction("finish-task", directive="cancel"))
        elif end == "drop":
            first.session.on_closed(Closed(None, "reset", clean=False))
        elif end == "fail":
            house.backend.speeches[0].listener.on_failed("InternalError", "dead")
        else:
            first.say(b"{")
        third.say(instruction("run-task"))
        assert await answer(third) == "task-started"

    run(test, max_tasks_per_key=1, submission_rate=None)


def test_a_run_task_that_is_refused_holds_no_place():
    async def test(house):
        wrong, right, away = house.connect(), house.connect(), house.connect()
        wrong.say(instruction("run-task", parameters={"voice": ""}))
        assert (await answer(wrong))[0] == INVALID
        await right.start()
        house.backend.refusal = RATE
        right.say(instruction("finish-task", directive="cancel"))
        away.say(instruction("run-task"))
        assert await answer(away) == RATE
        assert house.counts.errors == {INVALID: 1, "Throttling.RateQuota": 1}

    run(test, max_tasks_per_key=1, submission_rate=None)


# ------------------------------------------------------------------------------------------ lengths
def test_the_lengths_of_a_send_and_of_a_task_are_settings():
    async def test(house):
        one, two = house.connect(), house.connect()
        await one.start()
        one.say(instruction("continue-task", text="你" * 5))
        one.say(instruction("continue-task", text="你" * 5 + "a"))
        code, message = await answer(one)
        assert code == INVALID
        assert "11 characters" in message
        assert "limit of one send is 10" in message
        await two.start()
        for _ in range(2):
            two.say(instruction("continue-task", text="a" * 10))
        assert await answer(two) == "task-started"
        two.say(instruction("continue-task", text="a"))
        assert "limit of one task is 20" in (await answer(two))[1]

    run(test, max_send=10, max_task=20)


# ------------------------------------------------------------------------------------------ order
@pytest.mark.parametrize("given", [{"text": "Hello."}, {"mode": "x"}, {"content": None}, {"text": None}])
def test_the_input_of_run_task_must_be_empty(given):
    async def test(house):
        client = house.connect()
        client.say(instruction("run-task", payload={**_payload("m"), "input": given}))
        assert await answer(client) == (INVALID, "task can not be null")

    run(test)


def test_an_unknown_member_of_the_other_inputs_is_taken():
    async def test(house):
        client = house.connect()
        await client.start()
        client.say(instruction("continue-task", text="Hello.", mode="x"))
        client.say(instruction("finish-task", mode="x"))
        assert await answer(client) == "task-started"
        assert house.backend.speeches[0].calls == [("text", "Hello."), "finish"]

    run(test)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("frame", [{"text": "x"}, {"flush": True}])
def test_text_before_task_started_fails_the_task_unless_a_setting_says_else(early, frame):
    async def test(house):
        client = house.connect()
        client.say(instruction("run-task"))
        client.say(instruction("continue-task", **frame))
        if early:
            assert await answer(client) == "task-started"
            client.say(instruction("finish-task", directive="cancel"))
        else:
            assert await answer(client) == (INVALID, "Invalid action('continue-task')! Please follow the protocol!")
            assert client.connection.names == ["task-failed"]
        assert house.backend.speeches[0].calls[-1] == "cancel"

    run(test, early_text=early)


def test_a_client_that_drops_before_its_task_started_frees_its_speech():
    async def test(house):
        client = house.connect()
        client.say(instruction("run-task"))
        client.session.on_closed(Closed(None, "reset", clean=False))
        await turn()
        assert client.connection.names == []
        assert house.backend.speeches[0].calls == ["cancel"]
        assert house.counts.tasks["cancelled"] == 1

    run(test)


@pytest.mark.parametrize("text", ["", "  ", None])
def test_empty_text_fails_the_task(text):
    async def test(house):
        client = house.connect()
        await client.start()
        client.say(instruction("continue-task", text=text))
        assert await answer(client) == (INVALID, "Please ensure input text is valid.")

    run(test)


@pytest.mark.parametrize("action", ["continue-task", "finish-task"])
@pytest.mark.parametrize("task_id", ["a", ""])
def test_nothing_is_taken_before_the_first_run_task(action, task_id):
    async def test(house):
        client = house.connect()
        client.say(instruction(action, task_id, text="x", directive="cancel"))
        assert await answer(client) == (INVALID, f"Invalid task_id for {action}! Please follow the protocol!")

    run(test)


def test_both_forms_of_cancel_and_what_crosses_them():
    async def test(house):
        client = house.connect()
        await client.start()
        client.say(instruction("continue-task", text="Half a"))
        client.say(instruction("finish-task", directive="cancel"))  # while the text is still open
        client.say(instruction("finish-task", directive="cancel"))  # the same again
        client.say(instruction("finish-task"))  # by another thread of the client
        await client.start("b")
        client.say(instruction("continue-task", "b", text="A sentence."))
        client.say(instruction("finish-task", "b"))
        house.backend.speeches[1].say(b"audio")
        client.say(instruction("finish-task", "b", directive="cancel"))  # after the finish
        await turn()
        assert client.connection.names.count("task-finished") == 2
        assert client.connection.names[-1] == "task-finished"
        assert client.connection.closed is None
        assert house.counts.tasks["cancelled"] == 2

    run(test)


def test_a_second_finish_is_refused_after_the_end_as_before_it():
    async def test(house):
        client = house.connect()
        await client.start()
        client.say(instruction("finish-task"))
        house.backend.speeches[0].listener.on_finished(0)
        client.say(instruction("finish-task"))
        assert await answer(client) == (INVALID, "Invalid action('finish-task')! Please follow the protocol!")

    run(test)


def test_an_id_may_come_again():
    async def test(house):
        client = house.connect()
        for _ in range(3):
            await client.start("same")
            client.say(instruction("finish-task", "same"))
            house.backend.speeches[-1].listener.on_finished(0)
            assert await answer(client) == "task-finished"

    run(test)


# ------------------------------------------------------------------------------------------ the documented clocks
@pytest.mark.parametrize("text", [None, "Half a sent"])
def test_23_seconds_without_text_end_the_task_in_the_providers_words(text):
    async def test(house):
        client = house.connect()
        await client.start()
        if text is not None:
            await asyncio.sleep(10)
            client.say(instruction("continue-task", text=text))
        await asyncio.sleep(22.9)
        assert await answer(client) == "task-started"
        await asyncio.sleep(0.2)
        assert await answer(client) == ("CLIENT_ERROR", "request timeout after 23 seconds.")
        assert house.counts.tasks["failed"] == 1
        assert house.counts.errors == {"CLIENT_ERROR": 1}

    run(test)


def test_60_seconds_without_a_task_close_the_connection():
    async def test(house):
        client = house.connect()
        await asyncio.sleep(59)
        assert client.connection.closed is None
        await client.start()
        client.say(instruction("finish-task", directive="cancel"))
        await asyncio.sleep(59.9)
        assert client.connection.closed is None
        await asyncio.sleep(0.2)
        assert (client.connection.closed.code, client.connection.closed.reason) == (1000, "idle for 60 seconds")

    run(test)


# ------------------------------------------------------------------------------------------ older events
def test_the_older_events_have_no_type_and_no_usage():
    async def test(house):
        client = house.connect()
        await client.start(parameters={"word_timestamp_enabled": True})
        house.backend.speeches[0].say(b"audio", words=(Word("Hello", 0, 5, 0, 100),))
        client.say(instruction("finish-task"))
        house.backend.speeches[0].listener.on_finished(5)
        await turn()
        started, *generated, finished = client.connection.events
        assert (started["header"]["event"], finished["header"]["event"]) == ("task-started", "task-finished")
        assert len(generated) == 3
        for event in generated[:2]:
            assert event["header"]["event"] == "result-generated"
            assert event["payload"] == {"output": {"sentence": {"words": []}}, "usage": None}
        assert generated[2]["payload"]["output"]["sentence"]["words"][0]["text"] == "Hello"
        assert finished["payload"]["usage"] == {"characters": 5}
        assert [binary for binary, _ in client.connection.frames] == [False, False, False, True, False, False]

    run(test, older_events=True)


def test_a_flag_is_true_or_false():
    assert ServiceSettings().older_events is False
    with pytest.raises(SettingsError, match="True or False"):
        ServiceSettings(older_events=1)
