"""A folder's processor, model and generation settings, as transformers' own classes.

Only text and images are sent: a processor's other parts, which need torchvision or audio libraries,
are left out, and everything else of its settings is kept.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from rsvp.errors import ModelUnavailable, first_line
from rsvp.platform import machine
from rsvp.platform.devices import DevicePlacement
from rsvp.registry import embedded_folder

# What the extra `vision` installs.
_EXTRA_PACKAGE = re.compile(r"torchvision|num2words", re.IGNORECASE)

# Where a folder names its processor, in the order in which transformers looks.
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")

# What a checkpoint's generation_config.json may say: which tokens mean what, and which may not be
# written. Penalties of repeated tokens corrupt numbers, and a forced last token hides that a reply
# was cut.
_TOKEN_SETTINGS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
)


class _Absent(dict[str, Any]):
    """In place of a processor's part for videos or sound: no settings, each of them None.

    A dict, because transformers writes every processor that it loads as JSON.
    """

    model_input_names: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


_ABSENT = _Absent()


def local_folder(model: str) -> Path | None:
    """The folder of a local model; None for a hub id. ModelUnavailable if it holds no model."""
    if model == "embedded":
        folder = embedded_folder("reasoner")
        if (folder / "config.json").is_file():
            return folder
        raise ModelUnavailable("the embedded reasoner is not in this installation: reinstall rsvp")
    path = machine.local_path(model)
    if path is None or not path.is_dir():
        if machine.is_hub_id(model):
            return None
        raise ModelUnavailable(f"there is no folder {model}")
    if not (path / "config.json").is_file():
        raise ModelUnavailable(f"{path} holds no model: there is no config.json")
    if not any(path.glob("*.safetensors")):
        raise ModelUnavailable(f"{path} holds no safetensors; pickled weights are not read")
    if absent := machine.missing_shards(path):
        raise ModelUnavailable(f"{path} is incomplete: it lacks {' and '.join(absent[:3])}")
    return path


def load_config(folder: Path, *, trust_remote_code: bool) -> Any:
    """The folder's configuration; of a model that also speaks, of the part that writes text."""
    from transformers import AutoConfig

    from rsvp.platform.pretrained import check_sizes

    check_sizes(folder)
    config = AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=trust_remote_code
    )
    return getattr(config, "thinker_config", config)  # Qwen's omni models


def load_processor(folder: Path, config: Any, *, trust_remote_code: bool) -> Any:
    """The folder's processor, without its parts for videos and sound.

    Raises:
        ValueError: it has none for images and text.
        Exception: whatever its classes raise, see `missing_extra`.
    """
    from transformers import AutoProcessor

    family = _processor_class(folder, config, trust_remote_code)
    loader = AutoProcessor if family is None else _image_only(family)
    processor = loader.from_pretrained(
        folder, local_files_only=True, trust_remote_code=trust_remote_code
    )
    if not (hasattr(processor, "tokenizer") and hasattr(processor, "image_processor")):
        raise ValueError("the folder holds no processor for images and text")
    return processor


def load_model(
    folder: Path,
    config: Any,
    placement: DevicePlacement,
    *,
    load_in_4bit: bool = False,
    trust_remote_code: bool = False,
) -> Any:
    """The folder's network in eval mode, on its device.

    With the accelerate package each weight goes there directly; without it the network is in main
    memory first.

    Raises:
        ValueError: its class does not take images and text, or its code is not trusted.
        Exception: whatever its classes raise, see `missing_extra`.
    """
    from transformers import BitsAndBytesConfig

    options: dict[str, Any] = {}
    if importlib.util.find_spec("accelerate"):
        options["device_map"] = {"": placement.device}
    if load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=placement.dtype
        )
    model: Any = _model_loader(config, trust_remote_code).from_pretrained(
        folder,
        config=config,
        dtype=placement.dtype,
        use_safetensors=True,  # pickled weights can run code
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        **options,
    )
    return (model if "device_map" in options else model.to(placement.device)).eval()


def generation_settings(model: Any, tokenizer: Any, temperature: float) -> Any:
    """A GenerationConfig that keeps only the tokens of the checkpoint's own.

    It replaces the model's, from which `generate` takes what is None here.

    Args:
        temperature: 0 is greedy.
    """
    from transformers import GenerationConfig

    kept = {name: getattr(model.generation_config, name, None) for name in _TOKEN_SETTINGS}
    # The tokenizer's token ends a turn; that of a configuration may only end a text.
    ends = [*token_ids(kept["eos_token_id"]), *token_ids(tokenizer.eos_token_id)]
    kept["eos_token_id"] = list(dict.fromkeys(ends)) or None
    if kept["pad_token_id"] is None and ends:
        kept["pad_token_id"] = ends[0]
    how: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    )
    settings = GenerationConfig(num_beams=1, use_cache=True, **how, **kept)  # type: ignore[no-untyped-call]
    model.generation_config = settings
    return settings


