"""Counting and checking text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.errors import InvalidText
from speechpool.text import MAX_SEND, MAX_TASK, ONE_TEXT, TextRules, check_text, count_characters, ends_sentence


@pytest.mark.parametrize(
    ("text", "ssml", "count"),
    [
        ("你好", False, 4), ("中A文123", False, 8), ("中文。", False, 5), ("中 文。", False, 6),
        ("<speak>你好</speak>", True, 4), ("かな", False, 2), ("한글", False, 2), ("漢字", False, 4), ("", False, 0),
        ("\U00020000", False, 2),
    ],
)  # fmt: skip
def test_the_examples_of_the_reference(text, ssml, count):
    assert count_characters(text, ssml=ssml) == count


@given(st.text())
def test_a_count_lies_between_once_and_twice_the_length(text):
    assert len(text) <= count_characters(text) <= 2 * len(text)


@pytest.mark.parametrize("text", ["", "  \n", None, 5, b"bytes"])
def test_no_text_is_refused(text):
    with pytest.raises(InvalidText):
        check_text(text)


def test_limits_are_named_with_what_was_given():
    assert check_text("a" * MAX_SEND) == MAX_SEND
    with pytest.raises(InvalidText, match=r"20,001 characters.*20,000"):
        check_text("a" * (MAX_SEND + 1))
    with pytest.raises(InvalidText, match=r"20,002"):
        check_text("你" * (MAX_SEND // 2 + 1))
    with pytest.raises(InvalidText, match=r"200,001.*200,000"):
        check_text("a", sent=MAX_TASK)
    with pytest.raises(InvalidText, match=r"4 characters.*limit of one send is 3"):
        check_text("你好", rules=TextRules(max_send=3))
    with pytest.raises(InvalidText, match=r"would have 6 characters.*limit of one task is 5"):
        check_text("abc", sent=3, rules=TextRules(max_task=5))


def test_a_protocol_of_one_text_counts_every_character_once():
    assert check_text("你" * 10_000, rules=ONE_TEXT) == 10_000
    assert check_text("<speak>你 a</speak>", ssml=True, rules=ONE_TEXT) == 3
    with pytest.raises(InvalidText, match=r"10,001 characters, the limit of one send is 10,000; make several tasks"):
        check_text("你" * 10_001, rules=ONE_TEXT)


def test_half_a_character_is_named():
    with pytest.raises(InvalidText, match=r"U\+D800 at 2"):
        check_text("ab\ud800")


@pytest.mark.parametrize("text", ["Hi.", "Hi!  ", 'really?"', "好。", "wait…", "line\n"])
def test_what_ends_a_sentence(text):
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["Hi", "and so", "a.b", ""])
def test_what_does_not(text):
    assert not ends_sentence(text)


def test_line_breaks_cost_no_more_than_other_text():
    assert not ends_sentence("\n" * 1_000_000 + "a")  # a search from each of them would take an hour
