from __future__ import annotations

from pathlib import Path

import pytest

from recipes.embedded.wordnet import WordNet, phrases
from rsvp.embedded import descriptions
from rsvp.errors import BadInput

INDEX = """\
  1 a line of the licence
dog n 2 1 ~ 2 1 00000002 00000009
hound n 1 1 @ 1 0 00000003
canis_familiaris n 1 0 1 0 00000002
german_shepherd n 1 0 1 0 00000003
shepherd n 1 0 1 0 00000009
"""
DATA = """\
  1 a line of the licence
00000002 05 n 02 dog 0 Canis_familiaris 0 001 ~ 00000003 n 0000 | an animal; "the dog barked"
00000003 05 n 02 hound 0 German_shepherd 0 001 @ 00000002 n 0000 | a hunting dog
00000009 05 n 02 dog 1 shepherd 0 000 | someone else
"""


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    (tmp_path / "index.noun").write_text(INDEX)
    (tmp_path / "data.noun").write_text(DATA)
    return WordNet(tmp_path)


def test_nouns_are_the_words_of_a_meaning_and_of_its_kinds(wordnet: WordNet) -> None:
    [offset] = wordnet.of_name("dog")
    assert list(wordnet.nouns(offset)) == ["dog", "hound", "german shepherd"]
    assert list(wordnet.nouns(offset, depth=0)) == ["dog"]


@pytest.mark.parametrize(
    ("definition", "read"),
    [
        ("a hand tool for driving screws; has a tip", ["hand tool for driving screws"]),
        ('the adult male chicken (or not); "a cock crows"', ["adult male chicken"]),
        ("usually worn on both feet", ["thing worn on both feet"]),
        ("any of numerous animals of the genus Canis", []),
        ("it has a very long neck", ["thing that has a very long neck"]),
    ],
)
def test_clauses_become_noun_phrases(definition: str, read: list[str]) -> None:
    found = list(phrases(definition))
    assert found[: len(read)] == read
    assert all(text in found for text in read)


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"index\.noun"):
        WordNet(tmp_path)


def test_the_file_repeats_no_description() -> None:
    written = {d.text.lower() for d in descriptions.read(descriptions.WRITTEN)}
    found = [d.text for d in descriptions.read(descriptions.WORDNET)]
    assert len(found) == len(set(found)) > 400
    assert not written & set(found)
