"""Rendered scenes whose whole truth is known.

    python -m rsvp.embedded.scenes --n 500 --seed 31337 --out DIR [--size PX] [--kinds a,b]
                                   [--queries K] [--photos DIR] [--style STYLE]
                                   [--wording plain|natural|unseen] [--task segment|qa|trace]
                                   [--language de,es,...]

writes `000000.png …` and one `scenes.json`: the name, group, keywords, box, mask and visible share
of every object; the kind, text, targets and reasoning objects of every query. The other tasks have
questions in their place: `rsvp.embedded.questions` (qa), `rsvp.embedded.traces` (trace).
An object whose drawing is not of the default style has a `style` too, a query that is not English
its `language`.
Scene i of a seed is the same for every `--n`. Boxes are xyxy in pixels of the written image, tight
around the visible mask.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from PIL import Image

from rsvp.embedded import backgrounds, questions, traces
from rsvp.embedded.languages import ENGLISH, LANGUAGES, ForeignWording
from rsvp.embedded.queries import ALL_KINDS, KINDS, Query, make_query
from rsvp.embedded.rendering import (
    ATTEMPTS,
    DEFAULT_SIZE,
    DEFAULT_STYLES,
    BaseScene,
    draw_objects,
    object_entry,
    sample_categories,
)
from rsvp.embedded.vocabulary import DEFAULT_STYLE, STYLES, undrawn
from rsvp.embedded.wording import PLAIN_WORDING, Wording
from rsvp.errors import BadInput, RsvpError, printable
from rsvp.platform.files import write_text
from rsvp.types import RgbArray

TASKS = ("segment", "qa", "trace")
MIN_SIZE, MAX_SIZE = 64, 4096
WORDINGS = {
    "plain": PLAIN_WORDING,
    "natural": Wording(natural=True),
    "unseen": Wording(natural=True, unseen=True),
}


@dataclass(frozen=True, slots=True)
class Scene(BaseScene):
    queries: tuple[Query, ...]

    def to_dict(self, name: str) -> dict[str, Any]:
        """The scene's entry in `scenes.json`; `name` is its image file."""
        queries = (
            {
                "kind": q.kind,
                "text": q.text,
                "targets": list(q.targets),
                "reasoning": list(q.reasoning),
                "unseen": q.unseen,
                **({} if q.language == ENGLISH else {"language": q.language}),
            }
            for q in self.queries
        )
        return self.entry(name, map(object_entry, self.objects), queries=queries)


class SceneOptions(TypedDict, total=False):
    """What the scenes of all tasks share.

    Attributes:
        size: side of the square image, pixels.
        count: how many queries or questions a scene has, at most.
        photos: (H, W, 3) uint8 arrays, used as backgrounds now and then.
        styles: of the drawings, see `vocabulary.sprites`; each object gets one at random.
    """

    size: int
    count: int
    photos: Sequence[RgbArray]
    styles: Sequence[str]


def render(
    rng: np.random.Generator,
    *,
    kinds: Sequence[str] = KINDS,
    wording: Wording = PLAIN_WORDING,
    **options: Unpack[SceneOptions],
) -> Scene:
    """One scene, its first query of a kind drawn from `kinds`.

    Raises:
        RsvpError: no scene allowed a query of the kind in `ATTEMPTS` attempts.
    """
    kind = kinds[int(rng.integers(len(kinds)))]
    return _compose(kind, kinds, rng, len(kinds), wording, **options)


def scenes(
    n: int,
    seed: int,
    *,
    kinds: Sequence[str] = KINDS,
    wording: Wording | Sequence[Wording] = PLAIN_WORDING,
    **options: Unpack[SceneOptions],
) -> Iterator[Scene]:
    """Scenes 0 … n-1 of a seed, their first kinds in turn; raises what `render` does.

    Of several wordings the next one is taken after each turn of the kinds.
    """
    wordings = (wording,) if isinstance(wording, Wording) else wording
    tries = 3 * (options.get("count", 1) - 1)
    for i in range(n):
        turn, place = divmod(i, len(kinds))
        rng, chosen = np.random.default_rng([seed, i]), wordings[turn % len(wordings)]
        yield _compose(kinds[place], kinds, rng, tries, chosen, **options)


def _compose(
    first_kind: str,
    kinds: Sequence[str],
    rng: np.random.Generator,
    tries: int,
    wording: Wording,
    *,
    size: int = DEFAULT_SIZE,
    count: int = 1,
    photos: Sequence[RgbArray] = (),
    styles: Sequence[str] = DEFAULT_STYLES,
) -> Scene:
    """A scene composed anew until it allows a query of the first kind.

    At most `tries` other kinds are tried for its other queries.
    """
    for _ in range(ATTEMPTS):
        chosen = sample_categories(first_kind, rng)
        canvas, objects = draw_objects(
            chosen, first_kind, rng, size=size, photos=photos, styles=styles
        )
        if objects and (first := make_query(first_kind, objects, rng, wording)):
            break
    else:
        raise RsvpError(f"no scene allowed a query of kind {first_kind!r} in {ATTEMPTS} attempts")
    queries, others = [first], [kind for kind in kinds if kind != first_kind]
    for i in rng.permutation(len(others))[:tries]:
        if len(queries) < count and (query := make_query(others[int(i)], objects, rng, wording)):
            queries.append(query)
    return Scene(canvas, objects, tuple(queries))


