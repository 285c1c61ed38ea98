"""A pipeline with scripted parts: an MLLM with scripted replies, a segmenter that fills boxes."""

from __future__ import annotations

import json
import threading

import numpy as np

from rsvp.pipeline import Pipeline
from rsvp.segmenters.box import BoxSegmenter
from rsvp.segmenters.embedding_cache import EmbeddingCache
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Masks, Reply, Usage


class Script:
    """An MLLM with scripted replies; it records what it is asked."""

    def __init__(self, *lines: str | Reply | Exception, model: str = "qwen3-vl", remote=False):
        self.name = f"script:{model}"
        self.model = model
        self.remote = remote
        self.lines = list(lines)
        self.asked = []
        self.schemas = []

    def reply(self, messages, *, schema=None):
        self.asked.append(tuple(messages))
        self.schemas.append(schema)
        line = self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]
        if isinstance(line, Exception):
            raise line
        return line if isinstance(line, Reply) else Reply(line, Usage(100, 10, 1))


class Recorder(BoxSegmenter):
    """Fills boxes; records what it encodes and is prompted with, and refuses calls at once."""

    name = "recorder"

    def __init__(self, score: float = 0.9, pixels: bool = True) -> None:
        super().__init__()
        self.encoded, self.prompted = [], []
        self.score, self.pixels = score, pixels
        self.inside = threading.Lock()

    def encode(self, images):
        with self.alone():
            self.encoded += [image.sha256 for image in images]
            return super().encode(images)

    def masks(self, encoding, proposals):
        with self.alone():
            self.prompted.append(tuple(proposals))
            height, width = encoding
            masks = np.zeros((len(proposals), height, width), dtype=np.bool_)
            for mask, proposal in zip(masks, proposals, strict=True):
                for point in proposal.points:
                    mask[int(point.y), int(point.x)] = self.pixels
                if proposal.box is not None:
                    x0, y0, x1, y1 = map(int, proposal.box.xyxy)
                    mask[y0:y1, x0:x1] = self.pixels
            return Masks(masks, np.full(len(proposals), self.score, dtype=np.float32))

    def alone(self):
        assert self.inside.acquire(blocking=False), "the segmenter was called twice at once"
        self.inside.release()
        return self.inside


def answer(*boxes, steps=(), reason="it fits"):
    targets = [{"label": f"thing {i}", "box": list(box)} for i, box in enumerate(boxes)]
    return json.dumps({"steps": list(steps), "targets": targets, "reason": reason})


def picture(seed=0, height=100, width=200):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def texts(messages):
    return [part for message in messages for part in message.parts if isinstance(part, str)]


def hold_until(cache: EmbeddingCache, threads: int) -> None:
    """Let the segmenter run once so many threads wait for it, all in their first call."""
    lock, arrived = cache.lock, threading.Barrier(threads)

    class Gate:
        def __enter__(self):
            arrived.wait(30)
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    cache.lock = Gate()


def pipeline(*lines, segmenter=None, strategy=None, **options):
    model = {k: options.pop(k) for k in ("model", "remote") if k in options}
    mllm = Script(*lines, **model)
    return Pipeline(mllm, strategy or BoxesStrategy(), segmenter or Recorder(), **options)
