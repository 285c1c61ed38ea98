"""Frozen text encoders for the VLSM: whatever transformers loads, or an MLLM's own embeddings.

A source is a hub id, a folder, or ``embedded``; its `config.json` says what it is. CLIP and SigLIP
give their text tower, BERT-like encoders themselves, and of a multimodal LLM only the table of
token embeddings is read, a few MB of the many GB. ``embeddings:SOURCE`` asks for the table of any
model.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsvp import registry
from rsvp.errors import ModelUnavailable, first_line
from rsvp.platform.hub import hub_folder
from rsvp.platform.pretrained import quiet
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.segmenters.fusion import Texts

hide_broken_torchvision()

from safetensors import SafetensorError, safe_open  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    CLIPTextModel,
    Siglip2TextModel,
    SiglipTextModel,
)

_TOWERS: dict[str, Any] = {
    "clip": CLIPTextModel,
    "clip_text_model": CLIPTextModel,
    "siglip": SiglipTextModel,
    "siglip_text_model": SiglipTextModel,
    "siglip2": Siglip2TextModel,
    "siglip2_text_model": Siglip2TextModel,
}
_ENCODERS = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra"}
    | {"modernbert", "mpnet", "roberta", "xlm-roberta"}
)
# SigLIP was trained on texts padded to this length, and without a mask.
_PADDED = dict.fromkeys([kind for kind in _TOWERS if kind.startswith("siglip")], 64)
_TABLE = "embeddings:"
_TABLES = (
    *("embed_tokens.weight", "word_embeddings.weight", "token_embedding.weight"),
    "shared.weight",
)
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)
_LONGEST = 64  # tokens of one text that are read
_KEPT, _HELD = 4096, 2**24  # texts whose states are kept, and numbers in them all (64 MB)


class TextEncoder(nn.Module):
    """Texts to states, frozen; the states of texts that were met lately are kept.

    Attributes:
        source: what it was loaded from.
        width: of the states.
        digest: SHA-256 of the weights and the tokenizer's vocabulary.
    """

    def __init__(self, source: str) -> None:
        """Load it, on the CPU, in float32.

        Raises:
            ModelUnavailable: no such folder or hub id here, or nothing that encodes text.
        """
        super().__init__()
        self.source = source
        table = source.startswith(_TABLE)
        folder = _folder(source.removeprefix(_TABLE))
        try:
            kind = _model_type(folder)
            self.tokenizer = _tokenizer(folder)
            tower = None if table else _tower(kind)
            self.padded = None if tower is None else _PADDED.get(kind)
            net = _table(folder) if tower is None else _encoder(tower, folder)
        except _UNREADABLE as error:
            raise ModelUnavailable(
                f"{folder} cannot be read as a text encoder: {first_line(error)}"
            ) from error
        self.net: nn.Module = net.eval().requires_grad_(False)
        self.width: int = (
            net.embedding_dim if isinstance(net, nn.Embedding) else net.config.hidden_size
        )
        self.digest = _digest(self.net, self.tokenizer)
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._held = 0

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Texts:
        """The states of each text, padded to the longest."""
        device = next(self.net.parameters()).device
        # The states of a text never depend on its company: each is encoded at its own length.
        rows = [self._states(_clean(text), device) for text in texts]
        longest = max([len(row) for row in rows], default=0)
        states = torch.zeros(len(rows), longest, self.width, device=device)
        real = torch.zeros(states.shape[:2], dtype=torch.bool, device=device)
        for i, row in enumerate(rows):
            states[i, : len(row)] = row
            real[i, : len(row)] = True
        return Texts(states, real)

    def _states(self, text: str, device: torch.device) -> Tensor:
        """(T, width) of one text; T is 0 for the empty one, which says nothing."""
        known = self._known.get(text)
        if known is not None and known.device == device:
            self._known.move_to_end(text)
            return known
        found = self._encode(text, device) if text else torch.zeros(0, self.width, device=device)
        self._forget(text)
        self._known[text] = found
        self._held += found.numel()
        while self._held > _HELD or len(self._known) > _KEPT:
            self._forget(next(iter(self._known)))
        return found

    def _forget(self, text: str) -> None:
        if (old := self._known.pop(text, None)) is not None:
            self._held -= old.numel()

    def _encode(self, text: str, device: torch.device) -> Tensor:
        padding = {"padding": "max_length", "max_length": self.padded} if self.padded else {}
        limit = self.padded or min(_LONGEST, self.tokenizer.model_max_length)
        asked = {"truncation": True, "max_length": limit, **padding}
        ids = torch.tensor([self.tokenizer(text, **asked)["input_ids"]], device=device)
        if not ids.numel():  # nothing that the tokenizer knows
            return torch.zeros(0, self.width, device=device)
        if isinstance(self.net, nn.Embedding):
            states: Tensor = self.net(ids)
        else:
            states = self.net(input_ids=ids).last_hidden_state
        return states[0].float()


def _clean(text: str) -> str:
    """The text as UTF-8 can hold it: half a surrogate pair, which no tokenizer takes, becomes ?."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()


def _tower(kind: str) -> Any | None:
    """The class that encodes text in a model of this type; None takes its embeddings."""
    return _TOWERS.get(kind) or (AutoModel if kind in _ENCODERS else None)


def _folder(source: str) -> Path:
    if source == "embedded":
        return registry.embedded_folder("reasoner")
    return hub_folder(source, "text encoder weights", _FILES, bare=True)


def _model_type(folder: Path) -> str:
    return str(AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type)


def _tokenizer(folder: Path) -> Any:
    """The folder's own. Raises ValueError where it has none: transformers makes an empty one up."""
    # No code of a folder's own is ever run, nor is anybody asked to allow it.
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise ValueError("it has no tokenizer")
    return tokenizer


def _encoder(tower: Any, folder: Path) -> Any:
    """A tower's network, in float32.

    Raises:
        ValueError: weights are missing: what would be made up for them steers nothing.
    """
    with quiet():
        net, info = tower.from_pretrained(folder, output_loading_info=True)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ValueError(f"it lacks weights, first {missing[0]}")
    if getattr(net, "pooler", None) is not None:
        net.pooler = None  # many files lack it, and the states do not pass through it
    return net.float()


def _table(folder: Path) -> nn.Embedding:
    """The table of token embeddings, read alone out of however many files there are.

    Raises:
        ValueError: none of the usual names is there.
    """
    # The shortest name, however the files are cut: of an encoder-decoder, the table of both.
    named = ((name, file) for file, names in _weight_files(folder) for name in names)
    tables = [(name, file) for name, file in named if name.endswith(_TABLES)]
    if not tables:
        raise ValueError("it has no table of token embeddings in safetensors")
    name, file = min(tables, key=lambda table: (len(table[0]), table[0]))
    with safe_open(file, framework="pt") as opened:
        weight = opened.get_tensor(name).float()
    return nn.Embedding(len(weight), weight.shape[1], _weight=weight)


def _weight_files(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each safetensors file with the names of its tensors, the index saving to open them all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        placed: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        for file in sorted(set(placed.values())):
            yield folder / file, [name for name, where in placed.items() if where == file]
        return
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            yield path, list(opened.keys())


def _digest(net: nn.Module, tokenizer: Any) -> str:
    return weights_digest(net, json.dumps(sorted(tokenizer.get_vocab().items())).encode())


def weights_digest(net: nn.Module, more: bytes = b"") -> str:
    """SHA-256 of a network's parameters by name, whatever file or precision they came from."""
    digest = hashlib.sha256(more)
    for name, weight in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
