"""image + query -> strategy and MLLM -> proposals -> segmenter -> masks."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, get_args, overload

from rsvp import presets
from rsvp.answer import DEFAULT_LOOKS, DEFAULT_ZOOM, make_answer_request
from rsvp.awaitable import awaitable, ordered
from rsvp.dialogue import Limits
from rsvp.errors import BadInput, RsvpError
from rsvp.frames import Frame
from rsvp.images import ImageSource
from rsvp.mllm import MLLM
from rsvp.parts import make_parts
from rsvp.prompt_config import PromptSettings, make_prompt_config
from rsvp.request import Boxes, BoxLike, Points, make_request
from rsvp.result import Answer, Result, Trace
from rsvp.segmenters import Segmenter
from rsvp.stages import Stages
from rsvp.strategies import Strategy
from rsvp.verify import VerifyOptions

# What `Pipeline.segment` takes: (image, query), (image, query, boxes, points), or by name.
Item = Sequence[Any] | Mapping[str, Any]
OnError = Literal["raise", "return"]


class Pipeline(Stages):
    """Two-stage reasoning segmentation: an MLLM proposes regions, a segmenter makes masks.

    Safe to share between threads; the segmenter runs one call at a time, and an image that comes
    again within the next few is not encoded again. A pickle of it holds what it was made of: specs,
    or objects, which must be picklable themselves; the models are loaded again.

    Args:
        mllm: stage 1; None where every call brings its own boxes or points.
        strategy: how stage 1 shows the image and reads the reply; None only without an MLLM.
        segmenter: stage 2.
        cot: ask for the chain of thought, or for the targets alone.
        frame: how the MLLM writes coordinates, e.g. ``0-1000``; by default what
            `rsvp.registry.family` knows of the model.
        max_reasks: how often to ask again after a reply that cannot be read.
        limits: how much one request may cost.
        run_limits: how much all requests together may cost.
        verify: rounds in which the MLLM checks the masks, see `rsvp.verify.VerifyOptions`; where
            no MLLM is asked (boxes and points), nothing is verified.
        samples: replies of stage 1, see `PromptConfig`.
        temperature: of several samples.
        target_exists: every query's target is in its image; the MLLM is told so.
        language: of the queries, for the embedded reasoner: en, de, es or zh. Other MLLMs read any
            language and ignore it.
        strategy_name: what results call the strategy; by default its own name.

    Raises:
        BadInput: an MLLM without a strategy or with one that it has no prompts for, an unknown
            frame or language, a negative `max_reasks`, a segmenter that the strategy cannot use.
    """

    @classmethod
    def from_preset(
        cls,
        name: str | presets.Preset = presets.DEFAULT,
        *,
        mllm: str | MLLM | None = None,
        strategy: str | Strategy | None = None,
        segmenter: str | Segmenter | None = None,
        limits: Limits | None = None,
        run_limits: Limits | None = None,
        verify: int | VerifyOptions = 0,
        options: Mapping[str, str] | None = None,
        record: str | Path | None = None,
        connect: bool = False,
        **prompting: Unpack[PromptSettings],
    ) -> Pipeline:
        """The pipeline of a preset; see `rsvp models` for their names.

        Args:
            name: of the preset, or the preset itself; ``auto`` is the best one that can run here
                now, see `rsvp.presets.choose`.
            mllm, strategy, segmenter: a spec such as ``openai:gpt-5.1`` or an object, instead of
                the preset's own; the MLLM ``none`` is none at all, for boxes and points.
            cot, frame, max_reasks, limits, run_limits, verify, samples, temperature,
                target_exists, language: as for `Pipeline`.
            options: of the backends, as text: ``max_tokens`` is the MLLM's, ``segmenter.device``
                and ``strategy.max_side`` are the others'.
            record: a file to which the MLLM's replies are appended, for ``replay:FILE``.
            connect: try whether the MLLM's server can be reached, before the segmenter is loaded.

        Raises:
            BadInput: an unknown preset, backend, option or frame; nothing to record.
            MLLMFailed: the server cannot be reached.
            ModelUnavailable: weights, a key or a model's name are missing.
        """
        preset = presets.get(name) if isinstance(name, str) else name
        started = time.perf_counter()
        # What is cheap to refuse comes first.
        if isinstance(frame := prompting.get("frame"), str):
            Frame.parse(frame)
        specs: dict[str, Any] = {
            "mllm": mllm, "strategy": strategy, "segmenter": segmenter, "record": record,
        }  # fmt: skip
        parts = make_parts(preset, **specs, options=options or {}, connect=connect)
        make_prompt_config(parts.mllm, parts.strategy, **prompting)  # refuses before it loads
        settings: dict[str, Any] = {
            "limits": limits, "run_limits": run_limits, "verify": VerifyOptions.of(verify),
            **prompting,
        }  # fmt: skip
        named = parts.strategy_name
        pipeline = cls(
            parts.mllm, parts.strategy, parts.make_segmenter(), strategy_name=named, **settings
        )
        pipeline._load_seconds = time.perf_counter() - started
        pipeline._remake = functools.partial(
            cls.from_preset, preset, **specs, options=options, **settings
        )
        return pipeline

    # ------------------------------------------------------------ one image

    def segment(
        self,
        image: ImageSource,
        query: str = "",
        boxes: Boxes | None = None,
        points: Points | None = None,
        *,
        labels: Sequence[str] | None = None,
        within: BoxLike | None = None,
        exclude: Points | None = None,
        like: Boxes | None = None,
    ) -> Result:
        """Find what the query asks for, and its exact pixels.

        Args:
            image: a path, bytes, a Pillow image, an (H, W, 3) array or tensor, or an `Image`; see
                `rsvp.images.load_image`.
            query: in any language; not needed with boxes or points.
            boxes: xyxy in pixels of the upright image, each a target; no MLLM is asked. A list, or
                an (n, 4) array or tensor.
            points: (x, y) in pixels, or (x, y, 0) for "not this"; all of them mean one target.
            labels: what the boxes show, one for each or one for all; by default the query.
            within: a hint for the MLLM, xyxy in pixels: only what lies in this box is a target.
            exclude: a hint for the MLLM, (x, y) in pixels: what these points lie on is no target.
            like: boxes around examples, xyxy in pixels: the MLLM and the strategy's detector, which
                must be one of concepts (``marks:sam3:ID``), look for more of them.

        Warnings of the result are Python warnings too, of the category `RsvpWarning`.

        Raises:
            BadInput: an image, query, box or point that cannot be used; hints beside boxes or
                points, for which no MLLM is asked.
            MLLMFailed: the MLLM cannot be reached; `UnparsableReply` where no reply can be read
                after every re-ask; `BudgetExceeded` where the limits end it before.
            ModelUnavailable: weights or a key are missing.
        """
        request = make_request(
            image, query, boxes, points,
            labels=labels, within=within, exclude=exclude, like=like,
        )  # fmt: skip
        return self.run(request)

    def answer(
        self,
        image: ImageSource,
        question: str,
        choices: Sequence[str] | None = None,
        boxes: Boxes | None = None,
        points: Points | None = None,
        *,
        zoom: str = DEFAULT_ZOOM,
        looks: int = DEFAULT_LOOKS,
        within: BoxLike | None = None,
        exclude: Points | None = None,
    ) -> Answer:
        """Answer a question, after closer looks at what matters.

        Args:
            image, within, exclude: see `segment`; hints limit what is looked at.
            question: in any language.
            choices: what the answer is chosen from; without them it is free.
            boxes, points: what to look at, as in `segment`; the MLLM is not asked where to look.
            zoom: how a look is shown: ``none`` (no looks), ``box`` (the enlarged window), ``mask``
                (in it the masks alone; ``mask:white`` names the background), ``sparse`` (only the
                patches that the masks touch; local Qwen-VL and GLM-V alone).
            looks: how many the MLLM may ask for, at most.

        Raises:
            BadInput, MLLMFailed, ModelUnavailable: as `segment` does.
        """
        request = make_request(image, question, boxes, points, within=within, exclude=exclude)
        return self.run_answer(make_answer_request(request, choices, zoom=zoom, looks=looks))

    def trace(
        self,
        image: ImageSource,
        question: str,
        *,
        within: BoxLike | None = None,
        exclude: Points | None = None,
    ) -> Trace:
        """Answer a question by a reasoning path in which every object that it names has a mask.

        All objects of the image are one decoder batch; one that returns is segmented once.

        Args:
            image, within, exclude: see `segment`; hints limit what is grounded.
            question: in any language.

        Raises:
            BadInput, MLLMFailed, ModelUnavailable: as `segment` does.
        """
        return self.run_trace(make_request(image, question, within=within, exclude=exclude))

    # ------------------------------------------------------------ many images, and awaitable calls

    @overload
    def segment_many(self, items: Iterable[Item]) -> Iterator[Result]: ...
    @overload
    def segment_many(
        self, items: Iterable[Item], *, on_error: OnError
    ) -> Iterator[Result | RsvpError]: ...
    def segment_many(
        self, items: Iterable[Item], *, on_error: OnError = "raise"
    ) -> Iterator[Result | RsvpError]:
        """The results of many calls of `segment`, each made when it is asked for.

        Args:
            items: the arguments of each call: (image, query), (image, query, boxes, points), or a
                mapping by their names.
            on_error: ``raise`` ends the iteration with the first error of rsvp; ``return`` gives
                the error in the place of the result, and goes on.
        """
        for item in items:
            yield self._segment_item(item, on_error)

    def _segment_item(self, item: Item, on_error: OnError) -> Result | RsvpError:
        """`segment` with the arguments of an item of `segment_many`."""
        if on_error not in get_args(OnError):
            raise BadInput(f"on_error is raise or return, found {on_error!r}")
        try:
            return self.segment(**item) if isinstance(item, Mapping) else self.segment(*item)
        except RsvpError as error:
            if on_error == "raise":
                raise
            return error

    asegment = awaitable(segment)
    aanswer = awaitable(answer)
    atrace = awaitable(trace)
    areason = awaitable(Stages.reason)

    @overload
    def asegment_many(
        self, items: Iterable[Item], *, concurrency: int = 4
    ) -> AsyncIterator[Result]: ...
    @overload
    def asegment_many(
        self, items: Iterable[Item], *, concurrency: int = 4, on_error: OnError
    ) -> AsyncIterator[Result | RsvpError]: ...
    def asegment_many(
        self, items: Iterable[Item], *, concurrency: int = 4, on_error: OnError = "raise"
    ) -> AsyncIterator[Result | RsvpError]:
        """`segment_many` with up to `concurrency` queries at once; results keep the order."""
        calls = (functools.partial(self._segment_item, item, on_error) for item in items)
        return ordered(calls, concurrency)
