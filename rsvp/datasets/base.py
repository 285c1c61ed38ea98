"""The base class of the readers, and the checks that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rsvp.errors import BadInput
from rsvp.images import MAX_PIXELS

_LONGEST_NAME = 255  # bytes of a part of a path, on every common file system


class AnnotationModel(BaseModel):
    """Base of the models of annotation files: strict types, unknown fields ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class BaseDataset:
    """What every reader has: numbered samples with unique ids. A subclass adds ``__getitem__``.

    Attributes:
        file: the annotations, a file or a folder; error messages begin with it.
        digest: hex digest of the annotations.
    """

    def __init__(self, file: Path, digest: str, ids: Sequence[str]) -> None:
        """
        Raises:
            BadInput: there are no samples, or two have the same id.
        """
        self.file, self.digest, self._ids = file, digest, ids
        if not ids:
            raise BadInput(f"{file}: no samples")
        seen: set[str] = set()
        for one in ids:
            if one in seen:
                raise BadInput(f"{file}: two samples have the id {one!r}")
            seen.add(one)

    def __len__(self) -> int:
        return len(self._ids)

    def sample_id(self, index: int) -> str:
        """The id of a sample, without decoding its masks."""
        return self._ids[index]

    def _image_file(self, index: int) -> Path | None:  # noqa: ARG002
        """The image file of a sample, which may be missing; None where it has none of its own."""
        return None

    def check_images(self) -> None:
        """Raise BadInput, with the annotations and the id, for the first missing image file."""
        found: set[Path] = set()
        for index, sample_id in enumerate(self._ids):
            file = self._image_file(index)
            if file is not None and file not in found:
                if not file.is_file():
                    raise BadInput(f"{self.file}: {sample_id}: no such image file: {file}")
                found.add(file)


def check_size(size: tuple[int, int], where: str) -> None:
    """Raise BadInput, beginning with `where`, unless an image can have this (H, W)."""
    height, width = size
    if height < 1 or width < 1:
        raise BadInput(f"{where}: the size {width}x{height} is not positive")
    if height * width > MAX_PIXELS:
        raise BadInput(f"{where}: {width}x{height} pixels are too many for an image")


def mask_size(rle: object, where: str) -> tuple[int, int]:
    """The (H, W) that an RLE itself names; BadInput unless an image can have this size."""
    size = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int for n in size):
        raise BadInput(f"{where}: a mask is COCO RLE with size and counts")
    check_size((size[0], size[1]), where)
    return size[0], size[1]


def inside(folder: Path, name: str, where: str) -> Path:
    """The file `name` of `folder`, as annotations name it; it may be missing.

    Raises:
        BadInput: no file can have this name, or it leads out of the folder; begins with `where`.
    """
    path = Path(name)
    too_long = any(len(part.encode("utf-8", "replace")) > _LONGEST_NAME for part in path.parts)
    if not path.name or "\0" in name or too_long or len(name) > 10 * _LONGEST_NAME:
        raise BadInput(f"{where}: {name[:60]!r} is no file name")
    if path.is_absolute() or ".." in path.parts:
        raise BadInput(f"{where}: {name[:60]!r} leads out of the folder")
    return folder / path
