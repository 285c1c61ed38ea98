"""YOLO segmentation: https://docs.ultralytics.com/datasets/segment, a line an object.

A folder with `data.yaml`, `images/` and `labels/`, ready for training. A class keeps its number
when another image is written into the same folder.

``class x1 y1 x2 y2 …``, coordinates relative to the image's size. The format has one polygon an
object: lines of one pixel connect holes and separate parts to it. Its readers round coordinates
down to whole pixels and fill the polygon, which gives every other pixel back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rsvp.errors import BadInput
from rsvp.platform.files import read_bytes
from rsvp.types import Image, Segmentation
from rsvp.writers.common import image_stem, label_of, labels_of, png
from rsvp.writers.contours import find_contours, join_contours

DATA = "data.yaml"

_MIN_POINTS = 3  # readers take a shorter line for a box
_FILES = re.compile(r"^# files: (\[.*\])$", re.MULTILINE)
_CLASS = re.compile(r"^  \d+: (\".*\")$", re.MULTILINE)
_ESCAPE = re.compile(r"\\(?:U([0-9a-f]{8})|.)")
_BELOW = re.compile(r"(?:images|labels)/[^/\\]+")
# Read by ultralytics (`ultralytics.data.utils.IMG_FORMATS`) as rsvp does.
_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """`labels/NAME.txt`, named like the image, the image in `images/`, and `data.yaml`."""
    files, known = read_data(folder)
    lines, names = to_yolo(result, known)
    label, _ = files_of(result.image.path)
    yield label, "".join(f"{line}\n" for line in lines).encode()
    files.append(label)
    image, content = image_file(result.image)
    if not is_same_file(folder / image, result.image.path):
        yield image, content
        files.append(image)
    yield DATA, data_yaml(names, files)


def data_yaml(names: Sequence[str], files: Sequence[str] = ()) -> bytes:
    """`data.yaml`.

    Args:
        names: of the classes, in order.
        files: what `write` wrote into the folder, for `read_data`.
    """
    rows = [f"  {number}: {_yaml(name)}\n" for number, name in enumerate(names)]
    classes = "names:\n" + "".join(rows) if rows else "names: {}\n"
    listed = json.dumps(sorted({*files}))
    return f"# files: {listed}\ntrain: images\nval: images\n{classes}".encode()


def read_data(folder: Path) -> tuple[list[str], list[str]]:
    """What a `data.yaml` of this module says: its files that exist, and its classes in order.

    Both are empty where there is none, or it is somebody else's.
    """
    try:
        text = read_bytes(folder / DATA).decode()
        listed = _FILES.search(text)
        if listed is None:
            return [], []
        named = [name for name in json.loads(listed[1]) if _BELOW.fullmatch(name)]
        files = [name for name in named if (folder / name).is_file()]
        return files, [_text(name) for name in _CLASS.findall(text)]
    except (BadInput, ValueError, TypeError, RecursionError):
        return [], []


def files_of(image_path: str | None) -> tuple[str, str]:
    """The label file of an image and its copy."""
    path, stem = Path(image_path or "image"), image_stem(image_path)
    name = path.name if path.suffix.lower() in _SUFFIXES else f"{stem}.png"
    return f"labels/{stem}.txt", f"images/{name}"


def is_same_file(file: Path, image_path: str | None) -> bool:
    """Whether a file of the folder is the image itself, which then needs no copy."""
    try:
        return file.samefile(image_path or "")
    except OSError:  # there is none
        return False


def image_file(image: Image) -> tuple[str, bytes]:
    """The copy's name and bytes: those of the image's own file, or a PNG where readers need one."""
    path, name = Path(image.path or "image"), files_of(image.path)[1]
    if name == f"images/{path.name}" and path.is_file():
        content = read_bytes(path)
        if hashlib.sha256(content).hexdigest() == image.sha256:
            return name, content
    return f"images/{image_stem(image.path)}.png", png(image.rgb)


def _yaml(text: str) -> str:
    """A quoted YAML string in ASCII: JSON's, but for escapes that are not pairs of surrogates."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    quoted = json.dumps(whole, ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", quoted)


def _text(quoted: str) -> str:
    """What `_yaml` wrote."""
    found: str = json.loads(
        _ESCAPE.sub(lambda e: json.dumps(chr(int(e[1], 16)))[1:-1] if e[1] else e[0], quoted)
    )
    return found


def to_yolo(result: Segmentation, known: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The targets' polygons, and the names of the classes.

    A target with an empty mask has no polygon and is left out.

    Args:
        known: classes of other images, which keep their numbers.

    Returns:
        The lines of the label file; the labels, each at the index that is its class number.
    """
    labels = list(dict.fromkeys((*known, *labels_of(result))))
    size = np.array([result.image.width, result.image.height])
    lines = []
    for target in result.targets:
        if not target.packed.area:
            continue
        polygon = join_contours(find_contours(target.mask))
        if len(polygon) < _MIN_POINTS:
            polygon = np.resize(polygon, (_MIN_POINTS, 2))
        relative = ((polygon + 0.5) / size).reshape(-1).tolist()  # pixel centres
        numbers = " ".join(f"{value:.6f}" for value in relative)
        lines.append(f"{labels.index(label_of(target))} {numbers}")
    return lines, labels
