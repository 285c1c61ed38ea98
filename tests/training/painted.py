"""Painted rectangles in every layout that `rsvp train` reads, and small models to train on them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from tiny_models import tiny_tokenizer
from tiny_sam2 import randomize, small_config

from rsvp.masks import encode_rle
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.training.config import SamplingConfig, TrainConfig
from rsvp.training.data import AnnotatedImage, Annotation
from rsvp.training.samples import TrainingDataset
from rsvp.types import Box

hide_broken_torchvision()

from transformers import BertConfig, BertModel, Sam2Model  # noqa: E402

SIZE = (48, 64)  # (H, W)
COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 60, 220)}


@dataclass(frozen=True)
class Painting:
    """An image and what is on it: name -> box of whole pixels, right and bottom exclusive."""

    stem: str
    rgb: np.ndarray
    boxes: dict[str, tuple[int, int, int, int]]

    def mask(self, name: str) -> np.ndarray:
        x0, y0, x1, y1 = self.boxes[name]
        mask = np.zeros(SIZE, dtype=bool)
        mask[y0:y1, x0:x1] = True
        return mask

    def corners(self, name: str) -> list[list[int]]:
        """The rectangle's corner pixels, in turn."""
        x0, y0, x1, y1 = self.boxes[name]
        return [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]


def paintings(count: int, seed: int = 0) -> list[Painting]:
    """Two rectangles of different colours side by side, on noise."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        rgb = rng.integers(90, 160, (*SIZE, 3), dtype=np.uint8)
        left, right = (str(name) for name in rng.choice(list(COLORS), 2, replace=False))
        boxes = {}
        for name, start in ((left, 2), (right, 34)):
            x0, y0 = start + int(rng.integers(6)), int(rng.integers(2, 18))
            width, height = (int(n) for n in rng.integers(12, 22, 2))
            boxes[name] = (x0, y0, x0 + width, y0 + height)
            rgb[y0 : y0 + height, x0 : x0 + width] = COLORS[name]
        found.append(Painting(f"p{number:03}", rgb, boxes))
    return found


def to_annotated(painting: Painting) -> AnnotatedImage:
    annotations = tuple(
        Annotation((name,), painting.mask(name), Box(*map(float, box)))
        for name, box in painting.boxes.items()
    )
    return AnnotatedImage(painting.stem, painting.rgb, annotations)


class Painted:
    """Paintings as an image source, with any of them broken."""

    def __init__(self, count: int, broken: Sequence[int] = ()) -> None:
        self.images = [to_annotated(p) for p in paintings(count)]
        self.broken = set(broken)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> AnnotatedImage:
        if index in self.broken:
            raise ValueError(f"file {index}.png\nis truncated")
        return self.images[index]

    def random_text(self, rng: np.random.Generator) -> str:
        return str(rng.choice(["red", "green", "blue", "a walrus"]))


# ------------------------------------------------------------ folders


def write_coco(folder: Path, shown: Sequence[Painting], splits: Sequence[str] = ()) -> Path:
    """``instances.json`` and ``images/``."""
    images, annotations = [], []
    names = list(COLORS)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, painting in enumerate(shown):
        name = f"{painting.stem}.png"
        Pil.fromarray(painting.rgb).save(folder / "images" / name)
        entry = {"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        images.append({**entry, "split": splits[number]} if splits else entry)
        annotations += [
            {"image_id": number, "category_id": names.index(color),
             "segmentation": encode_rle(painting.mask(color))}
            for color in painting.boxes
        ]  # fmt: skip
    document = {
        "images": images,
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


def write_refcoco(folder: Path, shown: Sequence[Painting], split: str = "train") -> Path:
    """REFER's layout: two sentences for the first thing of each image, one for the second."""
    write_coco(folder, shown)
    (folder / "images").rename(folder / "train2014")
    document = json.loads((folder / "instances.json").read_text())
    for entry in document["categories"]:
        entry["name"] = "rectangle"  # the phrases are what tells them apart
    (folder / "instances.json").write_text(json.dumps(document))
    refs, sentence = [], 0
    for annotation in document["annotations"]:
        color = list(COLORS)[annotation["category_id"]]
        spoken = [f"The {color} one", f"what is {color}"][: 2 - annotation["id"] % 2]
        sentences = [{"sent_id": sentence + i, "sent": text} for i, text in enumerate(spoken)]
        sentence += len(spoken)
        refs.append(
            {"split": split, "image_id": annotation["image_id"], "ann_id": annotation["id"],
             "sentences": sentences}
        )  # fmt: skip
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=0))
    return folder


def write_reasonseg(folder: Path, shown: Sequence[Painting]) -> Path:
    """ReasonSeg's layout: a question for the first thing of each image."""
    folder.mkdir(parents=True, exist_ok=True)
    for painting in shown:
        color = next(iter(painting.boxes))
        Pil.fromarray(painting.rgb).save(folder / f"{painting.stem}.jpg")
        shapes = [{"label": "target", "points": painting.corners(color)}]
        document = {"text": [f"What is {color}?"], "is_sentence": True, "shapes": shapes}
        (folder / f"{painting.stem}.json").write_text(json.dumps(document))
    return folder


def write_jsonl(folder: Path, shown: Sequence[Painting]) -> Path:
    """A line a thing."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for painting in shown:
        Pil.fromarray(painting.rgb).save(folder / f"{painting.stem}.png")
        lines += [
            {"id": f"{painting.stem}/{color}", "image": f"{painting.stem}.png",
             "query": f"something {color}", "masks": [encode_rle(painting.mask(color))]}
            for color in painting.boxes
        ]  # fmt: skip
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


# ------------------------------------------------------------ models


def write_sam2(folder: Path, *, crop_margin: float | None = None) -> Path:
    """A small SAM 2 with random weights; 64 pixels a side."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = Sam2Model(small_config(64)).eval()
        randomize(net)
    table = net.prompt_encoder.shared_embedding.positional_embedding
    net.shared_image_embedding.positional_embedding.data.copy_(table)
    net.save_pretrained(folder)
    if crop_margin is not None:
        settings = {"size": {"height": 64, "width": 64}, "crop_margin": crop_margin}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def write_bert(folder: Path) -> Path:
    """A text encoder of one small layer."""
    tokenizer = tiny_tokenizer(("[PAD]",), "", pad_token="[PAD]")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, pad_token_id=256,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sampling_dataset(
    source: Any,
    preprocessing: Any,
    *,
    batch: int = 4,
    seed: int = 0,
    fixed: bool = False,
    **mix: Any,
) -> TrainingDataset:
    """A training dataset with settings of `SamplingConfig`."""
    config = TrainConfig(
        data=(), segmenter="", text_encoder="", batch=batch, seed=seed, mix=SamplingConfig(**mix)
    )
    return TrainingDataset(source, preprocessing, config, fixed=fixed)


FUSION = {"width": 16, "blocks": 1, "heads": 2, "queries": 2}


def make_config(models: Path, data: str, **changes: Any) -> TrainConfig:
    """A configuration of a few quick steps; `models` holds ``sam2`` and ``bert``."""
    settings: dict[str, Any] = {
        "segmenter": f"sam2:{models / 'sam2'}",
        "text_encoder": str(models / "bert"),
        "steps": 6,
        "batch": 4,
        "warmup": 1,
        "lr": 2e-3,
        "hold_out": 4,
        "eval_pictures": 2,
        "eval_every": 3,
        "precision": "no",
        "fusion": FUSION,
    }
    return TrainConfig(**{"data": (data,), **settings, **changes})
