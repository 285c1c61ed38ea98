"""Train the embedded models, on CPU or GPU alike.

    python -m recipes.embedded reasoner  --out RUN [--steps N] [--minutes M] [--photos DIR]
    python -m recipes.embedded reasoner  --out RUN --from RUN-OR-FOLDER [--shares marks=1,...]
    python -m recipes.embedded segmenter --out RUN [--steps N] [--minutes M] [--photos DIR]
    python -m recipes.embedded vlsm      --out RUN [--steps N] [--minutes M] [--photos DIR]
    python -m recipes.embedded install   [--reasoner RUN] [--segmenter RUN] [--vlsm RUN]
    python -m recipes.embedded curve     RUN/log.csv
    python -m recipes.embedded compare   --out DIR --minutes M

Ctrl-C checkpoints and stops; the same command goes on. `--minutes` bounds this call, `--steps` the
whole run and with it the learning-rate schedule. `--photos` is a folder of `images/` and
`instances.json`: the segmenters train on its split `train`, the reasoner takes backgrounds from it.
The VLSM learns on the embedded segmenter and the reasoner's token embeddings: install them first.
`--from` goes on from a trained reasoner (`embedded` is the packaged one), whose table of tokens
stays as it is: what was trained on its embeddings needs no new training. `--shares` says how often
each strategy comes, e.g. `boxes=0.4,grid=0.25,marks=0.35`.
`compare` trains the reasoner's architecture and transformers' Qwen3-VL for the same time each.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rsvp.errors import BadInput, RsvpError
from rsvp.registry import embedded_folder


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        {
            "reasoner": train_reasoner,
            "segmenter": train_segmenter,
            "vlsm": train_vlsm,
            "install": install,
            "curve": curve,
            "compare": compare,
        }[args.command](args)
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
    for name in ("reasoner", "segmenter", "vlsm", "compare"):
        sub = commands.add_parser(name)
        sub.add_argument("--out", type=Path, required=True, help="run folder; resumed if it exists")
        sub.add_argument("--minutes", type=float, help="stop (resumably) after so long")
        sub.add_argument("--photos", type=Path, help="folder of images/ and instances.json")
        sub.add_argument("--device", default=None, help="cpu or cuda; by default what is there")
        sub.add_argument("--threads", type=int, help="CPU threads; by default all")
        sub.add_argument("--steps", type=int, help="length of the whole run")
        sub.add_argument("--batch", type=int)
        sub.add_argument("--seed", type=int)
        if name == "reasoner":
            sub.add_argument("--perceive", type=int, help="steps before the first question")
            sub.add_argument("--asks", type=int, help="questions an image")
            sub.add_argument("--from", dest="start", help="a trained reasoner to go on from")
            sub.add_argument("--settle", type=int, help="steps in which only the helpers learn")
            sub.add_argument("--shares", type=shares, help="STRATEGY=SHARE,... of the images")
            sub.add_argument("--lr", type=float, help="learning rate of AdamW")
            sub.add_argument("--muon-lr", type=float, help="learning rate of Muon")
    sub = commands.add_parser("install", help="copy trained models into the package")
    sub.add_argument("--reasoner", type=Path)
    sub.add_argument("--segmenter", type=Path)
    sub.add_argument("--vlsm", type=Path)
    sub.add_argument("--strength", type=float, help="of the VLSM, 0 to 1; see VlsmConfig")
    sub = commands.add_parser("curve", help="print a run's learning curve")
    sub.add_argument("log", type=Path)
    sub.add_argument("--rows", type=int, default=20)
    return top


def settings(args: argparse.Namespace, plan: type[Any]) -> dict[str, Any]:
    """The plan's fields that were given on the command line."""
    given = {f.name: getattr(args, f.name, None) for f in fields(plan)}
    return {name: value for name, value in given.items() if value is not None}


