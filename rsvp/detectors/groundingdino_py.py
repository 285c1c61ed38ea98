"""The `groundingdino-py` package's own network behind the `Detector` protocol.

Runs an official `.pth` and its config with the authors' own code. The same file loads into
`grounding-dino:FILE.pth`, whose results are equal within 1e-4.
"""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from rsvp.detectors import package_import
from rsvp.detectors.checkpoint import inference_weights, read_official
from rsvp.detectors.grounded import (
    NMS_IOU,
    TEXT_ENCODER,
    THRESHOLD,
    GroundedDetector,
    load_text,
)
from rsvp.detectors.package_import import INSTALL
from rsvp.detectors.preprocessing import DetectorPreprocessing
from rsvp.errors import BadInput, ModelUnavailable, first_line
from rsvp.platform.pretrained import checkpoint_path, state_dict_difference

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
            BadInput: a config that cannot be read or does not fit; a device that this machine
                lacks; a threshold or iou that is not 0 to 1.
        """
        if not package_import.installed():
            raise ModelUnavailable(f"the groundingdino-py package is not installed: {INSTALL}")
        path = checkpoint_path(model, "Grounding DINO")
        state = inference_weights(read_official(path))
        chosen = _default_config(path, state) if config is None else Path(config).expanduser()
        settings = read_config(chosen)
        tokenizer, bert = load_text(text_encoder)
        try:
            net: Any = package_import.build_network(settings, bert, tokenizer)
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
        found = self.net(package_import.nested(pixels), captions=[ids])
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
        return dict(_assignments(ast.parse(text)))
    yaml = importlib.import_module("yaml")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(first_line(error)) from error


def _assignments(module: ast.Module) -> Iterator[tuple[str, Any]]:
    for statement in module.body:
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
    return package_import.folder() / "config" / _RELEASED[width]
