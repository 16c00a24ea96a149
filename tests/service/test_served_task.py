"""What a task makes of its parameters and its text, over a backend that writes down what it is told."""

import asyncio
import json

import pytest

from speechpool.protocol import Word
from speechpool.protocol.cosyvoice import Refused, ServerSession
from speechpool.protocol.cosyvoice.frames import Parameters
from speechpool.service import ServiceSettings
from speechpool.service.backend import BackendRefusal
from speechpool.service.passages import Passage
from speechpool.service.task import ServedTask
from speechpool.service.wishes import LANGUAGES

INVALID = "InvalidParameter"


class Speech:
    def __init__(self, listener, parameters):
        self.listener = listener
        self.parameters = parameters
        self.calls = []

    def __getattr__(self, name):
        return lambda *given: self.calls.append((name, *given))


class Backend:
    def __init__(self):
        self.client = None
        self.refusal = None

    def open(self, task_id, parameters, listener, *, client=""):
        if self.refusal:
            raise BackendRefusal(*self.refusal)
        self.client = client
        return Speech(listener, parameters)


class Box:
    """An outbox."""

    def __init__(self):
        self.frames = []

    def add(self, *frames):
        self.frames += frames

    @property
    def events(self):
        return [json.loads(frame) for frame in self.frames if frame.startswith(b'{"header"')]


def run_task(**parameters):
    parameters = {"text_type": "PlainText", "voice": "longanyang", **parameters}
    payload = {"model": parameters.pop("model", "cosyvoice-v3-flash"), "input": {}, "parameters": parameters}
    header = {"action": "run-task", "task_id": "a", "streaming": "duplex"}
    return json.dumps({"header": header, "payload": payload}).encode()


def served(scenario, *, settings=None, backend=None, client="", **parameters):
    """Run `scenario(task, speech, box)`, or raise what refuses the task."""

    async def main():
        protocol, box = ServerSession(), Box()
        run = protocol.feed(run_task(**parameters))
        task = ServedTask(
            backend or Backend(),
            protocol,
            box,
            run,
            settings=settings or ServiceSettings(),
            client=client,
            on_finished=lambda: None,
            on_failed=lambda code, message: None,
        )
        box.add(protocol.started())
        scenario(task, task._speech, box)

    asyncio.run(main())


def wish(**parameters):
    seen = []
    served(lambda task, speech, box: seen.append(speech.parameters), **parameters)
    return seen[0]


def refused(scenario=lambda task, speech, box: None, **parameters):
    with pytest.raises(Refused) as caught:
        served(scenario, **parameters)
    assert caught.value.code == INVALID
    return caught.value.message


# ------------------------------------------------------------------------------------------ parameters
def test_what_the_official_sdk_always_sends_is_taken():
    asked = wish(
        format="Default", sample_rate=0, volume=50, rate=1.0, pitch=1.0, seed=0, type=0, enable_ssml=True, unknown=1
    )
    assert (asked.format, asked.sample_rate, asked.language_hints, asked.replacements) == ("mp3", 22050, (), ())


def test_the_client_is_told_to_the_backend():
    backend = Backend()
    served(lambda task, speech, box: None, backend=backend, client="somebody")
    assert backend.client == "somebody"


def test_an_instruction_may_have_100_characters():
    wish(instruction="你" * 50)
    wish(instruction="a" * 100)
    for too_long in ("你" * 50 + "a", "a" * 101):
        assert refused(instruction=too_long) == "[tts:]Engine return error code: 428"
    wish(instruction="a" * 128, settings=ServiceSettings(max_instruction=128))


def test_the_first_language_hint_counts():
    for language in LANGUAGES:
        assert wish(language_hints=[language, "nonsense"]).language_hints == (language,)
    assert wish(language_hints=[]).language_hints == ()
    message = refused(language_hints=["klingon"])
    assert "'klingon'" in message
    assert ", ".join(LANGUAGES) in message


def test_a_hot_fix_is_read():
    asked = wish(
        hot_fix={
            "pronunciation": [{"草地": "cao3 di4"}],
            "replace": [{"草地": "草坪"}, {"a": "b", "c": ""}],
            "something": "new",
        }
    )
    assert asked.pronunciations == (("草地", "cao3 di4"),)
    assert asked.replacements == (("草地", "草坪"), ("a", "b"), ("c", ""))


@pytest.mark.parametrize("name", ["pronunciation", "replace"])
@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"a": "b"}, "must be a list of objects"),
        ("a", "must be a list of objects"),
        (["a"], "must be a list of objects"),
        ([{"a": 1}], "each text, of 1 to 100 characters, needs a reading"),
        ([{"": "b"}], "each text, of 1 to 100 characters"),
        ([{"a" * 101: "b"}], "at most 100"),
        ([{"a": "b" * 101}], "at most 100"),
        ([{str(number): "b"} for number in range(201)], "has 201 entries; it may have 200"),
        ([{f"{number:0>99}": "b"} for number in range(41)], "4,000 characters in all"),
    ],
)
def test_a_hot_fix_of_another_shape_is_refused(name, entries, words):
    message = refused(hot_fix={name: entries})
    assert message.startswith(f"hot_fix.{name}")
    assert words in message


