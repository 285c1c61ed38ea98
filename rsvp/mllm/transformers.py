"""Any image-text-to-text model of transformers, from a folder or the hub, in this process.

Decoder-only and encoder-decoder models take the same path: the chat template renders the messages,
the model's own processor puts the images in, greedy decoding writes the reply. Nothing here knows
a model by name. torchvision is not needed: a processor that wants it does so for videos, which
nobody sends, so such a processor is built from its image half alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsvp.errors import BadInput, MissingExtra, MLLMFailed, ModelUnavailable, first_line
from rsvp.mllm.chat import Chat
from rsvp.platform import machine
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.registry import embedded_folder
from rsvp.types import Message, Reply, Usage

if TYPE_CHECKING:
    import torch

# Idle OpenMP threads that spin make small-model decoding up to 11 times slower on a busy machine.
# Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_log = logging.getLogger(__name__)

_DTYPES = {
    "bfloat16": "bfloat16", "bf16": "bfloat16",
    "float16": "float16", "fp16": "float16",
    "float32": "float32", "fp32": "float32",
}  # fmt: skip
_SMALL = 100_000_000  # parameters: below, the threads' hand-over costs more than it gains
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
_HUB_NOT = ["original/*", "consolidated*", "onnx/*"]  # the same weights in other formats


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model, ready to answer.

    Attributes:
        generation: a GenerationConfig, greedy.
        window: tokens that the model can take in, None where its config doesn't say.
        threads: CPU threads to decode with, None to leave the count alone.
    """

    model: Any
    chat: Chat
    generation: Any
    window: int | None
    threads: int | None


class TransformersMLLM:
    """A local model; loaded by `load` or at the first reply, one reply at a time.

    Args:
        model: a folder, a hub id, or ``embedded`` for the small one in the package.
        dtype: ``bfloat16``, ``float16`` or ``float32``; chosen for the device when None.
        device: as torch names it, e.g. ``cuda:1``; the best one when None.
        load_in_4bit: NF4 weights through bitsandbytes, which needs ``rsvp[quant]``.
        max_new_tokens: the longest reply, in tokens.
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
        max_new_tokens: int = 1024,
        trust_remote_code: bool = False,
    ) -> None:
        self.name = f"transformers:{model}"
        self.model = model
        if dtype is not None and dtype not in _DTYPES:
            raise BadInput(f"dtype is bfloat16, float16 or float32, found {dtype!r}")
        if load_in_4bit and not all(map(importlib.util.find_spec, ("bitsandbytes", "accelerate"))):
            raise MissingExtra("4-bit loading", "quant")
        _local_folder(model)  # a wrong path is told now, not after the segmenter has been loaded
        self._dtype = dtype
        self._device = device
        self._load_in_4bit = load_in_4bit
        self._max_new_tokens = max_new_tokens
        self._trust_remote_code = trust_remote_code
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"TransformersMLLM({self.model!r})"

    def load(self) -> None:
        """Load the model, and download it if need be; nothing where that is done.

        Raises:
            ModelUnavailable: the model cannot be had or cannot be loaded.
        """
        if self._loaded is None:  # asked first without the lock, which a running reply holds
            with self._lock:
                self._ready()

    def reply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """Answer a conversation; see `rsvp.mllm.MLLM.reply`. The schema is not enforced.

        Tokens that steer the model (``<|im_end|>`` and its like) are spaced apart where they occur
        in a message's own text, so that no query can close its turn. `seconds` leaves loading out.

        Raises:
            MLLMFailed: too long a prompt, no memory, or a template that refuses the conversation.
            ModelUnavailable: the model cannot be had or cannot be loaded.
        """
        del schema
        with self._lock:
            loaded = self._ready()
            started = time.perf_counter()
            try:
                with _cpu_threads(loaded.threads):
                    text, usage, confidence, finish = self._generate(loaded, messages)
            except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
                raise MLLMFailed(f"{self.name} could not answer: {first_line(error)}") from error
        return Reply(text, usage, time.perf_counter() - started, finish, confidence)

    async def areply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """`reply`, awaitable, in a thread."""
        return await asyncio.to_thread(self.reply, messages, schema=schema)

    def _generate(
        self, loaded: _Loaded, messages: Sequence[Message]
    ) -> tuple[str, Usage, float, str]:
        """Text, usage, mean probability of the generated tokens, and why it ended."""
        import torch

        inputs = loaded.chat.inputs(messages).to(loaded.model.device, dtype=loaded.model.dtype)
        prompt_tokens = int(inputs["input_ids"].shape[1])
        # What an encoder reads, the decoder need not hold: it begins with its start token alone.
        start = 1 if loaded.model.config.is_encoder_decoder else prompt_tokens
        settings = copy.copy(loaded.generation)
        settings.max_new_tokens = self._room(loaded.window, prompt_tokens, start)
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
        usage = Usage(prompt_tokens, len(ids), calls=1)
        return text.strip(), usage, confidence.mean(len(ids)), "stop" if ended else "length"

    def _room(self, window: int | None, prompt_tokens: int, start: int) -> int:
        """How many tokens may be generated: positions past the window have no embedding."""
        if window is None:
            return self._max_new_tokens
        if prompt_tokens > window or start >= window:
            raise MLLMFailed(
                f"{self.name} reads at most {window} tokens, image included, and this prompt has "
                f"{prompt_tokens}: shorten the query or use a larger model"
            )
        return min(self._max_new_tokens, window - start)

    def _ready(self) -> _Loaded:
        """The model, loaded once; the caller holds the lock."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> _Loaded:
        folder = _local_folder(self.model) or _hub_folder(self.model, self._trust_remote_code)
        if why := hide_broken_torchvision():
            _log.warning("torchvision cannot be imported and is not used (%s)", why)
        device, dtype = _device_and_dtype(self._device, self._dtype)
        started = time.perf_counter()
        try:
            chat = Chat(_processor(folder, self._trust_remote_code))
            model = self._load_model(folder, device, dtype)
        except Exception as error:  # loaders, and a model's own code, raise anything
            raise ModelUnavailable(f"{self.name} cannot be loaded: {first_line(error)}") from error
        parameters = sum(p.numel() for p in model.parameters())
        _log.info("loaded %s in %.1f s", self.name, time.perf_counter() - started)
        return _Loaded(
            model,
            chat,
            _generation(model),
            getattr(model.config.get_text_config(), "max_position_embeddings", None),
            1 if device.type == "cpu" and parameters < _SMALL else None,
        )

    def _load_model(self, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
        from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

        options: dict[str, Any] = {}
        if self._load_in_4bit:
            options["device_map"] = {"": device}
            options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        with _progress_bars(shown=_weight_bytes(folder) > 2e9):
            model: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,  # pickled weights can run code
                local_files_only=True,
                trust_remote_code=self._trust_remote_code,
                **options,
            )
        return (model if self._load_in_4bit else model.to(device)).eval()


