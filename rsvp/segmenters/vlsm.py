"""VLSM: SAM 2 steered by text. SAM 2 and the text encoder are frozen and stored elsewhere.

A folder holds `config.json` and `model.safetensors`: the fusion alone, a few MB, and the sources
and digests of the SAM 2 and the text encoder that it was trained on. Other models are refused: the
fusion was trained on these features only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rsvp import registry
from rsvp.errors import BadInput, ModelUnavailable
from rsvp.platform.files import atomic_write, first_fault, write_json
from rsvp.platform.hub import hub_folder
from rsvp.platform.pretrained import (
    check_model_type,
    non_finite,
    read_settings,
    reading,
    state_dict_difference,
    transformers,
    weights_digest,
)
from rsvp.segmenters.fusion import Fusion, FusionConfig, TextStates
from rsvp.segmenters.networks import Preprocessing, load_base
from rsvp.segmenters.point_prompts import PromptBatch
from rsvp.segmenters.promptable import DecoderOutput, best_mask
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.text_encoder import TextEncoder

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_TYPE, VERSION = "rsvp-vlsm", 1


class ModelReference(BaseModel, frozen=True, strict=True, extra="forbid"):
    """A frozen model that a VLSM was trained on: its source and its digest."""

    source: str
    sha256: str


class VlsmConfig(BaseModel, frozen=True, strict=True, populate_by_name=True):
    """`config.json`.

    Attributes:
        training: a record of the training, for people.
        residual_scale: multiplies the dense residual, 0 to 1; ``strength`` in the file. Lower
            values lose less with a wrong text and gain less with an ambiguous box.
    """

    model_type: str = MODEL_TYPE
    version: int = VERSION
    sam2: ModelReference
    text_encoder: ModelReference
    fusion: FusionConfig
    training: dict[str, Any] = {}
    residual_scale: Annotated[float, Field(alias="strength", ge=0, le=1)] = 1.0


class VlsmOutput(NamedTuple):
    """The VLSM's output for N proposals.

    Attributes:
        logits: (N, m, s, s), m masks of each; m is 3 for a single point, else 1.
        scores: (N, m), the predicted IoU.
        presence, match, cosines: see `FusionOutput`.
    """

    logits: Tensor
    scores: Tensor
    presence: Tensor
    match: Tensor
    cosines: Tensor


class Vlsm(nn.Module):
    """SAM 2 and the fusion as one network; only the fusion has parameters to train.

    Args:
        sam2: frozen here.
        config: of the fusion.
        residual_scale: outside of training; see `VlsmConfig`.
    """

    def __init__(
        self, sam2: transformers.Sam2Model, config: FusionConfig, residual_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        frozen: Any = sam2  # transformers' own methods are untyped
        self.sam2: Any = frozen.requires_grad_(False).eval()
        self.fusion = Fusion(config)

    def train(self, mode: bool = True) -> Vlsm:
        """The mask decoder's train mode disables its dynamic multimask selection.

        The image encoder stays in eval mode.
        """
        super().train(mode)
        self.sam2.vision_encoder.eval()
        return self

    def forward(
        self, features: Sequence[Tensor], view: Tensor, prompts: PromptBatch, texts: TextStates
    ) -> VlsmOutput:
        """Masks of N proposals on B encoded views, all in one batch.

        Args:
            features: (B, C, h, w) each, high to low resolution, as `get_image_embeddings` gives.
            view: (N,) int64, which of the B views each proposal is on.
            prompts: one a proposal.
            texts: one a proposal.
        """
        sparse, dense = self._encode_prompts(prompts)
        steering = self.fusion(
            features[-1],
            self.sam2.get_image_wide_positional_embeddings(),
            view=view,
            prompt=sparse[:, 0],
            boxes=prompts.boxes(self.sam2.prompt_encoder.input_image_size),
            texts=texts,
            residual_scale=None if self.training else self.residual_scale,
        )
        with self.fusion.extra_tokens(self.sam2.mask_decoder, steering.extra):
            # As large as images: in place, where nobody needs gradients.
            steered = (
                steering.dense + dense if torch.is_grad_enabled() else steering.dense.add_(dense)
            )
            logits, scores = self._decode(features, view, prompts, sparse, steered)
        return VlsmOutput(logits, scores, *steering[2:])

    @torch.no_grad()
    def sam2_logits(self, features: Sequence[Tensor], view: Tensor, prompts: PromptBatch) -> Tensor:
        """(N, s, s) logits of SAM 2 without the fusion; of a single point's masks the best."""
        sparse, dense = self._encode_prompts(prompts)
        return best_mask(*self._decode(features, view, prompts, sparse, dense)).logits

    def _encode_prompts(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """(N, 1, P, C) sparse and (N, C, h, w) dense prompt embeddings."""
        sparse, dense = self.sam2.prompt_encoder(
            input_points=prompts.coords[:, None],
            input_labels=prompts.labels[:, None],
            input_boxes=None,
            input_masks=None,
        )
        return sparse, dense

    def _decode(
        self,
        features: Sequence[Tensor],
        view: Tensor,
        prompts: PromptBatch,
        sparse: Tensor,
        dense: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(N, m, s, s) logits and (N, m) predicted IoU of N proposals on their views."""
        positions = self.sam2.get_image_wide_positional_embeddings()
        # The row of each proposal's view; not copied where all proposals share one.
        *fine, coarse = (
            level.expand(len(view), -1, -1, -1) if len(level) == 1 else level[view]
            for level in features
        )
        logits, scores, _, _ = self.sam2.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=positions.expand(len(view), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=prompts.single_point,
            high_resolution_features=fine,
        )
        return logits[:, 0], scores[:, 0]


def build(sam2: transformers.Sam2Model, text: TextEncoder, **options: int) -> Vlsm:
    """An untrained VLSM for a SAM 2 and a text encoder.

    Args:
        options: fields of `FusionConfig` other than the ones that the two models determine.

    Raises:
        BadInput: an unknown option or a value out of its range.
    """
    try:
        return Vlsm(sam2, FusionConfig(**_determined(sam2, text), **options))
    except TypeError as error:  # an option that the two models determine
        raise BadInput(f"no such fusion: {error}") from error
    except ValidationError as error:
        raise BadInput(f"no such fusion: {first_fault(error)}") from error


def _determined(sam2: Any, text: TextEncoder) -> dict[str, int]:
    """The fields of `FusionConfig` that the two models determine."""
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
        sam2_source: the source of the SAM 2, as `load_base` takes it.
        training: a record of the training, for people.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    config = VlsmConfig(
        sam2=ModelReference(source=sam2_source, sha256=weights_digest(net.sam2)),
        text_encoder=ModelReference(source=text.source, sha256=text.digest),
        fusion=net.fusion.config,
        training=dict(training or {}),
        residual_scale=net.residual_scale,
    )
    weights = {k: v.detach().to("cpu", torch.bfloat16) for k, v in net.fusion.state_dict().items()}
    atomic_write(path / WEIGHTS, save(weights, metadata={"format": "pt"}))
    write_json(path / CONFIG, config.model_dump(by_alias=True))
    return config


class LoadedVlsm(NamedTuple):
    """A VLSM with everything that it needs."""

    net: Vlsm
    preprocessing: Preprocessing
    text: TextEncoder
    config: VlsmConfig


def from_pretrained(
    model: str, *, sam2: str | None = None, text_encoder: str | None = None
) -> LoadedVlsm:
    """Read a VLSM's folder, and the SAM 2 and the text encoder that it names.

    Args:
        model: a hub id, a folder, or ``embedded``.
        sam2, text_encoder: their sources, if not those at training.

    Raises:
        ModelUnavailable: something is missing or unreadable, or not what it was trained on.
    """
    if model == "embedded":
        model = str(registry.embedded_folder("vlsm"))
    folder = hub_folder(model, "VLSM weights")
    with reading(folder, "a VLSM"):
        config = _read_config(folder)
        weights = {name: weight.float() for name, weight in load_file(folder / WEIGHTS).items()}
    base, preprocessing = load_base(sam2 or config.sam2.source)
    text = TextEncoder(text_encoder or config.text_encoder.source)
    for what, reference, asked, digest in (
        ("SAM 2", config.sam2, sam2, weights_digest(base)),
        ("text encoder", config.text_encoder, text_encoder, text.digest),
    ):
        if digest != reference.sha256:
            raise ModelUnavailable(
                f"{folder} was trained on the {what} {reference.source} ({reference.sha256[:12]}), "
                f"{asked or reference.source} is another one ({digest[:12]})"
            )
    for name, value in _determined(base, text).items():
        if (found := getattr(config.fusion, name)) != value:
            raise ModelUnavailable(
                f"{folder} does not fit the models that it names: "
                f"its {name} is {found}, theirs is {value}"
            )
    with torch.device("meta"):  # every weight is replaced below
        net = Vlsm(base, config.fusion, config.residual_scale)
    if difference := state_dict_difference(net.fusion.state_dict(), weights):
        raise ModelUnavailable(f"{folder} does not hold the weights of its fusion: {difference}")
    if broken := non_finite(weights):
        raise ModelUnavailable(f"{folder} holds weights that are not finite: {broken}")
    net.fusion.load_state_dict(weights, assign=True)
    return LoadedVlsm(net.eval(), preprocessing, text, config)


def _read_config(folder: Path) -> VlsmConfig:
    """The folder's `config.json`; ValueError if another version, incomplete, or out of range."""
    check_model_type(folder, (MODEL_TYPE,))
    settings = read_settings(folder / CONFIG)
    if (version := settings.get("version")) != VERSION:
        raise ValueError(f"it is of version {version!r}, this rsvp reads version {VERSION}")
    try:
        return VlsmConfig.model_validate(settings)
    except ValidationError as error:
        raise ValueError(f"its {CONFIG}: {first_fault(error)}") from error


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
            device, dtype: see `Sam2Segmenter`, also for the errors.
        """
        net, preprocessing, text, _ = from_pretrained(model, sam2=sam2, text_encoder=text_encoder)
        self._place(net.sam2, preprocessing, f"vlsm:{model}", device, dtype)
        self._attach(net, text)

    @classmethod
    def from_vlsm(
        cls,
        net: Vlsm,
        text: TextEncoder,
        preprocessing: Preprocessing,
        *,
        name: str = "vlsm:network",
        **where: Any,
    ) -> VlsmSegmenter:
        """Wrap a network in memory, as `from_network` does with the same options."""
        segmenter = cls.from_network(net.sam2, preprocessing, name=name, **where)
        segmenter._attach(net, text)
        return segmenter

    def _attach(self, net: Vlsm, text: TextEncoder) -> None:
        self.vlsm, self.text = net.to(self.device).eval(), text.to(self.device)

    def _decode(
        self, features: Sequence[Tensor], prompts: PromptBatch, labels: Sequence[str]
    ) -> DecoderOutput:
        """See `PromptableSegmenter._decode`; steered by the labels."""
        view = torch.arange(len(labels), device=self.device)
        if len(features[-1]) == 1:
            view = torch.zeros_like(view)
        found = self.vlsm(features, view, prompts, self.text(labels))
        return best_mask(found.logits, found.scores, found.presence.sigmoid())