# ------------------------------------------------------------------------------------------ text
@pytest.mark.parametrize("parameters", [{"enable_ssml": True}, {"text_type": "SSML"}])
@pytest.mark.parametrize("first", ["Plain & simple, <really>.", "<speak>a</speak>"])
def test_with_ssml_there_is_one_text(parameters, first):
    def scenario(task, speech, box):
        task.text(first)
        assert len(speech.calls) == 1
        task.text("More.")

    assert refused(scenario, **parameters) == "Text request limit violated, expected 1."


def test_plain_text_may_stand_where_ssml_is_taken():
    def scenario(task, speech, box):
        task.text("Plain & simple, <really>.")
        assert speech.calls == [("text", "Plain & simple, <really>.")]

    served(scenario, enable_ssml=True)


def test_markup_without_the_flag_is_text():
    def scenario(task, speech, box):
        task.text("<speak>a</speak>")
        task.text("<speak>b</speak>")
        assert speech.calls == [("text", "<speak>a</speak>"), ("text", "<speak>b</speak>")]

    served(scenario)


def test_markup_becomes_passages_that_are_owed_at_once():
    def scenario(task, speech, box):
        task.text('<speak rate="2">Tom &amp; Jerry<break time="500ms"/>你好</speak>')
        [(name, passages)] = speech.calls
        assert name == "passages"
        assert passages == [Passage(text="Tom & Jerry", pause=0.5, rate=1.6), Passage(text="你好", rate=1.6)]
        assert task.owes_audio
        task.on_sentence_begin(0, "Tom & Jerry")
        task.on_sentence_end(0, "Tom & Jerry", (), 11)
        assert task.owes_audio
        task.on_sentence_begin(1, "你好")
        task.on_sentence_end(1, "你好", (), 15)
        assert not task.owes_audio

    served(scenario, enable_ssml=True, rate=1.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<speak><break/></speak>", "Please ensure input text is valid."),
        ("<speak><audio/></speak>", "<audio> is not supported here"),
        ("<!DOCTYPE x><speak>a</speak>", "document type"),
        ("<speak voice='other'>a</speak>", "voice of <speak>"),
        ("<speak>a", "not well-formed"),
        (f"<speak>{'a' * 20_001}</speak>", "20,000"),
    ],
)
def test_markup_that_cannot_be_spoken_is_refused(text, words):
    assert words in refused(lambda task, speech, box: task.text(text), enable_ssml=True)


def test_a_model_without_ssml_says_so_and_takes_text():
    def plain(task, speech, box):
        task.text("Plain.")
        assert speech.calls == [("text", "Plain.")]

    served(plain, model="cosyvoice-v1", enable_ssml=True)
    message = refused(lambda task, speech, box: task.text("<speak>a</speak>"), model="cosyvoice-v1", enable_ssml=True)
    assert message == "SSML text is not supported at the moment!"


def test_tags_count_nothing_and_han_characters_two():
    limits = ServiceSettings(max_send=8, max_task=10)
    served(lambda task, speech, box: task.text("<speak><p>你好你好</p></speak>"), settings=limits, enable_ssml=True)
    assert "limit of one send is 8" in refused(lambda task, speech, box: task.text("你好你好a"), settings=limits)

    def twice(task, speech, box):
        task.text("你好你好")
        task.text("abc")

    assert "limit of one task is 10" in refused(twice, settings=limits)


# ------------------------------------------------------------------------------------------ word times
@pytest.mark.parametrize("asked", [True, False])
def test_word_times_come_with_the_end_of_their_sentence(asked):
    def scenario(task, speech, box):
        task.on_sentence_begin(0, "Hello")
        task.on_sentence_end(0, "Hello", (Word("Hello", 0, 5, 0, 100),), 5)
        words = box.events[-1]["payload"]["output"]["sentence"]["words"]
        assert [word["text"] for word in words] == (["Hello"] if asked else [])

    served(scenario, word_timestamp_enabled=asked)


def test_parameters_of_the_frame_are_those_that_are_read():
    # What the wire knows and nobody reads here would be a promise that is not kept.
    read_elsewhere = {"phoneme_timestamp_enabled", "type"}
    known = set(Parameters.__struct_fields__) - read_elsewhere
    assert known == {
        *("text_type", "voice", "format", "sample_rate", "volume", "rate", "pitch", "bit_rate", "seed"),
        *("enable_ssml", "word_timestamp_enabled", "instruction", "language_hints", "hot_fix"),
    }
