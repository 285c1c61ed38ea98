"""Frozen text encoders for the VLSM: any that transformers loads, or an MLLM's token embeddings.

A source is a hub id, a folder, or ``embedded``; its `config.json` names the type of model. CLIP and
SigLIP give their text tower, BERT-like encoders themselves, and of a multimodal LLM only the table
of token embeddings is read, a few MB of the many GB. ``embeddings:SOURCE`` reads the table of any
model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from rsvp import registry
from rsvp.platform.hub import hub_folder
from rsvp.platform.lru import LRUCache
from rsvp.platform.pretrained import (
    check_sizes,
    load_float32,
    reading,
    transformers,
    weights_digest,
)
from rsvp.segmenters.fusion import TextStates

# The types of two-tower models, with or without the suffix of their text tower alone.
_TOWERS = {"clip": "CLIPTextModel", "siglip": "SiglipTextModel", "siglip2": "Siglip2TextModel"}
_ENCODERS = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra"}
    | {"modernbert", "mpnet", "roberta", "xlm-roberta"}
)
_EMBEDDINGS = "embeddings:"
_TABLES = ("embed_tokens", "word_embeddings", "token_embedding", "shared")  # of embeddings
_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_MAX_TOKENS = 64  # longer texts are truncated
_SIGLIP_LENGTH = 64  # SigLIP was trained on texts padded to this length, without a mask
_CACHED_TEXTS, _CACHED_NUMBERS = 4096, 2**24  # limits of the cache of states (64 MB)


class TextEncoder(nn.Module):
    """A frozen text encoder with a cache of the states of recent texts.

    Attributes:
        source: what it was loaded from.
        width: of the states.
        digest: SHA-256 of the weights and the tokenizer's vocabulary.
    """

    def __init__(self, source: str) -> None:
        """Load it, on the CPU, in float32.

        Raises:
            ModelUnavailable: no such folder or hub id, or nothing that encodes text.
        """
        super().__init__()
        self.source = source
        model = source.removeprefix(_EMBEDDINGS)
        if model == "embedded":
            folder = registry.embedded_folder("reasoner")
        else:
            folder = hub_folder(model, "text encoder weights", _FILES, bare=True)
        with reading(folder, "a text encoder"):
            # Code that comes with a model is never run, and transformers does not ask for it.
            check_sizes(folder)
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            kind = str(config.model_type)
            tokenizer: Any = transformers.AutoTokenizer
            self.tokenizer = tokenizer.from_pretrained(folder, trust_remote_code=False)
            # Where there is none, transformers makes up an empty one.
            if not set(self.tokenizer.get_vocab()) - set(self.tokenizer.all_special_tokens):
                raise ValueError("it has no tokenizer")
            tower = _TOWERS.get(kind.removesuffix("_text_model"))
            self.padded_length = None
            if source.startswith(_EMBEDDINGS) or not (tower or kind in _ENCODERS):
                net: Any = _embedding_table(folder)
                self.width = net.embedding_dim
            else:
                # The states bypass the pooler, which many files lack.
                network = getattr(transformers, tower or "AutoModel")
                net = load_float32(network, folder, optional=r"pooler\.")
                if getattr(net, "pooler", None) is not None:
                    net.pooler = None
                self.padded_length = _SIGLIP_LENGTH if kind.startswith("siglip") else None
                self.width = net.config.hidden_size
        self.net: nn.Module = net.eval().requires_grad_(False)
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items()))
        self.digest = weights_digest(self.net, vocabulary.encode())
        self._cache: LRUCache[Tensor] = LRUCache(
            _CACHED_TEXTS, max_weight=_CACHED_NUMBERS, weight=Tensor.numel
        )

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> TextStates:
        """The states of each text, padded to the longest.

        Each text is encoded at its own length, so that its states don't depend on the others.
        """
        device = next(self.net.parameters()).device
        rows = [self._states(text, device) for text in texts]
        longest = max([len(row) for row in rows], default=0)
        states = torch.zeros(len(rows), longest, self.width, device=device)
        attention_mask = torch.zeros(states.shape[:2], dtype=torch.bool, device=device)
        for i, row in enumerate(rows):
            states[i, : len(row)] = row
            attention_mask[i, : len(row)] = True
        return TextStates(states, attention_mask)

    def _states(self, text: str, device: torch.device) -> Tensor:
        """(T, width) of one text; T is 0 for an empty one."""
        # No tokenizer takes half a surrogate pair, which UTF-8 cannot hold: it becomes "?".
        text = text.encode("utf-8", "replace").decode("utf-8").strip()
        return self._cache.get((text, device), lambda: self._encode(text, device))

    def _encode(self, text: str, device: torch.device) -> Tensor:
        length = self.padded_length or min(_MAX_TOKENS, self.tokenizer.model_max_length)
        padding = "max_length" if self.padded_length else False
        tokens: list[int] = []
        if text:
            options = {"truncation": True, "max_length": length, "padding": padding}
            tokens = self.tokenizer(text, **options)["input_ids"]
        if not tokens:  # an empty text, or nothing that the tokenizer knows
            return torch.zeros(0, self.width, device=device)
        ids = torch.tensor([tokens], device=device)
        if isinstance(self.net, nn.Embedding):
            states: Tensor = self.net(ids)
        else:
            states = self.net(input_ids=ids).last_hidden_state
        return states[0].float()


def _embedding_table(folder: Path) -> nn.Embedding:
    """The table of token embeddings, read alone; ValueError where none has a usual name."""
    files: dict[str, Path] = {}
    index = folder / "model.safetensors.index.json"
    if index.is_file():  # saves opening the files
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {name: folder / file for name, file in weight_map.items()}
    else:
        for path in sorted(folder.glob("*.safetensors"), reverse=True):
            with safe_open(path, framework="pt") as opened:
                files.update(dict.fromkeys(opened.keys(), path))
    suffixes = tuple(f"{table}.weight" for table in _TABLES)
    tables = [name for name in files if name.endswith(suffixes)]
    if not tables:
        raise ValueError("it has no table of token embeddings in safetensors")
    # An encoder-decoder has several; the one with the shortest name is shared by both.
    name = min(tables, key=lambda table: (len(table), table))
    with safe_open(files[name], framework="pt") as opened:
        weight = opened.get_tensor(name).float()
    return nn.Embedding(len(weight), weight.shape[1], _weight=weight)
