"""From what was sent to what is spoken, and back."""

import pytest

from speechpool.protocol.events import Word
from speechpool.service.passages import Passage, Reading
from speechpool.service.readings import Replacements, spoken_text, words_as_written


def spoken_words(text):
    words, at = [], 0
    for number, word in enumerate(text.split()):
        at = text.index(word, at)
        words.append(Word(word, at, at + len(word), number * 100, number * 100 + 100))
        at += len(word)
    return words


def replaced(text, *pairs):
    return Passage(text=text, readings=Replacements(pairs).add(text))


@pytest.mark.parametrize(
    ("text", "pairs", "spoken"),
    [
        ("a b", [], "a b"),
        ("a b a", [("a", "x")], "x b x"),
        ("New York City", [("New", "Old"), ("New York", "Boston")], "Boston City"),
        ("ab", [("a", "b"), ("b", "a")], "ba"),
        ("aaa", [("aa", "b")], "ba"),
        ("1+1", [("+", " plus ")], "1 plus 1"),
        ("a-b", [("-", "")], "ab"),
        ("A a", [("a", "x")], "A x"),
        ("他在草地上", [("草地", "草坪")], "他在草坪上"),
    ],
)
def test_the_longest_text_is_replaced_once(text, pairs, spoken):
    assert spoken_text(replaced(text, *pairs)) == spoken


def test_what_is_read_otherwise_already_is_not_replaced():
    passage = Passage(text="one two three", readings=(Reading(4, 7, "2"),))
    readings = Replacements([("two", "x"), ("one t", "y"), ("three", "3"), ("2", "z")]).add(
        passage.text, passage.readings
    )
    assert spoken_text(Passage(text=passage.text, readings=readings)) == "one 2 3"


@pytest.mark.parametrize(
    ("text", "pairs", "words"),
    [
        ("In 1984 it was.", [("1984", "1 9 8 4")], ["In", "1984", "it", "was."]),
        ("WWW is it", [("WWW", "World Wide Web")], ["WWW", "is", "it"]),
        ("so New York is", [("New York", "NYC")], ["so", "New York", "is"]),
        ("AB c", [("A", "Alpha ")], ["A", "B", "c"]),
        ("AB c", [("A", "Alpha")], ["AB", "c"]),
        ("a - b", [("-", "")], ["a", "b"]),
        ("x y", [("x", "1 2"), ("y", "3 4")], ["x", "y"]),
    ],
)
def test_words_are_those_that_were_sent(text, pairs, words):
    passage = replaced(text, *pairs)
    heard = spoken_words(spoken_text(passage))
    result = words_as_written(passage, heard)
    assert [word.text for word in result] == words
    assert all(text[word.begin_index : word.end_index] == word.text for word in result)
    assert result[0].begin_time == 0
    assert result[-1].end_time == heard[-1].end_time
    assert all(word.begin_time < word.end_time for word in result)


def test_a_word_lasts_as_long_as_all_that_is_spoken_for_it():
    passage = replaced("In 1984 it", ("1984", "1 9 8 4"))
    assert words_as_written(passage, spoken_words(spoken_text(passage)))[1] == Word("1984", 3, 7, 100, 500)
