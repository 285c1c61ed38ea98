"""The training of the VLSM, top to bottom. SAM 2 and the text encoder are frozen.

A run's folder holds `config.json` (the plan), `checkpoint.pt` (to go on from), `log.csv` and
`measured.csv`, `tb/` (for TensorBoard), `best/` (the VLSM that measured best on held-out pictures)
and `last/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rsvp.segmenters.fusion import TextStates
from rsvp.segmenters.point_prompts import PromptBatch
from rsvp.segmenters.vlsm import Vlsm, save_pretrained
from rsvp.training.batches import Batch, Share, batches
from rsvp.training.exam import Exam
from rsvp.training.heldout import HeldOut
from rsvp.training.losses import Truth, as_targets, losses
from rsvp.training.meter import Bar, Meter
from rsvp.training.parts import Encoder, kernels, load_parts, make_optimizer, set_rate
from rsvp.training.pictures import Kept, Pictures, Several, hold_out, open_pictures
from rsvp.training.plan import Habits, Plan
from rsvp.training.processes import Clock, Guard, accelerate, over_all
from rsvp.training.record import Record
from rsvp.training.views import Views


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a call of `train`.

    Attributes:
        figures: the last measurement on held-out pictures, by style of box; `base_` ones are of
            SAM 2 with the same boxes.
        broken: how often a broken picture was passed over.
        speed: throughput and memory, in words.
        interrupted: whether a signal ended it.
        main: whether this is the process that speaks for all.
    """

    step: int
    steps: int
    figures: dict[str, float]
    broken: int
    speed: str
    interrupted: bool = False
    main: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As `rsvp train --json` has it; null where a figure could not be told."""
        told = {k: v if math.isfinite(v) else None for k, v in self.figures.items()}
        return {k: v for k, v in {**asdict(self), "figures": told}.items() if k != "main"}

    def lines(self, out: Path) -> Iterator[str]:
        """What people want to know at the end."""
        yield self.speed
        if self.broken:
            yield f"passed over broken pictures {self.broken} times; they are named above"
        if self.step < self.steps:
            yield f"stopped at step {self.step} of {self.steps}; go on with --resume"
        else:
            yield f"done after {self.step} steps; use it with --segmenter vlsm:{out / 'best'}"


def train(  # noqa: PLR0915 - one loop, to be read at a sitting
    plan: Plan,
    out: Path,
    habits: Habits | None = None,
    *,
    resume: bool = False,
    tell: Callable[[str], None] = print,
) -> Ending:
    """Train a VLSM, or go on training it.

    Under `accelerate launch` or `torchrun` every process takes its share of each batch.

    Raises:
        BadInput: malformed data, a folder that holds another run, settings that cannot be.
        ModelUnavailable, MissingExtra: a model or `accelerate` is missing.
    """
    habits = habits or Habits()
    learned, measured = _pictures(plan)
    accelerator = accelerate(plan.precision, plan.accumulate, habits.device)
    share = Share(plan.batch, accelerator.num_processes, accelerator.process_index, plan.accumulate)
    torch.manual_seed(plan.seed)
    parts = load_parts(plan)
    net, optimizer = parts.net, make_optimizer(parts.net, plan)
    main = bool(accelerator.is_main_process)
    with accelerator.main_process_first():
        record = Record(out, _config(plan, habits), resume=resume, main=main)
    record.restore(net.fusion, optimizer)
    model, optimizer = accelerator.prepare(net, optimizer)
    fixed = habits.cache is not None
    how = parts.preprocessing
    views = Views(learned, how, plan.mix, batch=plan.batch, seed=plan.seed, fixed=fixed)
    encoder = Encoder(parts, views, accelerator, habits.cache)
    meter, guard = Meter(accelerator.device, record.sums), Guard(accelerator.device)
    exam = Exam(parts, HeldOut(measured, plan.eval_pictures), plan.metric, record, accelerator)
    clock = Clock(plan.steps, habits.minutes)
    net.train()

    step, pieces = record.step, 0
    bar = Bar(plan.steps, step, shown=main)
    with bar, kernels(net, accelerator.device), clock.listening():
        exam.begin(tell)
        for made in batches(views, share, step, plan.steps, workers=habits.workers):
            record.pass_over(made.broken, tell)
            batch = made.to(accelerator.device)
            with accelerator.accumulate(model):
                with meter.encoding():
                    features = encoder.features(batch)
                texts = parts.text(batch.texts)
                found = model(features, batch.view, batch.prompts, texts)
                lost = losses(found, _truth(net, features, batch, texts), plan.weights)
                accelerator.backward(lost.total)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(net.fusion.parameters(), plan.clip)
                    # In fp16 a gradient may overflow now and then: its step is left out.
                    guard.see(step + 1, norm if accelerator.scaler is None else lost.total)
                set_rate(optimizer, plan.lr * plan.rate(step))
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            meter.add(lost._asdict())
            pieces += 1
            if pieces % share.pieces:
                continue
            step += 1
            meter.step()
            bar.update(step)
            over = over_all(accelerator, clock.over(step)) > 0  # all processes end at one step
            logs, saves = step % habits.log_every == 0, step % habits.save_every == 0 or over
            examines = step % plan.eval_every == 0 or step == plan.steps
            if logs or saves or examines:
                guard.check()
            broken = round(over_all(accelerator, record.broken)) if logs or saves else 0
            if logs:
                means = meter.means(accelerator)
                record.row(step, means, meter.speed(plan.batch), broken)
                bar.update(step, means["total"])
            if examines:
                exam.take(step, tell)
            if step == plan.steps and main:
                save_pretrained(out / "last", net, parts.sam2, parts.text, training=exam.note(step))
            if saves:
                sums = meter.sums(accelerator)
                record.save(step, net.fusion, optimizer, sums=sums, broken=broken)
            if over:
                break
    return Ending(
        step,
        plan.steps,
        exam.figures,
        round(over_all(accelerator, record.broken)),
        meter.summary(plan.batch),
        interrupted=clock.stopped and step < plan.steps,
        main=main,
    )


def _truth(net: Vlsm, features: list[Tensor], batch: Batch, texts: TextStates) -> Truth:
    """What should come out; on pictures that are kept, what SAM 2 says by itself."""
    targets, keep = batch.targets, batch.keep
    if keep.any():
        prompts = PromptBatch(batch.prompts.coords[keep], batch.prompts.labels[keep])
        targets = targets.clone()
        targets[keep] = as_targets(
            net.sam2_logits(features, batch.view[keep], prompts), targets.shape[-1]
        )
    worded = texts.attention_mask.any(dim=1) & ~keep
    return Truth(targets, batch.present | keep, worded, batch.view, batch.names)


def _pictures(plan: Plan) -> tuple[Pictures, Pictures]:
    learned = open_pictures(plan.data)
    if plan.eval_data:
        measured = open_pictures(plan.eval_data)
    else:
        learned, measured = hold_out(learned, plan.hold_out)
    if plan.keep:
        learned = Several([learned, Kept(open_pictures(plan.keep))])
    return learned, measured


def _config(plan: Plan, habits: Habits) -> dict[str, Any]:
    """What a resumed run must share: the plan, and whether its boxes are drawn once."""
    return {**asdict(plan), "cached": habits.cache is not None}
