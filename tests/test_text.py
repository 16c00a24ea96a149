"""Counting and checking text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.errors import InvalidText
from speechpool.text import MAX_SEND, MAX_TASK, check_text, count_characters, ends_sentence


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


def test_half_a_character_is_named():
    with pytest.raises(InvalidText, match=r"U\+D800 at 2"):
        check_text("ab\ud800")


@pytest.mark.parametrize("text", ["Hi.", "Hi!  ", 'really?"', "好。", "wait…", "line\n"])
def test_what_ends_a_sentence(text):
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["Hi", "and so", "a.b", ""])
def test_what_does_not(text):
    assert not ends_sentence(text)