def restrict_outputs(model: Any) -> None:
    """Compute no logits of tokens that may never be written, where these are most of them.

    Their logits are -inf, as `suppress_tokens` makes them; the others do not change. Of the
    embedded reasoner's vocabulary only a fifteenth can stand in a reply.
    """
    import torch

    settings, head = model.generation_config, model.get_output_embeddings()
    suppressed = set(settings.suppress_tokens or ())
    if not isinstance(head, torch.nn.Linear) or head.bias is not None:
        return
    size = head.out_features
    allowed = [token for token in range(size) if token not in suppressed]
    if 2 * len(allowed) > size:
        return
    rows = head.weight.detach()[allowed]

    class AllowedLogits(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            logits = hidden.new_full((*hidden.shape[:-1], size), -torch.inf)
            logits[..., allowed] = hidden @ rows.T
            return logits

    model.set_output_embeddings(AllowedLogits())
    settings.suppress_tokens = None


def resized_size(inputs: Any, processor: Any) -> tuple[int, int] | None:
    """(h, w) of the last image as the processor resized it, where it says so: the Qwen-VLs."""
    grid = inputs.get("image_grid_thw")
    patch = getattr(processor.image_processor, "patch_size", None)
    if grid is None or not isinstance(patch, int) or not len(grid):
        return None
    _, rows, columns = (int(count) for count in grid[-1])
    return rows * patch, columns * patch


def token_ids(value: int | list[int] | None) -> list[int]:
    """The ids of a setting that is one id, several, or none."""
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def why(error: BaseException) -> str:
    """An error of loading in one line, with the option that helps."""
    line = first_line(error)
    if "trust_remote_code" not in str(error):
        return line
    return f"{line.split('. ')[0]}; if you have read that code: --option trust_remote_code=true"


def missing_extra(error: BaseException) -> bool:
    """Whether transformers raised the error because it lacks a package of the extra `vision`."""
    is_about = isinstance(error, (ImportError, ValueError)) and _EXTRA_PACKAGE.search(str(error))
    return bool(is_about)


def _processor_class(folder: Path, config: Any, trust_remote_code: bool) -> Any:
    """The class in transformers that the folder names; None where it brings its own, or none."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    from rsvp.platform.pretrained import read_settings

    files = [read_settings(folder / name) for name in _PROCESSOR_FILES]
    if trust_remote_code and any("AutoProcessor" in (f.get("auto_map") or {}) for f in files):
        return None
    named = [name for f in files if (name := f.get("processor_class"))]
    found = getattr(transformers, named[0], None) if named else None
    mapping: Any = PROCESSOR_MAPPING
    return found or mapping.get(type(config), None)


def _image_only(family: Any) -> Any:
    """A family's processor class that loads only its parts for text and images.

    `__init__` stays the family's own: transformers takes from its signature which parts there are
    and which settings of processor_config.json it accepts.
    """
    names = family.get_attributes()
    kept = [name for name in names if "image_processor" in name or "tokenizer" in name]
    if kept == names:
        return family
    partial: Any = type(family.__name__, (family,), {"get_attributes": classmethod(lambda _: kept)})

    def load_parts(_: Any, *args: Any, **options: Any) -> list[Any]:
        parts = partial._get_arguments_from_pretrained(*args, **options)
        found = dict(zip(kept, parts, strict=True))
        return [found.get(name, _ABSENT) for name in names]

    def check_part(self: Any, name: str, part: Any) -> Any:
        return (
            _Absent if part is _ABSENT else family.check_argument_for_proper_class(self, name, part)
        )

    overrides = {
        "_get_arguments_from_pretrained": classmethod(load_parts),
        "check_argument_for_proper_class": check_part,
    }
    return type(family.__name__, (family,), overrides)


def _model_loader(config: Any, trust_remote_code: bool) -> Any:
    """The auto class that makes a model of images and text of this configuration."""
    import transformers
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    multimodal = getattr(transformers, "AutoModelForMultimodalLM", AutoModelForImageTextToText)
    own_code = getattr(config, "auto_map", None) or {}
    if trust_remote_code and AutoModelForImageTextToText.__name__ in own_code:
        return AutoModelForImageTextToText
    for auto in (AutoModelForImageTextToText, multimodal):
        if type(config) in auto._model_mapping:
            return auto
    found = [name for name in own_code if name.startswith("AutoModel")]
    if not found and type(config) in AutoModelForCausalLM._model_mapping:
        found = ["AutoModelForCausalLM, a model of text alone"]
    raise ValueError(
        f"transformers has no image-text-to-text class for its type {config.model_type!r} (only "
        f"{' and '.join(found) or 'others'}); take a checkpoint converted to transformers, often "
        "named -hf, or serve it elsewhere and use --mllm openai:MODEL"
    )
