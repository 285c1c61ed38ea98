"""Strangers' files are used or refused: one line, exit 2 or 4, in time, nothing outside the folder.

Every value of valid files is replaced by every value of `ODD`, and the models by broken ones:
`pytest -m hostile tests/hostile/test_files.py -s` prints how many were used and refused.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from rsvp.datasets.instances import CocoDataset
from rsvp.datasets.jsonl import JsonlDataset
from rsvp.datasets.scenes import SceneDataset
from rsvp.errors import RsvpError
from rsvp.images import load_image
from rsvp.masks import encode_rle
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.types import Box, Message, Proposal
from tests.tiny_models import tiny_qwen3_vl
from tests.tiny_sam2 import small_sam2

pytestmark = pytest.mark.hostile

SECONDS = 60.0  # for one file, on a busy machine; 0.1 to 1 s on an idle one
MODEL_CASES = 120
NESTED: list[Any] = []
for _ in range(300):
    NESTED = [NESTED]
ODD = (
    None, True, -1, 0, 0.5, 10**400, 10**9, 1e308, float("nan"), "", "\0", "x" * 5_000,
    "../outside.png", "/etc/passwd", [], {}, [1, 2], NESTED,
)  # fmt: skip

RLE = encode_rle(np.pad(np.ones((6, 5), dtype=np.bool_), ((3, 11), (4, 21))))
QUERY = {"id": "q", "kind": "k", "text": "t", "targets": [0], "unseen": False}
SCENE = {
    "image": "a.png", "height": 20, "width": 30, "queries": [QUERY],
    "objects": [{"name": "cup", "box": [4, 3, 9, 9], "mask": RLE}],
}  # fmt: skip
LINE = {"id": "1", "image": "a.png", "query": "q", "kind": "k", "masks": [RLE], "labels": ["cup"]}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
    "categories": [{"id": 1, "name": "cup"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": RLE, "iscrowd": 0},
    ],
}
DATASETS = {
    "scenes.json": ({"version": 1, "scenes": [SCENE]}, lambda file: SceneDataset(file.parent)),
    "lines.jsonl": (LINE, JsonlDataset),
    "instances.json": (COCO, CocoDataset),
}


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(document, dict | list):
        pairs = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in pairs:
            yield from places(value, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = part = copy.deepcopy(document)
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return changed


def survey(file: Path, use: Callable[[], object], most: int | None = None) -> Counter[str]:
    """Use the file with one value replaced, for each place and value, or for `most` of these."""
    document = json.loads(file.read_text(encoding="utf-8"))
    cases = [(path, value) for path in places(document) for value in ODD]
    if most is not None:
        cases = random.Random(0).sample(cases, min(most, len(cases)))
    found: Counter[str] = Counter()
    for path, value in cases:
        file.write_text(json.dumps(replaced(document, path, value)), encoding="utf-8")
        found[outcome(use, f"{file.name} {path} {str(value)[:40]}")] += 1
    file.write_text(json.dumps(document), encoding="utf-8")
    print(f"\n{file.name}: {dict(found)}")
    return found


def outcome(use: Callable[[], object], case: str) -> str:
    started, refused = time.perf_counter(), None
    try:
        use()
    except RsvpError as error:
        refused = error
    assert time.perf_counter() - started < SECONDS, case
    if refused is None:
        return "used"
    assert refused.exit_code in (2, 3, 4), case
    assert "\n" not in str(refused), case
    assert len(str(refused)) < 1_500, case
    return f"exit {refused.exit_code}"


@pytest.mark.parametrize("name", DATASETS)
def test_annotations(tmp_path: Path, name: str) -> None:
    document, reader = DATASETS[name]
    Pil.new("RGB", (30, 20)).save(tmp_path / "a.png")
    Pil.new("RGB", (30, 20)).save(tmp_path.parent / "outside.png")
    (tmp_path / name).write_text(json.dumps(document))

    def use() -> None:
        samples: Any = reader(tmp_path / name)
        samples.check_images()
        for index in range(len(samples)):
            path = Path(samples[index].image)
            assert tmp_path in path.parents
            assert ".." not in path.parts

    found = survey(tmp_path / name, use)
    assert found["used"] > 0
    assert found["exit 2"] > 100


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "1" * 5_000, "\0", "\ufeff{}", "{", "", "nul", '"\ud800"'],
)
def test_files_that_are_no_annotations(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert outcome(lambda: DATASETS[name][1](tmp_path / name), name) == "exit 2"


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_settings_of_a_segmenter(tmp_path: Path, name: str) -> None:
    small_sam2().save_pretrained(tmp_path)
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 128, "crop_margin": 0.2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    image = load_image(np.zeros((60, 80, 3), np.uint8))

    def use() -> None:
        cache = EmbeddingCache(Sam2Segmenter(str(tmp_path), device="cpu"), 1)
        cache.masks(image, [Proposal("x", Box(5, 5, 40, 40))])

    assert survey(tmp_path / name, use, MODEL_CASES)["exit 4"] > 10


@pytest.mark.parametrize(
    "name",
    ["config.json", "preprocessor_config.json", "tokenizer_config.json", "generation_config.json"],
)
def test_settings_of_a_local_mllm(tmp_path: Path, name: str) -> None:
    tiny_qwen3_vl(tmp_path)

    def use() -> None:
        mllm = TransformersMLLM(str(tmp_path), max_tokens=3, device="cpu")
        mllm.reply([Message("user", (np.zeros((60, 80, 3), np.uint8), "what is it?"))])

    assert survey(tmp_path / name, use, MODEL_CASES // 4)["exit 4"] > 0
