"""What the MLLM is shown of an image: the view, in the size that its family takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from rsvp import prompting
from rsvp.frames import Frame, smart_resize
from rsvp.images import resize
from rsvp.mllm import MLLM, is_remote
from rsvp.prompt_config import PromptConfig
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies import View
from rsvp.types import Image

# Pixels up to which no server resizes a picture: the default of transformers' Qwen2-VL image
# processor, which vLLM, SGLang and DashScope take too where a model's folder says nothing.
SERVED_PIXELS = 28 * 28 * 1280
_PIXEL_FRAMES = ("pixels", "resized-pixels")


class ViewSource(Protocol):
    """What makes a view; see `Strategy.view`."""

    def view(
        self, image: Image, query: str = "", *, max_side: int, cache: EmbeddingCache | None = None
    ) -> View: ...


def sent_view(
    image: Image,
    query: str,
    source: ViewSource,
    config: PromptConfig,
    mllm: MLLM,
    *,
    cache: EmbeddingCache | None = None,
) -> View:
    """The view of at most the size that the model family is shown.

    Where a model on a server writes pixels, it is one that no server resizes, so that these are the
    view's own: its sides are multiples of the model's patch, and it has at most `SERVED_PIXELS`. A
    server does not say to which size it brought a picture; all other frames are relative to it.
    """
    frame, family = config.frame, config.family
    most = family.view_side(image.height, image.width)
    if not is_remote(mllm) or frame.kind not in _PIXEL_FRAMES:
        return source.view(image, query, max_side=most, cache=cache)

    def served(height: int, width: int) -> tuple[int, int]:
        patch = max(family.multiple, frame.patch if frame.kind == "resized-pixels" else 1)
        least = frame.min_pixels if patch > 1 else 1
        area = min(frame.max_pixels, family.max_pixels or SERVED_PIXELS)
        return smart_resize(height, width, patch=patch, min_pixels=least, max_pixels=area)

    shrunk = min(1.0, most / max(image.height, image.width))
    size = served(round(image.height * shrunk) or 1, round(image.width * shrunk) or 1)
    view = source.view(image, query, max_side=max(size), cache=cache)
    size = served(*view.size)
    variables = {**view.variables, "width": str(size[1]), "height": str(size[0])}
    return replace(view, rgb=resize(view.rgb, size), variables=variables)


def frame_variables(view: View, frame: Frame) -> dict[str, str]:
    """The prompt's variables about a view and how coordinates in it are written."""
    height, width = view.size
    named = prompting.variables_for_frame(frame.kind, width, height, frame.box_key)
    return {**named, **view.variables}
