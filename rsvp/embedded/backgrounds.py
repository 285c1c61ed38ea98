"""Backgrounds of scenes: gradients, noise, patterns, photographs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsvp.errors import BadInput
from rsvp.images import load_image
from rsvp.types import BoolMask, RgbArray

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def draw(size: int, rng: np.random.Generator, photos: Sequence[RgbArray] = ()) -> RgbArray:
    """A (size, size, 3) uint8 background."""
    if photos and rng.random() < 0.35:
        return photo(size, rng, photos)
    kind = (plain, gradient, blotches, blotches, stripes, checks, dots)[int(rng.integers(7))]
    picture = kind(size, rng)
    return grain(picture, rng) if rng.random() < 0.5 else picture


def color(rng: np.random.Generator) -> NDArray[np.float32]:
    """A colour, mostly of low saturation."""
    mean = rng.uniform(40, 230)
    return np.clip(mean + rng.normal(0, 35, 3), 0, 255).astype(np.float32)


def plain(size: int, rng: np.random.Generator) -> RgbArray:
    return np.broadcast_to(color(rng).astype(np.uint8), (size, size, 3)).copy()


def gradient(size: int, rng: np.random.Generator) -> RgbArray:
    """A smooth transition between four random colours in the corners."""
    return enlarge(np.stack([color(rng) for _ in range(4)]).reshape(2, 2, 3), size)


def blotches(size: int, rng: np.random.Generator) -> RgbArray:
    """Soft patches of two colours, with some noise."""
    cells = int(rng.integers(3, 14))
    mix = rng.random((cells, cells, 1), dtype=np.float32)
    picture = color(rng) * mix + color(rng) * (1 - mix)
    picture += rng.normal(0, rng.uniform(0, 18), (cells, cells, 3)).astype(np.float32)
    return enlarge(picture, size)


def stripes(size: int, rng: np.random.Generator) -> RgbArray:
    """Stripes of two colours at any angle."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.04, 0.3) * size
    x = np.arange(size, dtype=np.float32)
    wave = (x[None] * np.cos(angle) + x[:, None] * np.sin(angle)) % period < period * 0.5
    return two_tone(wave, rng)


def checks(size: int, rng: np.random.Generator) -> RgbArray:
    step = max(4, int(rng.uniform(0.04, 0.2) * size))
    x = np.arange(size) // step
    return two_tone((x[None] + x[:, None]) % 2 == 0, rng)


def dots(size: int, rng: np.random.Generator) -> RgbArray:
    step = max(8, int(rng.uniform(0.06, 0.2) * size))
    x = (np.arange(size) % step - step / 2) ** 2
    return two_tone(x[None] + x[:, None] < (step * rng.uniform(0.2, 0.4)) ** 2, rng)


def two_tone(second_here: BoolMask, rng: np.random.Generator) -> RgbArray:
    """Two colours that are not too different: the second one where the (H, W) mask is True."""
    first = color(rng)
    second = np.clip(first + rng.normal(0, 45, 3), 0, 255)
    return np.stack([first, second]).astype(np.uint8)[second_here.astype(np.intp)]


def photo(size: int, rng: np.random.Generator, photos: Sequence[RgbArray]) -> RgbArray:
    """A random square of a photo, at half resolution so that the objects stand out."""
    source = photos[int(rng.integers(len(photos)))]
    h, w = source.shape[:2]
    side = int(min(h, w) * rng.uniform(0.5, 1.0))
    y, x = int(rng.integers(h - side + 1)), int(rng.integers(w - side + 1))
    square = Image.fromarray(source[y : y + side, x : x + side])
    small = square.resize((size // 2, size // 2), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((size, size), Image.Resampling.BILINEAR)).copy()


def grain(picture: RgbArray, rng: np.random.Generator) -> RgbArray:
    offset, size = rng.integers(0, 512, 2), picture.shape[0]
    rows, columns = (np.arange(start, start + size) % 512 for start in offset)
    tile: NDArray[np.int8] = noise_tile()[np.ix_(rows, columns)]
    amplitude = int(rng.integers(1, 14))
    mixed = picture.astype(np.int16) + (tile.astype(np.int16) * amplitude >> 5)[..., None]
    return np.clip(mixed, 0, 255).astype(np.uint8)


@cache
def noise_tile() -> NDArray[np.int8]:
    """(512, 512) int8 normal noise, standard deviation 32."""
    noise = np.random.default_rng(0).normal(0, 32, (512, 512))
    return np.clip(noise, -127, 127).astype(np.int8)


def enlarge(coarse: NDArray[np.float32], size: int) -> RgbArray:
    """A coarse (h, w, 3) picture, smoothly enlarged to (size, size, 3)."""
    small = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).copy()


def load_photos(source: Path | Sequence[Path], limit: int = 1500) -> tuple[RgbArray, ...]:
    """The photos of a folder, by name, or the listed ones; at most `limit`."""
    if isinstance(source, Path):
        files = sorted(p for p in source.glob("**/*") if p.suffix.lower() in PHOTO_SUFFIXES)
    else:
        files = list(source)
    if not files:
        raise BadInput(f"no photos (jpg, png, webp) under {source}")
    return tuple(load_image(file).rgb for file in files[:limit])
