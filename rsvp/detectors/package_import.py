"""Imports the `groundingdino-py` package and builds its network with current transformers.

https://github.com/IDEA-Research/GroundingDINO, packaged as https://pypi.org/project/groundingdino-py.
The package neither imports nor runs as it is. This module works around three causes, without a
change to its files:

- its `BertModelWarper` calls methods that `BertModel` no longer has: `BertAdapter` replaces it;
- its modules import torchvision, timm, drawing and config libraries, of which a Swin network in
  inference needs three small functions: stubs replace them during the import;
- it downloads BERT's weights, which the checkpoint's then overwrite: BERT is made from a config.
"""

from __future__ import annotations

import importlib
import importlib.util
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from rsvp.errors import ModelUnavailable, first_line
from rsvp.platform.pretrained import transformers
from rsvp.platform.torchvision import stub_modules, torchvision_works

INSTALL = "pip install --no-deps groundingdino-py==0.4.0"
_PACKAGE = "groundingdino"
_MODEL = f"{_PACKAGE}.models.GroundingDINO.groundingdino"
# What the package imports of transformers, which must not see the stubs below.
_OF_TRANSFORMERS = (
    *("AutoModel", "AutoTokenizer", "BertConfig", "BertModel", "BertPreTrainedModel"),
    *("BertTokenizer", "RobertaModel", "RobertaTokenizerFast"),
)


class BertAdapter(nn.Module):
    """BERT as the package calls it: with a mask for every pair of tokens, and position ids.

    Weights keep the names of the official checkpoints (``bert.embeddings.…``, ``bert.encoder.…``).
    """

    def __init__(self, bert_model: Any) -> None:
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder
        self.pooler = bert_model.pooler

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Encode tokens.

        Args:
            input_ids, token_type_ids, position_ids: (B, L) int64.
            attention_mask: (B, L, L) bool, whether the first token attends to the second, or
                (B, L), the same for all.

        Returns:
            ``last_hidden_state``, (B, L, C).
        """
        hidden = self.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids
        )
        mask = attention_mask.bool()
        mask = mask[:, None] if mask.ndim == 3 else mask[:, None, None]
        bias = torch.zeros(mask.shape, dtype=hidden.dtype, device=hidden.device)
        bias = bias.masked_fill(~mask, torch.finfo(hidden.dtype).min)
        encoded = self.encoder(hidden, attention_mask=bias)
        return {"last_hidden_state": encoded[0]}


def installed() -> bool:
    """Whether the package is installed; it is not imported."""
    return importlib.util.find_spec(_PACKAGE) is not None


def build_network(settings: Mapping[str, Any], bert: Any, tokenizer: Any) -> Any:
    """The package's own `GroundingDINO`, with random weights, in eval mode.

    Args:
        settings: the names of an official config, e.g. ``backbone="swin_T_224_1k"``.
        bert: a `BertConfig`.
        tokenizer: BERT's.

    Raises:
        ModelUnavailable: the package is not installed or does not import.
        AttributeError, AssertionError, KeyError: settings that it cannot build a network from.
    """
    module = load_package()
    # Gradient checkpointing saves memory in training; in inference it would only warn.
    args = types.SimpleNamespace(
        **{**settings, "use_checkpoint": False, "use_transformer_ckpt": False}
    )
    make_bert: Any = transformers.AutoModel.from_config
    with (
        mock.patch.object(module, "BertModelWarper", BertAdapter),
        mock.patch.multiple(
            module.get_tokenlizer,
            get_tokenlizer=lambda _: tokenizer,
            get_pretrained_language_model=lambda _: make_bert(bert),
        ),
    ):
        network: Any = module.build_groundingdino(args)
    network.tokenizer = _tokens_as_captions
    return network.eval()


def nested(pixels: torch.Tensor) -> Any:
    """Images (B, 3, H, W) without padding, as the package's forward takes them."""
    misc = importlib.import_module(f"{_PACKAGE}.util.misc")
    size = (len(pixels), *pixels.shape[-2:])
    return misc.NestedTensor(pixels, torch.zeros(size, dtype=torch.bool, device=pixels.device))


def _tokens_as_captions(captions: Sequence[torch.Tensor], **_: Any) -> transformers.BatchEncoding:
    """Replaces the network's tokenizer: the captions are tokens already, (1, L) int64 each."""
    ids = torch.cat(list(captions))
    rest = {"token_type_ids": torch.zeros_like(ids), "attention_mask": torch.ones_like(ids)}
    return transformers.BatchEncoding({"input_ids": ids, **rest})


def folder() -> Path:
    """The folder of the package."""
    return Path(importlib.import_module(_PACKAGE).__file__ or "").parent


def load_package() -> Any:
    """Import the package's module of the network.

    Raises:
        ModelUnavailable: the package is not installed or does not import.
    """
    if not installed():
        raise ModelUnavailable(f"the groundingdino-py package is not installed: {INSTALL}")
    for name in _OF_TRANSFORMERS:
        getattr(transformers, name)
    try:
        with stub_modules(_STUBS | ({} if torchvision_works() else _TORCHVISION)):
            return importlib.import_module(_MODEL)
    except Exception as error:  # its modules may raise anything
        raise ModelUnavailable(
            f"the groundingdino-py package cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); the release that rsvp supports: {INSTALL}"
        ) from error


class _DropPath(nn.Module):
    """Stochastic depth, the identity in inference."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise NotImplementedError("rsvp runs GroundingDINO and does not train it")
        return x


def _unused(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"{name} is a stub: no Swin network needs it")

    return refuse


# The package's drawing (matplotlib, OpenCV) and config reader (addict, yapf), and what it imports
# of timm.
_STUBS: dict[str, dict[str, Any]] = {
    f"{_PACKAGE}.util.visualizer": {"COCOVisualizer": _unused("COCOVisualizer")},
    f"{_PACKAGE}.util.slconfig": {"SLConfig": _unused("SLConfig")},
    "timm": {},
    "timm.models": {},
    "timm.models.layers": {
        "DropPath": _DropPath,
        "to_2tuple": lambda value: value if isinstance(value, tuple) else (value, value),
        "trunc_normal_": nn.init.trunc_normal_,
    },
}
# For ResNets, NMS and the training losses. The package reads the minor version, to recognise
# releases before 0.7.
_TORCHVISION: dict[str, dict[str, Any]] = {
    "torchvision": {"__version__": "0.28.0"},
    "torchvision.ops": {},
    "torchvision.ops.boxes": {"nms": _unused("nms"), "box_area": _unused("box_area")},
    "torchvision.models": {},
    "torchvision.models._utils": {
        "IntermediateLayerGetter": _unused("IntermediateLayerGetter"),
    },
}
