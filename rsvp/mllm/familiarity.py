"""Whether an image is like those that a model was trained on, from the features of its encoder.

A folder of a model may hold `familiarity.safetensors`: which modules of the network to look at, and
a linear classifier on their features, fitted on images of the model's training and on others. The
features are read on the way through the network, so they cost no second pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FILE = "familiarity.safetensors"
TENSORS = ("mean", "std", "weight", "bias")
CLIP = 8.0  # standard deviations; a feature further away does not outweigh all others


class FeatureReader:
    """Keeps the pooled features of a network's modules from each forward pass.

    Args:
        network: a `torch.nn.Module`.
        modules: names of its modules whose output is (B, C, H, W), as `get_submodule` takes them.

    Raises:
        AttributeError: the network has no such module.
    """

    def __init__(self, network: Any, modules: Sequence[str]) -> None:
        self._pooled: dict[str, Tensor] = {}
        self._modules = tuple(modules)
        for name in modules:
            network.get_submodule(name).register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def pool(_module: Any, _inputs: Any, output: Tensor) -> None:
            maps = output.flatten(2).float()
            mean = maps.mean(-1, keepdim=True)
            variance = (maps - mean).square().mean(-1)
            self._pooled[name] = _concatenate([mean[..., 0], variance.sqrt()])

        return pool

    def take(self) -> Tensor | None:
        """(B, F) float32: each module's means, then standard deviations, over the positions.

        None where no image went through the network since the last call.
        """
        pooled, self._pooled = self._pooled, {}
        return _concatenate([pooled[name] for name in self._modules]) if pooled else None


class Familiarity:
    """Scores the images that a network has just seen.

    Args:
        network: a `torch.nn.Module`.
        tensors: `mean`, `std` and `weight`, each (F,), and `bias`, (); all float32.
        modules: as for `FeatureReader`.
    """

    def __init__(self, network: Any, tensors: Mapping[str, Tensor], modules: Sequence[str]) -> None:
        self._reader = FeatureReader(network, modules)
        self._tensors = dict(tensors)

    @classmethod
    def of_folder(cls, folder: Path, network: Any) -> Familiarity | None:
        """Read the folder's classifier; None where it has none."""
        if not (folder / FILE).is_file():
            return None
        from safetensors import safe_open

        with safe_open(folder / FILE, framework="pt") as file:
            modules = json.loads(file.metadata()["modules"])
            return cls(network, {name: file.get_tensor(name) for name in TENSORS}, modules)

    def score(self) -> float | None:
        """The least familiar image's score, see `rsvp.types.Reply`; None where there was none."""
        features = self._reader.take()
        return None if features is None else float(score(features.cpu(), self._tensors).min())


def score(features: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """(B,) scores of (B, F) features: log-odds, below 0 where an image is unfamiliar."""
    deviations = (features - tensors["mean"]) / tensors["std"]
    return deviations.clamp(-CLIP, CLIP) @ tensors["weight"] + tensors["bias"]


def write(folder: Path, tensors: Mapping[str, Tensor], modules: Sequence[str]) -> None:
    """Write a model's classifier into its folder; the arguments are those of `Familiarity`."""
    from safetensors.torch import save

    metadata = {"modules": json.dumps(list(modules))}
    (folder / FILE).write_bytes(save(dict(tensors), metadata=metadata))


def _concatenate(tensors: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat(list(tensors), dim=1)
