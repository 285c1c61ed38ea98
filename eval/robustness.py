"""How much the spelling of a question costs: the scenes' own questions, written in other ways.

    python -m eval.robustness [--preset NAME] [--seed 31337] [--limit 500] [--json]

    plain         as the scenes ask it
    capital       a capital first letter
    upper case    capitals only
    please        "…, please"
    polite        "Could you … for me?"
    spaces        doubled spaces, no punctuation
    typo          one random letter of a longer word dropped, doubled, replaced or exchanged
                  with the one before it

prints the gIoU of each, and its difference to the plain questions with its paired interval.
"""

from __future__ import annotations

import argparse
import json
import string
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eval._common import make_parser, run, show_progress
from eval.natural import ask, union
from rsvp import presets
from rsvp.embedded.scenes import scenes
from rsvp.errors import BadInput
from rsvp.evaluation import metrics
from rsvp.evaluation.stats import mean_interval, paired_difference
from rsvp.pipeline import Pipeline

Scores = dict[str, list[float]]

SEED = 31337
SHORTEST = 4  # letters of a word that gets a typo, where the question has such a word
IMPERATIVES = ("find ", "show me ", "segment ")
QUESTION_WORDS = ("what ", "which ", "where ", "is ", "I ")

_NO_PUNCTUATION = str.maketrans("", "", ".,?!")  # a hyphen belongs to the word


def polite(text: str) -> str:
    """A question put into a polite frame that fits its grammar."""
    bare = text.rstrip(".?!")
    if text.startswith(IMPERATIVES):
        return f"Could you {bare} for me?"
    if text.startswith(QUESTION_WORDS):
        return f"Could you please help me: {text}"
    return f"Could you find {bare} for me?"


def typo(text: str, rng: np.random.Generator) -> str:
    """A text with one letter dropped, doubled, replaced, or exchanged with the one before."""
    words = text.split(" ")
    places = [(w, i) for w, word in enumerate(words) for i, c in enumerate(word) if c.isalpha()]
    places = [(w, i) for w, i in places if len(words[w]) >= SHORTEST] or places
    if not places:
        return text
    w, i = places[int(rng.integers(len(places)))]
    before, letter, after = words[w][:i], words[w][i], words[w][i + 1 :]
    other = string.ascii_lowercase[int(rng.integers(26))]
    swapped = before[:-1] + letter + before[-1:]
    changed = (before + after, before + 2 * letter + after, before + other + after, swapped + after)
    choices = [word for word in changed if word not in ("", words[w])]
    words[w] = choices[int(rng.integers(len(choices)))]
    return " ".join(words)


SPELLINGS: Mapping[str, Callable[[str, np.random.Generator], str]] = {
    "plain": lambda text, _: text,
    "capital": lambda text, _: text[:1].upper() + text[1:],
    "upper case": lambda text, _: text.upper(),
    "please": lambda text, _: text.rstrip("?") + ", please" + "?" * text.endswith("?"),
    "polite": lambda text, _: polite(text),
    "spaces": lambda text, _: text.translate(_NO_PUNCTUATION).replace(" ", "  "),
    "typo": typo,
}


def measure(
    pipeline: Pipeline,
    limit: int,
    seed: int = SEED,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """IoU of every question in every spelling, in the scenes' order.

    Args:
        limit: how many scenes; each has one question.
        seed: of the scenes and of the typos.
        progress: called with the number of scenes that are done, and of all.
    """
    scores: Scores = {name: [] for name in SPELLINGS}
    for number, scene in enumerate(scenes(limit, seed)):
        (query,) = scene.queries
        truth = union((scene.objects[i].mask for i in query.targets), scene.rgb)
        rng = np.random.default_rng([seed, number])
        for name, spell in SPELLINGS.items():
            answer = ask(pipeline, scene.rgb, spell(query.text, rng))
            scores[name].append(metrics.iou(metrics.overlap(answer.mask, truth)))
        if progress is not None:
            progress(number + 1, limit)
    return scores


def format_table(scores: Scores) -> str:
    """gIoU of each spelling and its difference to the plain questions, as text."""
    lines = [f"{'':<12}{'gIoU':<24}- plain"]
    for name, ious in scores.items():
        gain = paired_difference(scores["plain"], ious) if name != "plain" else ""
        lines.append(f"{name:<12}{mean_interval(ious)!s:<24}{gain}".rstrip())
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("robustness", __doc__)
    parser.add_argument("--preset", default=presets.DEFAULT)
    parser.add_argument("--seed", type=int, default=SEED, help="of the scenes and the typos")
    parser.add_argument("--limit", type=int, default=500, help="how many scenes")
    parser.add_argument("--json", action="store_true", help="print every IoU")
    return run(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    if args.limit < 1:
        raise BadInput(f"the limit is at least 1 scene, found {args.limit}")
    pipeline = Pipeline.from_preset(args.preset)
    scores = measure(pipeline, args.limit, args.seed, progress=show_progress)
    print(json.dumps(scores) if args.json else format_table(scores))


if __name__ == "__main__":
    raise SystemExit(main())
