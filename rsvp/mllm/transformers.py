"""Any image-text-to-text model of transformers, from a folder or the hub, in this process.

Decoder-only and encoder-decoder models take the same path: the chat template renders the messages,
the model's own processor prepares the images, greedy decoding writes the reply. No code here is
for one model. torchvision is not needed: processors need it for videos only, so they are built
without their video part.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsvp.errors import MissingExtra, MLLMFailed, ModelUnavailable, first_line
from rsvp.mllm.chat import Chat
from rsvp.mllm.familiarity import Familiarity
from rsvp.platform import machine
from rsvp.platform.devices import DevicePlacement, choose_placement, dtype_name
from rsvp.platform.hub import hub_folder
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.registry import embedded_folder
from rsvp.types import Message, Reply, Usage

if TYPE_CHECKING:
    import torch

# Idle OpenMP threads that spin make small-model decoding up to 11 times slower on a busy machine.
# torch reads this once, when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_log = logging.getLogger(__name__)

_SMALL = 100_000_000  # parameters; smaller models decode fastest on one CPU thread
_LARGE = 2_000_000_000  # bytes of weights; larger ones load with a progress bar
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_HUB_IGNORED = ("original/*", "consolidated*", "onnx/*")  # the same weights in other formats


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in memory."""

    model: Any
    chat: Chat
    generation: Any  # a greedy GenerationConfig
    context_length: int | None  # the most tokens that it can read; None where its config has none
    threads: int | None  # CPU threads to decode with; None to leave the number as it is
    familiarity: Familiarity | None  # None where the folder has no classifier of images


