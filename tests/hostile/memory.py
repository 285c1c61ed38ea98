"""Peak memory and time of one piece of work, in a process of its own.

    python -m tests.hostile.memory            prints the table of docs/security.md
    python -m tests.hostile.memory CASE …     prints one row as JSON: peak MB and seconds

``decode FORMAT SIDE``: open an image of SIDE x SIDE. ``segment STRATEGY+SEGMENTER MEGAPIXELS
TARGETS``: one query with a scripted MLLM, and `result.json` and `overlay.png` where there are at
most 30 targets.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image as Pil

DEMO = Path(__file__).parents[2] / "rsvp" / "embedded" / "demo.png"
CASES = (
    ("decode", "jpeg", 5_500),
    *(("decode", "rgba16", side) for side in (7_000, 14_000)),
    ("decode", "scans", 5_000),
    *(("segment", "boxes+box", size, n) for size in (3, 12, 30) for n in (1, 30, 300)),
    ("segment", "boxes+sam2:embedded", 30, 1),
    *(("segment", "marks+sam2:embedded", size, 1) for size in (3, 12, 30)),
    ("segment", "marks:masks+sam2:embedded", 30, 1),
)


def main(arguments: list[str]) -> None:
    if arguments:
        print(json.dumps(measured(*arguments)))
        return
    for case in CASES:
        row = run(*case)
        print(f"| {' '.join(map(str, case))} | {row['mb']:,} MB | {row['seconds']:.1f} s |")


def run(*case: object) -> dict[str, float]:
    """`measured` in a new process."""
    command = [sys.executable, "-m", "tests.hostile.memory", *map(str, case)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(case: str, what: str, size: str, targets: str = "0") -> dict[str, float]:
    work = decode if case == "decode" else segment
    with tempfile.TemporaryDirectory() as folder:
        seconds = work(what, int(size), int(targets), Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux
    return {"mb": peak // 1_024, "seconds": round(seconds, 2)}


def decode(kind: str, side: int, _: int, folder: Path) -> float:
    """Seconds to open an image, which another process writes."""
    from rsvp.errors import BadInput
    from rsvp.images import load_image

    file = folder / "image"
    make = "from tests.hostile.memory import encoded; import sys; "
    make += f"open(sys.argv[1], 'wb').write(encoded({kind!r}, {side}))"
    subprocess.run([sys.executable, "-c", make, file], check=True)
    started = time.perf_counter()
    try:
        load_image(file)
    except BadInput as error:
        print(error)
    return time.perf_counter() - started


def encoded(kind: str, side: int) -> bytes:
    """A file of side x side pixels: ``jpeg``, ``rgba16`` (a PNG) or ``scans`` (a JPEG of 1,500)."""
    buffer = io.BytesIO()
    if kind == "rgba16":
        return png16(side)
    ramp = np.add.outer(np.arange(side), np.arange(side)) // 16 % 256
    Pil.fromarray(ramp.astype(np.uint8)).convert("RGB").save(
        buffer, "JPEG", progressive=kind == "scans"
    )
    data = buffer.getvalue()
    return many_scans(data, 1_500) if kind == "scans" else data


def many_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan comes `count` times."""
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * (count - jpeg.count(b"\xff\xda")) + b"\xff\xd9"


def png16(side: int) -> bytes:
    """A PNG of 16-bit RGBA; Pillow does not write such files."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    packer, row = zlib.compressobj(1), b"\0" + bytes(range(256)) * (side // 32 + 1)
    rows = b"".join(packer.compress(row[: 1 + 8 * side]) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def segment(parts: str, megapixels: int, count: int, folder: Path) -> float:
    """Seconds of one query with `count` targets, and of writing its files."""
    from rsvp.pipeline import Pipeline
    from tests.scripted import Script

    strategy, segmenter = parts.split("+")
    width, height = round((megapixels * 1.5e6) ** 0.5), round((megapixels / 1.5e-6) ** 0.5)
    image = np.asarray(Pil.open(DEMO).convert("RGB").resize((width, height)))
    # A third of the image's sides each, at places of its own.
    places = [[i * 600 // max(count, 1), i * 7919 % 600] for i in range(count)]
    boxes = [{"label": "thing", "box": [x, y, x + 330, y + 330]} for x, y in places]
    marks = [{"label": "thing", "marks": [i + 1]} for i in range(count)]
    targets = marks if strategy.startswith("marks") else boxes
    reply = json.dumps({"steps": [], "targets": targets, "reason": "it fits"})
    pipeline = Pipeline.from_preset(
        "embedded", mllm=Script(reply), strategy=strategy, segmenter=segmenter
    )
    started = time.perf_counter()
    result = pipeline.segment(image, "the thing")
    assert result.mask.any()
    if count <= 30:
        result.save(str(folder), ["json", "overlay"])
    assert len(result.targets) == count
    return time.perf_counter() - started


if __name__ == "__main__":
    main(sys.argv[1:])
