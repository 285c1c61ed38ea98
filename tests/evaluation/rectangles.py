"""A handmade benchmark of rectangles, and pipelines whose every answer is known."""

import json
from types import SimpleNamespace

import numpy as np
from PIL import Image as Pil

from rsvp.masks import encode_rle
from rsvp.result import Result
from rsvp.types import Box, ModelNames, PackedMask, Proposal, Reasoning, Target, Usage

SIZE = (24, 32)
A, B = Box(2, 2, 10, 10), Box(14, 4, 30, 20)
KINDS = ("name", "all", "absent")  # A; A and B; nothing


def filled(*boxes):
    mask = np.zeros(SIZE, dtype=np.bool_)
    for box in boxes:
        x0, y0, x1, y1 = (int(v) for v in box.xyxy)
        mask[y0:y1, x0:x1] = True
    return mask


def mask_of_b():
    """Three quarters of its box: 192 pixels of 256."""
    mask = filled(B)
    mask[4:12, 14:22] = False
    return mask


def write_scenes(folder, n):
    """n scenes of one query each, `KINDS` in turn, every second one unseen."""
    folder.mkdir(exist_ok=True)
    objects = [
        {"name": name, "box": [int(v) for v in box.xyxy], "mask": encode_rle(mask)}
        for name, box, mask in (("cup", A, filled(A)), ("pan", B, mask_of_b()))
    ]
    scenes = []
    for i in range(n):
        Pil.new("RGB", (SIZE[1], SIZE[0]), (i % 256, 90, 90)).save(folder / f"{i:03d}.png")
        query = {
            "id": f"{i:03d}/0",
            "kind": KINDS[i % 3],
            "text": f"query {i}",
            "targets": ([0], [0, 1], [])[i % 3],
            "unseen": i % 2 == 1,
        }
        scenes.append(
            {
                "image": f"{i:03d}.png",
                "height": SIZE[0],
                "width": SIZE[1],
                "objects": objects,
                "queries": [query],
            }
        )
    (folder / "scenes.json").write_text(json.dumps({"version": 1, "scenes": scenes}))
    return folder


class Named:
    """A part of a pipeline, of which only the name matters."""

    def __init__(self, name):
        self.name = name


class FakePipeline:
    """Fills boxes: those it is given, or those that `answers` has for the query.

    An answer that is an exception is raised; a query that is not in `answers` gets box A.
    """

    def __init__(self, answers=None, *, mllm="fake:reasoner"):
        self.answers = answers or {}
        self.mllm = Named(mllm)
        self.strategy = Named("boxes")
        self.segmenter = Named("filler")
        self.asked = []
        self.given = []

    def reason(self, image, query, *, trace=False):
        return SimpleNamespace(query=query, reasoning=SimpleNamespace(raw=""))

    def segment_proposals(self, image, output):
        return self.segment(image, output.query)

    def segment(self, image, query="", boxes=None, points=None):
        if boxes is None:
            self.asked.append(query)
            boxes = self.answers.get(query, [A])
            if isinstance(boxes, BaseException):
                raise boxes
        else:
            self.given.append(query)
        proposals = tuple(Proposal("thing", box) for box in boxes)
        targets = tuple(
            Target("thing", box, 0.9, PackedMask.pack(filled(box)), raw=(1, 2, 3, 4))
            for box in boxes
        )
        return Result(
            image=image,
            query=query,
            reasoning=Reasoning((), proposals, "because", raw=f"reply to {query}"),
            targets=targets,
            models=ModelNames(self.mllm.name, "boxes", "filler", "ab" * 32),
            usage=Usage(10, 5, 1),
            timings={"reason": 0.5, "segment": 0.25},
            warnings=("unsure",) if not boxes else (),
        )
