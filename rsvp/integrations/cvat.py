"""A detection function for CVAT, https://docs.cvat.ai/docs/api_sdk/sdk/auto-annotation: labels ask.

    cvat-cli task auto-annotate 137 --function-module rsvp.integrations.cvat \\
        -p "queries=str:cup; knife = what would you cut the bread with?"

Frames are upright RGB images, masks are (H, W) bool; see `cvat_sdk.masks.encode_mask` for the
points of a mask in CVAT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rsvp import presets
from rsvp.errors import BadInput, RsvpError
from rsvp.pipeline import Pipeline
from rsvp.platform.extras import require
from rsvp.serving.shapes import polygons
from rsvp.types import Target


def create(
    queries: str,
    preset: str = presets.DEFAULT,
    *,
    mllm: str | None = None,
    strategy: str | None = None,
    segmenter: str | None = None,
    **options: object,
) -> CvatFunction:
    """The function that CVAT's command line and agent load.

    Args:
        queries: the labels, separated by ``;``, each with its query where that is not the label
            itself: ``cup; knife = what would you cut the bread with?``.
        preset, mllm, strategy, segmenter, options: as for `Pipeline.from_preset`.

    Raises:
        BadInput: there is no label, one is there twice, or the pipeline cannot be made.
        MissingExtra: cvat-sdk is not installed.
    """
    parsed = parse_queries(queries)
    require("cvat_sdk.auto_annotation", "cvat", "CVAT's detection function")
    texts = {name: str(value) for name, value in options.items()}
    pipeline = Pipeline.from_preset(
        preset, mllm=mllm, strategy=strategy, segmenter=segmenter, options=texts
    )
    return CvatFunction(pipeline, parsed)


def parse_queries(text: str) -> dict[str, str]:
    """Label -> query; BadInput where there is none, or a label is there twice."""
    found: dict[str, str] = {}
    for part in filter(str.strip, text.split(";")):
        label, _, query = (word.strip() for word in part.partition("="))
        if not label or label in found:
            raise BadInput(f"queries: {part.strip()!r} has no label, or one that is there twice")
        found[label] = query or label
    if not found:
        raise BadInput('queries is like "cup; knife = what would you cut the bread with?"')
    return found


class CvatFunction:
    """Segments a frame once for each label; its image is encoded once.

    Args:
        pipeline: answers the queries.
        queries: label -> query.

    Attributes:
        spec: cvat-sdk's `DetectionFunctionSpec`; all labels have masks.
    """

    def __init__(self, pipeline: Pipeline, queries: Mapping[str, str]) -> None:
        self._cvat = require("cvat_sdk.auto_annotation", "cvat", "CVAT's detection function")
        self._encode = require("cvat_sdk.masks", "cvat").encode_mask
        self._pipeline, self._queries = pipeline, queries
        labels = [self._cvat.label_spec(name, i, type="mask") for i, name in enumerate(queries)]
        self.spec = self._cvat.DetectionFunctionSpec(labels=labels)
        pipeline.keep_images(1)

    def detect(self, context: Any, image: Any) -> list[Any]:
        """The shapes of all labels on a frame; none where there is no target.

        Args:
            context: cvat-sdk's `DetectionFunctionContext`; scores below its ``conf_threshold`` are
                left out, and its ``conv_mask_to_poly`` asks for polygons.
            image: a Pillow image.

        Raises:
            RsvpError: a query failed, which would look like a frame without targets; a note names
                the frame and the label.
        """
        shapes: list[Any] = []
        for number, (label, query) in enumerate(self._queries.items()):
            try:
                result = self._pipeline.segment(image, query)
            except RsvpError as error:
                error.add_note(f"frame {context.frame_name!r}, label {label!r}")
                raise
            for target in result.targets:
                if target.score >= (context.conf_threshold or 0) and target.mask.any():
                    shapes += self._shapes(number, target, context.conv_mask_to_poly)
        return shapes

    def _shapes(self, label: int, target: Target, as_polygons: bool) -> Iterator[Any]:
        if not as_polygons:
            yield self._cvat.mask(label, self._encode(target.mask))
            return
        for part in polygons(target.mask):  # CVAT has no polygons of several parts
            yield self._cvat.polygon(label, part.ravel().tolist())
