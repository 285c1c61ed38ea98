"""Training data: annotated images from data specs.

A data spec is ``KIND:WHERE``: ``coco:DIR``, ``refcoco:DIR``, ``reasonseg:DIR``, ``jsonl:FILE``,
``scenes:SEED`` (rendered during training), or a kind of another package. The dataset readers are
those of the evaluation; here their samples are grouped by image, so that the other objects of an
image can serve as hard negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch.utils.data import ConcatDataset

from rsvp import registry
from rsvp.datasets import BaseDataset, Sample
from rsvp.datasets.instances import CocoDataset
from rsvp.datasets.jsonl import JsonlDataset
from rsvp.datasets.reasonseg import open_reasonseg
from rsvp.datasets.refcoco import RefCocoDataset
from rsvp.errors import BadInput
from rsvp.images import load_image
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, Box, RgbArray


@dataclass(frozen=True, slots=True)
class Annotation:
    """An object in an image."""

    texts: tuple[str, ...]  # at least one; the usual name first
    mask: BoolMask = field(repr=False)  # (H, W) bool, the visible pixels, at least one
    box: Box  # tight around them, in pixels

    def fraction_inside(self, box: Box) -> float:
        """The fraction of the mask's pixels whose centres are in `box`."""
        x0, y0 = max(0, round(box.x0)), max(0, round(box.y0))
        inside = np.count_nonzero(self.mask[y0 : round(box.y1), x0 : round(box.x1)])
        return float(inside / np.count_nonzero(self.mask))


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and the objects in it, at least one."""

    id: str  # for messages
    rgb: RgbArray = field(repr=False)  # (H, W, 3) uint8
    annotations: tuple[Annotation, ...]
    keep: bool = False  # SAM 2's own masks are the target here, and no text must change them

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.rgb.shape[0], self.rgb.shape[1]

    def with_other_names(self, annotation: Annotation) -> list[Annotation]:
        """The annotations whose usual name is another one."""
        return [a for a in self.annotations if a.texts[0] != annotation.texts[0]]


class ImageSource(Protocol):
    """A sequence of annotated images; a ``digest`` attribute of its annotations is optional."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> AnnotatedImage:
        """Image `index`, the same at every call; BadInput if it is broken."""

    def random_text(self, rng: np.random.Generator) -> str:
        """A random text of the source, which an image need not show."""


class DatasetImages:
    """The samples of a dataset reader, grouped by image; negative samples give their texts only.

    Args:
        labelled: whether an object's own label names it; otherwise the query does, because the
            label is only a category, or the same word for all targets.
    """

    def __init__(self, dataset: BaseDataset, *, labelled: bool) -> None:
        dataset.check_images()
        self.dataset, self.labelled, self.digest = dataset, labelled, dataset.digest
        groups: dict[str, list[int]] = {}
        for index in range(len(dataset)):
            groups.setdefault(dataset.image_key(index), []).append(index)
        self._groups = list(groups.values())

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> AnnotatedImage:
        """Raises BadInput if the image does not fit its masks, or no sample has a target in it."""
        samples = [self.dataset[i] for i in self._groups[index]]
        first = samples[0]
        rgb = load_image(first.image).rgb
        if rgb.shape[:2] != first.mask.shape:
            height, width = first.mask.shape
            raise BadInput(
                f"sample {first.id}: the image is {rgb.shape[1]}x{rgb.shape[0]}, "
                f"its mask {width}x{height}"
            )
        found = _merged(a for s in samples for a in _annotations(s, labelled=self.labelled))
        if not found:
            raise BadInput(f"sample {first.id}: no query has a target in this image")
        return AnnotatedImage(first.id, rgb, found)

    def random_text(self, rng: np.random.Generator) -> str:
        return str(self.dataset[int(rng.integers(len(self.dataset)))].query)


def _annotations(sample: Sample, *, labelled: bool) -> list[Annotation]:
    """Each object, if the dataset separates them; otherwise the whole target as one."""
    if sample.objects:
        return [
            Annotation((o.label if labelled and o.label.strip() else sample.query,), o.mask, o.box)
            for o in sample.objects
            if o.mask.any()
        ]
    box = mask_to_box(sample.mask)
    return [] if box is None else [Annotation((sample.query,), sample.mask, box)]


