"""500 hostile images are opened or refused within bounds of time and memory.

`pytest -m hostile tests.hostile.test_broken_images.py -s` prints what came of each kind.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image as Pil

from rsvp.errors import BadInput
from rsvp.images import load_image

pytestmark = pytest.mark.hostile

SEED, DAMAGED = 0, 480
SECONDS = 30.0  # for one image, on a busy machine
MEGABYTES = 600  # of the whole process
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")


def images() -> Iterator[tuple[str, bytes]]:
    """What is done to an image, and its bytes; the same ones each time."""
    rng = random.Random(SEED)
    whole = {name: encoded(name) for name in FORMATS}
    for number in range(DAMAGED):
        name = FORMATS[number % len(FORMATS)]
        kind, damage = DAMAGES[number // len(FORMATS) % len(DAMAGES)]
        yield kind, damage(rng, whole[name], whole[rng.choice(FORMATS)])
    yield from bombs()


def encoded(name: str) -> bytes:
    ramp = np.add.outer(np.arange(96), np.arange(128) * 2).astype(np.uint8)
    buffer = io.BytesIO()
    Pil.merge("RGB", [Pil.fromarray(ramp + 40 * n) for n in range(3)]).save(buffer, name)
    return buffer.getvalue()


def _flip(rng: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 30)):
        # Half of them in the header, where the sizes are.
        changed[rng.randrange(min(64, len(data)) if rng.random() < 0.5 else len(data))] = (
            rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        )
    return bytes(changed)


def _cut(rng: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _join(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def _repeat(rng: random.Random, data: bytes, _: bytes) -> bytes:
    start = rng.randrange(len(data))
    part = data[start : start + rng.randint(1, 4_000)]
    return data[:start] + part * rng.randint(2, 500) + data[start:]


DAMAGES: list[tuple[str, Callable[[random.Random, bytes, bytes], bytes]]] = [
    ("flipped bytes", _flip),
    ("cut short", _cut),
    ("two joined", _join),
    ("parts repeated", _repeat),
]


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that are, or say that they are, large."""
    for side in (20_000, 65_535, 2**31 - 1):
        for depth, colour in ((8, 0), (16, 6), (1, 3), (8, 2)):
            yield "PNG of many pixels", png(side, side, depth, colour, b"\0" * 1_000)
    for text in (b"zTXt", b"iTXt", b"iCCP"):
        for size in (1 << 20, 1 << 26):
            name = b"a\0\0" if text != b"iTXt" else b"a\0\1\0\0\0"
            yield (
                "PNG of much text",
                png(8, 8, 8, 2, b"\0" * 200, chunk(text, name + zlib.compress(bytes(size)))),
            )
    for side, scans in itertools.product((400, 2_000, 4_000), (300, 3_000, 30_000)):
        yield "JPEG of many scans", many_scans(side, scans)
    for size in (5_000, 10_000):
        buffer = io.BytesIO()
        Pil.new("1", (size, size)).save(buffer, "TIFF", compression="group4")
        yield "TIFF of one colour", buffer.getvalue()
    for frames in (2, 500):
        buffer = io.BytesIO()
        frame = [Pil.new("P", (300, 300), n % 255) for n in range(frames)]
        frame[0].save(buffer, "GIF", save_all=True, append_images=frame[1:])
        yield "GIF of many frames", buffer.getvalue()
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + b"\xff" * 60_000):
        buffer = io.BytesIO()
        Pil.new("RGB", (64, 64)).save(buffer, "JPEG", exif=exif)
        yield "broken EXIF", buffer.getvalue()
    for data in (b"", b"\0" * 10**6, b"%!PS-Adobe-3.0 EPSF\n", b"<svg xmlns='x'/>", b"P6 1 1 255 "):
        yield "no image", data
    for header in (b"P6 65535 65535 255\n", b"P5 200000000 1 65535\n", b"P4 1 2000000000\n"):
        yield "PPM of many pixels", header + b"\0" * 100
    for width, height in ((1, 30_000_000), (30_000_000, 1), (65_535, 1)):
        yield "a line", png(width, height, 8, 0, b"\0" * 1_000)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + end


def many_scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan comes `count` times."""
    buffer = io.BytesIO()
    Pil.new("L", (side, side), 77).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + b"\xff\xd9"


def survey() -> None:
    """Open all of them, and print what came of it as JSON."""
    found: dict[str, Counter[str]] = {}
    slowest = 0.0
    for kind, data in images():
        started = time.perf_counter()
        try:
            opened = load_image(data)
            said = "opened"
            assert opened.rgb.shape[2] == 3
        except BadInput as error:
            said = "refused" if "\n" not in str(error) else "several lines"
        slowest = max(slowest, time.perf_counter() - started)
        found.setdefault(kind, Counter())[said] += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024
    print(json.dumps({"found": found, "slowest": slowest, "mb": peak}))


def test_hostile_images_are_opened_or_refused_within_bounds() -> None:
    command = [sys.executable, "-m", "tests.hostile.test_broken_images"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    for kind, outcomes in seen["found"].items():
        print(f"{kind}: {outcomes}")
    total = Counter(key for outcomes in seen["found"].values() for key in outcomes)
    count = sum(sum(outcomes.values()) for outcomes in seen["found"].values())
    print(f"{count} images, slowest {seen['slowest']:.1f} s, peak {seen['mb']} MB")
    assert count >= 500
    assert "several lines" not in total
    assert seen["slowest"] < SECONDS
    assert seen["mb"] < MEGABYTES


if __name__ == "__main__":
    survey()
