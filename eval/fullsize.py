"""One `rsvp segment` at full size without a download: the laptop preset's models, random weights.

    python -m eval.fullsize --folder DIR [--image PATH] [--query TEXT] [--option KEY=VALUE]...

Writes Qwen3-VL-2B-Instruct and sam2.1-hiera-tiny into DIR where they are not there yet (4.5 GB):
the published configurations, laid out as on the hub. The tokenizer is of the same class and size,
trained on the Python files of this environment, so its texts have about as many tokens. Random
weights write nothing readable: `ForcedReply` makes the network choose the tokens of a known reply,
one forward pass each. Then the whole command runs in a process of its own; printed are its time,
its peak memory beside what `rsvp models` says, and the share of time outside the two networks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval._common import make_parser, run
from eval.speed import DEMO, QUERY, ColdRun, cold_run, print_rows
from rsvp import presets, registry
from rsvp.mllm.transformers import TransformersMLLM

if TYPE_CHECKING:
    import torch

PRESET = "laptop"
MLLM, SEGMENTER = "Qwen3-VL-2B-Instruct", "sam2.1-hiera-tiny"

# huggingface.co/Qwen/Qwen3-VL-2B-Instruct. With them the class has 2.128 10^9 parameters, 407.0
# million of them in the vision network, as huggingface.co/OpenExplorer/Qwen3-VL-2B-Instruct counts
# in the published checkpoint.
TEXT: Mapping[str, Any] = {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 262144, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    "bos_token_id": 151643, "eos_token_id": 151645,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 5_000_000, "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}  # fmt: skip
VISION: Mapping[str, Any] = {
    "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
    "out_hidden_size": 2048, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
    "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17],
}  # fmt: skip
# With the ids from VOCABULARY on, in this order.
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
VOCABULARY = 151643
TEXT_BYTES = 40_000_000  # that the tokenizer is trained on
IMAGES = {
    "size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16,
    "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    "processor_class": "Qwen3VLProcessor",
}  # fmt: skip
IMAGE_TYPE = {"image_processor_type": "Qwen2VLImageProcessorFast"}
VIDEO_TYPE = {"video_processor_type": "Qwen3VLVideoProcessor"}
GENERATION = {
    "bos_token_id": 151643, "pad_token_id": 151643, "eos_token_id": [151645, 151643],
    "do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.0,
}  # fmt: skip
TEMPLATE = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for part in m.content -%}"
    "{%- if part.type == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}{{ '<|im_end|>\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
REPLY = json.dumps(
    {
        "steps": [
            "The question asks for the thing that one would use for this, so a tool with a blade.",
            "Several things lie on the table; only one of them has a handle and a long blade.",
            "It is present, in the lower left part of the image.",
        ],
        "targets": [{"label": "knife", "bbox_2d": [112, 530, 431, 874]}],
        "reason": "A knife cuts bread, and this is the only one in the image.",
    }
)  # fmt: skip


class ForcedReply(TransformersMLLM):
    """A local model whose network is made to choose the tokens of `REPLY`."""

    def _ready(self) -> Any:
        first, loaded = self._loaded is None, super()._ready()
        if first:
            tokenizer, generate = loaded.chat.processor.tokenizer, loaded.model.generate
            ids = [*tokenizer.encode(REPLY, add_special_tokens=False), tokenizer.eos_token_id]
            MEASURED.watch(loaded.model.model.visual, "MLLM, image")  # before the first forward
            MEASURED.watch(loaded.model, "MLLM")

            def forced(*, logits_processor: Sequence[Any], **inputs: Any) -> Any:
                return generate(**inputs, logits_processor=[_force(ids), *logits_processor])

            loaded.model.generate = forced
        return loaded


def _force(ids: Sequence[int]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A logits processor that raises the logit of the next of these tokens above all others."""
    left = iter(ids)

    def force(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, next(left)] = scores.max() + 1
        return scores

    return force


