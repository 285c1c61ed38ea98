"""Any image-text-to-text model of transformers, from a folder or the hub, in this process.

Decoder-only and encoder-decoder models take the same path: the chat template renders the messages,
the model's own processor prepares the images, greedy decoding writes the reply. No code here is
for one model; `rsvp.mllm.loading` loads them.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rsvp.errors import (
    BadInput,
    MissingExtra,
    MLLMFailed,
    ModelUnavailable,
    RsvpError,
    first_line,
)
from rsvp.mllm import NO_SPARSE, loading, sparse
from rsvp.mllm.chat import Chat
from rsvp.mllm.decoding import Confidence, EnumConstraint, Streamer
from rsvp.mllm.familiarity import Familiarity
from rsvp.mllm.prefix_cache import PrefixCache, generate_plain
from rsvp.platform.bounded import OutOfBounds
from rsvp.platform.devices import choose_placement, dtype_name
from rsvp.platform.hub import hub_folder
from rsvp.platform.torchvision import hide_broken_torchvision
from rsvp.types import Message, Reply, RgbArray, Usage

# Idle OpenMP threads that spin make small-model decoding up to 11 times slower on a busy machine.
# torch reads this once, when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_log = logging.getLogger(__name__)

_SMALL = 100_000_000  # parameters; smaller models decode fastest on one CPU thread
# Bytes of weights. Larger ones load with a progress bar, and run in bfloat16 on a CPU that has it:
# half the memory, twice the speed. Smaller ones run in float32, equal on every machine.
_LARGE = 2_000_000_000
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_HUB_IGNORED = ("original/*", "consolidated*", "onnx/*")  # the same weights in other formats


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in memory."""

    model: Any
    chat: Chat
    generation: Any  # a GenerationConfig
    context_length: int | None  # the most tokens that it can read; None where its config has none
    threads: int | None  # CPU threads to decode with; None to leave the number as it is
    familiarity: Familiarity | None  # None where the folder has no classifier of images
    prefix: PrefixCache


