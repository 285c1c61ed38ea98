"""Families of local models, each in a folder as its real repository is laid out.

The table is `local_families.FAMILIES`. Where a test needs a certain reply, only the sampling of the
network is replaced: the prompt, the inputs and the decoding are the backend's own.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_folders import write_folder, write_refused
from local_families import FAMILIES
from PIL import Image as PilImage
from refused_families import REFUSED
from server_dialects import DIALECTS
from tiny_models import tiny_florence2
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from rsvp import families
from rsvp.errors import MissingExtra, ModelUnavailable
from rsvp.mllm.chat import Chat
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.pipeline import Pipeline
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Message

RGB = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
ASKED = [Message("system", ("Be brief.",)), Message("user", (RGB, "Where is the cup?"))]
LIMIT = 3  # tokens of a reply
BOX = (31.0, 22.0, 118.0, 80.0)  # pixels of RGB
# Parts, and what Aya's class multiplies into one another.
NO_SETTINGS = (
    "image_processor", "video_processor", "feature_extractor", "processor_class", "chat_template",
    "patch_size", "downsample_factor",
)  # fmt: skip
HERE = [n for n, f in FAMILIES.items() if not f.needs or importlib.util.find_spec(f.needs)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TransformersMLLM]:
    """A family's backend, loaded; each folder is written and loaded once."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def load(name: str) -> TransformersMLLM:
        if name not in made:
            folder = write_folder(FAMILIES[name], root / str(len(made)))
            made[name] = TransformersMLLM(str(folder), max_tokens=LIMIT)
            made[name].load()
        return made[name]

    return load


