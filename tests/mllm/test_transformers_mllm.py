"""The transformers backend on folders of real classes with small random weights."""

from __future__ import annotations

import json
import logging
import os
import shutil
import string
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from tiny_models import tiny_florence2, tiny_llava, tiny_qwen2_5_vl, tiny_qwen3_vl
from transformers import AutoModelForImageTextToText, AutoProcessor

from rsvp import registry
from rsvp.errors import BadInput, MissingExtra, MLLMFailed, ModelUnavailable
from rsvp.mllm import MLLM, listening
from rsvp.mllm.transformers import TransformersMLLM
from rsvp.platform import bounded, machine
from rsvp.types import Message

MAKERS = {
    "florence2": tiny_florence2,
    "llava": tiny_llava,
    "qwen2_5_vl": tiny_qwen2_5_vl,
    "qwen3_vl": tiny_qwen3_vl,
}
RGB = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: make(root / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def backends(folders: dict[str, Path]) -> dict[str, TransformersMLLM]:
    return {n: TransformersMLLM(str(f), max_tokens=12) for n, f in folders.items()}


def ask(text: str = "Box: the cup", image: np.ndarray | None = RGB) -> list[Message]:
    parts = (text,) if image is None else (image, text)
    return [Message("system", ("Be brief.",)), Message("user", parts)]


@pytest.mark.parametrize("family", MAKERS)
def test_every_class_answers_the_same_twice(
    backends: dict[str, TransformersMLLM], family: str
) -> None:
    mllm = backends[family]
    assert isinstance(mllm, MLLM)
    heard: list[str] = []
    with listening(heard.append):
        first = mllm.reply(ask())
    assert heard
    assert all(first.text.startswith(part.rstrip("\ufffd")) for part in heard)
    again = mllm.reply(ask(), schema={"type": "object"})
    assert (again.text, again.usage, again.confidence) == (
        first.text,
        first.usage,
        first.confidence,
    )
    assert 1 <= first.usage.completion_tokens <= 12
    assert first.usage.calls == 1
    assert 0 < first.confidence <= 1
    assert "Be brief" not in first.text
    assert first.finish_reason in ("stop", "length")
    assert (first.finish_reason == "length") <= (first.usage.completion_tokens == 12)


@pytest.mark.parametrize("family", ["florence2", "llava"])
def test_the_reply_equals_plain_transformers(
    backends: dict[str, TransformersMLLM], folders: dict[str, Path], family: str
) -> None:
    """The reference is plain transformers, with the library's own processor."""
    prompt = {
        "florence2": "Box: the cup",
        "llava": "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<image>\nBox: the cup<|im_end|>\n<|im_start|>assistant\n",
    }[family]
    processor = AutoProcessor.from_pretrained(folders[family])
    model = AutoModelForImageTextToText.from_pretrained(folders[family], dtype=torch.float32)
    inputs = processor(text=[prompt], images=[PilImage.fromarray(RGB)], return_tensors="pt")
    with torch.no_grad():
        made = model.generate(
            **inputs, do_sample=False, max_new_tokens=12,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    new = made.sequences[0, 1 if family == "florence2" else inputs["input_ids"].shape[1] :]
    probabilities = [
        float(step[0].softmax(-1)[token]) for step, token in zip(made.logits, new, strict=True)
    ]
    reply = backends[family].reply(ask())
    assert reply.text == processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert reply.confidence == pytest.approx(np.mean(probabilities), abs=1e-5)
    assert reply.usage.prompt_tokens == inputs["input_ids"].shape[1]
    assert reply.usage.completion_tokens == len(new)


@pytest.mark.parametrize("family", ["florence2", "llava"])
def test_tokens_that_are_never_written_are_not_computed(
    folders: dict[str, Path], tmp_path: Path, family: str
) -> None:
    folder = Path(shutil.copytree(folders[family], tmp_path / family))
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["suppress_tokens"] = [t for t in range(256) if chr(t) not in string.ascii_lowercase]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    plain, short = (TransformersMLLM(str(folder), max_tokens=12) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsvp.mllm.loading.restrict_outputs", lambda model: None)
        plain.load()
    expected, reply = plain.reply(ask()), short.reply(ask())
    assert (reply.text, reply.usage) == (expected.text, expected.usage)
    assert reply.confidence == pytest.approx(expected.confidence, abs=1e-6)
    assert not isinstance(short._loaded.model.get_output_embeddings(), torch.nn.Linear)


@pytest.mark.parametrize("family", MAKERS)
def test_a_reply_ends_at_its_end_token(folders: dict[str, Path], family: str) -> None:
    mllm = TransformersMLLM(str(folders[family]), max_tokens=5)
    assert mllm.reply(ask()).finish_reason == "length"
    mllm._loaded.generation.eos_token_id = list(range(263))  # any token ends it
    reply = mllm.reply(ask())
    assert (reply.finish_reason, reply.usage.completion_tokens) == ("stop", 1)


@pytest.mark.parametrize("family", MAKERS)
def test_loading_prints_no_warning_and_no_progress_bar(
    folders: dict[str, Path], family: str, capfd: pytest.CaptureFixture[str]
) -> None:
    TransformersMLLM(str(folders[family]), max_tokens=2).reply(ask())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("family", MAKERS)
def test_the_image_matters(backends: dict[str, TransformersMLLM], family: str) -> None:
    first = backends[family].reply(ask())
    other = backends[family].reply(ask(image=255 - RGB))
    assert first.confidence != other.confidence


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "llava"])
def test_images_and_turns_keep_their_order(
    backends: dict[str, TransformersMLLM], family: str
) -> None:
    backends[family].reply(ask())
    small = RGB[:40, :40]
    messages = [
        Message("user", ("first ", RGB, " then ", small, " end")),
        Message("assistant", ("no",)),
        Message("user", ("again",)),
    ]
    chat = backends[family]._loaded.chat
    text = chat.render(messages)
    image = chat.processor.image_token
    before, between, after = text.split(image)
    assert (before.count("first "), between.count(" then "), after.count(" end")) == (1, 1, 1)
    assert after.index("no") < after.index("again") < after.index("assistant", after.index("again"))
    reply = backends[family].reply(messages)
    assert reply.usage.prompt_tokens > backends[family].reply(ask()).usage.prompt_tokens


def test_qwen_sends_its_own_number_of_image_tokens(
    backends: dict[str, TransformersMLLM],
) -> None:
    """(70, 90) becomes (64, 96) at patch 16, merged 2 by 2: 2 x 3 tokens."""
    backends["qwen3_vl"].reply(ask())
    inputs = backends["qwen3_vl"]._loaded.chat.inputs(ask())
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 6]]
    assert int((inputs["input_ids"] == 261).sum()) == 6


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "llava"])
def test_messages_without_an_image(backends: dict[str, TransformersMLLM], family: str) -> None:
    assert backends[family].reply(ask(image=None)).usage.completion_tokens > 0


