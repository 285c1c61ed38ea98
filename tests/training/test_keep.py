"""Images that are kept: SAM 2's own masks are the target, and texts must not change them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from painted import Painted, make_config, sampling_dataset
from runs import run

from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.training.batches import TrainingBatch, collate
from rsvp.training.components import Components, load_components
from rsvp.training.data import ConcatImages, ImageSubset, source_digest
from rsvp.training.loop import loss_targets
from rsvp.training.session import open_images
from rsvp.types import Box, Image, Proposal


@pytest.fixture
def batch(models: Path, painted_coco: Path) -> tuple[Components, TrainingBatch]:
    """Two samples, the second of an image that is kept."""
    components = load_components(make_config(models, f"coco:{painted_coco}"))
    source = ConcatImages([Painted(1), ImageSubset(Painted(1), [0], keep=True)])
    dataset = sampling_dataset(source, components.preprocessing, batch=2, points=0, recolor=0)
    return components, collate(sorted((dataset[p] for p in range(2)), key=lambda s: s.index))


def test_the_target_of_a_kept_image_is_the_mask_of_sam_2(batch) -> None:
    components, made = batch
    features = components.net.sam2.get_image_embeddings(made.pixels)
    texts = components.text(made.texts)
    targets = loss_targets(components.net, features, made, texts)
    keep = made.keep
    assert (~keep).any()
    assert keep.any()
    assert torch.equal(targets.masks[~keep], made.targets[~keep])
    assert targets.present[keep].all()
    assert not targets.has_text[keep].any()
    sam2 = Sam2Segmenter.from_network(components.net.sam2, components.preprocessing, device="cpu")
    rgb = Painted(1)[0].rgb
    (encoding,) = sam2.encode([Image(rgb, sha256="")])
    scale = torch.tensor([rgb.shape[1], rgb.shape[0]]) / components.preprocessing.size
    row = int(keep.nonzero()[0])
    corners = (made.prompts.coords[row] * scale).flatten().tolist()
    logits = sam2.mask_logits(encoding, [Proposal("", Box(*corners))]).logits
    side = targets.masks.shape[-1]
    resized = torch.nn.functional.interpolate(logits[None], (side, side), mode="bilinear")[0, 0]
    assert ((resized > 0).float() != targets.masks[row]).float().mean() < 0.01


def test_kept_images_are_trained_on_and_not_validated_on(
    models: Path, painted_coco: Path, tmp_path: Path
) -> None:
    data = f"coco:{painted_coco}"
    config = make_config(models, data, keep=(data,))
    train, validation = open_images(config)
    assert [train[i].keep for i in range(len(train))].count(True) == 12
    assert not any(validation[i].keep for i in range(len(validation)))
    without, _ = open_images(make_config(models, data))
    assert source_digest(train) != source_digest(without)
    assert run(config, tmp_path / "run").step == config.steps
