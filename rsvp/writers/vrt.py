"""`vrt.jsonl`: a result as VRT-Bench's metric reads it, a text with a mark for each mask.

``<think>… [SEG] …</think><answer>… [SEG] …</answer>``: the k-th ``[SEG]`` is the k-th mask.
Source: ``vrt_sa2va/evaluation/vrt_eval_single.py`` of https://github.com/bytedance/Sa2VA.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rsvp.masks import encode_rle
from rsvp.parsing.mentions import pieces
from rsvp.platform.files import dumps
from rsvp.trace import PathObject, TracedQuestion
from rsvp.types import Segmentation, Target

SEG = "[SEG]"  # in a reply, stands for the next mask
_RESERVED = re.compile(r"\[SEG\]|</?(?:think|answer)>")  # never in the model's own text


def write(result: Segmentation, folder: Path) -> Iterator[tuple[str, bytes]]:
    """`vrt.jsonl`, a predictions line for ``rsvp score vrt``; its id is the image's stem."""
    text, targets = marked_text(result)
    path = result.image.path
    line = {
        "id": Path(path).stem if path else "",
        "question": result.query,
        "text": text,
        "masks": [encode_rle(target.mask) for target in targets],
    }
    yield "vrt.jsonl", f"{dumps(line, indent=None, ascii_only=True)}\n".encode()


def marked_text(result: Segmentation) -> tuple[str, tuple[Target, ...]]:
    """The reasoning and the answer with their marks, and the target of each mark.

    An object of the path has one mark, where it is named first, and one more in the answer. A
    result without a path has the marks of its targets, in the answer.
    """
    if isinstance(result, TracedQuestion):
        seen: set[int | None] = {None}
        steps = [_marked(step.text, step.objects, seen) for step in result.path]
        answer = _marked(result.answer, result.answer_objects, {None})
    else:
        steps = [(_RESERVED.sub(" ", step.text), ()) for step in result.reasoning.steps]
        said = ", ".join(f"{_RESERVED.sub(' ', target.label)} {SEG}" for target in result.targets)
        answer = (said, result.targets)
    think = " ".join(said for said, _ in steps)
    return f"<think>{think}</think><answer>{answer[0]}</answer>", (
        *(target for _, found in steps for target in found),
        *answer[1],
    )


def _marked(
    text: str, objects: Sequence[PathObject], seen: set[int | None]
) -> tuple[str, tuple[Target, ...]]:
    """A text with a mark behind each grounded object whose number is not in `seen`."""
    written, targets = [], list[Target]()
    for piece, one in pieces(_RESERVED.sub(" ", text), objects):
        written.append(piece)
        if one is not None and one.target is not None and one.number not in seen:
            seen.add(one.number)
            targets.append(one.target)
            written.append(f" {SEG}")
    return "".join(written), tuple(targets)
