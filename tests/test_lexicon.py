from __future__ import annotations

import pytest

from rsvp.lexicon import Lexicon, normalize

TEXT = """
    dog puppy guitar t-shirt helicopter cup cut bread what thing with of red ice cream keeps paper
    together animal trunk sandwich would you make saw watch dogs barks my beside
"""


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(TEXT.split(), ["carburettor", "boar", "bear", "kangaroo", "cap", "teh"])


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("The dog", "dog"),
        ("WHERE IS THE DOG?!", "dog"),
        ("  segment   the cup ", "cup"),
        ("I am looking for the hammer", "hammer"),
        ("I'm searching for my yo-yo. Thanks!", "my yo yo"),
        ("Could you please find me the puppy?", "puppy"),
        ("I'd like you to segment the cat in the picture please", "cat"),
        ("Please show me what one would cut the bread with", "what one would cut bread with"),
        ("tell me where the dog is", "dog"),
        ("mask of the aeroplane", "aeroplane"),
        ("Cut out the bike for me", "bike"),
        ("is there a bird?", "bird"),
        ("I need the telephone", "telephone"),
        ("what's in the top left corner?", "what is in top left corner"),
        ("which pixels belong to the dog?", "dog"),
        ("Is there a bird? Mark it, please.", "bird"),
        ("what would you use to find it", "what would you use to find it"),
        ("watch", "watch"),  # words that are requests elsewhere
        ("a saw", "saw"),
        ("please", "please"),
        ("the man’s best friend", "man's best friend"),
        ("?!", ""),
    ],
)
def test_what_says_nothing_is_removed(typed: str, read: str) -> None:
    assert normalize(typed) == read


def test_hyphens_of_known_words_stay() -> None:
    assert normalize("The T-Shirt, well-worn", {"t-shirt"}) == "t-shirt well worn"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("gitar", "guitar"),  # one letter missing, changed, added, exchanged
        ("guitat", "guitar"),
        ("guittar", "guitar"),
        ("giutar", "guitar"),
        ("helicopters", "helicopter"),
        ("cutting", "cut"),
        ("dogs", "dogs"),
        ("icecream", "ice cream"),
        ("keep papers togehter", "keeps paper together"),
        ("t-shirt", "t-shirt"),
        ("2 dogs", "2 dogs"),
        ("teh dog", "dog"),
        ("plese sgement the dog", "dog"),
    ],
)
def test_spelling_and_inflections(lexicon: Lexicon, typed: str, read: str) -> None:
    assert lexicon.read(typed) == (read, ())


@pytest.mark.parametrize("word", ["carburettor", "kangaroo", "boar", "xyzzyqq"])
def test_unknown_words_are_named(lexicon: Lexicon, word: str) -> None:
    """An English word is no typing error, even one letter away from a known one."""
    assert lexicon.read(f"The {word} beside the dog?").unknown == (word,)


def test_a_lexicon_is_stored_beside_the_weights(lexicon: Lexicon, tmp_path) -> None:
    assert Lexicon.load(tmp_path) is None
    lexicon.save(tmp_path)
    loaded = Lexicon.load(tmp_path)
    assert loaded is not None
    assert loaded.words == lexicon.words
    assert loaded.english == {"cap", "teh"}  # the only ones that one letter makes known
    for query in ("the cap", "a carburettor", "teh bear", "gitar", "kangaroos"):
        assert loaded.read(query) == lexicon.read(query)