def write(args: argparse.Namespace) -> None:
    """Render scenes into a folder: the images, then `scenes.json`."""
    n, seed, size, out = args.n, args.seed, args.size, args.out
    if n < 1 or args.queries < 1 or seed < 0:
        raise BadInput("--n and --queries start at 1, --seed at 0")
    if size is not None and not MIN_SIZE <= size <= MAX_SIZE:
        raise BadInput(f"--size is {MIN_SIZE} to {MAX_SIZE} pixels, found {size}")
    wording = WORDINGS[args.wording]
    maker, known = _task(args.task)
    known = ALL_KINDS if wording.natural and args.task == "segment" else known
    wordings = [_in_language(code.strip(), wording) for code in args.language.split(",")]
    named = ",".join(known) if args.kinds is None else args.kinds
    kinds = [k.strip() for k in named.split(",") if k.strip()]
    unknown = ", ".join(k for k in kinds if k not in known)
    if unknown or not kinds:
        raise BadInput(f"unknown query kind {unknown or named!r}; known: {', '.join(known)}")
    styles = tuple(STYLES) if args.style == "mixed" else (args.style,)
    missing = {style: names for style in styles if (names := undrawn(style))}
    out.mkdir(parents=True, exist_ok=True)
    photos = backgrounds.load_photos(args.photos) if args.photos else ()
    entries = []
    options: dict[str, Any] = {"styles": styles}
    if size is not None:
        options["size"] = size
    if args.task == "segment":
        options["wording"] = wordings
    rendered = maker(n, seed, kinds=kinds, count=args.queries, photos=photos, **options)
    for i, scene in enumerate(rendered):
        name = f"{i:06d}.png"
        Image.fromarray(scene.rgb).save(out / name, compress_level=3)
        entries.append(scene.to_dict(name))
        if sys.stderr.isatty() and (i + 1) % 50 == 0:
            print(f"\r{i + 1}/{n} scenes", end="", file=sys.stderr)
    task = {} if args.task == "segment" else {"task": args.task}
    size = DEFAULT_SIZE if size is None and args.task != "qa" else size
    document = {"version": 1, **task, "seed": seed, "size": size, "kinds": kinds, "scenes": entries}
    write_text(out / "scenes.json", json.dumps(document))
    for style, names in missing.items():
        print(f"{style} does not draw {', '.join(names)}: {DEFAULT_STYLE} does", file=sys.stderr)
    print(printable(f"{n} scenes in {out}"), file=sys.stderr)


def _task(name: str) -> tuple[Callable[..., Iterator[Any]], Sequence[str]]:
    """What renders the scenes of a task, and the kinds of its questions, in turn."""
    if name == "segment":
        return scenes, KINDS
    if name == "qa":
        return questions.qa_scenes, questions.TURNS
    return traces.trace_scenes, traces.TURNS


def _in_language(language: str, wording: Wording) -> Wording:
    if language == ENGLISH:
        return wording
    if language not in LANGUAGES:
        raise BadInput(f"unknown language {language!r}; known: {', '.join(LANGUAGES)}")
    if wording.natural:
        raise BadInput("only English has natural wording")
    return ForeignWording(language=language)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rsvp.embedded.scenes", description=__doc__)
    parser.add_argument("--n", type=int, required=True, help="how many scenes")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--size", type=int,
        help=f"side of the image, pixels: {DEFAULT_SIZE}; of --task qa 1200 to 2400 at random",
    )  # fmt: skip
    parser.add_argument("--task", choices=TASKS, default="segment")
    natural = ",".join(ALL_KINDS[len(KINDS) :])
    parser.add_argument(
        "--kinds",
        help=f"comma-separated, of {','.join(KINDS)}, and with another wording also {natural}",
    )
    parser.add_argument(
        "--wording",
        choices=WORDINGS,
        default="plain",
        help="natural: ordinary English; unseen: with descriptions that were never trained on",
    )
    languages = f"comma-separated, in turn, of {', '.join(LANGUAGES)}"
    parser.add_argument("--language", default=ENGLISH, help=languages)
    parser.add_argument("--queries", type=int, default=1, help="queries a scene")
    parser.add_argument("--photos", type=Path, help="folder of photos for backgrounds")
    styles = f"of the drawings: {', '.join(STYLES)}, mixed, or a sheet or a folder of images"
    parser.add_argument("--style", default=DEFAULT_STYLE, help=styles)
    args = parser.parse_args(argv)
    try:
        write(args)
    except RsvpError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(printable(f"error: cannot write {args.out}: {error.strerror}"), file=sys.stderr)
        return BadInput.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