class TransformersMLLM:
    """A local model; loaded by `load` or at the first reply, one reply at a time.

    Args:
        model: a folder, a hub id, or ``embedded`` for the small one in the package.
        dtype: ``bfloat16``, ``float16`` or ``float32``; chosen for the device when None.
        device: as torch names it, e.g. ``cuda:1``; the best one when None.
        load_in_4bit: NF4 weights through bitsandbytes, which needs ``rsvp[quant]``.
        max_tokens: the longest reply, in tokens.
        trust_remote_code: run Python code that comes with the model. Only if you have read it.

    Raises:
        BadInput: an unknown dtype or device.
        ModelUnavailable: the folder does not exist.
        MissingExtra: 4-bit without bitsandbytes.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str | None = None,
        device: str | None = None,
        load_in_4bit: bool = False,
        max_tokens: int = 1024,
        trust_remote_code: bool = False,
    ) -> None:
        self.name, self.model = f"transformers:{model}", model
        self._device, self._dtype = device, None if dtype is None else dtype_name(dtype)
        if load_in_4bit and not all(map(importlib.util.find_spec, ("bitsandbytes", "accelerate"))):
            raise MissingExtra("4-bit loading", "quant")
        _local_folder(model)  # a wrong path fails now, not after the segmenter has been loaded
        self._load_in_4bit, self._trust_remote_code = load_in_4bit, trust_remote_code
        self._max_tokens = max_tokens
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()

    def load(self) -> None:
        """Load the model, downloaded if necessary; later calls do nothing.

        Raises:
            ModelUnavailable: the model cannot be downloaded or cannot be loaded.
        """
        if self._loaded is None:  # checked first without the lock, which a running reply holds
            with self._lock:
                self._ready()

    def reply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """Answer a conversation; see `rsvp.mllm.MLLM.reply`. The schema is not enforced.

        Control tokens such as ``<|im_end|>`` in a message's own text are split by a space, so that
        no query can end its turn. `seconds` does not include loading.

        Raises:
            MLLMFailed: too long a prompt, no memory, or a template that refuses the conversation.
            ModelUnavailable: as `load`.
        """
        del schema
        with self._lock:
            loaded = self._ready()
            started = time.perf_counter()
            try:
                with _cpu_threads(loaded.threads):
                    reply = self._generate(loaded, messages)
            except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
                raise MLLMFailed(f"{self.name} could not answer: {first_line(error)}") from error
        return replace(reply, seconds=time.perf_counter() - started)

    def _generate(self, loaded: _Loaded, messages: Sequence[Message]) -> Reply:
        import torch

        inputs = loaded.chat.inputs(messages).to(loaded.model.device, dtype=loaded.model.dtype)
        prompt_tokens = int(inputs["input_ids"].shape[1])
        # With an encoder, the prompt is not in the decoder, which begins with its start token.
        start = 1 if loaded.model.config.is_encoder_decoder else prompt_tokens
        settings = copy.copy(loaded.generation)
        settings.max_new_tokens = self._token_limit(loaded.context_length, prompt_tokens, start)
        confidence = _Confidence()
        with torch.inference_mode():
            sequence = loaded.model.generate(
                **inputs, generation_config=settings, logits_processor=[confidence]
            )
        ids = sequence[0, start:].tolist()
        ended = bool(ids) and ids[-1] in _ids(loaded.generation.eos_token_id)
        text = loaded.chat.processor.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        usage, reason = Usage(prompt_tokens, len(ids), calls=1), "stop" if ended else "length"
        mean = confidence.mean(len(ids))
        familiarity = loaded.familiarity.score() if loaded.familiarity else None
        return Reply(
            text.strip(), usage, finish_reason=reason, confidence=mean, familiarity=familiarity
        )

    def _token_limit(self, context_length: int | None, prompt_tokens: int, start: int) -> int:
        """How many tokens may be generated: later positions have no embedding."""
        if context_length is None:
            return self._max_tokens
        if prompt_tokens > context_length or start >= context_length:
            raise MLLMFailed(
                f"{self.name} reads at most {context_length} tokens, image included, and this "
                f"prompt has {prompt_tokens}: shorten the query or use a larger model"
            )
        return min(self._max_tokens, context_length - start)

    def _ready(self) -> _Loaded:
        """The model, loaded once; the caller holds the lock."""
        if self._loaded is not None:
            return self._loaded
        folder = _local_folder(self.model) or hub_folder(
            self.model,
            "model files",
            [*_HUB_FILES, "*.py"] if self._trust_remote_code else _HUB_FILES,
            ignore=_HUB_IGNORED,
            needs=("config.json", "*.safetensors"),
            bare=True,
        )
        if why := hide_broken_torchvision():
            _log.warning("torchvision cannot be imported and is not used (%s)", why)
        placement = choose_placement(self._device, self._dtype, mps_dtype="float16")
        _log.info("%s", placement.reason)
        started = time.perf_counter()
        try:
            chat = Chat(_processor(folder, self._trust_remote_code))
            model = self._load_model(folder, placement)
            familiarity = Familiarity.of_folder(folder, model)
        except Exception as error:  # loaders, and a model's own code, raise anything
            raise ModelUnavailable(f"{self.name} cannot be loaded: {first_line(error)}") from error
        parameters = sum(p.numel() for p in model.parameters())
        _log.info("loaded %s in %.1f s", self.name, time.perf_counter() - started)
        context_length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        threads = 1 if placement.device.type == "cpu" and parameters < _SMALL else None
        self._loaded = _Loaded(
            model, chat, _generation(model), context_length, threads, familiarity
        )
        return self._loaded

    def _load_model(self, folder: Path, placement: DevicePlacement) -> Any:
        from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

        options: dict[str, Any] = {}
        if self._load_in_4bit:
            options["device_map"] = {"": placement.device}
            options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=placement.dtype
            )
        weight_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        with _progress_bars(shown=weight_bytes > _LARGE):
            model: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=placement.dtype,
                use_safetensors=True,  # pickled weights can run code
                local_files_only=True,
                trust_remote_code=self._trust_remote_code,
                **options,
            )
        return (model if self._load_in_4bit else model.to(placement.device)).eval()


class _Confidence:
    """A logits processor that records the probability of each greedy choice, not all scores."""

    def __init__(self) -> None:
        self._log_probs: list[torch.Tensor] = []

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._log_probs.append(scores[0].max() - scores[0].logsumexp(0))
        return scores

    def mean(self, count: int) -> float:
        """Mean probability of the first `count` choices, 0 to 1; 0 when there were none."""
        probabilities = [float(p.exp()) for p in self._log_probs[:count]]
        return sum(probabilities) / len(probabilities) if probabilities else 0.0


def _processor(folder: Path, trust_remote_code: bool) -> Any:
    """The folder's processor, without its video part."""
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto import processing_auto

    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(folder, **options)
    known: Any = processing_auto.PROCESSOR_MAPPING.get(type(config), None)
    takes_videos = known is not None and "video_processor" in known.get_attributes()
    loader = _image_only(known) if takes_videos else AutoProcessor
    processor = loader.from_pretrained(folder, **options)
    if not (hasattr(processor, "tokenizer") and hasattr(processor, "image_processor")):
        raise ValueError("the folder holds no processor for images and text")
    return processor


def _image_only(family: Any) -> Any:
    """A family's processor class without its video part, the only one that needs torchvision.

    transformers finds a processor's parts in the signature of its `__init__`.
    """

    def __init__(  # noqa: N807
        self: Any, image_processor: Any = None, tokenizer: Any = None, **options: Any
    ) -> None:
        family.__init__(self, image_processor, tokenizer, video_processor=None, **options)

    return type(f"ImageOnly{family.__name__}", (family,), {"__init__": __init__})


def _generation(model: Any) -> Any:
    """The model's own generation settings, greedy and without sampling options."""
    settings = copy.deepcopy(model.generation_config)
    settings.do_sample, settings.num_beams, settings.use_cache = False, 1, True
    for name in ("temperature", "top_p", "top_k", "min_p", "typical_p", "max_length"):
        setattr(settings, name, None)
    if settings.pad_token_id is None and (eos := _ids(settings.eos_token_id)):
        settings.pad_token_id = eos[0]
    return settings


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def _local_folder(model: str) -> Path | None:
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
    return path


@contextlib.contextmanager
def _progress_bars(*, shown: bool) -> Iterator[None]:
    """Hide the progress bars of transformers, unless `shown`."""
    from transformers.utils import logging as transformers_logging

    library: Any = transformers_logging
    before = library.is_progress_bar_enabled()
    if not shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            library.enable_progress_bar()


@contextlib.contextmanager
def _cpu_threads(count: int | None) -> Iterator[None]:
    """Run the body with `count` torch threads; None leaves the number as it is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