def watched_sam2(model: str, **options: Any) -> Any:
    """SAM 2, with the time in its network measured."""
    segmenter = registry.load("segmenter", "sam2")(model, **options)
    MEASURED.watch(segmenter.net.vision_encoder, "image encoder")
    MEASURED.watch(segmenter.net, "mask decoder")
    return segmenter


class Measured(dict[str, float]):
    """Seconds in the forward passes of networks, by name, and their number."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: list[float] = []

    def watch(self, net: torch.nn.Module, name: str) -> None:
        """Count the passes of this network under this name; none within another one's pass."""

        def begin(*_: Any) -> None:
            self._begun.append(time.perf_counter())

        def end(*_: Any) -> None:
            seconds = time.perf_counter() - self._begun.pop()
            if not self._begun:
                self[name] = self.get(name, 0.0) + seconds
                self[f"{name} passes"] = self.get(f"{name} passes", 0) + 1

        net.register_forward_pre_hook(begin)
        net.register_forward_hook(end)


MEASURED = Measured()
NETWORKS = ("MLLM, image", "MLLM", "image encoder", "mask decoder")


# ------------------------------------------------------------ the folders


def write_folders(place: str) -> None:
    """Write the folders that are not there; each appears when it is complete."""
    folder, writers = Path(place), {MLLM: write_qwen, SEGMENTER: write_sam2}
    for name, write in writers.items():
        if not (folder / name).exists():
            print(f"writing {folder / name} …", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=folder) as unfinished:
                write(Path(unfinished) / name)
                (Path(unfinished) / name).rename(folder / name)


def write_qwen(
    folder: Path,
    vocabulary: int = VOCABULARY,
    text: Mapping[str, Any] = TEXT,
    vision: Mapping[str, Any] = VISION,
) -> None:
    """Write Qwen3-VL-2B-Instruct in bfloat16, or with other networks."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = train_tokenizer(vocabulary)
    tokenizer.save_pretrained(folder)
    names: dict[str, Any] = {
        f"{name}_id": vocabulary + SPECIAL.index(token) for name, token in _MARKS.items()
    }
    config = Qwen3VLConfig(
        text_config=dict(text), vision_config=dict(vision), tie_word_embeddings=True, **names
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        Qwen3VLForConditionalGeneration(config).save_pretrained(folder, max_shard_size="5GB")
    finally:
        torch.set_default_dtype(torch.float32)
    written = json.loads((folder / "config.json").read_text())
    written["text_config"]["dtype"] = written.pop("dtype")  # where the published one has it
    files: dict[str, Mapping[str, Any]] = {
        "config.json": written,
        "preprocessor_config.json": {**IMAGES, **IMAGE_TYPE},
        "video_preprocessor_config.json": {**IMAGES, **VIDEO_TYPE},
        "generation_config.json": GENERATION,
        "chat_template.json": {"chat_template": TEMPLATE},
    }
    for name, settings in files.items():
        (folder / name).write_text(json.dumps(settings, indent=2))


_MARKS = {
    "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>",
}  # fmt: skip


def train_tokenizer(vocabulary: int) -> Any:
    """A tokenizer of Qwen's class, trained on the Python files of this environment."""
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    core = Qwen2Tokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_texts(TEXT_BYTES), trainer)
    trained = json.loads(core.to_str())["model"]
    merges: Any = [tuple(merge) for merge in trained["merges"]]  # as the library's own loader has
    return Qwen2Tokenizer(
        vocab={**trained["vocab"], **{t: vocabulary + i for i, t in enumerate(SPECIAL)}},
        merges=merges,
        model_max_length=TEXT["max_position_embeddings"],
        eos_token="<|im_end|>",
        extra_special_tokens=list(SPECIAL),
    )


def _texts(limit: int) -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        text = path.read_text("utf-8", errors="ignore")
        yield text
        limit -= len(text)
        if limit < 0:
            return


