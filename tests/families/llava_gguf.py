"""A LLaVA folder as llama.cpp reads it: text.gguf and mmproj.gguf. Run by a Python that has `gguf`.

    python llava_gguf.py FOLDER

The names of keys and tensors are those of the `gguf` package (gguf/constants.py) and of llama.cpp's
tools/mtmd/clip-impl.h. The tokenizer is byte-level: one token a byte, and no merges.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

TEXT = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
VISION = {
    "layer_norm1": "ln1", "layer_norm2": "ln2", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip
WHOLE = {
    "language_model.model.embed_tokens": "token_embd", "language_model.model.norm": "output_norm",
    "language_model.lm_head": "output", "vision_tower.embeddings.class_embedding": "v.class_embd",
    "vision_tower.embeddings.patch_embedding": "v.patch_embd",
    "vision_tower.embeddings.position_embedding": "v.position_embd",
    "vision_tower.pre_layrnorm": "v.pre_ln", "multi_modal_projector.linear_1": "mm.0",
    "multi_modal_projector.linear_2": "mm.2",
}  # fmt: skip


def tensor_name(name: str) -> str | None:
    """The GGUF's name of a tensor; None for one that llama.cpp does not read."""
    stem, _, kind = name.rpartition(".")
    if name.endswith("class_embedding"):
        return WHOLE[name]
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{kind}"
    for start, prefix, table in (
        ("language_model.model.layers.", "blk.", TEXT),
        ("vision_tower.encoder.layers.", "v.blk.", VISION),
    ):
        if stem.startswith(start):
            layer, _, part = stem.removeprefix(start).partition(".")
            return f"{prefix}{layer}.{table[part]}.{kind}"
    return None


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Query or key rows in the order of llama.cpp's rotary embedding, pairs side by side."""
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def add_tokenizer(writer: Any, folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = [token["content"] for token in tokenizer["added_tokens"]]
    tokens = [*tokenizer["model"]["vocab"], *special]
    kinds = [gguf.TokenType.NORMAL] * (len(tokens) - len(special))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([*kinds, *[gguf.TokenType.CONTROL] * len(special)])
    writer.add_token_merges(["! !"])  # none is not allowed; this pair makes a token that is missing
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("</s>"))
    writer.add_add_bos_token(False)
    # The server writes its own mark where a picture stands.
    template = (folder / "chat_template.jinja").read_text()
    writer.add_chat_template(template)


def text_writer(path: Path, folder: Path, config: dict[str, Any]) -> Any:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    add_tokenizer(writer, folder)
    return writer


def vision_writer(path: Path, config: dict[str, Any], projection: int) -> Any:
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_projection_dim(projection)
    writer.add_vision_image_size(config["image_size"])
    writer.add_vision_patch_size(config["patch_size"])
    writer.add_vision_embedding_length(config["hidden_size"])
    writer.add_vision_feed_forward_length(config["intermediate_size"])
    writer.add_vision_block_count(config["num_hidden_layers"])
    writer.add_vision_head_count(config["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(config["layer_norm_eps"])
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_use_gelu(False)  # quick_gelu
    return writer


def main(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    text_config, vision_config = config["text_config"], config["vision_config"]
    text = text_writer(folder / "text.gguf", folder, text_config)
    vision = vision_writer(folder / "mmproj.gguf", vision_config, text_config["hidden_size"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        new = tensor_name(name)
        if new is None:
            continue
        heads = text_config["num_attention_heads"]
        turned = new.startswith("blk.") and new.endswith(("attn_q.weight", "attn_k.weight"))
        rows = interleaved(tensor, heads) if turned else tensor
        target = vision if new.startswith(("v.", "mm.")) else text
        target.add_tensor(new, np.ascontiguousarray(rows, dtype=np.float32))
    for writer in (text, vision):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