def _merged(annotations: Iterable[Annotation]) -> tuple[Annotation, ...]:
    """Annotations with equal masks as one annotation with several texts."""
    found: dict[bytes, Annotation] = {}
    for annotation in annotations:
        key = np.packbits(annotation.mask).tobytes()
        same = found.get(key, annotation)
        found[key] = replace(annotation, texts=tuple(dict.fromkeys(same.texts + annotation.texts)))
    return tuple(found.values())


class ConcatImages(ConcatDataset[AnnotatedImage]):
    """Several sources, one after the other."""

    def __init__(self, sources: Sequence[Any]) -> None:
        super().__init__(sources)
        self.sources = sources
        self.digest = str([source_digest(source) for source in sources])

    def random_text(self, rng: np.random.Generator) -> str:
        return str(self.sources[int(rng.integers(len(self.sources)))].random_text(rng))


class ImageSubset:
    """Some images of a source; `keep` sets `AnnotatedImage.keep`."""

    def __init__(self, source: ImageSource, indices: Sequence[int], *, keep: bool = False) -> None:
        self.source, self.indices, self.keep = source, indices, keep
        self.digest = f"{list(indices)} {keep} {source_digest(source)}"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> AnnotatedImage:
        image = self.source[self.indices[index]]
        return replace(image, keep=image.keep or self.keep)

    def random_text(self, rng: np.random.Generator) -> str:
        return self.source.random_text(rng)


def source_digest(source: ImageSource) -> str:
    """Different for different selections of images, as far as their readers can tell."""
    return f"{type(source).__name__} {len(source)} {getattr(source, 'digest', '')}"


def open_sources(specs: Sequence[str]) -> ImageSource:
    """The images of data specs; BadInput for an unknown kind or malformed data, in one line."""
    sources: list[ImageSource] = []
    for text in specs:
        spec = registry.parse_spec(text)
        if spec.argument is None:
            raise BadInput(f"a data spec is KIND:WHERE, e.g. refcoco:DIR, found {text!r}")
        source: Any = registry.load("data", spec.name)(spec.argument)
        if not len(source):
            raise BadInput(f"{text} holds no image")
        sources.append(source)
    if not sources:
        raise BadInput("no data: give a data spec, e.g. refcoco:DIR")
    return sources[0] if len(sources) == 1 else ConcatImages(sources)


def hold_out(source: ImageSource, every: int) -> tuple[ImageSource, ImageSource]:
    """Split into training and validation, every `every`-th image; BadInput if there is only one."""
    if len(source) < 2:
        raise BadInput("one image is too few to train and to validate on")
    every = min(every, len(source))
    train = [index for index in range(len(source)) if (index + 1) % every]
    return ImageSubset(source, train), ImageSubset(source, range(every - 1, len(source), every))


def _images(
    reader: Callable[..., BaseDataset], argument: str, *, labelled: bool, split: str | None = None
) -> DatasetImages:
    """The images of ``DIR`` or ``DIR#SPLIT``; an existing path that contains a # is not split."""
    folder, mark, found = argument.rpartition("#")
    if not mark or Path(argument).exists():
        return DatasetImages(reader(Path(argument), split=split), labelled=labelled)
    return DatasetImages(reader(Path(folder), split=found or split or ""), labelled=labelled)


def jsonl(argument: str) -> DatasetImages:
    """``jsonl:FILE``: one line per query; see `rsvp.datasets.jsonl`."""
    return DatasetImages(JsonlDataset(Path(argument)), labelled=True)


# COCO instances, each named by its category; the training split of RefCOCO, +, g or gRefCOCO in
# their official layout, if no other; a folder of ReasonSeg, or of its parquet mirror.
coco = partial(_images, CocoDataset, labelled=True)
refcoco = partial(_images, RefCocoDataset, labelled=False, split="train")
reasonseg = partial(_images, open_reasonseg, labelled=False)