def write_sam2(folder: Path) -> None:
    """Write SAM 2.1 tiny in float32: transformers' own defaults are its configuration."""
    import torch
    from transformers import Sam2VideoConfig, Sam2VideoModel

    torch.manual_seed(0)
    Sam2VideoModel(Sam2VideoConfig()).save_pretrained(folder)
    settings = {
        "size": {"height": 1024, "width": 1024}, "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225], "image_processor_type": "Sam2ImageProcessorFast",
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))


# ------------------------------------------------------------ the run


def segment() -> None:
    """`rsvp segment` with the backends of this file; the file named first gets what it measured."""
    registry.BUILT_IN["mllm"]["forced"] = "eval.fullsize:ForcedReply"
    registry.BUILT_IN["segmenter"]["watched"] = "eval.fullsize:watched_sam2"
    report = Path(sys.argv.pop(1))
    threading.Thread(target=sample_memory, daemon=True).start()
    from rsvp.cli.main import entry

    try:
        entry()
    finally:
        report.write_text(json.dumps(MEASURED))


def anonymous_memory() -> int:
    """This process's memory that is no mapped file, in bytes; 0 where Linux does not tell it."""
    status = Path("/proc/self/status")
    found = status.exists() and re.search(r"RssAnon:\s*(\d+) kB", status.read_text())
    return 1024 * int(found[1]) if found else 0


def sample_memory() -> None:
    """Keep the most `anonymous_memory` in `MEASURED`."""
    while used := anonymous_memory():
        MEASURED["anonymous"] = max(MEASURED.get("anonymous", 0), used)
        time.sleep(0.05)


def rows(cold: ColdRun, measured: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """What is printed of a run."""
    networks = sum(measured.get(name, 0.0) for name in NETWORKS)
    answering = cold.wall - cold.timings["load"]
    rest = answering - networks
    yield "wall", f"{cold.wall:8.1f} s, {cold.cpu:.0f} s of CPU time"
    yield "  load", f"{cold.timings['load']:8.1f} s"
    for name in NETWORKS:
        passes = measured.get(f"{name} passes", 0)
        yield f"  {name}", f"{measured.get(name, 0.0):8.1f} s in {passes:.0f} passes"
    yield "  outside the pipeline", f"{cold.outside:8.1f} s"
    yield "  in it, but no network", f"{rest - cold.outside:8.1f} s"
    yield "  both without loading", f"{rest / answering:10.1%}"
    for target in cold.result["targets"]:
        yield "target", f"{target['label']} {target['box']}, score {target['score']:.2f}"
    yield "peak memory", f"{cold.memory / 1e9:8.1f} GB, mapped files included"
    yield "  without mapped files", f"{measured['anonymous'] / 1e9:8.1f} GB"
    yield "  rsvp models says", f"{presets.memory_gb(presets.get(PRESET)):8.1f} GB"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = make_parser("fullsize", __doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the models lie")
    parser.add_argument("--image", type=Path, default=DEMO)
    parser.add_argument("--query", default=QUERY)
    parser.add_argument("--option", action="append", default=[], help="as of rsvp segment")
    return run(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    args.folder.mkdir(parents=True, exist_ok=True)
    # In a process of its own, whose memory would else count as this one's, see `cold_run`.
    write = "import sys; from eval import fullsize; fullsize.write_folders(sys.argv[1])"
    subprocess.run([sys.executable, "-c", write, args.folder], check=True)
    with tempfile.TemporaryDirectory(prefix="rsvp-fullsize-") as name:
        report = Path(name) / "measured.json"
        program = ["-c", "from eval import fullsize; fullsize.segment()", str(report), "segment"]
        command = ["--preset", PRESET, "--mllm", f"forced:{args.folder / MLLM}"]
        command += ["--segmenter", f"watched:{args.folder / SEGMENTER}", "--out", name]
        command += ["--image", str(args.image), "--query", args.query]
        for option in args.option:
            command += ["--option", option]
        cold = cold_run(command, program)
        print_rows(
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            rows(cold, json.loads(report.read_text())),
        )


if __name__ == "__main__":
    raise SystemExit(main())
