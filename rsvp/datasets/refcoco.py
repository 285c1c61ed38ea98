"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: phrases that refer to things on COCO photographs.

A folder holds ``refs(<splitBy>).p`` (gRefCOCO: ``grefs(<splitBy>).json``) and ``instances.json``;
the photographs are COCO's train2014, in one of `IMAGE_FOLDERS`. Every sentence is a sample.

``refs(<splitBy>).p`` is a pickle of plain lists and dicts, written by Python 2. A pickle may name
anything to be imported and run; this reader imports nothing, so that a file can only hold data.

Sources: L. Yu et al., Modeling Context in Referring Expressions (ECCV 2016), and its REFER toolkit;
C. Liu et al., GRES: Generalized Referring Expression Segmentation (CVPR 2023).
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from rsvp.datasets import BaseDataset, Sample, unite
from rsvp.datasets.annotations import AnnotationModel
from rsvp.datasets.instances import encode_parts, read_instances
from rsvp.errors import BadInput, one_line
from rsvp.masks import decode_rle
from rsvp.platform.files import parse_json, read_bytes, validate

# The last is the official layout seen from the folder of one benchmark: beside it lies `images/`.
IMAGE_FOLDERS = tuple(
    above + folder
    for above in ("", "../")
    for folder in ("images/mscoco/images/train2014", "images/train2014", "train2014", "images")
)

_NO_ANNOTATION = -1  # gRefCOCO: the phrase refers to nothing in this image
_PREFERRED = ("unc", "umd")  # where a folder holds several divisions into splits
_REFS = re.compile(r"g?refs\((\w+)\)\.(?:p|json)")


class Phrase(NamedTuple):
    """One sentence and what it refers to.

    Attributes:
        annotations: ids; one for RefCOCO, any number for gRefCOCO, none for "not in this image".
        general: whether the file lists the ids, as gRefCOCO does, instead of naming one.
    """

    sentence_id: int
    text: str
    image_id: int
    annotations: tuple[int, ...]
    general: bool


class _RefSentence(AnnotationModel):
    # A sentence of a reference
    sent_id: int
    sent: str


class _RefEntry(AnnotationModel):
    # A reference: its sentences all mean the same annotations of an image
    split: str
    image_id: int
    ann_id: Any
    sentences: list[_RefSentence]

    @field_validator("ann_id")
    @classmethod
    def _is_id_or_ids(cls, value: object) -> object:
        ids = value if isinstance(value, list) else [value]
        if not ids or not all(type(one) is int for one in ids):
            raise ValueError(f"is a number or a list of numbers, found {value!r:.60}")
        return value

    def phrases(self) -> list[Phrase]:
        """The sentences, each as a phrase of its own; `_NO_ANNOTATION` is dropped."""
        general = isinstance(self.ann_id, list)
        ids = dict.fromkeys(self.ann_id if general else [self.ann_id])
        annotations = tuple(number for number in ids if number != _NO_ANNOTATION)
        return [
            Phrase(one.sent_id, one.sent.strip().lower(), self.image_id, annotations, general)
            for one in self.sentences
        ]