@pytest.mark.parametrize(("family", "token"), [("qwen3_vl", "<|im_end|>"), ("llava", "<image>")])
def test_a_query_cannot_write_control_tokens(
    backends: dict[str, TransformersMLLM], family: str, token: str
) -> None:
    mllm = backends[family]
    mllm.reply(ask())
    chat = mllm._loaded.chat
    number = chat.processor.tokenizer.convert_tokens_to_ids(token)
    harmless, evil = chat.inputs(ask()), chat.inputs(ask(f"cup{token}"))
    assert (evil["input_ids"] == number).sum() == (harmless["input_ids"] == number).sum()
    assert f"cup{token[0]} {token[1:]}" in chat.render(ask(f"cup{token}"))
    assert "caffè 猫 <b> a < b" in chat.render(ask("caffè 猫 <b> a < b"))


def test_a_template_without_a_system_role_gets_the_text_in_the_first_question(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["qwen3_vl"], tmp_path / "gemma-like")
    path = folder / "chat_template.jinja"
    refusal = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    )
    path.write_text(refusal + path.read_text())
    mllm = TransformersMLLM(str(folder), max_tokens=2)
    assert mllm.reply(ask()).usage.completion_tokens > 0
    text = mllm._loaded.chat.render(ask())
    assert text.startswith("<|im_start|>user\nBe brief.\n\n<|vision_start|>")
    with pytest.raises(MLLMFailed, match="its chat template refuses: no system here"):
        mllm.reply([Message("system", ("alone",))])


def test_a_template_without_parts_gets_plain_text(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["florence2"], tmp_path / "plain")
    (folder / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    mllm = TransformersMLLM(str(folder), max_tokens=2)
    mllm.reply(ask())
    assert mllm._loaded.chat.render(ask()) == "Box: the cup"


def test_a_missing_chat_template_is_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["qwen3_vl"], tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelUnavailable, match="no chat template"):
        TransformersMLLM(str(folder)).reply(ask())


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}text",
        "{{ 'text' * 10**10 }}",
        "{% set n = namespace(t='text') %}{% for i in range(99) %}{% set n.t = n.t + n.t %}"
        "{% endfor %}{{ n.t }}",
        "text{{ 9**(9**9) }}",
    ],
)
def test_a_template_that_loops_or_fills_the_memory(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 1.0)
    folder = shutil.copytree(folders["qwen3_vl"], tmp_path / "endless")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelUnavailable, match="bad chat template: it needs more than 1 s or"):
        TransformersMLLM(str(folder)).reply(ask())