def replies(mllm: TransformersMLLM, write: Callable[..., str], patch: pytest.MonkeyPatch) -> None:
    """Let the network's sampling give what `write` makes of its inputs, and its end token."""
    tokenizer = mllm._loaded.chat.processor.tokenizer

    def generate(input_ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        ids = tokenizer.encode(write(**inputs), add_special_tokens=False)
        new = torch.tensor([[*ids, tokenizer.eos_token_id]])
        return torch.cat([input_ids, new], dim=1)

    patch.setattr(mllm._loaded.model, "generate", generate)


@pytest.mark.parametrize("name", HERE)
def test_it_loads_and_a_cut_reply_is_named(loaded: Any, name: str) -> None:
    mllm = loaded(name)
    assert len(list(Path(mllm.model).glob("model-*-of-*.safetensors"))) > 1
    reply = mllm.reply(ASKED)
    assert (reply.finish_reason, reply.usage.completion_tokens) == ("length", LIMIT)
    assert 0 < reply.confidence <= 1
    longer = mllm.reply_longer(ASKED, reply)
    assert (longer.finish_reason, longer.usage.completion_tokens) == ("length", 2 * LIMIT)
    opened = mllm._loaded.chat.render(ASKED).rstrip().endswith("<think>")
    assert reply.text.startswith("<think>") == opened


@pytest.mark.parametrize("name", HERE)
def test_pixels_grid_and_settings_are_those_of_its_own_classes(loaded: Any, name: str) -> None:
    mllm, family = loaded(name), FAMILIES[name]
    chat = mllm._loaded.chat
    inputs = chat.inputs(ASKED)
    own = AutoImageProcessor.from_pretrained(mllm.model)
    expected = own(images=[PilImage.fromarray(RGB)], return_tensors="pt")
    same = [key for key in expected if key in inputs and isinstance(expected[key], torch.Tensor)]
    assert "pixel_values" in same
    for key in same:
        torch.testing.assert_close(inputs[key].reshape(expected[key].shape), expected[key])
    for key, value in family.files.get("processor_config.json", {}).items():
        assert key in NO_SETTINGS or getattr(chat.processor, key) == value
    assert chat.template == family.template


@pytest.mark.parametrize("name", HERE)
def test_native_markup_survives_decoding(
    loaded: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mllm, markup = loaded(name), FAMILIES[name].markup
    replies(mllm, lambda **_: markup, monkeypatch)
    reply = mllm.reply(ASKED)
    assert reply.text.removeprefix("<think>") == markup
    assert reply.finish_reason == "stop"


def written(mllm: TransformersMLLM, frame: str, size: tuple[int, int], grid: Any) -> str:
    """BOX as a model of this frame writes it, from what it sees of an image of this size."""
    if frame == "resized-pixels":
        patch = mllm._loaded.model.config.vision_config.patch_size
        per_y, per_x = float(grid[0, 1] * patch) / size[0], float(grid[0, 2] * patch) / size[1]
    else:
        unit = 1 if frame == "0-1" else 1000
        per_y, per_x = unit / size[0], unit / size[1]
    digits = 3 if frame == "0-1" else None
    pairs = zip(BOX, (per_x, per_y) * 2, strict=True)
    x0, y0, x1, y1 = (round(v * per, digits) for v, per in pairs)
    numbers = [y0, x0, y1, x1] if frame.endswith("yxyx") else [x0, y0, x1, y1]
    return json.dumps({"targets": [{"label": "cup", "box": numbers}], "reason": "It is there."})


def box_of(mllm: TransformersMLLM, frame: str, rgb: np.ndarray, patch: pytest.MonkeyPatch) -> Any:
    """The box that comes back through the pipeline."""

    def write(image_grid_thw: Any = None, **_: Any) -> str:
        return written(mllm, frame, rgb.shape[:2], image_grid_thw)

    replies(mllm, write, patch)
    pipeline = Pipeline(mllm, BoxesStrategy(), BoxSegmenter(), frame=frame)
    (target,) = pipeline.reason(rgb, "the cup").reasoning.proposals
    return target.box.xyxy


@pytest.mark.parametrize("name", HERE)
def test_a_box_in_its_own_frame_comes_back_to_the_pixel(
    loaded: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = box_of(loaded(name), FAMILIES[name].frame, RGB, monkeypatch)
    assert box == pytest.approx(BOX, abs=1)


def test_a_folder_that_says_nothing_has_its_class_s_own_size_limit(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.0 megapixel; the library's constant of 12.8 would shrink every box by a quarter."""
    mllm, large = loaded("MiMo-VL"), np.zeros((1200, 1500, 3), np.uint8)
    assert box_of(mllm, "resized-pixels", large, monkeypatch) == pytest.approx(BOX, abs=1)
    height, width = mllm.reply([Message("user", (large, "cup"))]).resized
    assert height * width < 1_003_520 < 1200 * 1500


@pytest.mark.parametrize("name", HERE)
def test_the_registry_knows_its_frame(loaded: Any, name: str) -> None:
    assert families.family(loaded(name).model).frame == FAMILIES[name].frame


def test_the_page_of_families_says_what_is_run_here() -> None:
    rows = {kind: row for row in families.FAMILIES for kind in row.model_types}
    for name, family in FAMILIES.items():
        row = rows.get(family.config["model_type"])
        assert row is None or (name in row.run) is not bool(family.needs)
    run = {name for row in families.FAMILIES for name in row.run if row.name != "embedded"}
    assert run <= {*FAMILIES, *(d.name for d in DIALECTS), "Florence-2"}


@pytest.mark.parametrize("name", [n for n in HERE if FAMILIES[n].thinking])
def test_thinking_is_switched_on_and_off(loaded: Any, name: str) -> None:
    processor = loaded(name)._loaded.chat.processor
    on, off = (Chat(processor, flag).render(ASKED) for flag in (True, False))
    only_on, only_off = FAMILIES[name].thinking
    assert re.search(only_on, on)
    assert not re.search(only_on, off)
    assert re.search(only_off, off)
    assert not re.search(only_off, on)


def test_the_option_reaches_the_template(loaded: Any) -> None:
    mllm = TransformersMLLM(loaded("Qwen3.5").model, max_tokens=1, enable_thinking=False)
    assert not mllm.reply(ASKED).text.startswith("<think>")
    assert mllm._loaded.chat.render(ASKED).endswith("</think>\n\n")


def test_a_template_without_a_switch_says_so(loaded: Any, caplog: pytest.LogCaptureFixture) -> None:
    Chat(loaded("Gemma 3")._loaded.chat.processor, enable_thinking=False)
    assert "enable_thinking has no effect" in caplog.text


def test_florence2_writes_location_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mllm = TransformersMLLM(str(tiny_florence2(tmp_path / "florence")), max_tokens=LIMIT)
    mllm.load()
    tokenizer = mllm._loaded.chat.processor.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<loc_12>", "<loc_34>"]})
    ids = tokenizer.encode("cup<loc_12><loc_34>", add_special_tokens=False)
    around = [mllm._loaded.model.config.decoder_start_token_id, tokenizer.bos_token_id]
    sequence = torch.tensor([[*around, *ids, tokenizer.eos_token_id]])
    monkeypatch.setattr(mllm._loaded.model, "generate", lambda **_: sequence)
    assert mllm.reply(ASKED).text == "cup<loc_12><loc_34>"


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if n not in HERE])
def test_a_missing_package_is_named_by_its_extra(tmp_path: Path, name: str) -> None:
    folder = write_folder(FAMILIES[name], tmp_path / "model")
    with pytest.raises(MissingExtra, match=r"pip install 'rsvp-segmentation\[vision\]'"):
        TransformersMLLM(str(folder)).load()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_loaded_is_refused_in_words(tmp_path: Path, name: str) -> None:
    refused = REFUSED[name]
    if refused.needs and importlib.util.find_spec(refused.needs):
        pytest.skip(f"{refused.needs} is here")
    mllm = TransformersMLLM(str(write_refused(refused, tmp_path / "model")))
    with pytest.raises((ModelUnavailable, MissingExtra), match=refused.words) as error:
        mllm.load()
    assert "\n" not in str(error.value)


def test_dtype_and_device_are_those_asked_for_and_weights_go_there_directly(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[dict[str, Any]] = []
    load = AutoModelForImageTextToText.from_pretrained

    def spy(*args: Any, **given: Any) -> Any:
        options.append(given)
        return load(*args, **given)

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", spy)
    folder = loaded("Qwen3-VL").model
    mllm = TransformersMLLM(folder, max_tokens=1, dtype="bfloat16", device="cpu")
    mllm.reply(ASKED)
    model: Any = mllm._loaded.model
    assert (model.dtype, model.device.type) == (torch.bfloat16, "cpu")
    assert options[0]["device_map"] == {"": torch.device("cpu")}


def test_a_folder_without_one_of_its_shards_is_incomplete(loaded: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in Path(loaded("Qwen3-VL").model).iterdir():
        (folder / file.name).symlink_to(file)
    first = min(folder.glob("model-*.safetensors"))
    first.unlink()
    with pytest.raises(ModelUnavailable, match=f"incomplete: it lacks {first.name}"):
        TransformersMLLM(str(folder))
    (folder / "model.safetensors.index.json").unlink()  # nor has the index arrived
    with pytest.raises(ModelUnavailable, match=f"incomplete: it lacks {first.name}"):
        TransformersMLLM(str(folder))
