"""The files of REFER and gRefCOCO: which phrases refer to which annotations.

``refs(<splitBy>).p`` is a pickle of plain lists and dicts, written by Python 2. A pickle may name
anything to be imported and run; this reader imports nothing, so that a file can only hold data.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import field_validator

from rsvp.datasets import AnnotationModel
from rsvp.errors import BadInput
from rsvp.platform.files import parse_json, validate

NO_TARGET = -1
PREFERRED = ("unc", "umd")  # where a folder holds several divisions into splits

_NAME = re.compile(r"g?refs\((\w+)\)\.(?:p|json)")


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
        """The sentences, each as a phrase of its own; `NO_TARGET` among the ids means nothing."""
        general = isinstance(self.ann_id, list)
        ids = dict.fromkeys(self.ann_id if general else [self.ann_id])
        annotations = tuple(number for number in ids if number != NO_TARGET)
        return [
            Phrase(one.sent_id, one.sent.strip().lower(), self.image_id, annotations, general)
            for one in self.sentences
        ]


def find_refs(folder: Path, split_by: str | None = None) -> Path:
    """The file ``refs(<split_by>).p`` or ``grefs(<split_by>).json`` of a folder.

    Raises:
        BadInput: there is none, or several and none was chosen.
    """
    found = {m[1]: p for p in sorted(folder.glob("*refs(*")) if (m := _NAME.fullmatch(p.name))}
    if not found:
        raise BadInput(f"no refs(unc).p or grefs(unc).json or the like in {folder}")
    if split_by is None:
        chosen = [name for name in PREFERRED if name in found] or list(found)
        if chosen[0] not in PREFERRED and len(found) > 1:
            raise BadInput(f"{folder}: several divisions, choose one of {', '.join(found)}")
        return found[chosen[0]]
    if split_by not in found:
        raise BadInput(f"{folder}: no refs({split_by}); found {', '.join(found)}")
    return found[split_by]


def read_phrases(file: Path, data: bytes, split: str) -> list[Phrase]:
    """The phrases of a split, in the file's order.

    Args:
        data: the bytes of `file`.
        split: as REFER has it: ``testA`` also takes what is marked ``testAB``.

    Raises:
        BadInput: the file is broken, an entry lacks something, or there is no such split.
    """
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
    """REFER's rule: train and val by name, testA by its last letter, test by all tests."""
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
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{file}: not a pickle of plain data: {reason}") from error
    return found
