"""Train the embedded VLSM: the product's own loop, on rendered scenes and, where there are, photos.

Its SAM 2 is the embedded segmenter, its text encoder the table of the embedded reasoner's token
embeddings; both must be in the package before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsvp.training.config import LossWeights, RunConfig, SamplingConfig, TrainConfig
from rsvp.training.loop import train as run

TRAIN, MEASURE = "scenes:7000003,40000", "scenes:7000001,150"
PHOTO_TURNS = 8  # a photo comes as often as so many scenes: a fifth of all pictures
SHAPE = {"width": 128, "blocks": 3}


def plan(photos: Path | None, **changes: Any) -> TrainConfig:
    """The plan of the shipped weights."""
    shown = (f"coco:{photos}#train",) * PHOTO_TURNS if photos else ()
    usual = TrainConfig(
        data=(TRAIN,),
        keep=shown,  # of words on photographs it knows nothing
        eval_data=(MEASURE,),
        segmenter="sam2:embedded",
        text_encoder="embedded",
        steps=6600,
        batch=32,
        lr=1e-3,
        eval_every=600,
        eval_pictures=150,
        # A name of this world is false of all its other things.
        weights=LossWeights(contrast=0.5),
        mix=SamplingConfig(
            clean=0.25, near=0.25, jittered=0.15, bands=0.15, shared=0.2, other_names=0.35
        ),
        fusion=SHAPE,
    )
    return TrainConfig(**{**dict(usual), **changes})


def train(out: Path, photos: Path | None, habits: RunConfig, **changes: Any) -> None:
    """Train or go on training in `out`; the best one by the plan's metric lies in `out/best`.

    Args:
        photos: a folder of `images/` and `instances.json`, or None for scenes alone.
        changes: settings of the plan.

    Raises:
        BadInput: the folder holds another run, or the photos cannot be used.
    """
    ending = run(plan(photos, **changes), out, habits, resume=True)
    for line in ending.lines(out):
        print(line)
