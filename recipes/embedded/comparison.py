"""The reasoner's architecture beside transformers' Qwen3-VL, trained alike for the same time.

Both see the same scenes, cells of the same size and the same helper losses but one, with about the
same number of parameters. For Qwen3-VL the question stands before the image, so that its causal
states at the image can know what is asked; its cells are merged patches. The one helper that it
goes without shows a decoder's cross-attention where to look: Qwen3-VL is a decoder alone, without
cross-attention.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from recipes.embedded.model import CELLS, SIZE, WIDTH
from recipes.embedded.reasoner import Plan, train
from recipes.embedded.tokenizer import Told
from recipes.embedded.trainee import Trainee
from rsvp.errors import BadInput

ARCHITECTURES = ("florence2", "qwen3_vl")
COLUMNS = ("scenes", "cell_accuracy", "language", "picked")
PATCH = SIZE // (2 * CELLS)
PATCHES = SIZE // PATCH


class Qwen3Trainee(Trainee):
    """Qwen3-VL in the reasoner's place."""

    def build(self) -> Any:
        """The model, with random weights."""
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

    def see(self, images: Tensor) -> tuple[Any, Tensor]:
        """The merged patches and the deeper levels' for `speak`; (B, cells, WIDTH) patches."""
        b, side = len(images), CELLS
        patches = images.reshape(b, 3, side, 2, PATCH, side, 2, PATCH)
        patches = patches.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(b * PATCHES**2, -1)
        grid = torch.tensor([[1, PATCHES, PATCHES]] * b, device=images.device)
        out = self.model.model.visual(patches, grid_thw=grid, return_dict=True)
        cells = out.pooler_output.view(b, side * side, WIDTH)
        deep = [level.view(b, side * side, WIDTH) for level in out.deepstack_features]
        return (cells, deep), cells

    def speak(
        self,
        features: Any,
        image_rows: Tensor,
        asked: tuple[Tensor, Tensor],
        told: Told,
        owners: tuple[Tensor, Tensor],  # noqa: ARG002  # no cross-attention to be shown where to look
    ) -> tuple[Tensor, Tensor]:
        """The language loss, and the (n, cells, WIDTH) states at the image; no `look_loss`."""
        cells, deep = features
        table = self.model.get_input_embeddings()
        n, before = asked[0].shape
        count = cells.shape[1]
        sequence = torch.cat([table(asked[0]), cells[image_rows], table(told.ids)], 1)
        shown = torch.ones(n, count, dtype=torch.long, device=sequence.device)
        mask = torch.cat([asked[1], shown, told.mask], 1)
        seen = torch.zeros_like(mask, dtype=torch.bool)
        seen[:, before : before + count] = True
        states = self.model.model.language_model(
            inputs_embeds=sequence, attention_mask=mask, position_ids=self.positions(asked, told),
            visual_pos_masks=seen, use_cache=False,
            deepstack_visual_embeds=[level[image_rows].flatten(0, 1) for level in deep],
        ).last_hidden_state  # fmt: skip
        # The state at a position predicts the next token: the image's last cell starts the reply.
        predicting = states[:, before + count - 1 : -1]
        return self.token_loss(predicting, told), states[:, before : before + count]

    def positions(self, asked: tuple[Tensor, Tensor], told: Told) -> Tensor:
        """(3, n, length) multimodal rotary positions: time, row, column."""
        n, before = asked[0].shape
        text = torch.arange(before).expand(3, n, before)
        cell = torch.arange(CELLS * CELLS)
        image = torch.stack([torch.zeros_like(cell), cell // CELLS, cell % CELLS]) + before
        after = torch.arange(told.ids.shape[1]) + before + CELLS
        parts = [text, image[:, None].expand(3, n, -1), after.expand(3, n, -1)]
        return torch.cat(parts, 2).to(asked[0].device)

    def export(self, folder: Path) -> None:
        """Nothing is shipped of the comparison; its logs are its result."""


def run(out: Path, plan: Plan, device: str) -> None:
    """Train both by the same plan and print their last figures side by side.

    Raises:
        BadInput: a run was too short for a row of its log.
    """
    for name, kind in zip(ARCHITECTURES, (Trainee, Qwen3Trainee), strict=True):
        train(out / name, plan, (), device, trainee_class=kind)
    rows = {name: last_figures(out / name / "log.csv") for name in ARCHITECTURES}
    print("| architecture | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---|" * len(COLUMNS))
    for name, figures in rows.items():
        print(f"| {name} | " + " | ".join(f"{figures[c]:.4g}" for c in COLUMNS) + " |")


def last_figures(log: Path) -> dict[str, float]:
    """The scenes seen, and the other figures' means over the last ten rows of a log."""
    if not log.exists():
        raise BadInput(f"{log.parent.name} made too few steps for a figure: give it more --minutes")
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))[-10:]
    means = {c: sum(float(row[c]) for row in rows) / len(rows) for c in COLUMNS}
    return {**means, "scenes": float(rows[-1]["scenes"])}
