"""More English for the names of the scenes, from WordNet: `world/wordnet.toml`.

    python -m recipes.embedded wordnet --source DIR --word-vectors FILE

reads `index.noun` and `data.noun` of WordNet (in /usr/share/wordnet of Debian's wordnet-base) and
writes synonyms and kinds of each name as nouns, and what reads as a noun phrase of each definition
as phrases. It keeps what ordinary English calls so, what fits one name alone, and what
`descriptions.toml` lacks. Words that the vectors do not count as frequent are left out.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from recipes.embedded.words import english, load_vectors
from rsvp.embedded import descriptions
from rsvp.embedded.descriptions import WORDNET, WRITTEN
from rsvp.embedded.vocabulary import FOLDER, categories, groups, plural
from rsvp.errors import BadInput
from rsvp.platform.files import write_text

DEPTH = 3  # levels of kinds below a name
MOST_WORDS = 2  # of a noun
PHRASE_WORDS = range(3, 15)
HYPONYM = "~"

_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SENSES: Mapping[str, list[str]] = _TABLES["senses"]
STOP_NOUNS = frozenset(" ".join(_TABLES["stop_nouns"].split()).split("; "))
STOP_PHRASES = re.compile(
    r"""\b(?:genus|species|various|several|some|numerous|variety|many\s(?:varieties|passengers)|they
        |reeds|pre-columbian|name\sfor|group|breeds|young\sborn|consists|characteristically|melons
        |farming|covers)\b
    | \bengine$ | \btime\sof\sday$ | has\slong\shandle$ | bread\sroll$ | cutting\sinstrument$
    | cap\swith\sa\sbill$
    | ^(?:of|larger|closely|usually|wingless|technically|grow|related|as\smuch)\b""",
    re.VERBOSE,
)

_ASIDES = re.compile(r'"[^"]*"?|\([^)]*\)')  # examples and remarks of a definition
_START = re.compile(r"^(?:an? |the )?(?:(?:type|kind) of )?(?:an? |the )?")
_USE = re.compile(r"^(?:usually |often )?((?:used|worn|played|flown|served|propelled|having|for) )")
_FEATURE = re.compile(r"^(?:it |usually |often )*((?:has|is|inhabits|reaches|occurs) )")


class Synset(NamedTuple):
    """A meaning: its words, its definition and the offsets of its kinds."""

    words: tuple[str, ...]
    definition: str
    kinds: tuple[str, ...]


class WordNet:
    """The nouns of WordNet.

    Args:
        folder: of index.noun and data.noun.

    Raises:
        BadInput: a file is missing or malformed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.senses = dict(map(_read_index, _lines(folder / "index.noun")))
            self.synsets = dict(map(_read_synset, _lines(folder / "data.noun")))
        except (OSError, ValueError, IndexError) as error:
            raise BadInput(f"{folder} holds no index.noun and data.noun: {error}") from error

    def of_name(self, name: str) -> list[str]:
        """The offsets of a name's synsets."""
        senses = SENSES.get(name, [f"{name.replace(' ', '_')} 1"])
        pairs = [sense.split() for sense in senses]
        return [self.senses[word][int(number) - 1] for word, number in pairs]

    def nouns(self, offset: str, depth: int = DEPTH) -> Iterator[str]:
        """The words of a synset and of its kinds, where the synset is their first meaning."""
        for word in self.synsets[offset].words:
            if self.senses[word.lower()][0] == offset and not self._is_latin(word):
                yield word.replace("_", " ").lower()
        for kind in self.synsets[offset].kinds if depth else ():
            yield from self.nouns(kind, depth - 1)

    def _is_latin(self, word: str) -> bool:
        """Whether it is the scientific name of a species, such as Canis_familiaris."""
        first, *rest = word.split("_")
        return first[0].isupper() and bool(rest) and not all(w.lower() in self.senses for w in rest)


def _lines(file: Path) -> Iterator[str]:
    """The lines after the licence."""
    return (line for line in file.read_text(encoding="utf-8").splitlines() if line[:1] != " ")


def _read_index(line: str) -> tuple[str, list[str]]:
    """A word, and the offsets of its synsets."""
    fields = line.split()
    return fields[0], fields[-int(fields[2]) :]


def _read_synset(line: str) -> tuple[str, Synset]:
    """An offset and its synset; four fields describe a pointer."""
    data, _, definition = line.partition(" | ")
    fields = data.split()
    end = 4 + 2 * int(fields[3], 16)
    pointers = fields[end + 1 :]
    kinds = [t for s, t in zip(pointers[::4], pointers[1::4], strict=False) if s == HYPONYM]
    return fields[0], Synset(tuple(fields[4:end:2]), definition, tuple(kinds))


def phrases(definition: str) -> Iterator[str]:
    """The clauses of a definition as noun phrases, where they read as such."""
    for clause in _ASIDES.sub("", definition).lower().split(";"):
        text = _START.sub(
            "", " ".join(clause.partition(":")[0].replace(",", " ").split()).rstrip(".:")
        )
        text = _FEATURE.sub(r"thing that \1", _USE.sub(r"thing \1", text))
        if len(text.split()) in PHRASE_WORDS and not STOP_PHRASES.search(text):
            yield text


def build(source: Path, vectors: Path) -> None:
    """Write wordnet.toml.

    Args:
        source: folder of WordNet's index.noun and data.noun.
        vectors: see `words.load_vectors`.

    Raises:
        BadInput: a file is missing or malformed.
    """
    wordnet, frequent = WordNet(source), frozenset(english(load_vectors(vectors)))
    written = descriptions.read(WRITTEN)
    taken = {d.text.lower() for d in written} | set(groups()) | STOP_NOUNS
    taken |= {name for c in categories() for name in (c.name, plural(c.name), *c.keywords)}
    found: dict[str, dict[str, list[str]]] = {}
    for c in categories():
        own = [d.text for d in written if d.categories == {c.index} and d.form == "nouns"]
        heads = {noun.split()[-1] for noun in (c.name, *own)}
        offsets = wordnet.of_name(c.name)
        nouns = dict.fromkeys(noun for offset in offsets for noun in wordnet.nouns(offset))
        clauses = [p for o in offsets for p in phrases(wordnet.synsets[o].definition)]
        found[c.name] = {
            "nouns": [n for n in nouns if n not in taken and _is_usual(n, heads, frequent)],
            "phrases": [p for p in clauses if p not in taken],
        }
    counts = Counter(text for table in found.values() for texts in table.values() for text in texts)
    lines = [
        "# Synonyms, kinds and definitions of WordNet 3.0 for the names of the scenes; see NOTICE.",
        "# recipes/embedded/wordnet.py makes this file; its format is that of descriptions.toml.",
    ]
    for name, table in found.items():
        kept = {form: [t for t in texts if counts[t] == 1] for form, texts in table.items()}
        lines += ["", f"[{json.dumps(name)}]"] if any(kept.values()) else []
        lines += [f"{form} = {json.dumps(texts)}" for form, texts in kept.items() if texts]
    write_text(FOLDER / WORDNET, "\n".join(lines) + "\n")


def _is_usual(noun: str, heads: Collection[str], frequent: Collection[str]) -> bool:
    """Whether its words are frequent; of two words the last one must name the thing by itself."""
    words = noun.replace("-", " ").split()
    few = " " not in noun or words[-1] in heads
    return few and len(words) <= MOST_WORDS and all(word in frequent for word in words)
