"""What the VLSM is trained on: pictures, and the things in them with the words that name them.

A data spec is ``kind:argument``: ``coco:DIR``, ``refcoco:DIR``, ``reasonseg:DIR``, ``jsonl:FILE``
and ``scenes:SEED`` (rendered as training goes), or another package's. Readers of benchmarks are
shared with evaluation; here their samples are grouped by image, so that one image's other things
can serve as hard negatives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rsvp import registry
from rsvp.datasets import ByImage, Dataset, Sample
from rsvp.errors import BadInput
from rsvp.images import load_image
from rsvp.masks import mask_to_box
from rsvp.types import BoolMask, Box, RgbArray


@dataclass(frozen=True, slots=True)
class Thing:
    """Something in a picture.

    Attributes:
        texts: what names it, the usual name first; at least one.
        mask: (H, W) bool, the visible pixels, at least one.
        box: tight around them, in pixels.
    """

    texts: tuple[str, ...]
    mask: BoolMask = field(repr=False)
    box: Box


@dataclass(frozen=True, slots=True)
class Picture:
    """An image and the things in it, at least one.

    Attributes:
        id: names it in messages.
        rgb: (H, W, 3) uint8.
        keep: SAM 2's own masks are the truth here: the text shall have no say.
    """

    id: str
    rgb: RgbArray = field(repr=False)
    things: tuple[Thing, ...]
    keep: bool = False


class Pictures(Protocol):
    """A source of pictures: how many, and give one."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> Picture:
        """Picture `index`, the same whenever it is asked for; BadInput where it is broken."""
        ...

    def other_text(self, rng: np.random.Generator) -> str:
        """Some text of the source, for a picture that need not hold what it names."""
        ...


class DatasetPictures:
    """The samples of a benchmark's reader, grouped by image; absent ones only lend their text.

    Args:
        labelled: whether an object's own label names it; else the query does, because the label is
            only its category, or a word that all targets share.

    Attributes:
        digest: of the annotations.
    """

    def __init__(self, dataset: Dataset, *, labelled: bool) -> None:
        self.dataset, self.labelled, self.digest = dataset, labelled, dataset.digest
        key = dataset.image_key if isinstance(dataset, ByImage) else dataset.sample_id
        groups: dict[str, list[int]] = {}
        for index in range(len(dataset)):
            groups.setdefault(key(index), []).append(index)
        self._groups = list(groups.values())

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> Picture:
        """Raises BadInput where the image does not fit its truth, or shows nothing asked for."""
        samples = [self.dataset[i] for i in self._groups[index]]
        first = samples[0]
        rgb = load_image(first.image).rgb
        if rgb.shape[:2] != first.mask.shape:
            height, width = first.mask.shape
            raise BadInput(
                f"sample {first.id}: the image is {rgb.shape[1]}x{rgb.shape[0]}, "
                f"its truth {width}x{height}"
            )
        things = _united(thing for s in samples for thing in _things(s, labelled=self.labelled))
        if not things:
            raise BadInput(f"sample {first.id}: nothing in this image is asked for")
        return Picture(first.id, rgb, things)

    def other_text(self, rng: np.random.Generator) -> str:
        """The query of a random sample."""
        return self.dataset[int(rng.integers(len(self.dataset)))].query


def _things(sample: Sample, *, labelled: bool) -> list[Thing]:
    """Each object, where the reader tells them apart; else everything asked for as one."""
    if sample.objects:
        return [
            Thing((o.label if labelled and o.label.strip() else sample.query,), o.mask, o.box)
            for o in sample.objects
            if o.mask.any()
        ]
    box = mask_to_box(sample.mask)
    return [] if box is None else [Thing((sample.query,), sample.mask, box)]


def _united(things: Iterable[Thing]) -> tuple[Thing, ...]:
    """What several queries ask for is one thing with several texts."""
    found: dict[bytes, Thing] = {}
    for thing in things:
        key = np.packbits(thing.mask).tobytes()
        same = found.get(key)
        texts = thing.texts if same is None else tuple(dict.fromkeys(same.texts + thing.texts))
        found[key] = Thing(texts, thing.mask, thing.box)
    return tuple(found.values())


