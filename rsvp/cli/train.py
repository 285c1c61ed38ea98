"""`rsvp train`: the VLSM, the one part that is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rsvp.cli import console
from rsvp.cli.options import AsJson, Debug, Verbose, begin

INTERRUPTED = 130

Data = Annotated[
    list[str],
    typer.Option(
        metavar="SPEC",
        help="What to train on: refcoco:DIR, reasonseg:DIR, coco:DIR (each with #SPLIT if need "
        "be), jsonl:FILE or scenes:SEED. May be given several times; what is given twice counts "
        "double.",
    ),
]
EvalData = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SPEC",
        help="What to measure on; by default every 20th picture is held out of --data.",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SPEC",
        help="Pictures on which SAM 2's own masks are kept, whatever the text: what is not to be "
        "unlearned.",
    ),
]
TextEncoder = Annotated[
    str,
    typer.Option(
        metavar="ID-OR-FOLDER",
        help="The frozen text encoder of a new VLSM: CLIP, SigLIP, BERT-like, or an MLLM, whose "
        "token embeddings are taken.",
    ),
]
Fusion = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=N",
        help="A setting of a new VLSM's fusion: width, blocks, heads, queries, grid.",
    ),
]


def train(
    *,
    data: Data,
    out: Annotated[str, typer.Option(metavar="DIR", help="The run's folder.")],
    segmenter: Annotated[
        str,
        typer.Option(
            metavar="SPEC", help="sam2:ID-OR-FOLDER to build on, or vlsm:FOLDER to go on from."
        ),
    ] = "sam2:facebook/sam2.1-hiera-large",
    text_encoder: TextEncoder = "openai/clip-vit-base-patch32",
    keep: Keep = None,
    eval_data: EvalData = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of the optimiser.")] = 5000,
    batch: Annotated[
        int, typer.Option(metavar="N", help="Pictures a step, over all GPUs and pieces.")
    ] = 16,
    accumulate: Annotated[
        int, typer.Option(metavar="N", help="Pieces of a GPU's share, one after the other.")
    ] = 1,
    lr: Annotated[float, typer.Option(metavar="RATE", help="The learning rate.")] = 5e-4,
    precision: Annotated[str, typer.Option(metavar="NAME", help="bf16, fp16 or no.")] = "bf16",
    focal: Annotated[
        float, typer.Option(metavar="GAMMA", help="Focal loss instead of BCE; 0 is BCE.")
    ] = 0.0,
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The measure by which the best is kept: ambiguous, clean, jittered, bands, "
            "shared or presence_auc.",
        ),
    ] = "ambiguous",
    eval_every: Annotated[int, typer.Option(metavar="N", help="Steps between measurements.")] = 500,
    eval_pictures: Annotated[int, typer.Option(metavar="N", help="Pictures measured on.")] = 100,
    save_every: Annotated[int, typer.Option(metavar="N", help="Steps between checkpoints.")] = 200,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the weights and the data.")] = 0,
    fusion: Fusion = None,
    workers: Annotated[
        int, typer.Option(metavar="N", help="Processes that make batches ahead.")
    ] = 2,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Keep the encoder's features on disk; boxes are then the same in every pass.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="cpu, if not the best there is.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="N", help="Checkpoint and stop after so long.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier run into DIR stopped.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Train a VLSM on a frozen SAM 2: masks that heed the words, not the box alone.

    The best one lies in DIR/best, ready for --segmenter vlsm:DIR/best. On several GPUs:
    accelerate launch -m rsvp train ...
    """
    begin(verbose=verbose, debug=debug)
    from rsvp.training.loop import train as run
    from rsvp.training.losses import Weights
    from rsvp.training.plan import Habits, Plan

    plan = Plan(
        data=tuple(data),
        segmenter=segmenter,
        text_encoder=text_encoder,
        keep=tuple(keep or ()),
        eval_data=tuple(eval_data or ()),
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        lr=lr,
        precision=precision,
        metric=metric,
        eval_every=eval_every,
        eval_pictures=eval_pictures,
        seed=seed,
        weights=Weights(focal=focal),
        fusion=_settings(fusion or []),
    )
    habits = Habits(save_every=save_every, workers=workers, cache=cache, device=device)
    if minutes is not None:
        habits = replace(habits, minutes=minutes)
    ending = run(plan, Path(out), habits, resume=resume, tell=console.tell)
    if as_json and ending.main:
        console.as_json(ending.to_dict())
    elif ending.main:
        for line in ending.lines(Path(out)):
            console.say(line)
    if ending.interrupted:
        raise typer.Exit(INTERRUPTED)


def _settings(pairs: list[str]) -> dict[str, int]:
    """``NAME=N`` as a dictionary."""
    from rsvp.errors import BadInput

    found: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not value.isdecimal():
            raise BadInput(f"a setting is NAME=N, e.g. width=256, found {pair!r}")
        found[name] = int(value)
    return found
