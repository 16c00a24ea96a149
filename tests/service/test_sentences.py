import re

from hypothesis import given, settings
from hypothesis import strategies as st

from speechpool.service.sentences import MAX_CHARACTERS, MAX_WORDS, Sentences, is_speakable

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def cut(*pieces):
    """Feed the pieces; return what each feed released, and what the flush did."""
    sentences = Sentences()
    return [sentences.feed(piece) for piece in pieces], sentences.flush()


def spoken(*pieces):
    fed, rest = cut(*pieces)
    return [each.strip() for each in (*[s for some in fed for s in some], *rest)]


def test_complete_sentences_are_released_and_the_tail_stays():
    fed, rest = cut("Hello there. How are you? I am")
    assert [each.strip() for each in fed[0]] == ["Hello there.", "How are you?"]
    assert rest == ["I am"]


def test_a_sentence_at_the_end_of_a_piece_is_released_at_once():
    for text in ("Hello there.", "Really?!", "Stop! ", 'He said "yes!"', "你好。", "It costs 30. "):
        assert cut(text) == ([[text]], [])


def test_what_may_go_on_is_kept_but_known_to_be_undecided():
    for text in ("We met Dr.", "It costs 30.", "Well...", "Note:", "one;", "in the U.S.", "a line\n"):
        sentences = Sentences()
        assert sentences.feed(text) == []
        assert sentences.undecided
        assert sentences.flush() == [text]
        assert not sentences.undecided


def test_a_tail_without_any_end_is_not_undecided():
    sentences = Sentences()
    assert sentences.feed("Hello") == []
    assert not sentences.undecided


def test_decimals_and_abbreviations_are_not_torn_between_pieces():
    assert spoken("It costs 3", ".", "14 dollars. ", "Dr", ".", " Smith paid.") == [
        "It costs 3.14 dollars.",
        "Dr. Smith paid.",
    ]


def test_tokens_of_a_language_model_give_the_sentences_of_the_whole():
    text = "The first one is here. Mr. Jones paid $3.50 at 10 a.m. and left. What then? Nobody knows; it was late."
    tokens = re.findall(r"\s*\w+|\s*[^\w\s]", text)
    assert spoken(*tokens) == spoken(text)
    assert len(spoken(text)) == 4


def test_runs_without_an_end_are_cut_at_a_clause_or_between_words():
    words = [f"word{number}" for number in range(100)]
    pieces = spoken(" ".join(words))
    assert [len(piece.split()) for piece in pieces] == [40, 40, 20]
    words[29] += ","
    assert [len(piece.split()) for piece in spoken(" ".join(words))] == [30, 40, 30]


def test_a_run_without_spaces_is_cut_by_its_length():
    assert [len(piece) for piece in spoken("x" * 1000)] == [400, 400, 200]
    assert max(map(len, spoken("话" * 1000))) <= MAX_CHARACTERS


def test_a_long_run_is_cut_alike_in_any_pieces():
    text = " ".join(f"word{number}" for number in range(100)) + "."
    assert spoken(*(text[at : at + 7] for at in range(0, len(text), 7))) == spoken(text)


def test_controls_nul_and_half_surrogates_are_stripped():
    assert spoken("He\x00l\x07lo\ud800 there.\x1b") == ["Hello there."]


def test_space_and_nothing_give_nothing_to_say():
    assert cut("", "  ", "\n\n") == ([[], [], []], ["  \n\n"])
    assert not is_speakable("  \n\n… 😀 !")
    assert is_speakable("4")


PIECES = st.lists(
    st.text(alphabet=st.sampled_from("ab Z.,!?:;…\"'()1\n\t。，你\x00\ud801😀"), max_size=60), max_size=12
)


@settings(max_examples=300, deadline=None)
@given(PIECES)
def test_nothing_visible_is_ever_lost(pieces):
    fed, rest = cut(*pieces)
    joined = "".join([sentence for some in fed for sentence in some] + rest)
    assert joined == CONTROLS.sub("", "".join(pieces))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(min_size=0, max_size=300), max_size=6))
def test_no_piece_is_ever_too_long(pieces):
    fed, rest = cut(*pieces)
    for sentence in [s for some in fed for s in some] + rest:
        assert len(sentence.split()) <= MAX_WORDS
        assert len(sentence.rstrip()) <= MAX_CHARACTERS


PLAIN = st.lists(st.sampled_from(["Hello", "the", "cat", "sat", "World", "end.", "Why?", "no,", "Go!"]), min_size=1)


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.data())
def test_any_pieces_give_the_same_sentences(words, data):
    text = " ".join(words)
    # Cuts inside words only: one right behind a full stop is where a sentence is spoken at once.
    places = [at for at in range(1, len(text)) if text[at - 1].isalpha() and text[at].isalpha()]
    cuts = sorted(data.draw(st.sets(st.sampled_from(places)))) if places else []
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert spoken(*pieces) == spoken(text)
