"""Open an image safely: one read, size checked before decoding, upright, RGB.

Pillow's global settings are neither changed nor used.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as Pil

from rsvp.errors import BadInput, one_line
from rsvp.types import Image, RgbArray

# Any: tensors, and arrays of other libraries; see `load_image`.
ImageSource = str | os.PathLike[str] | bytes | Pil.Image | NDArray[Any] | Image | Any

DEMO = "demo"  # stands for the image in the package, where there is no such file
MAX_PIXELS = 200_000_000  # a phone's largest photograph; 600 MB as RGB
_PILLOWS_LIMIT = (Pil.DecompressionBombError, Pil.DecompressionBombWarning)
_TOO_LARGE = "has more pixels than Pillow decodes of this format; save it as PNG or make it smaller"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "ICO")

MAX_PASSES = 20  # over an image of the most pixels, in scans of a JPEG; encoders write about ten
_STRIP_PIXELS = 1 << 22  # converted at once: Pillow needs some 12 bytes a pixel for it

# EXIF orientation -> the view of an upright (H, W, 3) array that has the axes of the stored pixels.
_AS_STORED: dict[int, Callable[[RgbArray], RgbArray]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright.transpose(1, 0, 2)[::-1],
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: upright.transpose(1, 0, 2)[:, ::-1],
}
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # of a JPEG's segments; RST, SOI have none


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image:
    """An upright RGB image from a file, its bytes, a Pillow image, an array or a tensor.

    EXIF orientation is applied, transparency composited on white, 16-bit and float greyscale scaled
    to 8 bits; of an animation the first frame is taken (of a Pillow image the current one).

    Args:
        source: a path, or ``demo`` for the image in the package; the bytes of a file; a Pillow
            image; an (H, W, 3), (H, W, 4), (H, W, 1) or (H, W) array, RGB, RGBA or grey, uint8 0 to
            255 or floating 0 to 1, or a tensor of these, whose channels may come first; or an
            `Image`, which is returned as it is.
        max_pixels: refuse an image with more pixels than this, before decoding it.

    Raises:
        BadInput: the source is missing, not a regular file, empty, truncated, too large or not an
            image. One line that names it.
    """
    if isinstance(source, Image):
        return source
    if isinstance(source, Pil.Image):
        return _from_pixels(_decoded(source, "the Pillow image", max_pixels))
    array = as_array(source)
    if array is not None:
        return _from_pixels(_from_array(array, max_pixels))
    if not isinstance(source, bytes | bytearray | memoryview | str | os.PathLike):
        raise BadInput(
            "an image is a path, bytes, a Pillow image, an array or a tensor, "
            f"found {type(source).__name__}"
        )
    data, name, path = _bytes_of(source, max_pixels)
    image = _opened(data, name)
    if image.format in ("JPEG", "MPO"):
        _check_scans(data, image.width * image.height, name, max_pixels)
    rgb = _decoded(image, name, max_pixels)
    return Image(rgb, hashlib.sha256(data).hexdigest(), path)


def as_array(value: Any) -> NDArray[Any] | None:
    """An array, a tensor of any device, or what has `__array__`, as an array; None for all else."""
    # Without torch there is no tensor, nor while another thread imports it.
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor is not None and isinstance(value, tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if isinstance(value, np.ndarray):
        return value
    text = isinstance(value, str | bytes)  # NumPy's strings are these too
    return np.asarray(value) if hasattr(value, "__array__") and not text else None


def image_size(source: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """(H, W) of the upright image that `load_image` would give, from its header alone.

    Raises:
        BadInput: the source is missing, not a regular file, empty or not an image.
    """
    data, name, _ = _bytes_of(source, MAX_PIXELS)
    image = _opened(data, name)
    _check_size(image.width, image.height, name, MAX_PIXELS)
    turned = _orientation(image) >= 5  # a quarter turn, mirrored or not
    return (image.width, image.height) if turned else (image.height, image.width)


def shrink(rgb: RgbArray, max_side: int) -> RgbArray:
    """(H, W, 3) resized so that its longer side is at most `max_side`; never enlarged."""
    height, width = rgb.shape[:2]
    ratio = max_side / max(height, width)
    if ratio >= 1:
        return rgb
    return resize(rgb, (max(1, round(height * ratio)), max(1, round(width * ratio))))


def resize(rgb: RgbArray, size: tuple[int, int]) -> RgbArray:
    """(H, W, 3) resized to `size`, (h, w)."""
    if rgb.shape[:2] == size:
        return rgb
    # reducing_gap halves large photographs cheaply first; 3 is as good as no shortcut.
    height, width = size
    picture = Pil.fromarray(rgb)
    return np.array(picture.resize((width, height), Pil.Resampling.LANCZOS, reducing_gap=3.0))


def _from_pixels(rgb: RgbArray) -> Image:
    return Image(rgb, hashlib.sha256(rgb.data).hexdigest())


def _bytes_of(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview, max_pixels: int
) -> tuple[bytes, str, str | None]:
    """The bytes of an encoded image, its name in error messages, and its path if it is a file."""
    path = None
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        if path == DEMO and (os.path.isdir(path) or not os.path.lexists(path)):
            path = str(Path(__file__).parent / "embedded" / "demo.png")
        # On one line in messages, whatever the path holds.
        name = path if path.isprintable() else ascii(path)
        data = _read(path, name, max_pixels)
    else:
        name, data = "the image data", bytes(source)
    if not data:
        raise BadInput(f"{name} is empty (0 bytes)")
    return data, name, path


def _read(path: str, name: str, max_pixels: int) -> bytes:
    """The bytes of a regular file; anything else is refused without blocking."""
    if not path:
        raise BadInput("the path of the image is empty")
    # Non-blocking: opening a pipe without a writer would block forever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            _check_regular(os.fstat(descriptor), name, max_pixels)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        hint = "; download it first, rsvp reads files" if "://" in path else ""
        raise BadInput(f"no such image file: {name}{hint}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"cannot read {name}: {reason}") from error


def _check_regular(status: os.stat_result, name: str, max_pixels: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise BadInput(f"{name} is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{name} is not a regular file; save the image to one first")
    largest = 8 * max_pixels + (64 << 20)  # 16-bit RGBA, uncompressed, and generous metadata
    if status.st_size > largest:
        raise BadInput(
            f"{name} is too large: {status.st_size:,} bytes for at most {max_pixels:,} pixels"
        )


def _opened(data: bytes, name: str) -> Pil.Image:
    """The image with its header read and nothing decoded.

    Pillow's own `open` would refuse or warn at a limit that is global to the process, and try
    formats that start external programs (EPS); so its openers are asked one by one.
    """
    for register in (Pil.preinit, Pil.init):  # the common plugins first, they load faster
        register()
        for opener, accept in (Pil.OPEN[key] for key in FORMATS if key in Pil.OPEN):
            accepted = accept(data[:16]) if accept else True
            if not accepted or isinstance(accepted, str):  # a string is the reason against it
                continue
            try:
                return opener(io.BytesIO(data), "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # the file is not of this format
            except _PILLOWS_LIMIT:  # WebP
                raise BadInput(f"{name} {_TOO_LARGE}") from None
            except Exception as error:
                raise BadInput(f"{name} is a broken image: {one_line(error)}") from error
    known = ", ".join(FORMATS)
    raise BadInput(f"{name} is not an image in a format that rsvp reads ({known})")


def _decoded(image: Pil.Image, name: str, max_pixels: int) -> RgbArray:
    """(H, W, 3) uint8, upright; the size is checked before anything is decoded."""
    _check_size(image.width, image.height, name, max_pixels)
    try:
        image.load()
        rgb = _upright(image)
    except MemoryError:
        raise BadInput(f"{name} needs more memory than there is; make it smaller") from None
    except _PILLOWS_LIMIT:  # TIFF, GIF
        raise BadInput(f"{name} {_TOO_LARGE}") from None
    except Exception as error:  # decoders of hostile files raise nearly anything
        raise BadInput(f"{name} is broken or cut short: {one_line(error)}") from error
    return rgb


def _upright(image: Pil.Image) -> RgbArray:
    """(H, W, 3) uint8 of a decoded image, converted strip by strip into the one array."""
    orientation = _orientation(image)
    turned = orientation >= 5  # a quarter turn, mirrored or not
    rgb = np.empty((*(image.size if turned else image.size[::-1]), 3), dtype=np.uint8)
    as_stored = _AS_STORED.get(orientation)
    stored = rgb if as_stored is None else as_stored(rgb)
    is_scaled = image.mode == "F" or image.mode.startswith("I")
    limits = _grey_range(image) if is_scaled else None
    for top, strip in _strips(image):
        pixels = _to_rgb(strip) if limits is None else _to_8_bits(strip, *limits)
        stored[top : top + len(pixels)] = pixels
    return rgb


def _strips(image: Pil.Image) -> Iterator[tuple[int, Pil.Image]]:
    """The image in parts of whole rows, each with the number of its first row."""
    if image.mode == "I;16B":  # Pillow cannot crop it
        image = Pil.fromarray(np.asarray(image).astype(np.uint16))
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _check_scans(data: bytes, pixels: int, name: str, max_pixels: int) -> None:
    """Refuse a JPEG whose scans take its decoder through the image too often."""
    scans, place = 0, 2
    while (found := _MARKER.search(data, place)) and found[1] != b"\xd9":  # the end of the image
        scans += found[1] == b"\xda"
        # Past the segment: a thumbnail in it has scans of its own.
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    if scans * pixels > MAX_PASSES * max_pixels:
        raise BadInput(f"{name} is a JPEG of {scans:,} scans, which would take too long to decode")


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BadInput(f"{name} has no pixels: {width}x{height}")
    if width * height > max_pixels:
        raise BadInput(
            f"{name} is too large: {width}x{height} is {width * height:,} pixels, "
            f"the limit is {max_pixels:,}"
        )


def _orientation(image: Pil.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where the metadata is missing or broken."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata must not cost the pixels
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Pil.Image) -> RgbArray:
    if image.has_transparency_data:
        if image.mode == "La":  # premultiplied grey has no direct way to RGBA
            image = image.convert("LA")
        white = Pil.new("RGBA", image.size, "white")
        image = Pil.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _grey_range(image: Pil.Image) -> tuple[float, float]:
    """The values of a greyscale image of any depth that become 0 and 255.

    16-bit files use their full range. In 32-bit integers and floats the range is not known, so the
    smallest usual one that holds the values is taken (0-1 for floats, 0-255, 0-65535 for integers),
    and else the range of the values themselves.
    """
    ranges = [(part.min(), part.max()) for part in (_finite(strip) for _, strip in _strips(image))]
    low, high = float(np.min(ranges)), float(np.max(ranges))
    if image.mode.startswith("I;16"):
        usual = [65535.0]
    else:
        usual = [1.0, 255.0] if image.mode == "F" else [255.0, 65535.0]
    fitting = [top for top in usual if low >= 0 and high <= top]
    return (0.0, fitting[0]) if fitting else (low, high)


def _to_8_bits(grey: Pil.Image, floor: float, top: float) -> NDArray[np.uint8]:
    """Greyscale of any depth with `floor` to `top` scaled to 0-255, as (H, W, 1)."""
    scale = 255.0 / (top - floor) if top > floor else 0.0
    scaled: NDArray[np.uint8] = np.rint((_finite(grey) - floor) * scale).astype(np.uint8)
    return scaled[..., None]


def _finite(grey: Pil.Image) -> NDArray[np.float32]:
    """(H, W), with 0 for what is not finite."""
    values: NDArray[np.float32] = np.nan_to_num(
        np.asarray(grey, dtype=np.float32), posinf=0.0, neginf=0.0
    )
    return values


def _from_array(array: NDArray[Any], max_pixels: int) -> RgbArray:
    found = f"{array.shape} {array.dtype}"
    if array.ndim == 3 and array.shape[2] > 4 and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # as torchvision has them
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.dtype.kind not in "uf":
        raise BadInput(
            "an image array is (H, W, 3), (H, W, 4) or (H, W), uint8 or floating 0 to 1, "
            f"found {found}"
        )
    _check_size(array.shape[1], array.shape[0], "the image array", max_pixels)
    if array.dtype != np.uint8:
        array = _fractions_to_8_bits(array, found)
    if channels == 3:
        return np.array(array, dtype=np.uint8, order="C")
    if channels == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return _upright(Pil.fromarray(np.ascontiguousarray(array)))


def _fractions_to_8_bits(array: NDArray[Any], found: str) -> NDArray[np.uint8]:
    """Values 0 to 1 as 0 to 255; BadInput for others, which may have any range."""
    # NaN is in no range.
    if array.dtype.kind != "f" or not ((array >= 0) & (array <= 1)).all():
        raise BadInput(f"an image array is uint8, or floating with values 0 to 1, found {found}")
    scaled: NDArray[np.uint8] = np.rint(array * 255.0).astype(np.uint8)
    return scaled
