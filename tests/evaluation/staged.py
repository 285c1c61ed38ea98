"""A real pipeline whose reasoner and segmenter take as long as a test says."""

import json
import re
import threading
import time

from rsvp.pipeline import Pipeline
from rsvp.segmenters.box import BoxSegmenter
from rsvp.strategies.boxes import BoxesStrategy
from rsvp.types import Reply, Usage


class Server:
    """A remote reasoner that knows `query N`: N mod 3 boxes, unless `replies` has the query.

    Args:
        seconds: of a call, or a function of the query's number.
        replies: query number -> reply text, or an exception to raise.
    """

    name, model, remote = "script:server", "qwen3-vl", True

    def __init__(self, seconds=0.0, replies=None):
        self.seconds = seconds if callable(seconds) else lambda number: seconds
        self.replies = replies or {}
        self.asked = []
        self.busy, self.busiest = 0, 0
        self._lock = threading.Lock()

    def reply(self, messages, *, schema=None):
        number = int(re.search(r"^query (\d+)$", messages[-1].parts[-1], re.M)[1])
        with self._lock:
            self.asked.append(number)
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
        try:
            time.sleep(self.seconds(number))
        finally:
            with self._lock:
                self.busy -= 1
        reply = self.replies.get(number, self.boxes(number % 3))
        if isinstance(reply, Exception):
            raise reply
        return Reply(reply, Usage(100, 10, 1))

    @staticmethod
    def boxes(count):
        box = [100, 100, 400, 600]
        return json.dumps(
            {"targets": [{"label": "thing", "box": box}] * count, "reason": "it fits"}
        )


class Filler(BoxSegmenter):
    """Fills boxes, takes its time, and notes how long it worked and that nobody interrupts it."""

    name = "filler"

    def __init__(self, seconds=0.0):
        super().__init__()
        self.seconds = seconds
        self.worked = 0.0
        self.encoded = 0
        self._alone = threading.Lock()

    def encode(self, images):
        self.encoded += len(images)
        return super().encode(images)

    def masks(self, encoding, proposals):
        assert self._alone.acquire(blocking=False), "the segmenter was called twice at once"
        try:
            started = time.perf_counter()
            time.sleep(self.seconds)
            return super().masks(encoding, proposals)
        finally:
            self.worked += time.perf_counter() - started
            self._alone.release()


def pipeline(server=None, filler=None):
    return Pipeline(server or Server(), BoxesStrategy(), filler or Filler(), max_reasks=0)