class TransformersMLLM:
    """A local model; loaded by `load` or at the first reply, one reply at a time.

    Args:
        model: a folder, a hub id, or ``embedded`` for the small one in the package.
        dtype: ``bfloat16``, ``float16`` or ``float32``; chosen for the device when None.
        device: as torch names it, e.g. ``cuda:1``; the best one when None.
        load_in_4bit: NF4 weights through bitsandbytes, which needs ``rsvp-segmentation[quant]``.
        max_tokens: the longest reply, in tokens; thinking counts too.
        temperature: 0 is greedy.
        keep_prefix: keep what was computed for the beginning of a conversation, for the next one
            that begins alike; takes memory, some 0.1 MB a token with 2 billion parameters.
        enable_thinking: switches the thinking of models whose chat template can: Qwen3.5, GLM-4.5V,
            Gemma 4 and Kimi; None leaves it to the template.
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
        max_tokens: Annotated[int, Field(ge=1)] = 4096,
        temperature: Annotated[float, Field(ge=0)] = 0.0,
        keep_prefix: bool = True,
        enable_thinking: bool | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.name, self.model = f"transformers:{model}", model
        self._device, self._dtype = device, None if dtype is None else dtype_name(dtype)
        if load_in_4bit and not all(map(importlib.util.find_spec, ("bitsandbytes", "accelerate"))):
            raise MissingExtra("4-bit loading", "quant")
        loading.local_folder(model)  # a wrong path fails before the segmenter is loaded
        self._load_in_4bit, self._trust_remote_code = load_in_4bit, trust_remote_code
        self._max_tokens, self._temperature = max_tokens, temperature
        self._enable_thinking, self.keep_prefix = enable_thinking, keep_prefix
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()

    @property
    def reused_tokens(self) -> int:
        """How many tokens of the last prompt were not computed again, see `keep_prefix`."""
        return self._loaded.prefix.reused if self._loaded else 0

    def load(self) -> None:
        """Load the model, downloaded if necessary; later calls do nothing.

        Raises:
            ModelUnavailable: the model cannot be downloaded or cannot be loaded.
            MissingExtra: its processor needs torchvision or num2words, the extra `vision`.
        """
        if self._loaded is None:  # checked first without the lock, which a running reply holds
            with self._lock:
                self._ready()

    def reply(
        self, messages: Sequence[Message], *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """Answer a conversation; see `rsvp.mllm.MLLM.reply`.

        Of the schema, texts with an `enum` are enforced, see `EnumConstraint`.

        Control tokens such as ``<|im_end|>`` in a message's own text are split by a space, so that
        no query can end its turn. `seconds` does not include loading.

        Raises:
            MLLMFailed: too long a prompt, no memory, logits that are not finite, or a template that
                refuses the conversation.
            ModelUnavailable: as `load`; weights that are not finite, a template without an end.
        """
        return self._replies(messages, self._max_tokens, schema=schema)[0]

    def reply_longer(
        self, messages: Sequence[Message], cut: Reply, *, schema: Mapping[str, Any] | None = None
    ) -> Reply | None:
        """The reply with twice the token limit, after the reply `cut` that ended at the limit.

        None where the model's context has no room for more.
        """
        longer_than, limit = cut.usage.completion_tokens, 2 * self._max_tokens
        return next(iter(self._replies(messages, limit, longer_than, schema=schema)), None)

    def replies(
        self,
        messages: Sequence[Message],
        count: int,
        temperature: float,
        *,
        schema: Mapping[str, Any] | None = None,
    ) -> list[Reply]:
        """Several sampled replies, decoded as one batch; see `rsvp.mllm.sample_replies`.

        A model with an encoder reads the prompt once for all of them. Only the first one's usage
        has the prompt's tokens.
        """
        return self._replies(
            messages, self._max_tokens, schema=schema, count=count, temperature=temperature
        )

    def check_sparse(self) -> None:
        """BadInput where the model's class is none whose image tokens can be chosen."""
        self.load()
        model = self._loaded.model if self._loaded else None
        if not sparse.is_supported(model):
            why = f"the class of {self.name}, {type(model).__name__}, places them in another way"
            raise BadInput(NO_SPARSE.format(why))

    def familiarity(self, rgb: RgbArray) -> float | None:
        """The `familiarity` of a reply about an (H, W, 3) uint8 image, without a reply.

        None where the model's folder has no classifier of images.

        Raises:
            ModelUnavailable: as `load`.
        """
        import torch

        with self._lock:
            loaded = self._ready()
            if loaded.familiarity is None:
                return None
            inputs = loaded.chat.processor.image_processor(images=[rgb], return_tensors="pt")
            inputs = inputs.to(loaded.model.device, dtype=loaded.model.dtype)
            with _cpu_threads(loaded.threads), torch.inference_mode():
                loaded.model.get_image_features(**inputs)
            return loaded.familiarity.score()

    def _replies(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        longer_than: int = 0,
        *,
        schema: Mapping[str, Any] | None,
        count: int = 1,
        temperature: float | None = None,
    ) -> list[Reply]:
        """Replies; none where they cannot have more than `longer_than` tokens."""
        with self._lock:
            loaded = self._ready()
            started = time.perf_counter()
            settings = copy.copy(loaded.generation)
            settings.num_return_sequences = count
            if temperature is not None:
                settings.do_sample, settings.temperature = True, temperature
            try:
                with _cpu_threads(loaded.threads):
                    found = self._generate(
                        loaded, messages, settings, max_tokens, longer_than, schema=schema
                    )
            except OutOfBounds as error:
                raise ModelUnavailable(f"{self.name} has a bad chat template: {error}") from error
            except RsvpError:
                raise
            except Exception as error:  # a stranger's settings raise anything
                from rsvp.platform.pretrained import non_finite

                if broken := non_finite(dict(loaded.model.named_parameters())):
                    raise ModelUnavailable(
                        f"{self.name} holds weights that are not finite: {broken}"
                    ) from error
                raise MLLMFailed(f"{self.name} could not answer: {first_line(error)}") from error
        seconds = (time.perf_counter() - started) / max(1, len(found))
        return [replace(reply, seconds=seconds) for reply in found]

    def _generate(
        self,
        loaded: _Loaded,
        messages: Sequence[Message],
        settings: Any,
        max_tokens: int,
        longer_than: int,
        *,
        schema: Mapping[str, Any] | None,
    ) -> list[Reply]:
        import torch

        prompt = loaded.chat.render(messages)
        inputs = loaded.chat.inputs(messages, prompt)
        resized = loading.resized_size(inputs, loaded.chat.processor)
        inputs = inputs.to(loaded.model.device, dtype=loaded.model.dtype)
        keep = sparse.kept_tokens(messages, loaded.model, inputs)
        prompt_tokens = int(inputs["input_ids"].shape[1] if keep is None else keep.sum())
        # With an encoder, the prompt is not in the decoder, which begins with its start token.
        start = 1 if loaded.model.config.is_encoder_decoder else prompt_tokens
        room = self._room(loaded.context_length, prompt_tokens, start)
        settings.max_new_tokens = min(max_tokens, room)
        if settings.max_new_tokens <= longer_than:
            return []
        confidence, streamer = Confidence(), None
        enums = EnumConstraint(loaded.chat.processor.tokenizer, schema, start)
        if settings.num_return_sequences == 1:
            streamer = Streamer(lambda ids: loaded.chat.reply_text(prompt, ids, settings))
        with torch.inference_mode():
            kept = self.keep_prefix and settings.num_return_sequences == 1
            generate = loaded.prefix.generate if kept else generate_plain
            sequences = generate(
                loaded.model, inputs, keep, generation_config=settings,
                logits_processor=[confidence, enums], streamer=streamer,
            )  # fmt: skip
        ends = set(loading.token_ids(loaded.generation.eos_token_id))
        familiarity = loaded.familiarity.score() if loaded.familiarity else None
        found = []
        for row, sequence in enumerate(sequences[:, start:].tolist()):
            # Behind the end of a shorter sequence of the batch there is padding.
            end = next((i + 1 for i, token in enumerate(sequence) if token in ends), None)
            ids = sequence[:end]
            found.append(
                Reply(
                    loaded.chat.reply_text(prompt, ids, settings),
                    Usage(0 if row else prompt_tokens, len(ids), calls=1),
                    finish_reason="length" if end is None else "stop",
                    confidence=confidence.mean(row, len(ids)),
                    familiarity=familiarity,
                    resized=resized,
                )
            )
        return found

    def _room(self, context_length: int | None, prompt_tokens: int, start: int) -> int:
        """How many tokens may be generated: later positions have no embedding."""
        if context_length is None:
            return sys.maxsize
        if prompt_tokens > context_length or start >= context_length:
            raise MLLMFailed(
                f"{self.name} reads at most {context_length} tokens, image included, and this "
                f"prompt has {prompt_tokens}: shorten the query or use a larger model"
            )
        return context_length - start

    def _ready(self) -> _Loaded:
        """The model, loaded once; the caller holds the lock."""
        if self._loaded is not None:
            return self._loaded
        folder = loading.local_folder(self.model) or hub_folder(
            self.model,
            "model files",
            [*_HUB_FILES, "*.py"] if self._trust_remote_code else _HUB_FILES,
            ignore=_HUB_IGNORED,
            needs=("config.json", "*.safetensors", "tokenizer*", "*processor_config.json"),
            bare=True,
        )
        if why := hide_broken_torchvision():
            _log.warning("torchvision cannot be imported and is not used (%s)", why)
        started = time.perf_counter()
        try:
            config = loading.load_config(folder, trust_remote_code=self._trust_remote_code)
            processor = loading.load_processor(
                folder, config, trust_remote_code=self._trust_remote_code
            )
            chat = Chat(processor, self._enable_thinking, trusted=self.model == "embedded")
            model = self._load_model(folder, config)
            familiarity = Familiarity.of_folder(folder, model)
        except BadInput:
            raise
        except Exception as error:  # loaders, and a model's own code, raise anything
            if loading.missing_extra(error):
                raise MissingExtra(self.name, "vision") from error
            raise ModelUnavailable(f"{self.name} cannot be loaded: {loading.why(error)}") from error
        parameters = sum(p.numel() for p in model.parameters())
        _log.info("loaded %s in %.1f s", self.name, time.perf_counter() - started)
        context_length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        threads = 1 if model.device.type == "cpu" and parameters < _SMALL else None
        settings = loading.generation_settings(model, processor.tokenizer, self._temperature)
        loading.restrict_outputs(model)
        self._loaded = _Loaded(
            model, chat, settings, context_length, threads, familiarity, PrefixCache()
        )
        return self._loaded

    def _load_model(self, folder: Path, config: Any) -> Any:
        weight_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        large = weight_bytes > _LARGE
        # Published in bfloat16, weights take twice as much in float32; in float16, they fit it.
        dtype = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
        published = str(dtype).removeprefix("torch.")
        in_float32 = {"float16": None, "float32": weight_bytes}.get(published, 2 * weight_bytes)
        placement = choose_placement(
            self._device,
            self._dtype,
            mps_dtype="bfloat16",
            cpu_dtype="bfloat16" if published == "bfloat16" and large else "float32",
            float32_bytes=in_float32,
        )
        _log.info("%s", placement.reason)
        if placement.device.type != "cpu" and not importlib.util.find_spec("accelerate"):
            _log.info("pip install accelerate loads weights to the GPU without a copy in memory")
        with _progress_bars(shown=large):
            return loading.load_model(
                folder,
                config,
                placement,
                load_in_4bit=self._load_in_4bit,
                trust_remote_code=self._trust_remote_code,
            )


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
