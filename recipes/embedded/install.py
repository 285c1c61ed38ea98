"""Copy trained models into the package, and keep the VLSM usable with the packaged reasoner.

A VLSM accepts only the text encoder that it was trained on, by the digest of its token embeddings.
Tokens added at the end of the table change the digest, but nothing that the VLSM reads: where all
rows that it was trained on are still there, its folder gets the new digest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from rsvp.errors import BadInput
from rsvp.platform.files import atomic_write, parse_json, read_bytes, write_json
from rsvp.platform.pretrained import weights_digest
from rsvp.registry import embedded_folder
from rsvp.segmenters.text_encoder import TextEncoder

CONFIG = "config.json"
EXPORTS = {"reasoner": "model", "segmenter": "model", "vlsm": "best"}  # the folder of each run


def install(runs: Mapping[str, Path | None], *, residual_scale: float | None = None) -> None:
    """Copy the exported model of each run into the package's weights.

    Args:
        runs: "reasoner", "segmenter" or "vlsm" -> the run's folder, or None.
        residual_scale: of the VLSM, 0 to 1; None leaves it as it was trained.

    Raises:
        BadInput: a run has no exported model, or the scale is not from 0 to 1.
    """
    if residual_scale is not None and not 0 <= residual_scale <= 1:
        raise BadInput(f"the residual scale is from 0 to 1, found {residual_scale:g}")
    for kind, run in runs.items():
        if run is None:
            continue
        exported, target = run / EXPORTS[kind], embedded_folder(kind)
        if not (exported / CONFIG).exists():
            raise BadInput(f"{exported} holds no exported model: let the run end or interrupt it")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(exported, target)
        for file in target.glob("*.json"):  # indented, they are half as large again
            value = read_config(target, file.name)
            compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            atomic_write(file, compact.encode())
        if kind == "vlsm" and residual_scale is not None:
            # `strength` is the key of the weights that are in use.
            write_json(target / CONFIG, {**read_config(target), "strength": residual_scale})
        size = sum(f.stat().st_size for f in target.iterdir()) / 1e6
        print(f"{kind}: {size:.1f} MB in {target}")
    vlsm, reasoner = embedded_folder("vlsm"), embedded_folder("reasoner")
    both = (vlsm / CONFIG).exists() and (reasoner / CONFIG).exists()
    if both and not update_encoder_digest(vlsm, "embedded"):
        print("the VLSM was trained on other embeddings than this reasoner's: train it again")


def update_encoder_digest(vlsm: Path, source: str) -> bool:
    """Let a VLSM's folder accept the text encoder `source`, if it was trained on its first tokens.

    Returns:
        Whether the two fit, as they were or with the new digest.
    """
    config = read_config(vlsm)
    trained_on = config["text_encoder"]["sha256"]
    encoder = TextEncoder(source)
    if trained_on == encoder.digest:
        return True
    sizes = range(1, len(cast(Tensor, encoder.net.weight)))
    if not any(digest_of_first(n, encoder) == trained_on for n in sizes):
        return False
    config["text_encoder"]["sha256"] = encoder.digest
    write_json(vlsm / CONFIG, config)
    return True


def digest_of_first(n: int, encoder: TextEncoder) -> str:
    """The digest of the encoder as it was when its table held the first n tokens alone."""
    words = {text: row for text, row in encoder.tokenizer.get_vocab().items() if row < n}
    rows = cast(Tensor, encoder.net.weight)[:n]
    table = nn.Embedding(n, rows.shape[1], _weight=rows)
    return weights_digest(table, json.dumps(sorted(words.items())).encode())


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """The `config.json` of a model's folder, or another JSON file there."""
    file = folder / name
    return cast(dict[str, Any], parse_json(read_bytes(file), str(file)))
