"""Train the embedded VLSM with `rsvp.training`, on rendered scenes and, where given, on photos.

Its SAM 2 is the embedded segmenter, its text encoder the token embeddings of the embedded reasoner;
both must be installed before. After the segmenter was trained further, its VLSM continues from the
weights that it had (`start`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from recipes.embedded.install import CONFIG, read_config
from rsvp.platform.files import write_json
from rsvp.platform.pretrained import weights_digest
from rsvp.segmenters.networks import load_base
from rsvp.training.config import LossWeights, RunConfig, SamplingConfig, TrainConfig
from rsvp.training.loop import train as train_vlsm

TRAIN, VALIDATION = "scenes:7000003,40000", "scenes:7000001,150"
PHOTO_REPEATS = 8  # of the photos in an epoch, so that they are a fifth of all pictures
FUSION = {"width": 128, "blocks": 3}
FINE_TUNING = {"steps": 1600, "lr": 5e-4, "warmup": 100}  # after the segmenter was trained further


def configuration(photos: Path | None, **changes: Any) -> TrainConfig:
    """The configuration of the shipped weights."""
    usual = TrainConfig(
        data=(TRAIN,),
        # On photos it learns to leave SAM 2's masks as they are: it does not know their words.
        keep=(f"coco:{photos}#train",) * PHOTO_REPEATS if photos else (),
        eval_data=(VALIDATION,),
        segmenter="sam2:embedded",
        text_encoder="embedded",
        steps=6600,
        batch=32,
        lr=1e-3,
        eval_every=600,
        eval_pictures=150,
        weights=LossWeights(contrast=0.5),  # a name is always wrong for objects of other categories
        mix=SamplingConfig(
            clean=0.25,
            near=0.25,
            jittered=0.15,
            bands=0.15,
            shared=0.2,
            other_names=0.35,
            points=0.0,  # it crops: where points are given, their box is looked for first
        ),
        fusion=FUSION,
    )
    return TrainConfig(**{**dict(usual), **changes})


def train(
    out: Path,
    photos: Path | None,
    *,
    start: Path | None = None,
    minutes: float | None,
    device: str,
    **changes: Any,
) -> None:
    """Train or resume training in `out`; the best one by the validation metric is in `out/best`.

    Args:
        photos: a folder of `images/` and `instances.json`, or None for scenes alone.
        start: the folder of a VLSM that was trained on an earlier state of the segmenter.
        minutes: after which this call stops, resumably.
        changes: of the configuration.

    Raises:
        BadInput: the folder holds another run, or the photos cannot be used.
    """
    if start is not None:
        begin = copy_for_segmenter(start, out.with_name(f"{out.name}-start"))
        changes = {**FINE_TUNING, "segmenter": f"vlsm:{begin}", **changes}
    run = RunConfig(minutes=minutes, device=device)
    result = train_vlsm(configuration(photos, **changes), out, run, resume=True)
    for line in result.lines(out):
        print(line)


def copy_for_segmenter(vlsm: Path, folder: Path) -> Path:
    """Copy a VLSM's folder, as one that accepts the packaged segmenter; returns the copy."""
    if not folder.exists():
        shutil.copytree(vlsm, folder)
        config = read_config(folder)
        config["sam2"]["sha256"] = weights_digest(load_base(config["sam2"]["source"])[0])
        config.pop("strength", None)  # it is chosen after the training
        write_json(folder / CONFIG, config)
    return folder