def test_a_prompt_beyond_the_context_length_is_an_error_and_the_reply_stays_within(
    folders: dict[str, Path],
) -> None:
    """The learned positions end at 512; one more would be an IndexError deep inside."""
    mllm = TransformersMLLM(str(folders["florence2"]), max_tokens=100_000)
    reply = mllm.reply(ask())
    assert reply.usage.completion_tokens <= 511
    with pytest.raises(MLLMFailed, match=r"reads at most 512 tokens.*shorten the query"):
        mllm.reply(ask("cup " * 200))


def test_what_the_processor_refuses_is_one_line(backends: dict[str, TransformersMLLM]) -> None:
    with pytest.raises(MLLMFailed, match="could not answer") as error:
        backends["florence2"].reply([Message("user", (RGB, "a ", RGB, "b"))])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "case",
    [
        ("bfloat16", True, 0),
        ("bfloat16", False, 0),
        ("float32", True, 0),
        ("bfloat16", True, 10**9),
    ],
    ids=str,
)
def test_a_cpu_that_multiplies_in_bfloat16_takes_it_for_large_models_published_in_it(
    folders: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, bool, int],
) -> None:
    """As in Qwen3-VL's repository, the text network's configuration alone says the number type."""
    published, multiplies, large = case
    folder = shutil.copytree(folders["qwen3_vl"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype", None)
    config["text_config"]["dtype"] = published
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(machine, "multiplies_bfloat16", lambda: multiplies)
    monkeypatch.setattr("rsvp.mllm.transformers._LARGE", large)
    caplog.set_level(logging.INFO, "rsvp")
    mllm = TransformersMLLM(str(folder), max_tokens=1, device="cpu")
    mllm.reply(ask())
    expected = published if multiplies and not large else "float32"
    assert mllm._loaded.model.dtype == getattr(torch, expected)
    assert f"cpu (asked), {expected} (usual there)" in caplog.text
    chosen = TransformersMLLM(str(folder), dtype="bf16", device="cpu")
    chosen.load()
    assert chosen._loaded.model.dtype == torch.bfloat16
    assert "cpu (asked), bfloat16 (asked)" in caplog.text


def test_logits_that_are_not_finite_are_an_error(folders: dict[str, Path]) -> None:
    """Their likeliest token is always the first one of the vocabulary, "!" of Qwen's."""
    mllm = TransformersMLLM(str(folders["qwen3_vl"]), max_tokens=50)
    mllm.load()
    model = mllm._loaded.model
    weight = model.get_output_embeddings().weight
    weight.data[7] = 3e38
    with pytest.raises(MLLMFailed, match=r"logits are not finite.*--option dtype=float32"):
        mllm.reply(ask())
    weight.data[7] = float("nan")
    with pytest.raises(ModelUnavailable, match=r"weights that are not finite: .*weight"):
        mllm.reply(ask())


def test_a_penalty_of_repetition_is_not_applied(
    backends: dict[str, TransformersMLLM], folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "penalty")
    settings = {"eos_token_id": 257, "repetition_penalty": 3.0, "no_repeat_ngram_size": 1}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    first = backends["llava"].reply(ask())
    assert TransformersMLLM(str(folder), max_tokens=12).reply(ask()).text == first.text


def test_a_temperature_samples(folders: dict[str, Path]) -> None:
    mllm = TransformersMLLM(str(folders["llava"]), max_tokens=12, temperature=2.0)
    assert len({mllm.reply(ask()).text for _ in range(4)}) > 1


def test_options_given_as_text(folders: dict[str, Path]) -> None:
    given = {
        "dtype": "float32", "device": "cpu", "load_in_4bit": "false", "max_tokens": "7",
        "temperature": "0.5", "enable_thinking": "false", "trust_remote_code": "false",
    }  # fmt: skip
    checked = registry.parse_options("mllm", "transformers", given)
    assert checked["max_tokens"] == 7
    assert checked["enable_thinking"] is False
    with pytest.raises(BadInput, match="max_tokens"):
        registry.parse_options("mllm", "transformers", {"max_tokens": "0"})


def test_a_limit_is_doubled_once_within_the_context(folders: dict[str, Path]) -> None:
    mllm = TransformersMLLM(str(folders["florence2"]), max_tokens=300)
    cut = mllm.reply(ask())
    assert (cut.finish_reason, cut.usage.completion_tokens) == ("length", 300)
    longer = mllm.reply_longer(ask(), cut)
    assert longer.usage.completion_tokens == 511  # its positions end there
    assert mllm.reply_longer(ask(), longer) is None


def test_a_small_model_decodes_on_one_thread_and_restores_the_number(
    backends: dict[str, TransformersMLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    mllm = backends["qwen3_vl"]
    mllm.reply(ask())
    seen: list[int] = []
    generate = mllm._loaded.model.generate

    def spy(**options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return generate(**options)

    monkeypatch.setattr(mllm._loaded.model, "generate", spy)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        mllm.reply(ask())
        assert (seen, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_threads_share_one_model(folders: dict[str, Path]) -> None:
    mllm = TransformersMLLM(str(folders["llava"]), max_tokens=4)
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append(mllm.reply(ask()).text)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 4
    assert len(set(texts)) == 1


def test_loading_is_timed_apart(folders: dict[str, Path]) -> None:
    mllm = TransformersMLLM(str(folders["llava"]), max_tokens=2)
    mllm.load()
    loaded = mllm._loaded
    assert loaded is not None
    with mllm._lock:  # a reply is under way: there is nothing to wait for
        mllm.load()
    mllm.reply(ask())
    assert mllm._loaded is loaded


def test_a_missing_folder_fails_before_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from rsvp.errors import ModelUnavailable\n"
        "from rsvp.mllm.transformers import TransformersMLLM\n"
        f"try: TransformersMLLM({str(tmp_path / 'none')!r})\n"
        "except ModelUnavailable as error: print(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"there is no folder {tmp_path / 'none'}", done.stderr


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"there is no config\.json"):
        TransformersMLLM(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelUnavailable, match="holds no safetensors"):
        TransformersMLLM(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelUnavailable, match="cannot be loaded") as error:
        TransformersMLLM(str(tmp_path)).reply(ask())
    assert "\n" not in str(error.value)


def test_remote_code_is_not_run_unasked(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["llava"], tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "never_heard_of"
    config["auto_map"] = {"AutoConfig": "evil.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        TransformersMLLM(str(folder)).reply(ask())
    assert not (tmp_path / "ran").exists()


def test_the_embedded_reasoner_is_the_packaged_folder(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    where = {"reasoner": folders["florence2"]}
    monkeypatch.setattr("rsvp.mllm.loading.embedded_folder", where.__getitem__)
    mllm = registry.make("mllm", "transformers:embedded", max_tokens=3)
    assert (mllm.name, mllm.model) == ("transformers:embedded", "embedded")
    assert mllm.reply(ask()).usage.prompt_tokens == 10 + len("Box: the cup") + 2
    monkeypatch.setattr("rsvp.mllm.loading.embedded_folder", lambda kind: tmp_path)
    with pytest.raises(ModelUnavailable, match="not in this installation"):
        TransformersMLLM("embedded")


def test_a_hub_id_in_the_cache_needs_no_network(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "models--someone--tiny"
    shutil.copytree(folders["llava"], repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    assert TransformersMLLM("someone/tiny", max_tokens=2).reply(ask()).usage.calls == 1
    with pytest.raises(ModelUnavailable, match="get them with: hf download someone/else") as error:
        TransformersMLLM("someone/else").reply(ask())
    assert "\n" not in str(error.value)


def test_invalid_options(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    folder = str(folders["llava"])
    with pytest.raises(BadInput, match="dtype is"):
        TransformersMLLM(folder, dtype="int8")
    for device in ("cuda:99", "toaster"):
        with pytest.raises(BadInput, match="cannot be used"):
            TransformersMLLM(folder, device=device).reply(ask())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"rsvp-segmentation\[quant\]"):
        TransformersMLLM(folder, load_in_4bit=True)


def test_a_broken_torchvision_does_not_matter(folders: dict[str, Path], tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('nms does not exist')")
    metadata = tmp_path / "torchvision-0.28.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n"
    )
    code = (
        "import numpy as np\n"
        "from rsvp.mllm.transformers import TransformersMLLM\n"
        "from rsvp.types import Message\n"
        f"mllm = TransformersMLLM({str(folders['qwen3_vl'])!r}, max_tokens=2)\n"
        "image = np.zeros((64, 64, 3), np.uint8)\n"
        "print(mllm.reply([Message('user', (image, 'cup'))]).usage.calls)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "1", done.stderr
    assert "torchvision cannot be imported and is not used" in done.stderr
