"""What a training step costs beside the frozen encoder alone, on shapes of the official SAM 2.

    python -m eval.training_speed [--size large] [--batch 8 16] [--precision bf16] [--steps 10]

Random weights and random pixels, since speed does not depend on them; both are timed in turns in
one run. Prints views a second, the ratio of the step's time to the encoder's forward, and peak
memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsvp.errors import RsvpError
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.segmenters.fusion import FusionConfig, TextStates
from rsvp.segmenters.point_prompts import BOTTOM_RIGHT, TOP_LEFT, PromptBatch
from rsvp.segmenters.sam2_weights import OFFICIAL_SIZE, SIZES, official_config
from rsvp.segmenters.vlsm import Vlsm
from rsvp.training.components import attention_kernels, make_accelerator
from rsvp.training.config import LossWeights
from rsvp.training.losses import LossTargets, losses
from rsvp.training.monitor import peak_memory

hide_broken_torchvision()

from transformers import Sam2Model  # noqa: E402

PROPOSALS, WORDS, TEXT_WIDTH = 4, 8, 512  # of a view; of a text; CLIP's


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over the steps.

    Attributes:
        encoder: seconds of the frozen encoder's forward.
        step: seconds of a whole step, the encoder's forward in it.
        memory: peak, in 10^9 bytes: the GPU's, or the process's on a CPU.
    """

    batch: int
    encoder: float
    step: float
    memory: float

    @property
    def ratio(self) -> float:
        """The step's time in encoder forwards."""
        return self.step / self.encoder

    def __str__(self) -> str:
        return (
            f"batch {self.batch}: {self.batch / self.step:.2f} views a second, step "
            f"{self.step:.3f} s, encoder {self.encoder:.3f} s, ratio {self.ratio:.2f}, "
            f"{self.memory:.1f} GB"
        )


def measure(size: str, batch: int, precision: str, steps: int) -> Cost:
    """Time `steps` training steps and as many bare encoder forwards, in turns.

    Args:
        size: of the official models: tiny, small, base-plus or large.
        batch: views a step, each with 4 proposals.
    """
    accelerator = make_accelerator(precision, 1, None)
    device = accelerator.device
    sam2, side = Sam2Model(official_config(size)), OFFICIAL_SIZE
    net = Vlsm(sam2, FusionConfig(channels=256, text_width=TEXT_WIDTH)).to(device)
    net.train()
    optimizer = torch.optim.AdamW(net.fusion.parameters(), lr=1e-4)
    model, optimizer = accelerator.prepare(net, optimizer)
    pixels = torch.randn(batch, 3, side, side, device=device)
    n = batch * PROPOSALS
    view = torch.arange(batch, device=device).repeat_interleave(PROPOSALS)
    corners = torch.rand(n, 2, 2, device=device).sort(dim=1).values * side
    kinds = torch.tensor([TOP_LEFT, BOTTOM_RIGHT], device=device).expand(n, -1)
    states = torch.randn(n, WORDS, TEXT_WIDTH, device=device)
    said = torch.ones(n, dtype=torch.bool, device=device)
    texts = TextStates(states, said[:, None].expand(-1, WORDS))
    targets = LossTargets(
        (torch.rand(n, side // 2, side // 2, device=device) > 0.5).float(),
        said,
        said,
        view,
        torch.arange(n, device=device),
    )

    def encode() -> list[Tensor]:
        with accelerator.autocast():
            found: list[Tensor] = net.sam2.get_image_embeddings(pixels)
        return found

    def step() -> None:
        output = model(encode(), view, PromptBatch(corners, kinds), texts)
        accelerator.backward(losses(output, targets, LossWeights()).total)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with attention_kernels(net, device):
        timed: dict[str, list[float]] = {"encoder": [], "step": []}
        for turn in range(steps + 1):  # the first turn warms up
            for name, work in (("encoder", encode), ("step", step)):
                seconds = _seconds(work, device)
                if turn:
                    timed[name].append(seconds)
    encoder, whole = (statistics.median(timed[name]) for name in ("encoder", "step"))
    return Cost(batch, encoder, whole, peak_memory(device)[0])


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.training_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--precision", choices=["bf16", "fp16", "no"], default="bf16")
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args(argv)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"sam2.1-hiera-{args.size}, {args.precision}, {where}, {PROPOSALS} proposals a view")
    try:
        for batch in args.batch:
            print(measure(args.size, batch, args.precision, args.steps), flush=True)
    except RsvpError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
