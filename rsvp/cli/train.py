"""`rsvp train`: the VLSM, the one part that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsvp.cli import console
from rsvp.cli.options import AsJson, Debug, Verbose, begin, flag, opt

INTERRUPTED = 130


Data = opt(
    "SPEC",
    "What to train on: refcoco:DIR, reasonseg:DIR, coco:DIR (each with #SPLIT if need be), "
    "jsonl:FILE or scenes:SEED. May be given several times; what is given twice counts double.",
)
EvalData = opt("SPEC", "What to validate on; by default every 20th image is held out of --data.")
Keep = opt("SPEC", "Images on which SAM 2's own masks are kept, whatever the text.")
TextEncoder = opt(
    "ID-OR-FOLDER",
    "The frozen text encoder of a new VLSM: CLIP, SigLIP, BERT-like, or an MLLM, whose token "
    "embeddings are taken.",
)
Metric = opt(
    "NAME",
    "The metric by which the best weights are kept: ambiguous, clean, jittered, bands, shared or "
    "presence_auc.",
)
Fusion = opt("NAME=N", "A setting of a new VLSM's fusion: width, blocks, heads, queries, grid.")
Cache = opt(
    "DIR", "Keep the encoder's features on disk; an image then has the same boxes in every epoch."
)
Model = opt(
    "SPEC",
    "sam2:, sam3: or edgetam: with ID-OR-FOLDER to build on, or vlsm:FOLDER to continue from.",
)
Accumulate = opt("N", "Gradient accumulation: parts of a GPU's batch, one after the other.")


def train(
    *,
    data: Annotated[list[str], Data],
    out: Annotated[str, opt("DIR", "The run's folder.")],
    segmenter: Annotated[str, Model] = "sam2:facebook/sam2.1-hiera-large",
    text_encoder: Annotated[str, TextEncoder] = "openai/clip-vit-base-patch32",
    keep: Annotated[list[str] | None, Keep] = None,
    eval_data: Annotated[list[str] | None, EvalData] = None,
    steps: Annotated[int, opt("N", "Optimizer steps.")] = 5000,
    batch: Annotated[int, opt("N", "Images per step, over all GPUs.")] = 16,
    accumulate: Annotated[int, Accumulate] = 1,
    lr: Annotated[float, opt("RATE", "The learning rate.")] = 5e-4,
    precision: Annotated[str, opt("NAME", "bf16, fp16 or no.")] = "bf16",
    focal: Annotated[float, opt("GAMMA", "Focal loss instead of BCE; 0 is BCE.")] = 0.0,
    metric: Annotated[str, Metric] = "ambiguous",
    eval_every: Annotated[int, opt("N", "Steps between validations.")] = 500,
    eval_pictures: Annotated[int, opt("N", "Images per validation.")] = 100,
    save_every: Annotated[int, opt("N", "Steps between checkpoints.")] = 200,
    seed: Annotated[int, opt("N", "Of the weights and the data.")] = 0,
    fusion: Annotated[list[str] | None, Fusion] = None,
    workers: Annotated[int, opt("N", "Processes that prepare batches.")] = 2,
    cache: Annotated[str | None, Cache] = None,
    device: Annotated[str | None, opt("NAME", "cpu, if not the best there is.")] = None,
    minutes: Annotated[float | None, opt("N", "Checkpoint and stop after this time.")] = None,
    resume: Annotated[bool, flag("--resume", "Continue the run that was stopped in DIR.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Train a VLSM on a frozen SAM 2: its masks follow the text, not the box alone.

    The best weights are in DIR/best, ready for --segmenter vlsm:DIR/best. On several GPUs:
    accelerate launch -m rsvp train ...
    """
    options = {name: value for name, value in locals().items() if value is not None}
    begin(verbose=verbose, debug=debug)
    from rsvp.training.config import LossWeights, RunConfig, TrainConfig
    from rsvp.training.loop import train as run

    # The options are named as the fields of the configuration.
    options.update(weights=LossWeights(focal=focal), fusion=_settings(fusion or []))
    config = TrainConfig(**{k: options[k] for k in TrainConfig.model_fields if k in options})
    how = RunConfig(**{k: options[k] for k in RunConfig.model_fields if k in options})
    result = run(config, Path(out), how, resume=resume, report=console.print_err)
    if as_json and result.main:
        console.as_json(result.to_dict())
    elif result.main:
        for line in result.lines(Path(out)):
            console.print_out(line)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _settings(pairs: list[str]) -> dict[str, int]:
    """The dictionary of ``NAME=N`` settings."""
    from rsvp.errors import BadInput

    found = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not value.isdecimal():
            raise BadInput(f"a setting is NAME=N, e.g. width=256, found {pair!r}")
        found[name] = int(value)
    return found