class _Confidence:
    """A logits processor that changes nothing and notes how sure each greedy choice was.

    Keeping all the scores instead would cost 600 kB a token with today's vocabularies.
    """

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
    """The folder's processor; without its video half, if it has one."""
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
    """A family's processor that never makes its video half, the only part that needs torchvision.

    transformers finds a processor's parts in the signature of its `__init__`.
    """

    def __init__(  # noqa: N807
        self: Any, image_processor: Any = None, tokenizer: Any = None, **options: Any
    ) -> None:
        family.__init__(self, image_processor, tokenizer, video_processor=None, **options)

    return type(f"ImageOnly{family.__name__}", (family,), {"__init__": __init__})


def _generation(model: Any) -> Any:
    """The model's own generation settings, made greedy and free of sampling options."""
    settings = copy.deepcopy(model.generation_config)
    settings.do_sample, settings.num_beams, settings.use_cache = False, 1, True
    for name in ("temperature", "top_p", "top_k", "min_p", "typical_p", "max_length"):
        setattr(settings, name, None)
    if settings.pad_token_id is None and (eos := _ids(settings.eos_token_id)):
        settings.pad_token_id = eos[0]
    return settings


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def _device_and_dtype(device: str | None, dtype: str | None) -> tuple[torch.device, torch.dtype]:
    """Where to run and in what precision; what is None is chosen here and the reason logged.

    Raises:
        BadInput: torch does not know the device, or it is not here.
    """
    import torch

    from rsvp.platform.devices import checked_device

    if device is None:
        best = "cuda" if torch.cuda.is_available() else "cpu"
        device = "mps" if best == "cpu" and torch.backends.mps.is_available() else best
    place = checked_device(device)
    name, why = _DTYPES[dtype] if dtype else "", "as asked"
    if not name and place.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported()
        name = "bfloat16" if bf16 else "float16"
        why = "the GPU computes in it" if bf16 else "the GPU has no bfloat16"
    elif not name:
        half = place.type == "mps"
        name, why = ("float16", "half the memory") if half else ("float32", "fastest on a CPU")
    _log.info("%s in %s (%s)", place, name, why)
    return place, getattr(torch, name)


def _local_folder(model: str) -> Path | None:
    """The folder that a name stands for; None when it can only be a hub id.

    Raises:
        ModelUnavailable: the folder is not there, or holds no model.
    """
    if model == "embedded":
        folder = embedded_folder("reasoner")
        if not (folder / "config.json").is_file():
            raise ModelUnavailable(
                "the embedded reasoner is not in this installation: reinstall rsvp"
            )
        return folder
    there = machine.local_path(model)
    if there is not None and there.is_dir():
        folder = there
        if not (folder / "config.json").is_file():
            raise ModelUnavailable(f"{folder} holds no model: there is no config.json")
        if not any(folder.glob("*.safetensors")):
            raise ModelUnavailable(f"{folder} holds no safetensors; pickled weights are not read")
        return folder
    if not machine.is_hub_id(model):
        raise ModelUnavailable(f"there is no folder {model}")
    return None


def _hub_folder(model: str, trust_remote_code: bool) -> Path:
    """A hub model's folder in the cache, downloaded now if it isn't there.

    A complete copy in the cache is used as it is, so that nothing asks the network twice.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(model, local_files_only=True))
        if (cached / "config.json").is_file() and any(cached.glob("*.safetensors")):
            return cached
    except LocalEntryNotFoundError:
        _log.info("%s is not in the cache", model)
    files = [*_HUB_FILES, "*.py"] if trust_remote_code else _HUB_FILES
    try:
        _log.warning("downloading %s", model)
        return Path(snapshot_download(model, allow_patterns=files, ignore_patterns=_HUB_NOT))
    except Exception as error:  # the client passes its HTTP library's own errors through
        raise ModelUnavailable(
            f"{model} is not on this machine and could not be downloaded ({first_line(error)}); "
            f"get it with: hf download {model}"
        ) from error


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@contextlib.contextmanager
def _progress_bars(*, shown: bool) -> Iterator[None]:
    """transformers' progress bars, only for models that take long enough to load."""
    from transformers.utils import logging as their

    before = their.is_progress_bar_enabled()
    if not shown:
        their.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if before:
            their.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _cpu_threads(count: int | None) -> Iterator[None]:
    """`count` torch threads inside, as many as before afterwards; None changes nothing."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
