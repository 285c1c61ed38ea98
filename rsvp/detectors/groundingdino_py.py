"""The `groundingdino-py` package's own network behind the `Detector` protocol.

Runs an official `.pth` and its config with the authors' own code. The same file loads into
`grounding-dino:FILE.pth`, whose results are equal within 1e-4.

https://github.com/IDEA-Research/GroundingDINO, packaged as https://pypi.org/project/groundingdino-py.
The package neither imports nor runs as it is. This module works around three causes, without a
change to its files:

- its `BertModelWarper` calls methods that `BertModel` no longer has: `BertAdapter` replaces it;
- its modules import torchvision, timm, drawing and config libraries, of which a Swin network in
  inference needs three small functions: stubs replace them during the import;
- it downloads BERT's weights, which the checkpoint's then overwrite: BERT is made from a config.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from rsvp.detectors.checkpoint import inference_weights, read_official
from rsvp.detectors.grounded import (
    NMS_IOU,
    TEXT_ENCODER,
    THRESHOLD,
    GroundedDetector,
    load_text,
)
from rsvp.detectors.preprocessing import DetectorPreprocessing
from rsvp.errors import BadInput, ModelUnavailable, first_line
from rsvp.platform.pretrained import checkpoint_path, state_dict_difference, transformers
from rsvp.platform.torchvision import stub_modules, torchvision_works

INSTALL = "pip install --no-deps groundingdino-py==0.4.0"
_PACKAGE = "groundingdino"
_MODEL = f"{_PACKAGE}.models.GroundingDINO.groundingdino"
# What the package imports of transformers, which must not see the stubs below.
_OF_TRANSFORMERS = (
    *("AutoModel", "AutoTokenizer", "BertConfig", "BertModel", "BertPreTrainedModel"),
    *("BertTokenizer", "RobertaModel", "RobertaTokenizerFast"),
)
# Width of the Swin's first stage -> the package's own config of the released checkpoint.
_RELEASED = {96: "GroundingDINO_SwinT_OGC.py", 128: "GroundingDINO_SwinB_cfg.py"}
_SUFFIXES = (".py", ".yaml", ".yml", ".json")


class GroundingDinoPyDetector(GroundedDetector):
    """The official project's code, from its package, with an official `.pth` checkpoint."""

    def __init__(
        self,
        model: str,
        *,
        config: str | None = None,
        threshold: float | None = THRESHOLD,
        iou: float | None = NMS_IOU,
        text_encoder: str = TEXT_ENCODER,
        device: str | torch.device | None = None,
    ) -> None:
        """Load the weights.

        Args:
            model: the `.pth` file.
            config: its `.py`, `.yaml` or `.json` config; by default the one of the same name beside
                it, else the package's own for a Swin of that width.
            threshold, iou, device: see `GroundedDetector`.
            text_encoder: a folder or hub id of BERT's tokenizer and config; its weights come with
                the checkpoint.

        Raises:
            ModelUnavailable: the package, the weights or the tokenizer are missing or unreadable.
            BadInput: a config that cannot be read or does not fit; see also `GroundedDetector`.
        """
        load_package()
        path = checkpoint_path(model, "Grounding DINO")
        state = inference_weights(read_official(path))
        chosen = _default_config(path, state) if config is None else Path(config).expanduser()
        settings = read_config(chosen)
        tokenizer, bert = load_text(text_encoder)
        try:
            net: Any = build_network(settings, bert, tokenizer)
        except (AttributeError, AssertionError, KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"no Grounding DINO can be built from {chosen}: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        if difference := state_dict_difference(inference_weights(net.state_dict()), state):
            raise BadInput(
                f"the config {chosen} does not fit the checkpoint: {difference}; pass config=FILE"
            )
        net.load_state_dict(state, strict=False)  # all that inference needs is there
        name, max_tokens = f"groundingdino-py:{model}", net.max_text_len
        options: Any = {"threshold": threshold, "iou": iou, "device": device}
        super().__init__(name, net, tokenizer, max_tokens, DetectorPreprocessing(), **options)

    def _forward(
        self, pixels: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        misc = importlib.import_module(f"{_PACKAGE}.util.misc")
        padding = torch.zeros_like(pixels[:, 0], dtype=torch.bool)  # the image has none
        found = self.net(misc.NestedTensor(pixels, padding), captions=[ids])
        return found["pred_logits"][0], found["pred_boxes"][0]


def read_config(path: Path) -> dict[str, Any]:
    """The settings of an official config, as names and literals.

    A `.py` config is parsed and not run: its assignments of literals are its settings.

    Raises:
        BadInput: missing, unreadable, or more than literals.
    """
    if path.suffix not in _SUFFIXES:
        raise BadInput(f"a config is a {', '.join(_SUFFIXES)} file, found {path}")
    try:
        found = _parsed(path.read_text(encoding="utf-8"), path.suffix)
    except OSError as error:
        raise BadInput(f"cannot read the config {path}: {error.strerror or error}") from error
    except (ValueError, SyntaxError) as error:
        raise BadInput(f"the config {path} cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict) or "backbone" not in found:
        raise BadInput(f"the config {path} names no backbone: it is no config of Grounding DINO")
    return {str(name): value for name, value in found.items()}


def _parsed(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".py":
        return dict(_assignments(text))
    yaml = importlib.import_module("yaml")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(first_line(error)) from error


def _assignments(text: str) -> Iterator[tuple[str, Any]]:
    for statement in ast.parse(text).body:
        if not isinstance(statement, ast.Assign):
            raise ValueError(f"line {statement.lineno} is no assignment of a literal")
        for target in statement.targets:
            if not isinstance(target, ast.Name) or target.id == "_base_":
                raise ValueError(f"line {statement.lineno} builds on another config")
            yield target.id, ast.literal_eval(statement.value)


def _default_config(path: Path, state: Mapping[str, torch.Tensor]) -> Path:
    """The config of the same name beside the checkpoint, else the package's own."""
    for suffix in _SUFFIXES:
        if (beside := path.with_suffix(suffix)).is_file():
            return beside
    width = len(state["backbone.0.patch_embed.proj.weight"])
    if width not in _RELEASED:
        raise BadInput(f"no released config has a Swin of width {width}: pass config=FILE")
    return folder() / "config" / _RELEASED[width]


# ------------------------------------------------------------ the package


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
        """``last_hidden_state``, (B, L, C), of tokens, (B, L) int64.

        Args:
            attention_mask: (B, L, L) bool, whether the first token attends to the second, or
                (B, L), the same for all.
        """
        hidden = self.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids
        )
        mask = attention_mask.bool()
        mask = mask[:, None] if mask.ndim == 3 else mask[:, None, None]
        bias = hidden.new_zeros(mask.shape).masked_fill(~mask, torch.finfo(hidden.dtype).min)
        return {"last_hidden_state": self.encoder(hidden, attention_mask=bias)[0]}


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


def _tokens_as_captions(captions: Sequence[torch.Tensor], **_: Any) -> transformers.BatchEncoding:
    """Replaces the network's tokenizer: the captions are tokens already, (1, L) int64 each."""
    ids = torch.cat(list(captions))
    rest = {"token_type_ids": torch.zeros_like(ids), "attention_mask": torch.ones_like(ids)}
    return transformers.BatchEncoding({"input_ids": ids, **rest})


def folder() -> Path:
    """The folder of the package."""
    return Path(importlib.import_module(_PACKAGE).__file__ or "").parent


def load_package() -> Any:
    """The package's module of the network; ModelUnavailable where it cannot be imported."""
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
