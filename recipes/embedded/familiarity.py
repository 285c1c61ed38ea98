"""Fits the classifier that tells whether an image is like the reasoner's training images.

A linear discriminant analysis reads means and standard deviations of the vision tower's feature
maps, of early ones too. Its negatives are images of many kinds: a density of the scenes' features
alone misses half of them, because the tower keeps what tells one thing of a scene from another.
Scenes and other images get the same visual prompts, at their own size, or the prompt would tell;
but no marks: those hide so much that the program judges the image without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Florence2ForConditionalGeneration

from recipes.embedded.examples import Rng, resize
from recipes.embedded.replies import GRID
from rsvp.drawing import grid_prompt
from rsvp.embedded.backgrounds import load_photos
from rsvp.embedded.questions import render_qa
from rsvp.embedded.scenes import render
from rsvp.embedded.vocabulary import STYLES
from rsvp.errors import BadInput
from rsvp.mllm.familiarity import CLIP, FeatureReader, score, write
from rsvp.types import RgbArray

TOWER = "model.vision_tower"
MODULES = tuple(
    f"{TOWER}.{name}"
    for name in ("blocks.0.0", "blocks.1.0", "convs.2", "blocks.2.1", "blocks.2.2")
)
SIZES = 224, 800  # side of a scene, pixels
DOUBTED = 0.005  # share of the scenes held out that score below 0
HELD_OUT = 4  # one in so many images chooses the threshold, or measures, and is not fitted on
SHRINKAGE = 0.04  # of the covariance
BATCH = 16
LARGE_SCENES = 0.15  # share of the scenes that show small things, as for `--task qa`
MOST_OF_A_KIND = 400  # images
SEED = 7_000_003


def fit(folder: Path, others: Mapping[str, Sequence[RgbArray]], scenes: int) -> dict[str, float]:
    """Fit a classifier on a reasoner's features and write it into the reasoner's folder.

    Args:
        others: kind -> (H, W, 3) uint8 images that are no scenes; photographs are the kind
            ``photos``, and backgrounds of scenes besides.
        scenes: how many to render; as many other images are drawn from all kinds alike.

    Returns:
        Kind -> share of held-out images that score below 0; ``scenes`` is one of the kinds.
    """
    network: Any = Florence2ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    network.eval()
    rng = np.random.default_rng(SEED)
    scene_rows = features(network, islice(scene_images(rng, others.get("photos", ())), scenes))
    n = max(HELD_OUT, scenes // len(others))
    fitted, held_out = {}, {}
    for kind, images in others.items():
        cut = max(1, len(images) // HELD_OUT)
        held_out[kind] = features(network, islice(other_images(rng, images[:cut]), n // HELD_OUT))
        fitted[kind] = features(network, islice(other_images(rng, images[cut:] or images), n))
    part = scenes // HELD_OUT
    tensors = fit_classifier(scene_rows[2 * part :], torch.cat(list(fitted.values())))
    tensors["bias"] -= score(scene_rows[:part], tensors).quantile(DOUBTED)
    write(folder, tensors, MODULES)
    rows = {"scenes": scene_rows[part : 2 * part], **held_out}
    return {kind: float((score(row, tensors) < 0).float().mean()) for kind, row in rows.items()}


def fit_classifier(familiar: Tensor, unfamiliar: Tensor) -> dict[str, Tensor]:
    """The tensors of a `Familiarity` from (n, F) and (m, F) features.

    Linear discriminant analysis: the log-odds of two Gaussians of the same covariance, which is the
    mean of both classes' own, shrunk towards a multiple of the identity.
    """
    mean, std = familiar.mean(0), familiar.std(0) + 1e-6
    classes = [((rows - mean) / std).clamp(-CLIP, CLIP).double() for rows in (familiar, unfamiliar)]
    covariance = (torch.cov(classes[0].T) + torch.cov(classes[1].T)) / 2
    identity = torch.eye(len(mean), dtype=torch.float64)
    covariance = covariance.lerp(identity * covariance.diagonal().mean(), SHRINKAGE)
    means = [rows.mean(0) for rows in classes]
    weight = torch.linalg.solve(covariance, means[0] - means[1])
    bias = -weight @ (means[0] + means[1]) / 2
    return {"mean": mean, "std": std, "weight": weight.float(), "bias": bias.float()}


@torch.inference_mode()
def features(network: Any, images: Iterator[RgbArray]) -> Tensor:
    """(n, F) features of images of the size that the reasoner sees."""
    reader, rows = FeatureReader(network, MODULES), []
    while batch := list(islice(images, BATCH)):
        pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1
        network.get_submodule(TOWER)(pixels)
        found = reader.take()
        assert found is not None
        rows.append(found)
    return torch.cat(rows)


def scene_images(rng: Rng, photos: Sequence[RgbArray]) -> Iterator[RgbArray]:
    """Scenes of any size, in one style or in several, with a visual prompt or without."""
    styles = list(STYLES)
    while True:
        chosen = rng.permutation(styles)[: int(rng.integers(1, len(styles) + 1))]
        kind: Any = render_qa if rng.random() < LARGE_SCENES else render
        scene = kind(
            rng,
            size=int(SIZES[0] * (SIZES[1] / SIZES[0]) ** rng.random()),
            photos=photos if rng.random() < 0.5 else (),
            styles=[str(style) for style in chosen],
        )
        yield resize(_prompted(scene.rgb, rng))


def other_images(rng: Rng, images: Sequence[RgbArray]) -> Iterator[RgbArray]:
    """Images that are no scenes, whole or in part, with a visual prompt or without."""
    while True:
        rgb = images[int(rng.integers(len(images)))]
        if rng.random() < 0.5:
            rgb = _crop(rgb, rng)
        yield resize(_prompted(rgb, rng))


def load_others(folder: Path) -> dict[str, Sequence[RgbArray]]:
    """The images of each sub-folder, by its name.

    Raises:
        BadInput: there is none, or one has no image.
    """
    kinds: dict[str, Sequence[RgbArray]] = {
        path.name: load_photos(path, MOST_OF_A_KIND)
        for path in sorted(folder.iterdir())
        if path.is_dir()
    }
    if not kinds:
        raise BadInput(f"{folder} has no sub-folder of images, one for each kind")
    return kinds


def _crop(rgb: RgbArray, rng: Rng) -> RgbArray:
    """A part of at least half the height and half the width."""
    (h, w), (ph, pw) = rgb.shape[:2], rng.uniform(0.5, 1, 2)
    height, width = max(1, int(h * ph)), max(1, int(w * pw))
    y, x = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
    return rgb[y : y + height, x : x + width]


def _prompted(rgb: RgbArray, rng: Rng) -> RgbArray:
    """The image with the visual prompt of `boxes`, none, or of `grid`; marked ones are not judged.

    Drawn before the image is resized, as it is in use.
    """
    return grid_prompt(rgb, GRID) if rng.random() < 0.5 else rgb