def device(args: argparse.Namespace) -> str:
    """The device to train on; sets the thread count, too."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    return args.device or ("cuda" if torch.cuda.is_available() else "cpu")


def train_reasoner(args: argparse.Namespace) -> None:
    """Train the reasoner."""
    from recipes.embedded import reasoner
    from rsvp.embedded.backgrounds import load_photos

    photos = load_photos(training_photos(args.photos)) if args.photos else ()
    start = None if args.start is None else trained_model(args.start)
    kind = reasoner.Plan if start is None else reasoner.Tuning
    plan = kind(**settings(args, kind))
    reasoner.train(args.out, plan, photos, device(args), start=start)


def trained_model(name: str) -> Path:
    """The folder of a trained reasoner: of the package, of a run, or itself."""
    folder = embedded_folder("reasoner") if name == "embedded" else Path(name)
    for found in (folder / "model", folder):
        if (found / "config.json").exists():
            return found
    raise BadInput(f"{name} holds no trained reasoner: no config.json there or in its model/")


def shares(text: str) -> dict[str, float]:
    """`boxes=0.4,marks=0.6` as a mapping; what is not named has no share.

    Raises:
        ArgumentTypeError: another form, an unknown strategy, or no share above 0.
    """
    from rsvp.embedded.replies import NO_REGION

    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            found[name.strip()] = float(share)
        except ValueError:
            found[name.strip()] = -1.0
    if (
        not set(found) <= set(NO_REGION)
        or not all(0 <= s < math.inf for s in found.values())
        or not sum(found.values())
    ):
        raise argparse.ArgumentTypeError(
            f"shares are STRATEGY=SHARE,... of {', '.join(NO_REGION)}, found {text!r}"
        )
    return found


def train_segmenter(args: argparse.Namespace) -> None:
    """Train the segmenter."""
    from recipes.embedded import segmenter

    plan = segmenter.Plan(**settings(args, segmenter.Plan))
    segmenter.train(args.out, plan, args.photos, device(args))


def train_vlsm(args: argparse.Namespace) -> None:
    """Train the VLSM with the product's own loop."""
    from recipes.embedded import vlsm
    from rsvp.training.config import RunConfig

    habits = RunConfig(minutes=args.minutes, device=device(args))
    changes = {name: getattr(args, name) for name in ("steps", "batch", "seed")}
    given = {name: value for name, value in changes.items() if value is not None}
    vlsm.train(args.out, args.photos, habits, **given)


def compare(args: argparse.Namespace) -> None:
    """Train both architectures for the same time."""
    from recipes.embedded import comparison
    from recipes.embedded.reasoner import Plan

    usual = {"steps": 10**6, "perceive": 0, "batch": 20, "minutes": 10.0, "log_every": 1}
    comparison.run(args.out, Plan(**{**usual, **settings(args, Plan)}), device(args))


def training_photos(folder: Path) -> list[Path]:
    """The photos of split `train`: `val` is for measuring alone."""

    file = folder / "instances.json"
    if not file.exists():
        raise BadInput(f"{file} is missing: --photos names a folder of images/ and instances.json")
    images = json.loads(file.read_text(encoding="utf-8"))["images"]
    return [folder / "images" / i["file_name"] for i in images if i["split"] == "train"]


def install(args: argparse.Namespace) -> None:
    """Copy each run's exported model into the package's weights."""
    for kind, export in (("reasoner", "model"), ("segmenter", "model"), ("vlsm", "best")):
        run: Path | None = getattr(args, kind)
        if run is None:
            continue
        if not (run / export / "config.json").exists():
            raise BadInput(
                f"{run}/{export} holds no exported model: let the run end or interrupt it"
            )
        target = embedded_folder(kind)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(run / export, target)
        if kind == "vlsm" and args.strength is not None:
            _set_strength(target, args.strength)
        size = sum(f.stat().st_size for f in target.iterdir()) / 1e6
        print(f"{kind}: {size:.1f} MB in {target}")
    _fit_vlsm()


def _set_strength(vlsm: Path, strength: float) -> None:
    """Write the strength into a VLSM's `config.json`.

    Raises:
        BadInput: it is not from 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise BadInput(f"the strength is from 0 to 1, found {strength:g}")
    file = vlsm / "config.json"
    config = {**json.loads(file.read_text(encoding="utf-8")), "strength": strength}
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _fit_vlsm() -> None:
    """See that the packaged VLSM and the packaged reasoner go together."""
    vlsm, reasoner = embedded_folder("vlsm"), embedded_folder("reasoner")
    if not ((vlsm / "config.json").exists() and (reasoner / "config.json").exists()):
        return
    from recipes.embedded.words_kept import vouch

    if not vouch(vlsm, "embedded"):
        print("the VLSM was trained on other embeddings than this reasoner's: train it anew")


def curve(args: argparse.Namespace) -> None:
    """Print evenly spaced rows of a log."""
    if not args.log.exists():
        raise BadInput(f"{args.log} does not exist")
    with args.log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise BadInput(f"{args.log} is empty")
    step = max(1, len(rows) // max(1, args.rows))
    shown = rows[::-step][::-1]
    start = float(rows[0]["time"])
    columns = [c for c in rows[0] if c != "time"]
    print("| minutes | " + " | ".join(columns) + " |")
    print("|" + "---|" * (len(columns) + 1))
    for row in shown:
        cells = [f"{(float(row['time']) - start) / 60:.0f}"]
        cells += [f"{float(row[c]):.4g}" for c in columns]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    raise SystemExit(main())
