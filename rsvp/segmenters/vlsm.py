"""VLSM: SAM 2 whose prompts know the words. SAM 2 and the text encoder are frozen and stay outside.

A folder holds `config.json` and `model.safetensors`: the fusion alone, a few MB, and the names and
digests of the SAM 2 and the text encoder that it was trained on. Others are refused: the fusion
speaks to their features and to nobody else's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rsvp import registry
from rsvp.errors import BadInput, ModelUnavailable, first_line
from rsvp.platform.hub import hub_folder
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.segmenters.checkpoints import difference
from rsvp.segmenters.fusion import Fusion, FusionConfig, Texts
from rsvp.segmenters.sam2 import TOP_LEFT, Decoded, Prompt, Sam2Segmenter, best_of
from rsvp.segmenters.texts import TextEncoder, weights_digest
from rsvp.segmenters.weights import Preprocessing, load_sam2

hide_broken_torchvision()

from safetensors import SafetensorError  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

if TYPE_CHECKING:
    from transformers import Sam2Model

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_TYPE, VERSION = "rsvp-vlsm", 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """A frozen model that a VLSM was trained on: where it came from, and the digest of it."""

    source: str
    sha256: str

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not isinstance(self.sha256, str):
            raise TypeError("a model is named by its source and its sha256, both of them text")


@dataclass(frozen=True, slots=True)
class VlsmConfig:
    """`config.json`.

    Attributes:
        training: what is remembered of the training, for people.
        strength: how much of what was learned is used, 1 being all of it; a measured choice
            between what is gained with ambiguous boxes and lost with wrong words.
    """

    sam2: Part
    text_encoder: Part
    fusion: FusionConfig
    training: Mapping[str, Any] = field(default_factory=dict)
    strength: float = 1.0

    def __post_init__(self) -> None:
        valid = isinstance(self.strength, int | float) and not isinstance(self.strength, bool)
        if not valid or not 0 <= self.strength <= 1:
            raise ValueError(f"strength is a number from 0 to 1, found {self.strength!r}")

    def to_dict(self) -> dict[str, Any]:
        """As the file has it."""
        return {"model_type": MODEL_TYPE, "version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> VlsmConfig:
        """Read the file's content.

        Raises:
            ValueError: it is another kind of model, of another version, or not whole.
        """
        if not isinstance(settings, Mapping):
            raise ValueError(f"its {CONFIG} holds no settings")
        kind, version = settings.get("model_type"), settings.get("version")
        if kind != MODEL_TYPE:
            raise ValueError(f"its {CONFIG} names a model of type {kind!r}, not {MODEL_TYPE!r}")
        if version != VERSION:
            raise ValueError(f"it is of version {version!r}, this rsvp reads version {VERSION}")
        known = {f.name for f in fields(FusionConfig)}
        fusion = settings.get("fusion")
        if not isinstance(fusion, dict) or (unknown := set(fusion) - known):
            unknown = unknown if isinstance(fusion, dict) else {"none at all"}
            raise ValueError(f"its {CONFIG} has unknown fusion settings: {', '.join(unknown)}")
        try:
            return cls(
                Part(**settings["sam2"]),
                Part(**settings["text_encoder"]),
                FusionConfig(**fusion),
                dict(settings.get("training") or {}),
                settings.get("strength", 1.0),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"its {CONFIG} is not whole: {error}") from error


class Found(NamedTuple):
    """What the VLSM says of N proposals.

    Attributes:
        logits: (N, m, s, s), m masks of each; m is 3 for a lone point, else 1.
        scores: (N, m), the predicted IoU.
        presence: (N,) logits: what the text names is in the box.
        match: (N, gh, gw) logits: this place of the image is what the text names.
        cosines: (B, N, gh * gw), the scaled cosine of every view's places with every text.
    """

    logits: Tensor
    scores: Tensor
    presence: Tensor
    match: Tensor
    cosines: Tensor


class Prompts(NamedTuple):
    """N prompts of one shape, in pixels of the model's square input.

    Attributes:
        coords: (N, P, 2) xy.
        labels: (N, P): 1 on the target, 0 off it, 2 and 3 the corners of a box, which come first.
    """

    coords: Tensor
    labels: Tensor

    @property
    def lone_point(self) -> bool:
        """One point and nothing else, which is ambiguous."""
        return self.labels.shape[1] == 1

    def boxes(self, size: int) -> Tensor:
        """(N, 4) xyxy in shares of the view; the whole view where there are only points."""
        whole = self.coords.new_tensor([0.0, 0.0, 1.0, 1.0])
        if self.lone_point:
            return whole.expand(len(self.coords), -1)
        # Each by its own first label: a box is as long as a pair of points, and shares their batch.
        boxed = self.labels[:, :1] == TOP_LEFT
        return torch.where(boxed, self.coords[:, :2].flatten(1) / size, whole)


class Vlsm(nn.Module):
    """SAM 2 and the fusion as one network; only the fusion has parameters to train.

    Args:
        sam2: frozen here.
        config: of the fusion.
        strength: of its residual, outside of training; see `VlsmConfig`.
    """

    def __init__(self, sam2: Sam2Model, config: FusionConfig, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength
        frozen: Any = sam2  # transformers' own methods are untyped
        self.sam2: Any = frozen.requires_grad_(False).eval()
        self.fusion = Fusion(config)

    def train(self, mode: bool = True) -> Vlsm:
        """Train the fusion; SAM 2 only learns of it to give its single mask, not the stablest."""
        super().train(mode)
        self.sam2.vision_encoder.eval()
        return self

    def forward(
        self, features: Sequence[Tensor], view: Tensor, prompts: Prompts, texts: Texts
    ) -> Found:
        """Masks of N proposals on B encoded views, all in one batch.

        Args:
            features: (B, C, h, w) each, high to low resolution, as `get_image_embeddings` gives.
            view: (N,) int64, which of the B views each proposal is on.
            prompts: one a proposal.
            texts: one a proposal.
        """
        places = self.sam2.get_image_wide_positional_embeddings()
        sparse, dense = self._prompted(prompts)
        boxes = prompts.boxes(self.sam2.prompt_encoder.input_image_size)
        steering = self.fusion(
            features[-1],
            places,
            view=view,
            prompt=sparse[:, 0],
            boxes=boxes,
            texts=texts,
            strength=None if self.training else self.strength,
        )
        with self.fusion.shown_to(self.sam2.mask_decoder, steering.extra):
            steered = _sum(steering.dense, dense)
            logits, scores = self._decoded(features, view, sparse, steered, prompts.lone_point)
        return Found(logits, scores, *steering[2:])

    @torch.no_grad()
    def alone(self, features: Sequence[Tensor], view: Tensor, prompts: Prompts) -> Tensor:
        """(N, s, s) logits of SAM 2 by itself, of a lone point's three masks the best."""
        sparse, dense = self._prompted(prompts)
        logits, scores = self._decoded(features, view, sparse, dense, prompts.lone_point)
        return best_of(logits, scores).logits

    def _prompted(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """(N, 1, P, C) sparse and (N, C, h, w) dense prompt embeddings."""
        sparse, dense = self.sam2.prompt_encoder(
            input_points=prompts.coords[:, None],
            input_labels=prompts.labels[:, None],
            input_boxes=None,
            input_masks=None,
        )
        return sparse, dense

    def _decoded(
        self,
        features: Sequence[Tensor],
        view: Tensor,
        sparse: Tensor,
        dense: Tensor,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """(N, m, s, s) logits and (N, m) predicted IoU of N proposals on their views."""
        places = self.sam2.get_image_wide_positional_embeddings()
        *fine, coarse = (_of_views(level, view) for level in features)
        logits, scores, _, _ = self.sam2.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=places.expand(len(view), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            high_resolution_features=fine,
        )
        return logits[:, 0], scores[:, 0]


def _sum(own: Tensor, other: Tensor) -> Tensor:
    """Their sum; in the memory of `own`, as large as images, where nobody asks for gradients."""
    return own + other if torch.is_grad_enabled() else own.add_(other)


def _of_views(level: Tensor, view: Tensor) -> Tensor:
    """The row of each proposal's view; not copied where all proposals share one."""
    return level.expand(len(view), -1, -1, -1) if len(level) == 1 else level[view]


def build(sam2: Sam2Model, text: TextEncoder, **shape: int) -> Vlsm:
    """An untrained VLSM that fits both.

    Args:
        shape: settings of `FusionConfig` other than the ones that the two models fix.

    Raises:
        BadInput: a setting that there isn't, or that cannot be.
    """
    try:
        config = FusionConfig(**_fixed(sam2, text), **shape)
    except (TypeError, ValueError) as error:
        raise BadInput(f"no such fusion: {error}") from error
    return Vlsm(sam2, config)


def _fixed(sam2: Any, text: TextEncoder) -> dict[str, int]:
    """The settings of `FusionConfig` that the two models leave no choice about."""
    decoder = sam2.config.mask_decoder_config
    return {
        "channels": decoder.hidden_size,
        "text_width": text.width,
        "decoder_layers": decoder.num_hidden_layers,
    }


def save_pretrained(
    folder: str | Path,
    net: Vlsm,
    sam2_source: str,
    text: TextEncoder,
    *,
    training: Mapping[str, Any] | None = None,
) -> VlsmConfig:
    """Write the fusion's folder: `config.json` and `model.safetensors`, in bfloat16.

    Args:
        sam2_source: where the SAM 2 came from, as `load_sam2` takes it.
        training: what to remember of the training, for people.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    config = VlsmConfig(
        Part(sam2_source, weights_digest(net.sam2)),
        Part(text.source, text.digest),
        net.fusion.config,
        training or {},
        net.strength,
    )
    weights = {k: v.detach().to("cpu", torch.bfloat16) for k, v in net.fusion.state_dict().items()}
    save_file(weights, path / WEIGHTS, metadata={"format": "pt"})
    (path / CONFIG).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    return config


class Loaded(NamedTuple):
    """What a VLSM's folder leads to."""

    net: Vlsm
    preprocessing: Preprocessing
    text: TextEncoder
    config: VlsmConfig


def from_pretrained(
    model: str, *, sam2: str | None = None, text_encoder: str | None = None
) -> Loaded:
    """Read a VLSM's folder, and the SAM 2 and the text encoder that it names.

    Args:
        model: a hub id, a folder, or ``embedded``.
        sam2, text_encoder: where they lie now, if not where they did at training.

    Raises:
        ModelUnavailable: something is missing or not readable, or the SAM 2 or the text encoder
            is another one than the VLSM was trained on.
    """
    folder = (
        registry.embedded_folder("vlsm")
        if model == "embedded"
        else hub_folder(model, "VLSM weights")
    )
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = VlsmConfig.from_dict(settings)
        weights = {name: weight.float() for name, weight in load_file(folder / WEIGHTS).items()}
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise ModelUnavailable(f"{folder} cannot be read as a VLSM: {first_line(error)}") from error
    base, preprocessing = load_sam2(sam2 or config.sam2.source)
    text = TextEncoder(text_encoder or config.text_encoder.source)
    _check_same(folder, "SAM 2", config.sam2, sam2, weights_digest(base))
    _check_same(folder, "text encoder", config.text_encoder, text_encoder, text.digest)
    if fault := _misfit(config.fusion, _fixed(base, text)):
        raise ModelUnavailable(f"{folder} does not fit the models that it names: {fault}")
    with torch.device("meta"):  # every weight is about to be replaced: make none
        net = Vlsm(base, config.fusion, config.strength)
    if fault := difference(net.fusion.state_dict(), weights):
        raise ModelUnavailable(f"{folder} lacks weights of its own fusion, or has others: {fault}")
    if fault := next((key for key, value in weights.items() if not value.isfinite().all()), None):
        raise ModelUnavailable(f"{folder} holds weights that are no finite numbers: {fault}")
    net.fusion.load_state_dict(weights, assign=True)
    return Loaded(net.eval(), preprocessing, text, config)


def _misfit(config: FusionConfig, fixed: Mapping[str, int]) -> str | None:
    """The first setting that the two models do not allow, or None."""
    for name, value in fixed.items():
        if (found := getattr(config, name)) != value:
            return f"its {name} is {found}, theirs is {value}"
    return None


def _check_same(folder: Path, what: str, part: Part, asked: str | None, digest: str) -> None:
    if digest != part.sha256:
        raise ModelUnavailable(
            f"{folder} was trained on the {what} {part.source} ({part.sha256[:12]}), "
            f"{asked or part.source} is another one ({digest[:12]})"
        )


class VlsmSegmenter(Sam2Segmenter):
    """The VLSM from a hub id, a folder, or ``embedded``; each proposal's label is its text.

    Attributes:
        text: the text encoder.
    """

    reads_labels = True

    def __init__(
        self,
        model: str,
        *,
        sam2: str | None = None,
        text_encoder: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        """Load the weights.

        Args:
            sam2, text_encoder: see `from_pretrained`.
            device, dtype: see `Sam2Segmenter`.

        Raises:
            ModelUnavailable: weights are missing, or not the ones that it was trained on.
            BadInput: a device that is not here, or an unknown dtype.
        """
        loaded = from_pretrained(model, sam2=sam2, text_encoder=text_encoder)
        self._take(loaded.net, loaded.text)
        self._set_up(
            loaded.net.sam2, loaded.preprocessing, name=f"vlsm:{model}", device=device, dtype=dtype
        )

    @classmethod
    def from_vlsm(
        cls,
        net: Vlsm,
        text: TextEncoder,
        preprocessing: Preprocessing,
        *,
        name: str = "vlsm:network",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> VlsmSegmenter:
        """Wrap a network in memory, e.g. one in training; it is moved and put into eval mode."""
        segmenter = cls.__new__(cls)
        segmenter._take(net, text)
        segmenter._set_up(net.sam2, preprocessing, name=name, device=device, dtype=dtype)
        return segmenter

    def _take(self, net: Vlsm, text: TextEncoder) -> None:
        self.vlsm, self.text = net, text

    def _set_up(self, net: Sam2Model, preprocessing: Preprocessing, **where: Any) -> None:
        super()._set_up(net, preprocessing, **where)
        self.vlsm.to(self.device).eval()
        self.text.to(self.device)

    def _decode(
        self, features: Sequence[Tensor], prompts: Sequence[Prompt], labels: Sequence[str]
    ) -> Decoded:
        """As in `Sam2Segmenter`, steered by the labels."""
        n = len(prompts)
        view = torch.arange(n, device=self.device)
        if len(features[-1]) == 1:
            view = torch.zeros_like(view)
        found = self.vlsm(features, view, Prompts(*self._tensors(prompts)), self.text(labels))
        return best_of(found.logits, found.scores, found.presence.sigmoid())
