"""Words at their places in a longer speech."""

from speechpool.protocol import Phoneme, PronouncedWord, Word


def test_a_word_and_its_sounds_are_moved_and_nothing_else_is_changed():
    assert Word("one", 1, 4, 100, 300.5).later(1000) == Word("one", 1, 4, 1100, 1300.5)
    word = PronouncedWord("two", 0, 3, 0, 200, (Phoneme("t", None, 0, 50), Phoneme("u", 4, 50, 200)))
    moved = PronouncedWord("two", 0, 3, 500, 700, (Phoneme("t", None, 500, 550), Phoneme("u", 4, 550, 700)))
    assert word.later(500) == moved
    assert word.later(0) == word
