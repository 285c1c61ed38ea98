"""Makes the `groundingdino-py` package build its network with today's transformers.

https://github.com/IDEA-Research/GroundingDINO, packaged as https://pypi.org/project/groundingdino-py.
The package as it is does not import or run here, for three reasons, each met without changing a
file of it:

- its `BertModelWarper` calls methods that `BertModel` no longer has: `BertAdapter` takes its place;
- its modules import torchvision, timm, drawing and config libraries, of which a Swin network in
  inference needs three small functions: stand-ins are there while it is imported, and gone after;
- it downloads BERT's weights only to replace them by the checkpoint's: BERT is made from a config.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rsvp.errors import ModelUnavailable
from rsvp.platform.torchvision import hide_broken_torchvision

hide_broken_torchvision()

# What the package itself imports of transformers; loaded before the stand-ins are there.
from transformers import (  # noqa: E402, F401
    AutoModel,
    AutoTokenizer,
    BatchEncoding,
    BertConfig,
    BertModel,
    BertPreTrainedModel,
    BertTokenizer,
    RobertaModel,
    RobertaTokenizerFast,
)

INSTALL = "pip install --no-deps groundingdino-py==0.4.0"
_PACKAGE = "groundingdino"
_MODEL = f"{_PACKAGE}.models.GroundingDINO.groundingdino"


class BertAdapter(nn.Module):
    """BERT as the package calls it: a mask for every pair of tokens, positions that start anew.

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
            attention_mask: (B, L, L) bool, whether the first token sees the second, or (B, L), for
                all alike.

        Returns:
            ``last_hidden_state``, (B, L, C).
        """
        hidden = self.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids
        )
        seen = attention_mask.bool()
        seen = seen[:, None] if seen.ndim == 3 else seen[:, None, None]
        bias = torch.zeros(seen.shape, dtype=hidden.dtype, device=hidden.device)
        bias = bias.masked_fill(~seen, torch.finfo(hidden.dtype).min)
        encoded = self.encoder(hidden, attention_mask=bias)
        return {"last_hidden_state": encoded[0]}


def installed() -> bool:
    """Whether the package is there; it is not imported."""
    return importlib.util.find_spec(_PACKAGE) is not None


def build_network(settings: Mapping[str, Any], bert: Any, tokenizer: Any) -> nn.Module:
    """The package's own `GroundingDINO`, with random weights, in eval mode.

    Args:
        settings: the names of an official config, e.g. ``backbone="swin_T_224_1k"``.
        bert: a `BertConfig`.
        tokenizer: BERT's.

    Raises:
        ModelUnavailable: the package is not installed or does not import.
        AttributeError, AssertionError, KeyError: settings that it cannot build from.
    """
    module = load_package()
    # Gradient checkpoints save memory in training; here they would only warn.
    args = types.SimpleNamespace(
        **{**settings, "use_checkpoint": False, "use_transformer_ckpt": False}
    )
    texts = module.get_tokenlizer
    make_bert: Any = AutoModel.from_config
    replaced = {
        (module, "BertModelWarper"): BertAdapter,
        (texts, "get_tokenlizer"): lambda _: tokenizer,
        (texts, "get_pretrained_language_model"): lambda _: make_bert(bert),
    }
    with _patched(replaced):
        network: nn.Module = module.build_groundingdino(args)
    return network.eval()


def nested(pixels: torch.Tensor) -> Any:
    """Images (B, 3, H, W), none of them padded, as the package's forward takes them."""
    misc = importlib.import_module(f"{_PACKAGE}.util.misc")
    size = (len(pixels), *pixels.shape[-2:])
    return misc.NestedTensor(pixels, torch.zeros(size, dtype=torch.bool, device=pixels.device))


def given_tokens(captions: Sequence[torch.Tensor], **_: Any) -> BatchEncoding:
    """In place of the network's tokenizer: captions that are tokens already, (1, L) int64 each."""
    ids = torch.cat(list(captions))
    return BatchEncoding(
        {
            "input_ids": ids,
            "token_type_ids": torch.zeros_like(ids),
            "attention_mask": torch.ones_like(ids),
        }
    )


def folder() -> Path:
    """Where the package lies."""
    return Path(importlib.import_module(_PACKAGE).__file__ or "").parent


def load_package() -> Any:
    """Import the package's module of the network.

    Raises:
        ModelUnavailable: the package is not installed or does not import.
    """
    if not installed():
        raise ModelUnavailable(f"the groundingdino-py package is not installed: {INSTALL}")
    try:
        with _stand_ins():
            return importlib.import_module(_MODEL)
    except Exception as error:  # whatever its modules raise as they are imported
        why = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelUnavailable(
            f"the groundingdino-py package cannot be imported ({type(error).__name__}: {why}); "
            f"the release that rsvp knows: {INSTALL}"
        ) from error


@contextlib.contextmanager
def _patched(replaced: Mapping[tuple[Any, str], Any]) -> Iterator[None]:
    before = {place: getattr(*place) for place in replaced}
    try:
        for (owner, name), value in replaced.items():
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner, name, value)


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """What the package imports and a Swin network does not need, while it is being imported."""
    given = _timm() | _own_tools() | ({} if sys.modules.get("torchvision") else _torchvision())
    missing = object()
    before = {name: sys.modules.get(name, missing) for name in given}
    sys.modules.update(given)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is missing:
                del sys.modules[name]
            else:
                sys.modules[name] = module  # type: ignore[assignment]


def _module(name: str, **names: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(names)
    return module


def _torchvision() -> dict[str, types.ModuleType]:
    """Only `box_area` is ever called, by the training losses; the rest is for ResNets and NMS."""
    nms = _absent("torchvision.ops.boxes.nms")
    boxes = _module("torchvision.ops.boxes", nms=nms, box_area=_box_area)
    utils = _module(
        "torchvision.models._utils",
        IntermediateLayerGetter=_absent("torchvision.models._utils.IntermediateLayerGetter"),
    )
    ops = _module("torchvision.ops", boxes=boxes)
    models = _module("torchvision.models", _utils=utils)
    # The package reads the minor version, to tell releases before 0.7.
    root = _module("torchvision", __version__="0.28.0", ops=ops, models=models)
    return {module.__name__: module for module in (root, ops, boxes, models, utils)}


def _timm() -> dict[str, types.ModuleType]:
    """Three functions of `timm.models.layers`."""
    layers = _module(
        "timm.models.layers",
        DropPath=_DropPath,
        to_2tuple=lambda value: value if isinstance(value, tuple) else (value, value),
        trunc_normal_=nn.init.trunc_normal_,
    )
    models = _module("timm.models", layers=layers)
    return {m.__name__: m for m in (_module("timm", models=models), models, layers)}


def _own_tools() -> dict[str, types.ModuleType]:
    """The package's drawing (matplotlib, OpenCV) and its config reader (addict, yapf)."""
    drawing = f"{_PACKAGE}.util.visualizer"
    config = f"{_PACKAGE}.util.slconfig"
    return {
        drawing: _module(drawing, COCOVisualizer=_absent(f"{drawing}.COCOVisualizer")),
        config: _module(config, SLConfig=_absent(f"{config}.SLConfig")),
    }


class _DropPath(nn.Module):
    """Stochastic depth, which does nothing in inference."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise NotImplementedError("rsvp runs GroundingDINO and does not train it")
        return x


def _box_area(boxes: torch.Tensor) -> torch.Tensor:
    """(n,) areas of xyxy boxes (n, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _absent(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"{name} is not there: no Swin network needs it")

    return refuse
