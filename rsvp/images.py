"""Open an image safely: one read, size checked before decoding, upright, RGB.

Pillow's global settings are neither changed nor used.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import sys
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

DEMO = "demo"  # the path that stands for the image in the package, where there is no such file
MAX_PIXELS = 200_000_000  # a phone's largest photograph; 600 MB as RGB
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "ICO")

_UPRIGHT = {
    2: Pil.Transpose.FLIP_LEFT_RIGHT,
    3: Pil.Transpose.ROTATE_180,
    4: Pil.Transpose.FLIP_TOP_BOTTOM,
    5: Pil.Transpose.TRANSPOSE,
    6: Pil.Transpose.ROTATE_270,
    7: Pil.Transpose.TRANSVERSE,
    8: Pil.Transpose.ROTATE_90,
}


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
    rgb = _decoded(_opened(data, name), name, max_pixels)
    return Image(rgb, hashlib.sha256(data).hexdigest(), path)


def as_array(value: Any) -> NDArray[Any] | None:
    """An array, a tensor of any device, or what has `__array__`, as an array; None for all else."""
    torch = sys.modules.get("torch")  # without it there is no tensor
    if torch is not None and isinstance(value, torch.Tensor):
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
        if path == DEMO and not os.path.lexists(path):
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
            except Exception as error:
                raise BadInput(f"{name} is a broken image: {one_line(error)}") from error
    known = ", ".join(FORMATS)
    raise BadInput(f"{name} is not an image in a format that rsvp reads ({known})")


def _decoded(image: Pil.Image, name: str, max_pixels: int) -> RgbArray:
    """(H, W, 3) uint8, upright; the size is checked before anything is decoded."""
    _check_size(image.width, image.height, name, max_pixels)
    try:
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        if upright is not None:
            image = image.transpose(upright)
        rgb: RgbArray = np.array(_to_rgb(image))
    except MemoryError:
        raise BadInput(f"{name} needs more memory than there is; make it smaller") from None
    except Exception as error:  # decoders of hostile files raise nearly anything
        raise BadInput(f"{name} is broken or cut short: {one_line(error)}") from error
    return rgb


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


def _to_rgb(image: Pil.Image) -> Pil.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Pil.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # premultiplied grey has no direct way to RGBA
        image = image.convert("LA")
    with_alpha = image.convert("RGBA")
    white = Pil.new("RGBA", image.size, "white")
    return Pil.alpha_composite(white, with_alpha).convert("RGB")


def _to_8_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Greyscale of any depth, (H, W), scaled to 0-255.

    16-bit files use their full range. In 32-bit integers and floats the range is not known, so the
    smallest usual one that holds the values is taken (0-1 for floats, 0-255, 0-65535 for integers),
    and else the range of the values themselves.
    """
    values = np.nan_to_num(grey.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if grey.dtype.itemsize == 2:
        usual = [65535.0]
    else:
        usual = [1.0, 255.0] if grey.dtype.kind == "f" else [255.0, 65535.0]
    fitting = [top for top in usual if low >= 0 and high <= top]
    floor, top = (0.0, fitting[0]) if fitting else (low, high)
    scale = 255.0 / (top - floor) if top > floor else 0.0
    scaled: NDArray[np.uint8] = np.rint((values - floor) * scale).astype(np.uint8)
    return scaled


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
    return np.array(_to_rgb(Pil.fromarray(np.ascontiguousarray(array))))


def _fractions_to_8_bits(array: NDArray[Any], found: str) -> NDArray[np.uint8]:
    """Values 0 to 1 as 0 to 255; BadInput for others, which may have any range."""
    # NaN is in no range.
    if array.dtype.kind != "f" or not ((array >= 0) & (array <= 1)).all():
        raise BadInput(f"an image array is uint8, or floating with values 0 to 1, found {found}")
    scaled: NDArray[np.uint8] = np.rint(array * 255.0).astype(np.uint8)
    return scaled
