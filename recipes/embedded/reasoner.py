"""Train the embedded reasoner: perception first, then language, on scenes rendered as it goes.

The language loss alone learns next to nothing in hours. So auxiliary heads, dropped after training,
predict densely what lies in every cell of the image: category and box from the features of the
vision tower, and from the states of the encoder also whether it is what the query asks for. DESIGN
section 5 has the measurements.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from recipes.embedded import words
from recipes.embedded.examples import STRATEGY_SHARES, TRAIN_SEED, ExampleBuffer, to_pixels
from recipes.embedded.loop import CHECKPOINT, Loop, LoopConfig, schedule, warmup
from recipes.embedded.meaning import sample_text
from recipes.embedded.tasks import task_example, task_prompts
from recipes.embedded.tokenizer import make_tokenizer
from recipes.embedded.trainer import ReasonerTrainer, TurnLosses
from rsvp.embedded.vocabulary import STYLES
from rsvp.lexicon import Lexicon
from rsvp.training.run_folder import load_checkpoint
from rsvp.types import RgbArray

TASK_SHARES: Mapping[str, float] = {"qa": 0.26, "trace": 0.12, "verify": 0.1}
TASK_PICTURES = 100  # of each task, whose prompts' words are learned
BUFFER = 3000  # examples kept for several uses
FRESH = 0.35  # share of the examples drawn that are new


@dataclass(frozen=True)
class ReasonerConfig(LoopConfig):
    """How to train from scratch.

    Attributes:
        perception_steps: steps before the first prompt.
        freeze_warmup: steps in which the auxiliary heads learn without training the model.
        turns: prompts an image.
        shares: strategy -> its share of the images.
        task_shares: task -> its share of the examples; the rest are queries to segment.
        styles: of the drawings; each object gets one at random.
        texts: texts without an image a step, where there are word vectors.
    """

    steps: int = 5000
    batch: int = 12
    lr: float = 1.5e-3
    muon_lr: float = 2.5e-3
    decay: float = 0.42
    save_every: int = 200
    log_every: int = 20
    perception_steps: int = 1250
    freeze_warmup: int = 0
    turns: int = 4
    shares: Mapping[str, float] = field(default_factory=lambda: STRATEGY_SHARES)
    task_shares: Mapping[str, float] = field(default_factory=lambda: TASK_SHARES)
    styles: Sequence[str] = tuple(STYLES)
    texts: int = 48


@dataclass(frozen=True)
class FineTuningConfig(ReasonerConfig):
    """How to fine-tune: with small learning rates.

    New heads are trained by themselves first; those of the run that is fine-tuned, where it has a
    checkpoint, go on.
    """

    steps: int = 3000
    batch: int = 16
    lr: float = 8e-4
    muon_lr: float = 1.3e-3
    decay: float = 0.8
    perception_steps: int = 0
    freeze_warmup: int = 150


def learning_rate(step: int, config: ReasonerConfig) -> float:
    """The share of the learning rates; the language half warms up when its turn comes."""
    begun = step - config.perception_steps if step >= config.perception_steps else step
    return min(schedule(step, config.steps, decay=config.decay), warmup(begun))


def train(
    out: Path,
    config: ReasonerConfig,
    photos: Sequence[RgbArray] = (),
    device: str = "cpu",
    *,
    trainer_class: type[ReasonerTrainer] = ReasonerTrainer,
    start: Path | None = None,
    grounds: Sequence[RgbArray] = (),
    vectors: Path | None = None,
) -> None:
    """Train or resume training in `out`.

    Args:
        photos: (H, W, 3) uint8 arrays: backgrounds, and images to refuse.
        start: folder of a trained model to fine-tune, with new optimisers.
        grounds: (H, W, 3) uint8 arrays: backgrounds alone.
        vectors: word vectors, see `words.load_vectors`: teach ordinary wording to a trained model.

    Raises:
        BadInput: the checkpoint does not fit, or there is no model in `start`.
    """
    torch.manual_seed(config.seed)
    word_vectors = words.load_vectors(vectors) if vectors else {}
    lexicon = learned_words(out / "tokenizer", word_vectors, start)
    known = lexicon.words if lexicon else ()
    tokenizer = make_tokenizer(out / "tokenizer", start=start, words=known)
    trainer = trainer_class(tokenizer, device, start)
    if lexicon and word_vectors:
        trainer.embed_words(lexicon.words, word_vectors)
    freeze_warmup = config.freeze_warmup
    if start is not None and (run := load_checkpoint(start.parent / CHECKPOINT)) is not None:
        trainer.heads.load_state_dict(run["heads"], strict=False)  # an older run has fewer
        freeze_warmup = 0
    parts = {"model": trainer.model, "heads": trainer.heads}
    loop = Loop(out, config, parts, clip=2.0, unit="scenes", counts={"scenes": 0})
    # A resumed run draws new scenes: there is no end of them, so no position needs to be kept.
    seed = TRAIN_SEED + config.seed + loop.step
    buffer = ExampleBuffer(
        seed, BUFFER, FRESH, photos, config.turns + 2,
        shares=config.shares, styles=config.styles, grounds=grounds, lexicon=lexicon,
        task_shares=config.task_shares, task_example=task_example,
    )  # fmt: skip
    rng = random.Random(loop.step)
    none = TurnLosses(torch.zeros((), device=device), torch.zeros((), device=device), 0.0)
    for step in loop.steps():
        examples = buffer.draw(config.batch)
        images = to_pixels(examples, buffer.rng).to(device)
        train_model = step >= freeze_warmup
        with torch.autocast(device, dtype=torch.bfloat16):
            seen = trainer.perception_loss(examples, images, train_model=train_model)
            said = none
            if step >= config.perception_steps:
                said = trainer.turn_losses(
                    examples, seen, rng, config.turns, train_model=train_model
                )
            loss = seen.loss + said.language + said.encoder
            meaning = torch.zeros(())
            if lexicon and config.texts and train_model:
                texts = [sample_text(buffer.rng, lexicon) for _ in range(config.texts)]
                meaning = trainer.text_loss(texts)
                loss = loss + meaning
        rate = learning_rate(step, config)
        loop.counts["scenes"] += config.batch
        loop.step_down(
            loss, rate, perception=seen.loss.item(), cell_accuracy=seen.accuracy,
            numbers_read=seen.numbers_read, details_read=seen.details_read,
            language=said.language.item(),
            understanding=said.encoder.item(), picked=said.target_accuracy, meaning=meaning.item(),
        )  # fmt: skip
        if loop.reports():
            loop.report(rate=rate)
    trainer.export(out / "model")
    if lexicon:
        lexicon.save(out / "model")


def learned_words(folder: Path, vectors: words.Vectors, start: Path | None) -> Lexicon | None:
    """The lexicon of a run: its own, or that of the model it starts from, extended by the vectors'
    words."""
    made = Lexicon.load(folder)
    if made is None and start is not None:
        made = Lexicon.load(start)
        if vectors:
            known = made.words if made else ()
            found = words.lexicon(vectors, known, task_prompts(TASK_PICTURES, TRAIN_SEED))
            made = Lexicon(found, words.english(vectors))
    if made is not None:
        made.save(folder)
    return made
