"""The configuration of a training run: what is learned (`TrainConfig`) and how it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic import NonNegativeInt as Count
from pydantic import PositiveInt as Positive

from rsvp.errors import BadInput

BOX_STYLES = ("clean", "near", "jittered", "bands", "shared")
Metric = Literal["clean", "jittered", "bands", "shared", "ambiguous", "presence_auc"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ConfigModel(BaseModel):
    """Base of the models here: unknown names and bad values raise BadInput, in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part).replace("_", "-") for part in first["loc"])
            found = f", found {first['input']!r}" if name else ""
            raise BadInput(f"{name or 'configuration'}: {first['msg']}{found}") from None


class LossWeights(ConfigModel):
    """How much each term of the loss counts."""

    bce: Weight = 2.0
    dice: Weight = 1.0
    iou: Weight = 1.0
    presence: Weight = 0.5
    match: Weight = 1.0
    # Classifies every covered spatial token among the texts of the batch. It teaches names fast
    # where a text of one image is false of all others.
    contrast: Weight = 0.0
    focal: Weight = 0.0  # gamma of the focal loss (https://arxiv.org/abs/1708.02002); 0 is BCE


class SamplingConfig(ConfigModel):
    """How training samples are drawn; the fractions of the five box styles sum to 1."""

    clean: Fraction = 0.15  # exact boxes
    near: Fraction = 0.15  # off by 3 % of the extent
    jittered: Fraction = 0.25  # off by 8 % or 16 %
    bands: Fraction = 0.2  # snapped to grid bands
    shared: Fraction = 0.25  # around two objects
    proposals: Positive = 4  # per image
    absent: Fraction = 0.5  # negatives among the proposals that may be negative
    wordless: Fraction = 0.08  # boxes without a text
    other_names: Fraction = 0.2  # texts that are a group, a keyword or another phrase
    points: Fraction = 0.1  # steps that are prompted by single points instead of boxes
    recolor: Fraction = 0.5  # strength of the jitter of brightness, contrast and saturation

    @model_validator(mode="after")
    def _styles_sum_to_one(self) -> SamplingConfig:
        total = sum(getattr(self, style) for style in BOX_STYLES)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the fractions of the box styles must sum to 1, found {total:g}")
        return self


class TrainConfig(ConfigModel):
    """Everything that decides what is learned; saved as `config.json` beside the weights."""

    data: tuple[str, ...]  # data specs to train on, see `rsvp.training.data`
    segmenter: str  # sam2:MODEL to build on, or vlsm:MODEL to continue from
    text_encoder: str  # of a new VLSM, as `rsvp.segmenters.text_encoder` takes it
    keep: tuple[str, ...] = ()  # data specs of images on which SAM 2's own masks are the target
    eval_data: tuple[str, ...] = ()  # data specs to validate on
    hold_out: Annotated[int, Field(ge=2)] = 20  # without eval_data: every so many-th image of data
    eval_pictures: Positive = 100  # images per validation
    eval_every: Positive = 500  # steps between two validations
    steps: Positive = 5000  # of the optimizer
    batch: Positive = 16  # images per step, over all processes and gradient accumulation steps
    accumulate: Positive = 1  # micro-batches per process and step
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-4
    weight_decay: Weight = 0.02
    warmup: Count = 200  # steps over which the learning rate rises
    decay: Fraction = 0.3  # fraction of the steps, at the end, over which it falls
    clip: Annotated[float, Field(gt=0)] = 1.0  # largest norm of the gradient
    precision: Literal["no", "bf16", "fp16"] = "bf16"  # of everything but weights and losses
    metric: Metric = "ambiguous"  # the best weights are those with its highest value
    seed: Count = 0
    mix: SamplingConfig = SamplingConfig()
    weights: LossWeights = LossWeights()
    fusion: dict[str, int] = {}  # settings of a new VLSM's `FusionConfig`

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step: warm-up, constant, linear decay to 2 %."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.lr * max(0.02, min(1.0, (step + 1) / max(1, self.warmup), left))

    def micro_batch(self, processes: int) -> int:
        """Images per forward pass and process; BadInput if the batch is not divisible."""
        size, remainder = divmod(self.batch, processes * self.accumulate)
        if remainder:
            raise BadInput(
                f"a batch of {self.batch} is not divisible by {processes} processes with "
                f"{self.accumulate} accumulation steps each"
            )
        return size


class RunConfig(ConfigModel):
    """How a run is carried out; none of it changes what is learned."""

    minutes: float | None = None  # after which this call stops, resumably
    save_every: Positive = 200  # steps between two checkpoints
    log_every: Positive = 20  # steps between two rows of the log
    workers: Count = 1  # processes that prepare batches
    cache: str | None = None  # folder for the features; boxes are then the same in every epoch
    device: str | None = None  # e.g. cpu; the best available one by default
