"""The training loop of the VLSM. SAM 2 and the text encoder are frozen.

The folder of a run holds `config.json`, `checkpoint.pt` (to resume from), `log.csv` and
`measured.csv`, `tb/` (for TensorBoard), `best/` (the VLSM with the best validation metric) and
`last/`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from rsvp.segmenters.fusion import TextStates
from rsvp.segmenters.point_prompts import PromptBatch
from rsvp.segmenters.vlsm import Vlsm
from rsvp.training.batches import TrainingBatch
from rsvp.training.components import attention_kernels
from rsvp.training.config import RunConfig, TrainConfig
from rsvp.training.losses import LossTargets, losses, resized
from rsvp.training.monitor import StopCondition
from rsvp.training.session import Session, TrainResult


def train(
    config: TrainConfig,
    out: Path,
    run: RunConfig | None = None,
    *,
    resume: bool = False,
    report: Callable[[str], None] = print,
) -> TrainResult:
    """Train a VLSM, or resume its training.

    Under `accelerate launch` or `torchrun` every process takes its part of each batch.

    Raises:
        BadInput: malformed data, a folder that holds another run or in which another process is at
            work, a full disk, impossible settings.
        ModelUnavailable, MissingExtra: a model or `accelerate` is missing.
    """
    run = run or RunConfig()
    with ExitStack() as lock:
        return _run(Session(config, out, run, lock, resume=resume), run, report)


def _run(session: Session, run: RunConfig, report: Callable[[str], None]) -> TrainResult:
    config = session.config
    accelerator, state, validator = session.accelerator, session.state, session.validator
    net, optimizer, guard = session.components.net, session.optimizer, session.guard
    stop = StopCondition(config.steps, run.minutes)
    kernels = attention_kernels(net, accelerator.device)
    net.train()
    with session.progress_bar() as bar, kernels, stop.catching_signals():
        validator.measure_sam2(report)
        for batch in session.micro_batches(run.workers):
            session.report_broken(batch.broken, report)
            with accelerator.accumulate(session.model):
                with session.throughput.encoding():
                    features = session.encoder.features(batch)
                texts = session.components.text(batch.texts)
                output = session.model(features, batch.view, batch.prompts, texts)
                targets = loss_targets(net, features, batch, texts)
                loss = losses(output, targets, config.weights)
                accelerator.backward(loss.total)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(net.fusion.parameters(), config.clip)
                    # In fp16 a gradient may overflow now and then: its step is skipped.
                    guard.see(state.step + 1, norm if accelerator.scaler is None else loss.total)
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate(state.step)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            session.means.add(loss)
            if not accelerator.sync_gradients:
                continue
            state.step += 1
            session.throughput.samples += config.batch
            bar.update()
            is_last = state.step == config.steps
            stops = session.sum_over_processes(stop.reached(state.step)) > 0  # all at one step
            saves = stops or state.step % run.save_every == 0
            logs = state.step % run.log_every == 0
            validates = is_last or state.step % config.eval_every == 0
            if logs or saves or validates:
                guard.check()
            if logs:
                session.log(bar)
            if validates:
                validator.validate(state, report)
            if is_last:
                validator.save_weights("last", state.step)
            if saves:
                session.save()
            if stops:
                break
    return session.finish(interrupted=stop.interrupted)


def loss_targets(
    net: Vlsm, features: list[Tensor], batch: TrainingBatch, texts: TextStates
) -> LossTargets:
    """The targets of a batch; on images that are kept, the masks of SAM 2 alone."""
    masks, keep = batch.targets, batch.keep
    if keep.any():
        prompts = PromptBatch(batch.prompts.coords[keep], batch.prompts.labels[keep])
        logits = net.sam2_logits(features, batch.view[keep], prompts)
        masks = masks.clone()
        masks[keep] = (resized(logits[:, None], masks.shape[-1])[:, 0] > 0).float()
    has_text = texts.attention_mask.any(dim=1) & ~keep
    return LossTargets(masks, batch.present | keep, has_text, batch.view, batch.text_ids)
