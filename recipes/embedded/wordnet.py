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

# Name -> its synsets where they are not the first sense of the name: a word and its sense.
SENSES: Mapping[str, tuple[str, ...]] = {
    "banana": ("banana 2",), "pineapple": ("pineapple 2",), "watermelon": ("watermelon 2",),
    "grapes": ("grape 1",), "red apple": ("apple 1",), "carrot": ("carrot 1", "carrot 3"),
    "broccoli": ("broccoli 2",), "ear of corn": ("corn 1", "corn 3", "ear 5"),
    "cucumber": ("cucumber 2",), "hot pepper": ("hot_pepper 2",), "onion": ("onion 1", "onion 3"),
    "hot dog": ("hot_dog 2", "hot_dog 3"), "cheese wedge": ("cheese 1",),
    "doughnut": ("doughnut 2",), "lollipop": ("lollipop 2",), "soft ice cream": ("ice_cream 1",),
    "honey pot": ("honey 1",), "teacup without handle": ("teacup 1", "teacup 2"),
    "wine glass": ("wineglass 1", "wine 1"), "beer mug": ("beer_mug 1", "beer 1"),
    "glass of milk": ("milk 1",), "cup with straw": ("soft_drink 1",),
    "baby bottle": ("feeding_bottle 1",),
    "kitchen knife": ("knife 1", "knife 2"), "fork and knife": ("cutlery 2",),
    "chopsticks": ("chopstick 1",), "cow": ("cow 1", "cattle 1"), "tiger": ("tiger 2",),
    "tropical fish": (), "nesting dolls": (),
    "rabbit": ("rabbit 1", "hare 1"), "rooster": ("rooster 1",), "octopus": ("octopus 2",),
    "dolphin": ("dolphin 2",), "blowfish": ("blowfish 2",), "turtle": ("turtle 2",),
    "honeybee": ("honeybee 1", "bee 1"), "scorpion": ("scorpion 3",), "rose": ("rose 1",),
    "mushroom": ("mushroom 3",), "potted plant": ("houseplant 1",),
    "four leaf clover": ("clover 1",), "rocket": ("rocket 1", "spacecraft 1"),
    "basketball": ("basketball 2",), "american football": ("football 2",),
    "tennis": ("tennis_racket 1", "tennis_ball 1"), "baseball": ("baseball 2",),
    "kite": ("kite 3",), "puzzle piece": ("jigsaw_puzzle 1",), "game die": ("die 1",),
    "balloon": ("balloon 2",), "jeans": ("jean 1",), "socks": ("sock 1",), "gloves": ("glove 2",),
    "billed cap": ("baseball_cap 1",), "high-heeled shoe": ("pump 3",), "hammer": ("hammer 2",),
    "wrench": ("wrench 3",), "carpentry saw": ("saw 2",), "television": ("television 3",),
    "radio": ("radio 2",), "headphone": ("headphone 1", "headset 1"),
    "sponge": ("sponge 1",), "straight ruler": ("ruler 2",), "hourglass done": ("hourglass 1",),
    "mantelpiece clock": ("clock 1",), "pill": ("pill 2",),
}  # fmt: skip

# What WordNet says and people would not, or would of other things too.
_STOP_NOUNS = """
    abm; accommodation ladder; accordion door; air thermometer; alligator wrench; ambulance;
    bagel; ballistic missile; bastard turtle; bath chair; bayonet; bean beetle; beckman
    thermometer; beef; beef cattle; black bee; black whale; bleu; blue cheese; blush wine;
    bomber; bow tie; bow-tie; bowie knife; broom palm; bubbly; bulldog wrench; bulldozer;
    bullock; bun; buttermilk; cabbage tree; canary wine; car door; carriage wrench; cat shark;
    cellular telephone; champagne; charger; chilly; chocolate milk; cinnamon toast; coco;
    columbian mammoth; condensed milk; cottage cheese; cougar; cow shark; crab cactus; cracker;
    cream cheese; crow-bait; crown saw; cruiser; cub shark; cutoff saw; dawn horse; dayton ax;
    dayton axe; delicious; dent corn; digital clock; dirk; dog biscuit; dog wrench; double-prop;
    dredging bucket; dress hat; dried milk; dry milk; dun; entire; evaporated milk; fan-jet;
    feather palm; field magnet; fighting chair; fish duck; fish loaf; flamingo plant; flick
    knife; flint corn; flint maize; flour corn; flute glass; fortune cookie; four-spot; fox
    shark; french telephone; funny wagon; gas thermometer; generic; generic wine; german bee;
    gluten bread; golden delicious; graham bread; grandfather clock; grated cheese; green corn;
    green onion; guided missile; gypsy cab; hand cheese; handset; hatchback door; hearing dog;
    hip bath; hock; hook wrench; hot-rod; imperial elephant; imperial mammoth; interceptor;
    italian bee; ivory palm; jack ladder; jeep; jewish rye; jonathan; jug wine; kamikaze; key
    palm; killer whale; knee-hi; kris; ladder-back; lady palm; lady tulip; lake duck; large
    white; leaf-cutter; lemon shark; leopard cat; lower; lower berth; machete; mantua; marriage
    bed; marsh hare; meat cleaver; meat loaf; mercy seat; metal saw; minivan; monkey ladder;
    moselle; muffin; munich beer; narrow-body; newfoundland; northern mammoth; one-spot;
    operating microscope; orange toast; ordinary bicycle; otter hound; oxen; pace car; pacer;
    pancake turtle; panda car; panther cat; paper knife; pariah dog; patrol car; pay-station;
    peacock; peacock-throne; pembroke; pie-dog; pilot bread; pilot ladder; pilot whale; pin
    wrench; pink wine; pinot chardonnay; pinto; plank-bed; platinum thermometer; pocket knife;
    pole horse; police car; poll parrot; polo-neck; post horse; post-horse; pot cheese; potter
    bee; powdered milk; prima; process cheese; prowl car; pruning knife; puma; purple clover;
    purple onion; quark cheese; rat cheese; receiving set; red clover; refrigerator cookie;
    resistance thermometer; reversing thermometer; rhine wine; ridley; rioja; rogue elephant;
    rouge plant; rush candle; sam; sari; scaling ladder; scorpion shell; sea ladder; sherry;
    shiv; side drum; six-spot; skillet bread; slate pencil; slave ant; slave-maker; sleeping
    capsule; small white; soft corn; soup-fin; sour milk; sparkling wine; spectator pump; spoon
    bread; spring onion; springing cow; squad car; static magnet; stock car; store cheese; straw
    wine; string tie; stud mare; surgical knife; suv; swamp hare; swedish rye; system clock;
    tabor; tail-flower; tanker plane; thatch palm; thatch tree; tiger cat; tonic; trench knife;
    trolley coach; true cat; tuna; turret clock; twin-prop; upper; upper berth; used-car;
    varying hare; vigil light; vintage; wall clock; water clock; wedding gown; western ax;
    western axe; wheel horse; wheelchair; white beer; white burgundy; white tie; white whale;
    white wine; wide-body; wine bucket; wine palm; wood drake; woolly mammoth; yacht chair;
    yankee corn; yellow delicious
"""
STOP_NOUNS = frozenset(" ".join(_STOP_NOUNS.split()).split("; "))
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
        senses = SENSES.get(name, (f"{name.replace(' ', '_')} 1",))
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