class Several:
    """Sources one after the other."""

    def __init__(self, parts: Sequence[Pictures]) -> None:
        self.parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Picture:
        part = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[part - 1]) if part else 0
        return self.parts[part][index - start]

    def other_text(self, rng: np.random.Generator) -> str:
        """Of a random source."""
        return self.parts[int(rng.integers(len(self.parts)))].other_text(rng)


class Kept:
    """A source on whose pictures SAM 2 shall stay as it is."""

    def __init__(self, source: Pictures) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Picture:
        return replace(self.source[index], keep=True)

    def other_text(self, rng: np.random.Generator) -> str:
        """Of the source."""
        return self.source.other_text(rng)


class Some:
    """Some of a source's pictures."""

    def __init__(self, source: Pictures, indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Picture:
        return self.source[self.indices[index]]

    def other_text(self, rng: np.random.Generator) -> str:
        """Of the whole source."""
        return self.source.other_text(rng)


def open_pictures(specs: Sequence[str]) -> Pictures:
    """The pictures of one or more data specs.

    Raises:
        BadInput: an unknown kind, or malformed data; one line with file and id.
    """
    parts: list[Pictures] = []
    for text in specs:
        spec = registry.parse_spec(text)
        if spec.argument is None:
            raise BadInput(f"a data spec is KIND:WHERE, e.g. refcoco:DIR, found {text!r}")
        made: Any = registry.load("data", spec.name)(spec.argument)
        if not len(made):
            raise BadInput(f"{text} holds no picture")
        parts.append(made)
    if not parts:
        raise BadInput("no data is named: give a data spec, e.g. refcoco:DIR")
    return parts[0] if len(parts) == 1 else Several(parts)


def hold_out(source: Pictures, every: int) -> tuple[Pictures, Pictures]:
    """Split into what is trained on and what is not: every so many-th picture is held out.

    Raises:
        BadInput: there are too few pictures to hold one out.
    """
    if len(source) < 2:
        raise BadInput("one picture is too few to train on and to measure on")
    every = min(every, len(source))
    held = range(every - 1, len(source), every)
    kept = [index for index in range(len(source)) if (index + 1) % every]
    return Some(source, kept), Some(source, held)


def signature(source: Pictures) -> str:
    """Tells one choice of pictures from another, as far as their readers can."""
    if isinstance(source, Some):
        return f"{list(source.indices)} of {signature(source.source)}"
    if isinstance(source, Kept):
        return f"kept {signature(source.source)}"
    if isinstance(source, Several):
        return f"[{', '.join(map(signature, source.parts))}]"
    return f"{type(source).__name__} {len(source)} {getattr(source, 'digest', '')}"


def coco(argument: str) -> DatasetPictures:
    """``coco:DIR`` or ``coco:DIR#SPLIT``: COCO instances, each by its category's name."""
    from rsvp.datasets.coco import CocoDataset

    folder, split = _place(argument)
    return DatasetPictures(CocoDataset(folder, split=split), labelled=True)


def refcoco(argument: str) -> DatasetPictures:
    """``refcoco:DIR``: RefCOCO, +, g or gRefCOCO, official layout; ``#SPLIT`` if not ``train``."""
    from rsvp.datasets.refcoco import RefCocoDataset

    folder, split = _place(argument)
    return DatasetPictures(RefCocoDataset(folder, split=split or "train"), labelled=False)


def reasonseg(argument: str) -> DatasetPictures:
    """``reasonseg:DIR``: a split's folder of ReasonSeg, or a folder of its parquet mirror."""
    from rsvp.datasets.reasonseg import ReasonSegDataset

    folder, split = _place(argument)
    return DatasetPictures(ReasonSegDataset(folder, split=split), labelled=False)


def jsonl(argument: str) -> DatasetPictures:
    """``jsonl:FILE``: one line a query; see `rsvp.datasets.jsonl`."""
    from rsvp.datasets.jsonl import JsonlDataset

    return DatasetPictures(JsonlDataset(Path(argument)), labelled=True)


def _place(argument: str) -> tuple[Path, str | None]:
    """``PLACE#SPLIT`` taken apart; a path that has a # of its own is taken whole."""
    folder, mark, split = argument.rpartition("#")
    if not mark or Path(argument).exists():
        return Path(argument), None
    return Path(folder), split
