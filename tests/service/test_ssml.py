"""SSML documents: what is understood, what is refused, and how fast."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechpool.errors import InvalidText
from speechpool.service.passages import Passage, sentences_of
from speechpool.service.readings import spoken_text
from speechpool.service.say_as import KINDS, say_as
from speechpool.service.ssml import is_ssml, parse_ssml
from speechpool.text import count_characters


def parse(document, **task):
    return parse_ssml(document, **{"voice": "longanyang", **task})


def spoken(document, **task):
    return [spoken_text(each) for each in parse(f"<speak>{document}</speak>", **task)]


def refusal(document):
    with pytest.raises(InvalidText) as refused:
        parse(document)
    return str(refused.value)


WORDS = st.text(alphabet="ab1. 你\n!&;'<>", max_size=8)
TAGS = st.sampled_from([
    *("<p>", "</p>", "<s>", "</s>", "<break/>", "<break time='2s'/>", "<prosody rate='fast'>", "</prosody>"),
    *("<lang xml:lang='fr'>", "</lang>", "<sub alias='x. y'>a. b</sub>", "<sub alias=''>", "</sub>", "<!-- c -->"),
    *("<say-as interpret-as='digits'> 12 </say-as>", "<say-as interpret-as='id'>", "</say-as>", "<![CDATA[ < ]]>"),
    *("<phoneme alphabet='py' ph='a1'>a</phoneme>", "&amp;", "&x;", "<speak>", "</speak>", "<x>", "<?x?>", "\x00"),
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(TAGS | WORDS, max_size=20))
def test_any_document_is_read_whole_or_refused(parts):
    try:
        passages = parse(f"<speak>{''.join(parts)}</speak>")
    except InvalidText:
        return
    for passage in passages:
        pieces = list(sentences_of(passage, "en"))
        assert "".join(piece for piece, _ in pieces) == passage.text
        heard = "".join(spoken_text(sentence) for _, sentence in pieces)
        assert "".join(heard.split()) == "".join(spoken_text(passage).split())  # spaces between sentences are in none


# ------------------------------------------------------------------------------------------ what is markup
@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("<speak>a</speak>", True),
        ("\n <speak rate='1'>a</speak>", True),
        ("\ufeff<?xml version='1.0'?><speak>a</speak>", True),
        ("<!-- so --><speak>a</speak>", True),
        ("<!DOCTYPE speak><speak>a</speak>", True),
        ("<SPEAK>a</SPEAK>", True),
        ("<speakers>", False),
        ("Say <speak>", False),
        ("1 < 2", False),
    ],
)
def test_markup_is_told_from_text(text, markup):
    assert is_ssml(text) is markup


# ------------------------------------------------------------------------------------------ text and characters
@pytest.mark.parametrize(
    ("document", "texts"),
    [
        ("<speak>Tom &amp; Jerry</speak>", ["Tom & Jerry"]),
        ("\ufeff\n<?xml version='1.0' encoding='gbk'?>\n<speak xmlns='x' version='1.1'>你好</speak>", ["你好"]),
        ("<speak><![CDATA[1 < 2 &amp; 3]]></speak>", ["1 < 2 &amp; 3"]),
        ("<speak>a<!-- not this -->b&#x26;\x7fc</speak>", ["ab& c"]),
        ("<speak><p><s>One.</s><s>Two</s></p>\n<p>Three</p></speak>", ["One.", "Two ", "Three"]),
    ],
)
def test_text_is_read_out_of_its_tags(document, texts):
    assert [each.text for each in parse(document)] == texts


@pytest.mark.parametrize(
    "document",
    [
        "<speak>你好</speak>",
        "<speak>\n  <p>One, <sub alias='a much longer text'>中文</sub>.</p>\t<break/> \r\n</speak>",
        "<speak><break/>a <prosody rate='fast'> b </prosody><break/> <break/> c</speak>",
    ],
)
def test_the_texts_have_the_characters_that_count(document):
    assert sum(count_characters(each.text) for each in parse(document)) == count_characters(
        document.replace("\r", ""), ssml=True
    )


@pytest.mark.parametrize("document", ["<speak/>", "<speak><break/></speak>", "<speak>\n ... <p>!</p></speak>"])
def test_a_document_without_words_is_no_text(document):
    assert refusal(document) == "Please ensure input text is valid."


# ------------------------------------------------------------------------------------------ pauses
@pytest.mark.parametrize(
    ("attributes", "seconds"),
    [
        ("", 1.0),
        ("time='500ms'", 0.5),
        ("time='50ms'", 0.05),
        ("time='10s'", 10),
        ("time='1.5s'", 1.5),
        ("strength='strong'", 1.0),
        ("strength='none'", 0.0),
    ],
)
def test_a_break_is_a_pause(attributes, seconds):
    one, two = parse(f"<speak>One<break {attributes}/>two</speak>")
    assert (one.text, one.pause, two.text, two.pause) == ("One", seconds, "two", 0)


def test_breaks_meet_and_end_at_ten_seconds():
    assert parse("<speak>a<break time='1s'/> <break time='2s'/></speak>")[0].pause == 3
    assert parse("<speak>a<break time='8s'/><break time='2.5s'/>b</speak>")[0].pause == 10


def test_a_document_may_begin_with_a_pause():
    first, second = parse("<speak><break time='2s'/>One</speak>")
    assert first == Passage(pause=2.0)
    assert second == Passage(text="One")


@pytest.mark.parametrize("time", ["49ms", "10.1s", "0", "5", "-1s", "1 minute", "inf", "1e3ms"])
def test_a_pause_out_of_range_is_refused(time):
    message = refusal(f"<speak>a<break time='{time}'/></speak>")
    assert message.startswith(f"time='{time}' of <break>")
    assert "50ms to 10s" in message


def test_all_pauses_together_are_limited():
    document = "<speak>" + "<break time='10s'/>a" * 61 + "</speak>"
    assert "600 s together" in refusal(document)


# ------------------------------------------------------------------------------------------ manners
def test_speak_stands_in_for_the_task_and_prosody_is_on_top():
    plain, changed, after = parse(
        "<speak rate='1.5' pitch='0.8' volume='80'>a<prosody rate='120%' pitch='+12st' volume='-6dB'>b</prosody>c</speak>",
        rate=1.25,
        pitch=1.0,
        volume=40,
    )
    assert (plain.rate, plain.pitch, plain.volume) == (1.5 / 1.25, 0.8, 2.0)
    assert plain == Passage(text="a", rate=plain.rate, pitch=plain.pitch, volume=plain.volume)
    assert changed.rate == pytest.approx(1.8 / 1.25)
    assert changed.pitch == pytest.approx(1.6)
    assert changed.volume == pytest.approx(80 * 10 ** (-6 / 20) / 40)
    assert (after.rate, after.pitch, after.volume) == (plain.rate, plain.pitch, plain.volume)


@pytest.mark.parametrize(
    ("attribute", "value", "factor"),
    [
        ("rate", "fast", 1.25),
        ("rate", " Slow ", 0.8),
        ("rate", "80%", 0.8),
        ("rate", "+20%", 1.2),
        ("rate", "-20%", 0.8),
        ("rate", "1.2", 1.2),
        ("rate", "9999%", 2.0),
        ("rate", "-200%", 0.5),
        ("pitch", "high", 1.15),
        ("pitch", "+2st", 2 ** (2 / 12)),
        ("pitch", "-9999st", 0.5),
        ("pitch", "99999st", 2.0),
        ("volume", "loud", 70 / 50),
        ("volume", "silent", 0),
        ("volume", "80", 80 / 50),
        ("volume", "+6dB", 10 ** (6 / 20)),
        ("volume", "99999dB", 2.0),
        ("volume", "medium", 1),
    ],
)
def test_prosody_is_a_factor_within_what_is_possible(attribute, value, factor):
    [passage] = parse(f"<speak><prosody {attribute}='{value}'>a</prosody></speak>")
    assert getattr(passage, attribute) == pytest.approx(factor)


def test_a_silent_task_stays_silent():
    assert parse("<speak volume='80'>a</speak>", volume=0)[0].volume == 1


@pytest.mark.parametrize(
    ("markup", "words"),
    [
        ("<prosody rate='quick'>a</prosody>", "rate='quick' of <prosody> is not understood; write it like 'fast'"),
        ("<prosody rate='+2st'>a</prosody>", "rate='+2st' of <prosody>"),
        ("<prosody pitch='50Hz'>a</prosody>", "pitch='50Hz' of <prosody>"),
        ("<prosody volume='nan'>a</prosody>", "volume='nan' of <prosody>"),
        ("<prosody contour='x'>a</prosody>", "contour of <prosody> is not supported here; supported are rate, pitch"),
        ("<lang>a</lang>", "<lang> lacks xml:lang"),
        ("<lang xml:lang='!'>a</lang>", "xml:lang='!' is no language"),
        ("<sub>a</sub>", "<sub> lacks alias"),
        ("<sub alias='x'></sub>", "<sub> must hold text"),
        (f"<sub alias='{'x' * 401}'>a</sub>", "1 to 400 characters"),
        ("<sub alias='x'>a<break/></sub>", "<sub> holds no elements; move <break> out of it."),
        ("<say-as>a</say-as>", "<say-as> lacks interpret-as"),
        ("<say-as interpret-as='song'>a</say-as>", "interpret-as='song' is unknown; choose one of cardinal, digits"),
        ("<phoneme alphabet='cmu' ph='S'>a</phoneme>", "alphabet 'py'"),
        ("<phoneme alphabet='py'>a</phoneme>", "<phoneme> lacks ph"),
        ("<break strength='mighty'/>", "strength='mighty' of <break> is unknown"),
        ("<break>a</break>", "<break> holds no text"),
        ("<break><p/></break>", "<break> holds no elements"),
        ("<soundEvent src='http://x'/>", "<soundEvent> is not supported here; supported are speak, p, s, lang"),
        ("<audio/>", "<audio> is not supported"),
        ("<speak>a</speak>", "<speak> is not supported here"),
        (f"<{'y' * 300}/>", f"<{'y' * 20}...> is not supported"),
    ],
)
def test_what_is_not_supported_is_named_with_its_place(markup, words):
    message = refusal(f"<speak>hush\n {markup}</speak>")
    assert words in message
    assert "SSML, line 2, column" in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ("voice='other'", "voice of <speak> is not the task's"),
        ("bgm='http://x'", "bgm of <speak> is not supported here; supported are voice, rate, pitch, volume, xml:lang"),
        ("effect='robot'", "effect of <speak>"),
        ("rate='3'", "rate='3' of <speak> is no number of its range; it goes from 0.5 to 2."),
        ("volume='101'", "from 0 to 100"),
        ("pitch='high'", "pitch='high' of <speak>"),
    ],
)
def test_what_speak_cannot_ask_for_is_named(attributes, words):
    assert words in refusal(f"<speak {attributes}>a</speak>")


def test_the_tasks_own_voice_may_be_named():
    assert parse("<speak voice='longanyang'>a</speak>") == [Passage(text="a")]


def test_languages_are_codes():
    texts = parse("<speak xml:lang='en-US'>a<lang xml:lang='fr'>b</lang><s xml:lang='zh_CN'>c</s>d</speak>")
    assert [(each.text, each.language) for each in texts] == [("a", "en"), ("b", "fr"), ("c", "zh"), ("d", "en")]


# ------------------------------------------------------------------------------------------ readings
@pytest.mark.parametrize(
    ("kind", "text", "read"),
    [
        ("cardinal", "1234", "1,234"),
        ("cardinal", "-1234567", "-1,234,567"),
        ("cardinal", "12", "12"),
        ("cardinal", "3.14", "3.14"),
        ("digits", "1,234", "1 2 3 4"),
        ("telephone", "+86 (010) 555-1234", "8 6, 0 1 0, 5 5 5, 1 2 3 4"),
        ("id", "mr20", "M, R, 2, 0"),
        ("characters", "a b@c", "A, B, commercial at, C"),
        ("punctuation", "Hi! x-y", "Hi exclamation mark x hyphen minus y"),
        ("digits", "---", "---"),
        *((kind, "$5.20", "$5.20") for kind in ("name", "address", "date", "time", "currency", "measure")),
    ],
)
def test_say_as(kind, text, read):
    assert say_as(kind, text, english=True) == read
    assert kind in KINDS


def test_a_cardinal_gets_commas_in_english_only():
    markup = "<say-as interpret-as='cardinal'>1234</say-as>"
    assert spoken(markup) == ["1,234"]
    assert spoken(f"你好{markup}") == ["你好1234"]
    assert spoken(markup, language="zh") == ["1234"]
    assert spoken(f"你好<lang xml:lang='en'>{markup}</lang>") == ["你好", "1,234"]


def test_a_reading_stands_where_its_text_stands():
    [passage] = parse("<speak>At <say-as interpret-as='digits'> 10 </say-as>the <sub alias='Web'>WWW</sub>.</speak>")
    assert passage.text == "At  10 the WWW."
    assert spoken_text(passage) == "At  1 0 the Web."


def test_phonemes_are_pronunciations():
    [passage] = parse("<speak>去<phoneme alphabet='py' ph='chong2  qing4'>重庆</phoneme></speak>")
    assert (passage.text, passage.pronunciations) == ("去重庆", (("重庆", "chong2 qing4"),))


def test_sentences_are_cut_where_they_were_sent_and_never_inside_a_reading():
    [passage] = parse(
        "<speak> One. <sub alias='to. be. sure'>Dr. No. Is it? Two</sub> here! "
        "<say-as interpret-as='digits'>12</say-as> it is. </speak>"
    )
    pieces = list(sentences_of(passage, "en"))
    assert "".join(piece for piece, _ in pieces) == passage.text
    assert [sentence.text for _, sentence in pieces] == ["One.", "Dr. No. Is it? Two here!", "12 it is."]
    assert [spoken_text(sentence) for _, sentence in pieces] == ["One.", "to. be. sure here!", "1 2 it is."]


# ------------------------------------------------------------------------------------------ broken and hostile
@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("<speak>secret & more</speak>", "invalid token) at line 1, column 16"),
        ("<speak>\n<p>secret</speak>", "mismatched tag at line 2, column 12"),
        ("<speak>secret", "line 1, column 14"),
        ("<speak>secret</speak><speak>b</speak>", "junk after document element"),
        ("<speak>&secret;</speak>", "undefined entity at line 1, column 8"),
        ("<speak>secret\x01</speak>", "invalid token"),
        ("<speak><p a='1' a='2'>secret</p></speak>", "duplicate attribute"),
        ("<SPEAK>secret</SPEAK>", "SSML begins with <speak>, not <SPEAK>"),
        ("<speak>secret<?php secret ?></speak>", "processing instruction <?php?> is not taken"),
        ("<!doctype speak><speak>secret</speak>", "not well-formed"),
    ],
)
def test_what_is_malformed_is_told_with_its_place_and_without_its_text(document, words):
    message = refusal(document)
    assert words in message
    assert "secret" not in message


BOMB = "<!DOCTYPE x [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {name} '{f'&{inner};' * 50}'>" for inner, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "document",
    [
        BOMB + "]><speak>&i;</speak>",
        "<!DOCTYPE speak SYSTEM 'file:///etc/passwd'><speak>a</speak>",
        "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]><speak>&y;</speak>",
        "<!DOCTYPE x [<!ENTITY % z SYSTEM 'http://127.0.0.1/'> %z;]><speak>a</speak>",
    ],
)
def test_document_types_and_entities_are_refused(document):
    assert is_ssml(document)
    assert "document type is not taken" in refusal(document)


def test_elements_are_limited_in_number_and_depth():
    assert "1,000 elements" in refusal("<speak>" + "<p/>" * 1000 + "</speak>")
    assert "20 inside each other" in refusal("<speak>" + "<p>" * 100_000)
    assert parse("<speak>" + "<p>" * 19 + "a" + "</p>" * 19 + "</speak>")[0].text == "a"


@pytest.mark.parametrize(
    "unit",
    [
        "word <say-as interpret-as='digits'>12</say-as> ",
        "A sentence is here. ",
        "a<break time='50ms'/>",
        "<p>paragraph</p>",
        "<prosody rate='fast'>quick</prosody>",
        "x &amp; y &lt; ",
        "<sub alias='b'>a</sub>",
    ],
)
def test_time_grows_with_the_length_only(unit):
    def seconds(count):
        document = f"<speak>{unit * count}</speak>"
        best = []
        for _ in range(3):
            begin = time.thread_time()
            for passage in parse(document):
                list(sentences_of(passage, "en"))
            best.append(time.thread_time() - begin)
        return min(best)

    # Eight times the text: a quadratic step would take 64 times as long.
    assert seconds(960) < 25 * max(seconds(120), 0.0005)
