"""A long text in pieces that one send can carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.cli.pieces import pieces
from speechpool.errors import InvalidText
from speechpool.text import check_text, count_characters

TEXTS = st.text(st.sampled_from("ab  .!\n言。"), min_size=1, max_size=200)


@given(TEXTS, st.integers(4, 50))
def test_every_piece_may_be_sent_and_nothing_spoken_is_lost(text, limit):
    if text.isspace():
        return
    parts = list(pieces(text, limit))
    for part in parts:
        check_text(part)
        assert count_characters(part) <= limit
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_pieces_end_with_sentences_else_with_words_else_anywhere():
    assert list(pieces("One two. Three four. Five six.", 22)) == ["One two. Three four. ", "Five six."]
    assert list(pieces("one two three four", 10)) == ["one two ", "three four"]
    assert list(pieces("a" * 25, 10)) == ["a" * 10, "a" * 10, "a" * 5]
    assert list(pieces("甲乙丙丁。戊己庚", 12)) == ["甲乙丙丁。", "戊己庚"]
    assert list(pieces("It costs 3.1415926535", 12)) == ["It costs ", "3.1415926535"]


def test_a_short_text_stays_as_it_is():
    assert list(pieces(" Hello. World. ")) == [" Hello. World. "]


def test_limits():
    assert sum(map(len, pieces("word " * 40_000))) == 200_000
    with pytest.raises(InvalidText, match="200,001"):
        list(pieces("x" * 200_001))
    with pytest.raises(InvalidText, match="empty"):
        list(pieces(" \n "))