class RefCocoDataset(BaseDataset):
    """The sentences of one split, in the file's order; a sample's id is its sentence's.

    Each polygon of an annotation is drawn alone: where two overlap, the official code counts a
    pixel twice, and `Sample.overlap_mask` holds these pixels. gRefCOCO's masks are united instead;
    its kinds are ``target`` and ``no-target``.

    Args:
        folder: e.g. ``refcoco/``.
        split: train, val, testA, testB; for RefCOCOg also test.
        split_by: which division into splits: unc, umd, google. By default unc or umd, whichever is
            there.

    Attributes:
        general: whether this is gRefCOCO.
        digest: SHA-256 of both files and the split.
    """

    def __init__(
        self, folder: str | Path, *, split: str = "val", split_by: str | None = None
    ) -> None:
        folder = Path(folder)
        refs, file = _find_refs(folder, split_by), folder / "instances.json"
        refs_data = read_bytes(refs)
        self._phrases = _read_phrases(refs, refs_data, split)
        self.general = any(phrase.general for phrase in self._phrases)
        truth = read_instances(
            file,
            images={phrase.image_id for phrase in self._phrases},
            annotations={number for phrase in self._phrases for number in phrase.annotations},
        )
        self._images = truth.images
        found = {one["id"]: one for one in truth.annotations}
        for phrase in self._phrases:
            for number in phrase.annotations:
                if found[number]["image_id"] != phrase.image_id:
                    raise BadInput(
                        f"{file}: annotations {number} is not of image {phrase.image_id}, "
                        f"which sentence {phrase.sentence_id} is about"
                    )
        self._labels = {n: truth.categories.get(one["category_id"], "") for n, one in found.items()}
        # The polygons are kept encoded, which is much smaller than lists of numbers.
        self._parts = {}
        for number, one in found.items():
            size, where = truth.size(one["image_id"]), f"{file}: annotations {number}"
            self._parts[number] = encode_parts(one.get("segmentation"), size, where)
        self._image_folder = self._find_image_folder(folder)
        digests = b"".join(hashlib.sha256(part).digest() for part in (split.encode(), refs_data))
        digest = hashlib.sha256(digests + bytes.fromhex(truth.digest)).hexdigest()
        super().__init__(refs, digest, [str(phrase.sentence_id) for phrase in self._phrases])

    def image_key(self, index: int) -> str:
        return str(self._phrases[index].image_id)

    def image_file(self, index: int) -> Path:
        return self._image_folder / self._image_name(self._phrases[index].image_id)

    def __getitem__(self, index: int) -> Sample:
        phrase = self._phrases[index]
        image = self._images[phrase.image_id]
        size = (image["height"], image["width"])
        counts = {number: self._count(number, size) for number in phrase.annotations}
        masks = ((self._labels[number], count > 0) for number, count in counts.items())
        mask, objects = unite(masks, size)
        keys = (self._ids[index], self.image_file(index), phrase.text)
        if self.general:
            return Sample(*keys, "target" if phrase.annotations else "no-target", mask, objects)
        overlap = np.any([count > 1 for count in counts.values()], axis=0)
        return Sample(*keys, "all", mask, objects, overlap_mask=overlap if overlap.any() else None)

    def _count(self, annotation: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W): how many polygons of an annotation cover each pixel, 2 for two and more."""
        total = np.zeros(size, dtype=np.uint8)
        for part in self._parts[annotation]:
            total += decode_rle(part, size, f"{self.file}: annotation {annotation}")
            np.minimum(total, 2, out=total)
        return total

    def _image_name(self, image_id: int) -> str:
        return Path(self._images[image_id]["file_name"]).name

    def _find_image_folder(self, folder: Path) -> Path:
        """The folder that has the first image, else the first one there, else the first known."""
        name = self._image_name(self._phrases[0].image_id)
        folders = [folder / one for one in IMAGE_FOLDERS]
        there = [one for one in folders if one.is_dir()]
        return next((one for one in there if (one / name).is_file()), (there or folders)[0])


def _find_refs(folder: Path, split_by: str | None) -> Path:
    """The file ``refs(<split_by>).p`` or ``grefs(<split_by>).json`` of a folder."""
    found = {m[1]: p for p in sorted(folder.glob("*refs(*")) if (m := _REFS.fullmatch(p.name))}
    if not found:
        raise BadInput(f"no refs(unc).p or grefs(unc).json or the like in {folder}")
    if split_by is None:
        split_by = next(name for name in (*_PREFERRED, *found) if name in found)
        if split_by not in _PREFERRED and len(found) > 1:
            raise BadInput(f"{folder}: several divisions, choose one of {', '.join(found)}")
    if split_by not in found:
        raise BadInput(f"{folder}: no refs({split_by}); found {', '.join(found)}")
    return found[split_by]


def _read_phrases(file: Path, data: bytes, split: str) -> list[Phrase]:
    """The phrases of a split in `data`, the bytes of `file`; in the file's order."""
    document = parse_json(data, str(file)) if file.suffix == ".json" else _unpickle(data, file)
    if not isinstance(document, list):
        raise BadInput(f"{file}: expected a list of references, found {type(document).__name__}")
    refs = [
        validate(_RefEntry.model_validate, entry, f"{file}: reference {number}")
        for number, entry in enumerate(document)
    ]
    phrases = [phrase for ref in refs if _in_split(ref.split, split) for phrase in ref.phrases()]
    if not phrases:
        found = ", ".join(dict.fromkeys(ref.split for ref in refs)) or "nothing"
        raise BadInput(f"{file}: no split {split!r}; found {found}")
    return phrases


def _in_split(marked: str, split: str) -> bool:
    """REFER's rule: train and val by name, testA also in testAB, test as all tests."""
    if split in ("testA", "testB", "testC"):
        return marked.startswith("test") and split[-1] in marked[4:]
    return marked.startswith("test") if split == "test" else marked == split


class _DataOnly(pickle.Unpickler):
    """Reads lists, dicts, texts and numbers, and refuses whatever would have to be imported."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, refused")


def _unpickle(data: bytes, file: Path) -> object:
    try:
        # latin1 takes any byte string of Python 2; texts proper are marked as Unicode.
        found: object = _DataOnly(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a hostile pickle raises nearly anything
        raise BadInput(f"{file}: not a pickle of plain data: {one_line(error)}") from error
    return found
