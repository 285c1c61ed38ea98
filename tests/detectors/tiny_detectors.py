"""Small Grounding DINOs with random weights: the real classes, nothing to download."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import torch

from rsvp.platform.torchvision import hide_broken_torchvision

hide_broken_torchvision()

from transformers import (  # noqa: E402
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (  # noqa: E402
    GroundingDinoImageProcessorPil,
)

WORDS = ("cup", "red", "dog", "bernard", "st", "wine", "glass", "stop", "sign", "杯", "子", "cafe")
BERT = {
    "vocab_size": 1100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 256,
}  # fmt: skip


def vocabulary() -> list[str]:
    """BERT's layout: the special tokens, full stop and question mark under their real numbers."""
    known = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    known |= {1012: ".", 1029: "?", 1010: ",", 1011: "-"}
    known |= {1040 + i: word for i, word in enumerate(WORDS)}
    known |= {1060 + i: letter for i, letter in enumerate("aub")}
    known |= {1070: "##s"}
    return [known.get(number, f"[unused{number}]") for number in range(BERT["vocab_size"])]


def text_folder(folder: Path) -> Path:
    """BERT's tokenizer and config, as a hub folder without weights has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}'
    )
    BertConfig(**BERT).save_pretrained(folder)
    return folder


def detector_folder(folder: Path, *, mm: bool = False) -> Path:
    """Grounding DINO or MM-Grounding-DINO in transformers' folder format."""
    text_folder(folder)
    swin = SwinConfig(
        embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 3, 4], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config, network = (
        (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection)
        if mm
        else (GroundingDinoConfig, GroundingDinoForObjectDetection)
    )
    made = config(
        backbone_config=swin, text_config=BertConfig(**BERT), num_queries=12, encoder_layers=1,
        decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64, d_model=64,
        encoder_attention_heads=4, decoder_attention_heads=4, max_text_len=32,
    )  # fmt: skip
    torch.manual_seed(0)
    net = network(made).eval()
    randomize(net)
    net.save_pretrained(folder)
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 120})
    images.save_pretrained(folder)
    return folder


def official_file(path: Path, text: Path) -> Path:
    """An official-format `.pth`, made by the package itself, with a small transformer and BERT.

    Its Swin is the real tiny one. The config lies beside it.
    """
    from transformers import AutoTokenizer

    from rsvp.detectors import groundingdino_py

    released = groundingdino_py.folder() / "config" / "GroundingDINO_SwinT_OGC.py"
    settings = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(released.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    settings |= {"enc_layers": 2, "dec_layers": 2, "dim_feedforward": 64, "num_queries": 30}
    torch.manual_seed(0)
    net = groundingdino_py.build_network(
        settings, BertConfig.from_pretrained(text), AutoTokenizer.from_pretrained(text)
    )
    randomize(net)
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    # Training's own table, which the released files hold too.
    state["module.label_enc.weight"] = torch.zeros(3, 4)
    torch.save({"model": state}, path)
    path.with_suffix(".py").write_text(
        "".join(f"{name} = {value!r}\n" for name, value in settings.items())
    )
    return path


def randomize(net: Any, seed: int = 0) -> None:
    """Give every weight some of its own, so that none can be dropped or swapped unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            fan_in = max(weight[0].numel(), 1) if weight.ndim > 1 else 16
            weight.add_(torch.randn(weight.shape, generator=generator) / fan_in**0.5)
