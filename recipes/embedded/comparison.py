"""The reasoner's architecture beside transformers' Qwen3-VL, trained in the same way and time.

Both get the same scenes, cells of the same size and the same auxiliary losses, with about the same
number of parameters. For Qwen3-VL the prompt stands before the image, so that its causal states at
the image can depend on the prompt; its cells are merged patches. It has no cross-attention, so the
attention loss is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from recipes.embedded.loop import read_log
from recipes.embedded.model import CELLS, SIZE, WIDTH
from recipes.embedded.reasoner import ReasonerConfig, train
from recipes.embedded.tokenizer import ReplyTokens
from recipes.embedded.trainer import ReasonerTrainer
from rsvp.errors import BadInput

ARCHITECTURES = ("florence2", "qwen3_vl")
COLUMNS = ("scenes", "cell_accuracy", "language", "picked")
PATCH = SIZE // (2 * CELLS)
PATCHES = SIZE // PATCH


class Qwen3VLTrainer(ReasonerTrainer):
    def build(self) -> Any:
        config = Qwen3VLConfig(
            vision_config={
                "depth": 6, "hidden_size": 192, "intermediate_size": 768, "num_heads": 6,
                "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 1,
                "out_hidden_size": WIDTH, "num_position_embeddings": PATCHES**2,
                "deepstack_visual_indexes": [1, 3],
            },
            text_config={
                "vocab_size": len(self.tokenizer), "hidden_size": WIDTH, "intermediate_size": 768,
                "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 8,
                "head_dim": 32, "max_position_embeddings": 512,
                "rope_parameters": {
                    "rope_type": "default", "rope_theta": 10000.0, "mrope_interleaved": True,
                    "mrope_section": [6, 5, 5],
                },
            },
            image_token_id=3, tie_word_embeddings=True,
        )  # fmt: skip
        return Qwen3VLForConditionalGeneration(config)

    def encode_images(self, images: Tensor) -> tuple[Any, Tensor]:
        """Merged patches and deepstack levels, and the (B, cells, WIDTH) merged patches alone."""
        b, side = len(images), CELLS
        patches = images.reshape(b, 3, side, 2, PATCH, side, 2, PATCH)
        patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(b * PATCHES**2, -1)
        grid = torch.tensor([[1, PATCHES, PATCHES]] * b, device=images.device)
        out = self.model.model.visual(patches, grid_thw=grid, return_dict=True)
        cells = out.pooler_output.view(b, side * side, WIDTH)
        levels = [level.view(b, side * side, WIDTH) for level in out.deepstack_features]
        return (cells, levels), cells

    def language_loss(
        self,
        features: Any,
        image_rows: Tensor,
        prompts: tuple[Tensor, Tensor],
        replies: ReplyTokens,
        attention_targets: Tensor,  # noqa: ARG002  # there is no cross-attention
    ) -> tuple[Tensor, Tensor]:
        cells, levels = features
        table = self.model.get_input_embeddings()
        n, before = prompts[0].shape
        count = cells.shape[1]
        sequence = torch.cat([table(prompts[0]), cells[image_rows], table(replies.ids)], 1)
        image_mask = torch.ones(n, count, dtype=torch.long, device=sequence.device)
        mask = torch.cat([prompts[1], image_mask, replies.mask], 1)
        visual = torch.zeros_like(mask, dtype=torch.bool)
        visual[:, before : before + count] = True
        states = self.model.model.language_model(
            inputs_embeds=sequence, attention_mask=mask, visual_pos_masks=visual, use_cache=False,
            position_ids=self.positions(prompts, replies),
            deepstack_visual_embeds=[level[image_rows].flatten(0, 1) for level in levels],
        ).last_hidden_state  # fmt: skip
        # The state at a position predicts the next token: the last cell predicts the first one.
        predicting = states[:, before + count - 1 : -1]
        return self.token_loss(predicting, replies), states[:, before : before + count]

    def positions(self, prompts: tuple[Tensor, Tensor], replies: ReplyTokens) -> Tensor:
        """(3, n, length) multimodal rotary positions: time, row, column."""
        n, before = prompts[0].shape
        text = torch.arange(before).expand(3, n, before)
        cell = torch.arange(CELLS * CELLS)
        image = torch.stack([torch.zeros_like(cell), cell // CELLS, cell % CELLS]) + before
        after = torch.arange(replies.ids.shape[1]) + before + CELLS
        parts = [text, image[:, None].expand(3, n, -1), after.expand(3, n, -1)]
        return torch.cat(parts, 2).to(prompts[0].device)

    def export(self, folder: Path) -> None:
        """Nothing to export: the logs are the result of the comparison."""


def run(out: Path, config: ReasonerConfig, device: str) -> None:
    """Train both with the same configuration and print their last figures side by side.

    Raises:
        BadInput: a run was too short for a row of its log.
    """
    for name, kind in zip(ARCHITECTURES, (ReasonerTrainer, Qwen3VLTrainer), strict=True):
        train(out / name, config, (), device, trainer_class=kind)
    rows = {name: last_figures(out / name / "log.csv") for name in ARCHITECTURES}
    print("| architecture | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---|" * len(COLUMNS))
    for name, figures in rows.items():
        print(f"| {name} | " + " | ".join(f"{figures[c]:.4g}" for c in COLUMNS) + " |")


def last_figures(log: Path) -> dict[str, float]:
    """The scenes seen, and the other figures' means over the last ten rows of a log."""
    if not log.exists():
        raise BadInput(f"{log.parent.name} made too few steps for a figure: give it more --minutes")
    rows = read_log(log)[-10:]
    means = {c: sum(float(row[c]) for row in rows) / len(rows) for c in COLUMNS}
    return {**means, "scenes": float(rows[-1]["scenes"])}
